"""A run folder or an exported file, whichever a path names, made ready to predict and to be evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perpixel.errors import RequestError
from perpixel.inference.base import ImagePredictor
from perpixel.inference.exported import SUFFIXES, WEIGHTS_SUFFIX, ExportedPredictor, weights_metadata
from perpixel.recipe import Recipe, recipe_from_dict
from perpixel.run import Run


def open_predictor(path: Path, overrides: Sequence[str] = ()) -> ImagePredictor:
    """The predictor of a run (a grid folder stands for its best), or of an exported file.

    Args:
        overrides: ``inference.key=value`` texts: another use of the same model.

    Raises:
        RequestError: neither a run nor an exported file, or an override that cannot be followed.
        RunError: a run without a trained model, or a damaged file.
    """
    if not is_exported(path):
        return run_predictor(Run.open(path), overrides)
    if path.suffix in SUFFIXES:
        return ExportedPredictor.from_file(path, overrides)
    from perpixel.inference.predictor import Predictor

    return Predictor.from_file(path, overrides)


def is_exported(path: Path) -> bool:
    """Whether a path is called as an exported file is."""
    return path.suffix in (*SUFFIXES, WEIGHTS_SUFFIX) and not path.is_dir()


def open_run(path: Path) -> Run:
    """A run to be evaluated, or an exported file in its place; raises what `open_predictor` raises."""
    return ExportedRun(path) if is_exported(path) else Run.open(path)


def run_predictor(run: Run, overrides: Sequence[str] = ()) -> ImagePredictor:
    """The predictor of a run, or of the several runs that an ensemble's folder names; errors as `open_predictor`."""
    if isinstance(run, ExportedRun):
        return open_predictor(run.path, overrides) if overrides else run.predictor
    if run.manifest.get("ensemble"):
        from perpixel.inference.ensemble import Ensemble

        return Ensemble.from_run(run, overrides)
    from perpixel.inference.predictor import Predictor

    return Predictor.from_run(run, overrides)


class ExportedRun(Run):
    """An exported file where a run is expected: what it says of itself stands for the folder that it came from.

    Its evaluations are written into ``<file>.evaluation`` beside it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.predictor = open_predictor(path)
        session = self.predictor.session if isinstance(self.predictor, ExportedPredictor) else None
        self.metadata: dict[str, Any] = session.metadata if session else weights_metadata(path)

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe of the run that was exported."""
        return recipe_from_dict(self.metadata["recipe"], where=str(self.path))

    @property
    def manifest(self) -> dict[str, Any]:
        """Of the run's manifest what an evaluation asks for."""
        return dict(self.metadata["run"])

    def read_split(self) -> tuple[dict[str, str], dict[str, str]]:
        """(subset, group) by sample id, of the samples that the run did not train on."""
        held_out: dict[str, dict[str, str]] = self.metadata["held_out"]
        subsets = {id_: subset for subset, groups in held_out.items() for id_ in groups}
        if not subsets:
            raise RequestError(
                "this file does not say what its run was not trained on",
                where=self.path,
                cure="evaluate the run itself, or export it again.",
            )
        return subsets, {id_: group for groups in held_out.values() for id_, group in groups.items()}

    def evaluation_dir(self, subset: str) -> Path:
        """Where the evaluation of a subset is written."""
        return self.path.with_name(f"{self.path.name}.evaluation") / subset
