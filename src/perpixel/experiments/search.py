"""A search: trials that Optuna proposes, each an ordinary run; what the validation curve shows to be poor ends early.

The study is Optuna's journal in the search's folder. A trial belongs to the process that holds the lock of its number,
so one that was killed is found by the next process, which continues its run from the last checkpoint. What a trial
tries is a function of the recipe's seed, its number, and the trials before it: a search that was killed between two
trials proposes what it would have proposed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from perpixel.console import Console
from perpixel.errors import DataError, PerpixelError, RequestError, RunError
from perpixel.evaluation.evaluate import read_evaluation
from perpixel.experiments.axes import Alternatives, Range, search_axes
from perpixel.experiments.cells import require_free
from perpixel.experiments.results import write_results
from perpixel.recipe import Recipe, load_recipe
from perpixel.run import Run, locked, read_json, try_lock, write_json, write_rows
from perpixel.tasks import build_task
from perpixel.training.first_look import FirstLook
from perpixel.training.train import train

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial

PRUNERS = ("median", "hyperband", "none")
_STATES = {"FAIL": "failed", "COMPLETE": "finished"}  # others are called as Optuna calls them


def run_search(
    recipe: str | Path,
    over: Sequence[str],
    folder: Path,
    *,
    trials: int | None = None,
    hours: float | None = None,
    pruner: str = "median",
    data: Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    force: bool = False,
    console: Console,
) -> None:
    """Train trials into ``folder/trial-NNN``, then write a grid's results, and trials.csv as the study knows them.

    Several processes serve one search when each is started with ``resume`` on the same folder.

    Args:
        over: what is varied, as `search_axes` reads it.
        trials: how many there are in all, those of an earlier start included.
        hours: no trial begins later than this after the start of this process.
        pruner: ``median`` ends a trial whose best figure so far is below the median of the finished at its epoch;
            ``hyperband`` gives many trials few epochs and few trials many; ``none`` ends none.

    Raises:
        RequestError: a range that is none, no budget, a folder that is taken, or a search that was another.
        RecipeError: an end of a range is no valid recipe.
        RunError: interrupted, or no trial came to its end.
    """
    if trials is None and hours is None:
        raise RequestError("a search needs a budget", cure="say --trials 30, or --budget 8h, or both.")
    axes = search_axes(over)
    base = load_recipe(recipe, overrides)
    for axis in axes:
        for example in axis.examples:
            load_recipe(recipe, [*overrides, example])
    _begin(folder, {"over": list(over), "pruner": pruner, "recipe": base.to_dict()}, resume)
    command = ["perpixel", "search", str(recipe), *(word for axis in over for word in ("--over", axis))]
    command += ["--pruner", pruner, *(word for setting in overrides for word in ("--set", setting))]
    command += [*(["--data", str(data)] if data else []), "--run", str(folder)]
    command += ["--trials", str(trials)] if trials else ["--budget", f"{hours:g}"]
    search = _Search(folder, axes, base, recipe, overrides, pruner, command, console)
    deadline = math.inf if hours is None else time.monotonic() + hours * 3600
    look = FirstLook(force=force)
    while (claimed := search.next_trial(trials, deadline)) is not None:
        with claimed.lock:
            search.run_trial(claimed.trial, data, look)
        search.write()
    search.conclude()


@dataclass
class _Claimed:
    """A trial, and the open file whose lock makes it this process's own."""

    trial: Trial
    lock: IO[bytes]


class _Search:
    """A study and its folder."""

    def __init__(
        self,
        folder: Path,
        axes: Sequence[Range | Alternatives],
        base: Recipe,
        recipe: str | Path,
        overrides: Sequence[str],
        pruner: str,
        command: Sequence[str],
        console: Console,
    ) -> None:
        self.folder, self.axes, self.base, self.console = folder, axes, base, console
        self.recipe, self.overrides, self.command = recipe, overrides, command
        self.monitor = base.training.monitor
        higher = build_task(base).metrics().infos()[self.monitor].direction == "higher"
        self.study = _open_study(folder, higher, _pruner(pruner, base.training.epochs))

    def next_trial(self, trials: int | None, deadline: float) -> _Claimed | None:
        """A trial that nobody works at any more, else a new one, else None."""
        from optuna.trial import Trial, TrialState

        with locked(self.folder / "search.lock"):
            known = self.study.get_trials(deepcopy=False)
            for frozen in known:
                if frozen.state == TrialState.RUNNING and (lock := try_lock(self._lock_path(frozen.number))):
                    self._seed(frozen.number)
                    return _Claimed(Trial(self.study, frozen._trial_id), lock)
            if time.monotonic() >= deadline or (trials is not None and len(known) >= trials):
                return None
            self._seed(len(known))
            lock = try_lock(self._lock_path(len(known)))
            assert lock is not None
            return _Claimed(self.study.ask(), lock)

    def run_trial(self, trial: Trial, data: Path | None, look: FirstLook) -> None:
        """Train a trial, or continue it, and tell the study how it ended."""
        from optuna.trial import TrialState

        settings = [axis.suggest(trial) for axis in self.axes]
        run = Run(self.folder / _name(trial.number))
        self.console.say(f"{run.path.name}: {', '.join(settings)}")
        judge = _Judge(trial, run, f"val_{self.monitor}")
        try:
            recipe = load_recipe(self.recipe, [*self.overrides, *settings])
            train(recipe, run.path, data=data, resume=True, look=look, stop=judge, console=self.console)
        except DataError:  # the data are those of every trial
            raise
        except PerpixelError as error:
            if judge.poor:
                run.update_manifest(status="pruned")
                self.study.tell(trial, state=TrialState.PRUNED)
                self.console.say(f"{run.path.name} is worse than the others at this epoch: ended")
            elif run.manifest.get("status") == "interrupted":
                raise
            else:
                self.study.tell(trial, state=TrialState.FAIL)
                self.console.say(f"{run.path.name} failed: {error.text()}")
            return
        evaluation = read_evaluation(run, "val")
        figure = None if evaluation is None else evaluation["figures"][self.monitor]
        self.study.tell(trial, figure, state=TrialState.FAIL if figure is None else TrialState.COMPLETE)

    def write(self) -> None:
        """The results of a grid, whose cells are the trials; and a row for every trial in trials.csv."""
        with locked(self.folder / "search.lock"):
            known = self.study.get_trials(deepcopy=False)
            write_rows(self.folder / "trials.csv", [self._row(trial) for trial in known])
            cells = {_name(trial.number): self._settings(trial) for trial in known}
            ended = {_name(trial.number): _STATES.get(trial.state.name, trial.state.name.lower()) for trial in known}
            if cells:
                write_results(self.folder, cells, dict.fromkeys(cells, self.base), self.command, ended)

    def conclude(self) -> None:
        """Say what came of it; raises RunError where no trial is finished."""
        self.write()
        states = [trial.state.name.lower() for trial in self.study.get_trials(deepcopy=False)]
        counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
        self.console.say(f"{len(states)} trials: {', '.join(counts)}")
        if "complete" not in states:
            raise RunError("no trial came to its end", where=self.folder, details=counts)

    def _settings(self, trial: FrozenTrial) -> list[str]:
        return [f"{axis.key}={trial.params[axis.key]}" for axis in self.axes if axis.key in trial.params]

    def _row(self, trial: FrozenTrial) -> dict[str, Any]:
        history = Run(self.folder / _name(trial.number)).read_history()
        figures = [row[f"val_{self.monitor}"] for row in history]
        row: dict[str, Any] = {"trial": _name(trial.number), "state": trial.state.name.lower()}
        row |= {axis.key: trial.params.get(axis.key) for axis in self.axes}
        best = max if self.study.direction.name == "MAXIMIZE" else min
        finite = [figure for figure in figures if math.isfinite(figure)]
        return row | {
            "epochs": len(history),
            f"best val {self.monitor}": round(best(finite), 4) if finite else None,
            "seconds": history[-1]["seconds"] if history else None,
        }

    def _lock_path(self, number: int) -> Path:
        return self.folder / "locks" / _name(number)

    def _seed(self, number: int) -> None:
        """A sampler that proposes the same for this trial whichever process asks, and however often."""
        from optuna.samplers import TPESampler

        seed = (self.base.training.seed * 1_000_003 + number) & 0xFFFFFFFF
        self.study.sampler = TPESampler(seed=seed)


class _Judge:
    """Asked by the training whether to stop; reports epochs to the study as they come into history.csv."""

    def __init__(self, trial: Trial, run: Run, column: str) -> None:
        self._trial, self._run, self._column = trial, run, column
        self._seen: int | None = None
        self.poor = False

    def __call__(self) -> bool:
        path = self._run.history_path
        changed = path.stat().st_mtime_ns if path.is_file() else None
        if changed != self._seen:
            self._seen = changed
            self.poor = self._report()
        return self.poor

    def _report(self) -> bool:
        known = self._trial.study.get_trials(deepcopy=False)[self._trial.number].intermediate_values
        for row in self._run.read_history():
            if int(row["epoch"]) not in known:
                self._trial.report(row[self._column], int(row["epoch"]))
        return bool(self._trial.should_prune())


def _begin(folder: Path, facts: dict[str, Any], resume: bool) -> None:
    """Take a folder for a new search, or check that the one in it is the one that is asked for."""
    path = folder / "search.json"
    if resume and path.is_file():
        stored = read_json(path)
        if different := [name for name in facts if stored.get(name) != facts[name]]:
            raise RequestError(
                f"this search is another: it differs in {', '.join(different)}",
                where=path,
                rule="a continuation changes nothing but the budget.",
                cure="ask for what was asked before, or start another --run.",
            )
        return
    require_free(folder)
    write_json(path, facts)


def _open_study(folder: Path, higher: bool, pruner: BasePruner) -> Study:
    try:
        import optuna
    except ImportError:
        raise RequestError("optuna is not installed", cure='pip install "perpixel[search]"') from None
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(folder / "study.journal"))),
        study_name="search",
        direction="maximize" if higher else "minimize",
        pruner=pruner,
        load_if_exists=True,
    )


def _pruner(name: str, epochs: int) -> BasePruner:
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    if name not in PRUNERS:
        raise RequestError(f"no pruner is named {name!r}", where="--pruner", rule=f"known: {', '.join(PRUNERS)}.")
    if name == "median":  # the first fifth of a training says little: its learning rate still rises
        return MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, epochs // 5) + 1)
    return HyperbandPruner(min_resource=1, max_resource=max(1, epochs)) if name == "hyperband" else NopPruner()


def _name(number: int) -> str:
    return f"trial-{number:03d}"
