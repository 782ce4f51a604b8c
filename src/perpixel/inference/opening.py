"""A run folder or an exported file, whichever a path names, made ready to predict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from perpixel.inference.base import ImagePredictor
from perpixel.inference.exported import SUFFIXES, ExportedPredictor
from perpixel.run import Run


def open_predictor(path: Path, overrides: Sequence[str] = ()) -> ImagePredictor:
    """The predictor of a run (a grid folder stands for its best), or of an exported file.

    Args:
        overrides: ``inference.key=value`` texts: another use of the same model.

    Raises:
        RequestError: neither a run nor an exported file, or an override that cannot be followed.
        RunError: a run without a trained model, or a damaged file.
    """
    if path.suffix in SUFFIXES and not path.is_dir():
        return ExportedPredictor.from_file(path, overrides)
    return run_predictor(Run.open(path), overrides)


def run_predictor(run: Run, overrides: Sequence[str] = ()) -> ImagePredictor:
    """The predictor of a run, or of the several runs that an ensemble's folder names; errors as `open_predictor`."""
    if run.manifest.get("ensemble"):
        from perpixel.inference.ensemble import Ensemble

        return Ensemble.from_run(run, overrides)
    from perpixel.inference.predictor import Predictor

    return Predictor.from_run(run, overrides)
