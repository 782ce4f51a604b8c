"""A Run: the folder that a training leaves behind. Its layout, its manifest, its records. Needs no torch.

Everything is written so that a kill at any instant leaves either the old file or the new one.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from perpixel.errors import RequestError, RunError
from perpixel.notebook import notebook_html
from perpixel.recipe import Recipe, dump_recipe, load_recipe


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a kill, sees the old content or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).chmod(0o644)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON that is stable and readable; NaN is refused rather than written as no-JSON."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def try_lock(path: Path) -> IO[bytes] | None:
    """A lock that ends with this process, even one that is killed; None while another holds it. Not on Windows."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone among the processes of this machine: waits for the lock of `try_lock`, and gives it back."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_json(path: Path) -> Any:
    """Read JSON of a run folder; raises RunError when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise RunError("this file is damaged", where=path, cure="restore it, or train again.") from None


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV with the columns of its first row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue())


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV as texts; empty when there is no such file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Run:
    """A run folder. Nothing of it is cached here: what the folder says holds."""

    def __init__(self, path: Path) -> None:
        self.path = path

    recipe_path = property(lambda self: self.path / "recipe.yaml")
    manifest_path = property(lambda self: self.path / "manifest.json")
    split_path = property(lambda self: self.path / "split.csv")
    history_path = property(lambda self: self.path / "history.csv")
    decision_path = property(lambda self: self.path / "decision.json")
    log_path = property(lambda self: self.path / "log.txt")
    best_path = property(lambda self: self.path / "checkpoints" / "best.safetensors")
    last_path = property(lambda self: self.path / "checkpoints" / "last.safetensors")
    grid_path = property(lambda self: self.path / "grid.json")

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """An existing run; a grid folder stands for its best run.

        Raises:
            RequestError: there is no run in this folder.
        """
        run = cls(Path(path))
        if run.grid_path.is_file():
            best = read_json(run.grid_path).get("best")
            if best is None:
                raise RequestError("this grid has no finished run yet", where=path, cure="finish it with --resume.")
            run = cls(run.path / best)
        if not run.recipe_path.is_file():
            raise RequestError(
                "this folder holds no run",
                where=path,
                rule="a run folder holds recipe.yaml, as `perpixel train` leaves it.",
                cure="give the folder that training named at its end, such as runs/salt.",
            )
        return run

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe of this run."""
        return load_recipe(self.recipe_path)

    @property
    def manifest(self) -> dict[str, Any]:
        """What was recorded of this run; empty before training began."""
        if not self.manifest_path.is_file():
            return {}
        return dict(read_json(self.manifest_path))

    def _repr_html_(self) -> str:
        """The run in a notebook: what it is, and its monitored figure on every subset that was scored."""
        monitor, rows = self.recipe.training.monitor, []
        for path in sorted(self.path.glob("evaluation/*/metrics.json")):
            stored = read_json(path)
            value = (stored.get("figures") or {}).get(monitor)
            images = (stored.get("protocol") or {}).get("images", "")
            rows.append([path.parent.name, str(images), "" if value is None else f"{value:.4f}"])
        status = str(self.manifest.get("status", "not begun"))
        sentences = [f"recipe {self.recipe.name}, {status}"]
        return notebook_html(str(self.path), sentences, ["subset", "images", monitor], rows)

    @property
    def finished(self) -> bool:
        """Whether the training came to its end."""
        return self.manifest.get("status") == "finished"

    def write_recipe(self, recipe: Recipe) -> None:
        """Store the resolved recipe."""
        write_atomic(self.recipe_path, dump_recipe(recipe))

    def update_manifest(self, **values: Any) -> None:
        """Add or replace entries of the manifest."""
        write_json(self.manifest_path, self.manifest | values)

    def write_split(self, subsets: Mapping[str, str], groups: Mapping[str, str]) -> None:
        """Record which sample is in which subset."""
        rows = [{"sample": id_, "subset": subsets[id_], "group": groups.get(id_, "")} for id_ in sorted(subsets)]
        write_rows(self.split_path, rows)

    def read_split(self) -> tuple[dict[str, str], dict[str, str]]:
        """(subset, group) by sample id, as they were at training time."""
        rows = read_rows(self.split_path)
        if not rows:
            raise RunError("this run has no split.csv", where=self.path, cure="train it again.")
        return {row["sample"]: row["subset"] for row in rows}, {row["sample"]: row["group"] for row in rows}

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace the history: a row an epoch."""
        write_rows(self.history_path, rows)

    def read_history(self) -> list[dict[str, float]]:
        """The history as numbers."""
        return [{key: float(value) for key, value in row.items()} for row in read_rows(self.history_path)]

    def evaluation_dir(self, subset: str) -> Path:
        """Where the evaluation of a subset is written."""
        return self.path / "evaluation" / subset
