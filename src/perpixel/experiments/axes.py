"""What a search may choose: ranges and alternatives of recipe keys. Needs no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perpixel.errors import RequestError
from perpixel.experiments.cells import axis_options

if TYPE_CHECKING:
    from optuna import Trial

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"(?P<low>{_NUMBER})\.\.(?P<high>{_NUMBER})(?P<log>\s+log)?")
_WHOLE = re.compile(r"[-+]?\d+")


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, which belong to it; ``whole`` where both ends are written as whole numbers."""

    key: str
    low: float
    high: float
    log: bool
    whole: bool

    @property
    def examples(self) -> list[str]:
        """Both ends, as settings."""
        return [self._setting(self.low), self._setting(self.high)]

    def suggest(self, trial: Trial) -> str:
        """The setting ``key=value`` of a trial."""
        if self.whole:
            return self._setting(trial.suggest_int(self.key, int(self.low), int(self.high), log=self.log))
        return self._setting(trial.suggest_float(self.key, self.low, self.high, log=self.log))

    def _setting(self, value: float) -> str:
        return f"{self.key}={int(value) if self.whole else repr(float(value))}"


@dataclass(frozen=True)
class Alternatives:
    """Values without an order."""

    key: str
    options: tuple[str, ...]

    @property
    def examples(self) -> list[str]:
        """Every value, as a setting."""
        return [f"{self.key}={option}" for option in self.options]

    def suggest(self, trial: Trial) -> str:
        """The setting ``key=value`` of a trial."""
        return f"{self.key}={trial.suggest_categorical(self.key, self.options)}"


def search_axes(over: Sequence[str]) -> list[Range | Alternatives]:
    """The axes of a search: ``key=1e-4..1e-2 log``, ``key=4..32`` (whole numbers), or ``key=value,value``.

    Raises:
        RequestError: one is written otherwise, there is none, or a key stands twice.
    """
    axes = [_axis(text) for text in over]
    keys = [axis.key for axis in axes]
    if not keys or len(set(keys)) < len(keys):
        raise RequestError("a search has one axis or more, each key once", where=" ".join(over) or "--over")
    return axes


def _axis(text: str) -> Range | Alternatives:
    key, _, values = text.partition("=")
    match = _RANGE.fullmatch(values.strip())
    if match is None or not key.strip():
        key, options = axis_options(text, "--over")
        if any(".." in option for option in options):
            raise RequestError(
                "this is no range",
                where=f"--over {text}",
                rule="it is written key=1e-4..1e-2, with log behind it or not.",
            )
        if len(set(options)) < max(2, len(options)):
            raise RequestError("a search chooses among two different values or more", where=f"--over {text}")
        return Alternatives(key, tuple(options))
    low, high, log = float(match["low"]), float(match["high"]), match["log"] is not None
    if not (math.isfinite(low) and low < high < math.inf) or (log and low <= 0):
        rule = "the first end is below the second, and above 0 where the range is logarithmic."
        raise RequestError("this range is empty", where=f"--over {text}", rule=rule)
    whole = bool(_WHOLE.fullmatch(match["low"]) and _WHOLE.fullmatch(match["high"]))
    return Range(key.strip(), low, high, log, whole)
