"""Models that are loaded when they are first asked for, each with a queue of bounded length."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from perpixel.app.limits import BusyError, Limits
from perpixel.inference.predictor import Predictor
from perpixel.run import Run

__all__ = ["Models"]


@dataclass
class _Slot:
    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: int = 0
    seconds: float = 1.0  # of a request, a moving average
    predictor: Predictor | None = None
    changed: float = 0.0  # when the weights were written


class Models:
    """Predictors by the name of their run; the one that was used longest ago leaves when there are too many."""

    def __init__(self, limits: Limits, load: Callable[[Run], Predictor] = Predictor.from_run) -> None:
        self.limits, self._load = limits, load
        self._slots: OrderedDict[str, _Slot] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def use(self, name: str, run: Run) -> Iterator[Predictor]:
        """The warm predictor of a run, for this caller alone.

        Raises:
            BusyError: the queue is full, or the turn did not come in time.
            RunError: the run has no trained model.
        """
        slot = self._enter(name)
        try:
            if not slot.lock.acquire(timeout=self.limits.seconds):
                raise BusyError(name, slot.waiting, slot.seconds * slot.waiting)
            try:
                began = time.perf_counter()
                yield self._predictor(slot, run)
                slot.seconds = 0.8 * slot.seconds + 0.2 * (time.perf_counter() - began)
            finally:
                slot.lock.release()
        finally:
            with self._lock:
                slot.waiting -= 1

    def _enter(self, name: str) -> _Slot:
        with self._lock:
            slot = self._slots.setdefault(name, _Slot())
            self._slots.move_to_end(name)
            if slot.waiting > self.limits.waiting:  # one of them is being served
                raise BusyError(name, slot.waiting, slot.seconds * slot.waiting)
            slot.waiting += 1
            idle = [other for other in self._slots if not self._slots[other].waiting]
            for other in idle[: max(0, len(self._slots) - self.limits.models)]:
                del self._slots[other]
            return slot

    def _predictor(self, slot: _Slot, run: Run) -> Predictor:
        changed = run.best_path.stat().st_mtime if run.best_path.is_file() else 0.0
        if slot.predictor is None or slot.changed != changed:
            slot.predictor = None  # two of them need not fit into memory
            slot.predictor = self._load(run)
            slot.changed = changed
            height, width = slot.predictor.input_section.size
            # The first calls of a network allocate and tune; their time says nothing.
            slot.predictor.predict([np.zeros((height, width, 3), dtype=np.uint8)])
        return slot.predictor
