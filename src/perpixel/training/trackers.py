"""The history of a run, told to other programs too: TensorBoard, Weights & Biases, MLflow, Trackio.

history.csv is what holds. A tracker is told the epochs that it lacks, a few at a time, and whatever goes wrong there
never ends a training. No network is needed: Weights & Biases records offline unless ``WANDB_MODE=online`` is set,
MLflow keeps a file in the run folder unless ``MLFLOW_TRACKING_URI`` is set, Trackio has its own folder here.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import shutil
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from perpixel.console import Console
from perpixel.recipe import Recipe
from perpixel.run import Run, read_json, write_json

_SECONDS = 10.0  # between two times that trackers are told something
_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}


class _Record(Protocol):
    """One run in one tracker; ``epochs`` is how many of them it holds."""

    epochs: int

    def write(self, row: Mapping[str, float]) -> None:
        """Add an epoch."""

    def close(self) -> None:
        """No more epochs will come from this process."""


class Trackers:
    """The trackers of a run. What they remember of it between processes is in trackers.json."""

    def __init__(self, run: Run, recipe: Recipe, console: Console) -> None:
        self._run, self._recipe, self._console = run, recipe, console
        self._names: list[str] = list(recipe.training.trackers)
        self._records: dict[str, _Record] = {}
        self._history: Sequence[Mapping[str, float]] = ()
        self._told = time.monotonic()

    def update(self, history: Sequence[Mapping[str, float]]) -> None:
        """Tell the trackers of a history, a row an epoch, if some time has passed since they were told."""
        self._history = history
        if time.monotonic() - self._told >= _SECONDS:
            self._tell()

    def close(self) -> None:
        """Tell what they have not been told yet, and end."""
        if self._history:
            self._tell()
        for name, record in list(self._records.items()):
            with self._guest(name):
                record.close()

    def _tell(self) -> None:
        for name in list(self._names):
            with self._guest(name):
                record = self._records.get(name) or self._open(name)
                for row in self._history[record.epochs :]:
                    record.write(row)
                record.epochs = len(self._history)
        self._told = time.monotonic()

    def _open(self, name: str) -> _Record:
        importlib.import_module(_PACKAGES[name])
        path = self._run.path / "trackers.json"
        known: dict[str, Any] = read_json(path) if path.is_file() else {}

        def remember(facts: dict[str, Any]) -> None:
            known[name] = facts
            write_json(path, known)

        self._records[name] = _RECORDS[name](self._run, self._recipe, known.get(name, {}), remember)
        return self._records[name]

    @contextlib.contextmanager
    def _guest(self, name: str) -> Iterator[None]:
        """What a tracker prints is not shown, and its first error is its last."""
        disabled, hidden = logging.root.manager.disable, io.StringIO()
        logging.disable(logging.CRITICAL)
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(hidden), contextlib.redirect_stderr(hidden):
                warnings.simplefilter("ignore")
                yield
        except Exception as error:
            self._names.remove(name)
            self._records.pop(name, None)
            why = str(error).strip().splitlines()[:1] or [type(error).__name__]
            cure = '; pip install "perpixel[trackers]"' if isinstance(error, ImportError) else ""
            self._console.say(f"tracker {name} is left out: {why[0][:200]}{cure}")
        finally:
            logging.disable(disabled)


class _TensorBoard:
    """Event files below ``tensorboard``. A continuation writes them anew, so that no epoch is missing or doubled."""

    def __init__(self, run: Run, recipe: Recipe, known: dict[str, Any], remember: Callable[..., None]) -> None:
        from lightning.pytorch.loggers import TensorBoardLogger

        shutil.rmtree(run.path / "tensorboard", ignore_errors=True)
        self.epochs = 0
        self._logger = TensorBoardLogger(run.path, name="", version="tensorboard", flush_secs=int(_SECONDS))

    def write(self, row: Mapping[str, float]) -> None:
        self._logger.log_metrics(dict(row), step=int(row["epoch"]))

    def close(self) -> None:
        self._logger.experiment.close()


class _WandB:
    """A run below ``wandb``, offline, to be sent by ``wandb sync``. What W&B has of a process that is killed is lost,
    so a continuation writes it anew; a run that is online tells what it holds."""

    def __init__(self, run: Run, recipe: Recipe, known: dict[str, Any], remember: Callable[..., None]) -> None:
        from lightning.pytorch.loggers import WandbLogger

        os.environ.setdefault("WANDB_SILENT", "true")
        id_, offline = known.get("id") or uuid.uuid4().hex[:8], os.environ.get("WANDB_MODE") != "online"
        remember({"id": id_})
        if offline:
            shutil.rmtree(run.path / "wandb", ignore_errors=True)
        self._logger = WandbLogger(run.path.name, run.path, id=id_, project=recipe.name, offline=offline)
        self._logger.experiment.config.update(recipe.to_dict(), allow_val_change=True)
        self.epochs = self._logger.experiment.step

    def write(self, row: Mapping[str, float]) -> None:
        self._logger.log_metrics(dict(row), step=int(row["epoch"]))

    def close(self) -> None:
        self._logger.experiment.finish()


class _MLflow:
    """A run in ``mlflow.db``, or at the server that MLFLOW_TRACKING_URI names; it tells itself what it holds."""

    def __init__(self, run: Run, recipe: Recipe, known: dict[str, Any], remember: Callable[..., None]) -> None:
        from lightning.pytorch.loggers import MLFlowLogger

        for name, value in (("GIT_PYTHON_REFRESH", "quiet"), ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")):
            os.environ.setdefault(name, value)
        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.path.resolve() / 'mlflow.db'}"
        self._logger = MLFlowLogger(recipe.name, run.path.name, place, run_id=known.get("id"))
        id_ = self._logger.run_id
        if not known:
            self._logger.log_hyperparams(recipe.to_dict())
            remember({"id": id_})
        self.epochs = len(self._logger.experiment.get_metric_history(id_, "epoch"))

    def write(self, row: Mapping[str, float]) -> None:
        self._logger.log_metrics(dict(row), step=int(row["epoch"]))

    def close(self) -> None:
        self._logger.finalize("success")


class _Trackio:
    """A run of Trackio's own folder on this machine, which tells what it holds; Lightning has no logger for it."""

    def __init__(self, run: Run, recipe: Recipe, known: dict[str, Any], remember: Callable[..., None]) -> None:
        import trackio
        from trackio.sqlite_storage import SQLiteStorage

        name = known.get("name") or f"{run.path.name}-{uuid.uuid4().hex[:8]}"
        remember({"name": name})
        self.epochs = len(SQLiteStorage.get_logs(recipe.name, name)) if known else 0
        self._run = trackio.init(
            recipe.name,
            name,
            config=recipe.to_dict(),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def write(self, row: Mapping[str, float]) -> None:
        self._run.log(dict(row), step=int(row["epoch"]))

    def close(self) -> None:
        self._run.finish()


_RECORDS: dict[str, Callable[[Run, Recipe, dict[str, Any], Callable[..., None]], _Record]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WandB,
    "mlflow": _MLflow,
    "trackio": _Trackio,
}
