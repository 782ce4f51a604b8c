"""Several trained runs as one predictor: the mean of their scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.inference.base import Clock, ImagePredictor
from perpixel.inference.predictor import Predictor
from perpixel.inference.timing import NetworkClock
from perpixel.run import Run, read_json


class _Clocks:
    """The seconds of several clocks together."""

    def __init__(self, clocks: Sequence[NetworkClock]) -> None:
        self._clocks = clocks

    @property
    def seconds(self) -> float:
        return sum(clock.seconds for clock in self._clocks)


class Ensemble(ImagePredictor):
    """Averages probabilities, metres or images of its members at the images' original size, and decides once.

    Each member sees the image at its own size, with its own test-time views.
    """

    def __init__(self, members: Sequence[Predictor]) -> None:
        first = members[0]
        self.members = list(members)
        self.task, self.inference = first.task, first.inference
        self.decision, self.precision = first.decision, first.precision

    @classmethod
    def from_run(cls, run: Run, overrides: Sequence[str] = ()) -> Ensemble:
        """The ensemble that a folder of `perpixel ensemble` stands for; arguments and errors are `Predictor`'s."""
        paths = run.manifest["ensemble"]
        ensemble = cls([Predictor.from_run(Run.open(Path(path)), overrides) for path in paths])
        ensemble.decision = read_json(run.decision_path)
        return ensemble

    @property
    def device_name(self) -> str:
        return self.members[0].device_name

    @property
    def threads(self) -> int:
        return self.members[0].threads

    @contextmanager
    def clock(self) -> Iterator[Clock]:
        """The networks of all members."""
        with ExitStack() as stack:
            yield _Clocks([stack.enter_context(member.clock()) for member in self.members])

    def scores(self, images: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        """The mean of the members' scores."""
        return mean_scores(self.members, images)

    def _batch(self, images: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        raise NotImplementedError("members fit and batch images each for themselves")


def mean_scores(members: Sequence[ImagePredictor], images: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
    """scores_khw of each image, averaged over some predictors."""
    totals = members[0].scores(images)
    for member in members[1:]:
        totals = [total + own for total, own in zip(totals, member.scores(images), strict=True)]
    return [total / np.float32(len(members)) for total in totals]
