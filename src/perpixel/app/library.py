"""The models that may be looked at: runs and exported files below one folder; no link leads elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from perpixel.app.cards import Card, file_card, run_card
from perpixel.app.limits import RefusedError
from perpixel.recipe import Recipe, recipe_from_dict
from perpixel.run import Run, read_json, read_rows

__all__ = ["Library"]

_FILES = (".onnx", ".xml", ".safetensors")  # not .pt2, whose reader may unpickle
_DEPTH = 3  # folders below the root: a grid holds its cells, and grids may stand in a folder


class Library:
    """Runs, ensembles and exported files by name; a name is the path below the root, with slashes."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def names(self) -> list[str]:
        """Names of all runs with a recipe and of all exported files, in order; grids by their cells."""
        return sorted(path.relative_to(self.root).as_posix() for path in self._models(self.root, _DEPTH))

    def runs(self) -> list[str]:
        """Names of what was trained: folders."""
        return [name for name in self.names() if (self.root / name).is_dir()]

    def ready(self) -> list[str]:
        """Names of what can predict."""
        return [name for name in self.names() if self._is_ready(name)]

    def open(self, name: str) -> Path:
        """The folder or file of this name, as `perpixel.inference.opening.open_predictor` takes it.

        Raises:
            RefusedError: it is not one of `names`, or its weights, or those of its members, lie elsewhere.
        """
        if name not in self.names():
            raise RefusedError(
                "there is no run of this name here",
                where=name[:200],
                rule="only the runs and exported files that are listed can be used.",
                cure="Choose one of the list.",
            )
        path = self.root / name
        run = Run(path)
        for file in (run.recipe_path, run.decision_path, run.manifest_path, *self.weights(name)):
            if file.exists() and not file.resolve().is_relative_to(self.root):
                raise RefusedError(
                    "this run needs a file from elsewhere",
                    where=name,
                    rule=f"links and members are not followed out of {self.root.name}/.",
                    cure="Copy what it needs below that folder.",
                )
        return path

    def run(self, name: str) -> Run:
        """The run of this name; raises RefusedError for what `open` refuses, and for an exported file."""
        path = self.open(name)
        if not path.is_dir():
            raise RefusedError("this is an exported file, which has no history", where=name, cure="Choose its run.")
        return Run(path)

    def recipe(self, name: str) -> Recipe:
        """The recipe that a run or a file was made by; raises what `open` does, and RecipeError or RunError."""
        path = self.open(name)
        if path.is_dir():
            return Run(path).recipe
        return recipe_from_dict(read_json(_sidecar(path))["metadata"]["recipe"], where=name)

    def weights(self, name: str) -> list[Path]:
        """The files that hold the weights: of an ensemble those of its members."""
        path = self.root / name
        if not path.is_dir():
            return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
        members = Run(path).manifest.get("ensemble") or [path]
        return [Run(Path(member)).best_path for member in members]

    def changed(self, name: str) -> float:
        """When the weights were written."""
        return max((file.stat().st_mtime for file in self.weights(name) if file.is_file()), default=0.0)

    def card(self, name: str) -> Card:
        """What is told of a model; raises what `recipe` raises."""
        path, recipe = self.open(name), self.recipe(name)
        megabytes = sum(file.stat().st_size for file in self.weights(name) if file.is_file()) / 1e6
        if path.is_dir():
            return run_card(name, Run(path), recipe, megabytes, ready=self._is_ready(name))
        return file_card(name, path, recipe, megabytes, read_json(_sidecar(path)))

    def grids(self) -> dict[str, list[dict[str, str]]]:
        """Tables of finished grids by name, a row a cell."""
        places = [self.root, *self._children(self.root)]
        return {
            path.relative_to(self.root).as_posix(): rows
            for path in places
            if (path / "grid.json").is_file() and (rows := read_rows(path / "table.csv"))
        }

    def _is_ready(self, name: str) -> bool:
        files = self.weights(name)
        return all(file.is_file() and file.resolve().is_relative_to(self.root) for file in files)

    def _models(self, folder: Path, depth: int) -> Iterator[Path]:
        if folder.is_dir():
            for path in folder.iterdir():
                if path.suffix in _FILES and _sidecar(path).is_file() and path.is_file() and not path.is_symlink():
                    yield path
        for path in self._children(folder):
            trained = (path / "recipe.yaml").is_file()
            if trained:
                yield path
            if depth > 1:
                yield from self._models(path, 1 if trained else depth - 1)

    def _children(self, folder: Path) -> list[Path]:
        if not folder.is_dir():
            return []
        return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink() and path.name[0] != "."]


def _sidecar(path: Path) -> Path:
    """Metadata and figures of an exported file, as `perpixel export` leaves them; without it a file is not listed."""
    return path.with_name(f"{path.name}.json")
