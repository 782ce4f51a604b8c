"""Models that are loaded when they are first asked for, each with a queue of bounded length and a thread of its own."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from perpixel.app.library import Library
from perpixel.app.limits import BusyError, Limits, SlowError
from perpixel.inference.base import ImagePredictor
from perpixel.inference.exported import ExportedPredictor
from perpixel.inference.opening import open_predictor

__all__ = ["Models"]

T = TypeVar("T")


@dataclass
class _Slot:
    """One thread for all that a model does: it works for one request at a time, and has one pool of helpers."""

    worker: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "perpixel-model"))
    waiting: int = 0
    seconds: float = 1.0  # of a request, a moving average
    predictor: ImagePredictor | None = None
    changed: float = 0.0  # when the weights were written


class Models:
    """Predictors by name; the one that was used longest ago leaves when there are too many."""

    def __init__(self, limits: Limits, library: Library) -> None:
        self.limits, self._library = limits, library
        self._slots: OrderedDict[str, _Slot] = OrderedDict()
        self._lock = threading.RLock()  # ending a waiting request, in `close`, lets it leave

    def call(self, name: str, work: Callable[[ImagePredictor], T]) -> T:
        """What ``work`` makes of the warm predictor of a run or a file, which is its alone for that time.

        Raises:
            BusyError: the queue is full, or the turn did not come in time.
            SlowError: ``work`` takes longer than a request may. It goes on, as nothing can end a computation, but
                nobody waits for it, and its model stays busy until it ends.
            RunError: the run has no trained model.
        """
        slot = self._enter(name)
        future = slot.worker.submit(self._work, slot, name, work)
        future.add_done_callback(lambda _: self._leave(slot))
        try:
            return future.result(timeout=self.limits.seconds)
        except FutureTimeoutError:
            if future.cancel():
                raise BusyError(name, slot.waiting, slot.seconds * slot.waiting) from None
            raise SlowError(name, self.limits.seconds) from None

    def close(self) -> None:
        """Take no more requests."""
        with self._lock:
            for slot in self._slots.values():
                slot.worker.shutdown(wait=False, cancel_futures=True)

    def _work(self, slot: _Slot, name: str, work: Callable[[ImagePredictor], T]) -> T:
        began = time.perf_counter()
        result = work(self._predictor(slot, name))
        slot.seconds = 0.8 * slot.seconds + 0.2 * (time.perf_counter() - began)
        return result

    def _enter(self, name: str) -> _Slot:
        with self._lock:
            slot = self._slots.setdefault(name, _Slot())
            self._slots.move_to_end(name)
            if slot.waiting > self.limits.waiting:  # one of them is being served
                raise BusyError(name, slot.waiting, slot.seconds * slot.waiting)
            slot.waiting += 1
            idle = [other for other in self._slots if not self._slots[other].waiting]
            for other in idle[: max(0, len(self._slots) - self.limits.models)]:
                self._slots.pop(other).worker.shutdown(wait=False)
            return slot

    def _leave(self, slot: _Slot) -> None:
        with self._lock:
            slot.waiting -= 1

    def _predictor(self, slot: _Slot, name: str) -> ImagePredictor:
        changed = self._library.changed(name)
        if slot.predictor is None or slot.changed != changed:
            slot.predictor = None  # two of them need not fit into memory
            slot.predictor = open_predictor(self._library.open(name))
            slot.changed = changed
            fixed = slot.predictor.size if isinstance(slot.predictor, ExportedPredictor) else None
            height, width = fixed or self._library.recipe(name).input.size
            # The first calls of a network allocate and tune; their time says nothing.
            slot.predictor.predict([np.zeros((height, width, 3), dtype=np.uint8)])
        return slot.predictor
