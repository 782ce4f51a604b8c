"""``python -m perpixel.training.worker``: one of the processes that `perpixel.training.launch` starts.

Its job is a line of JSON on standard input; what it says goes out as lines of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, TextIO

from perpixel.console import Console
from perpixel.errors import PerpixelError


class _Telling(Console):
    """Passes on what is said to the process that started this one; the log file is written here."""

    def __init__(self, out: TextIO | None, log_file: Path | None = None) -> None:
        super().__init__(None, log_file)
        self._out = out

    def with_log(self, log_file: Path) -> _Telling:
        return _Telling(self._out, log_file)

    def say(self, text: str) -> None:
        super().say(text)
        tell(self._out, {"say": text})

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:
        tell(self._out, {"progress": [label, done, total, note]})


def tell(out: TextIO | None, event: dict[str, Any]) -> None:
    """One line for the process that started this one."""
    if out is not None:
        print(json.dumps(event), file=out, flush=True)


def _end_with_starter() -> None:
    """Standard input ends when the process that started this one does; so does this one, then."""
    while os.read(0, 1):  # not through sys.stdin: its lock would be held for ever in what is forked to load data
        pass
    os._exit(1)


def _train(job: dict[str, Any], out: TextIO) -> None:
    from perpixel.recipe import recipe_from_dict
    from perpixel.training.first_look import FirstLook
    from perpixel.training.processes import Place, meet, stay_on_this_machine
    from perpixel.training.train import train

    stay_on_this_machine()
    place = Place(**job["place"])
    with meet(place) as processes:
        train(
            recipe_from_dict(job["recipe"], (), where=job["run"]),
            Path(job["run"]),
            data=Path(job["data"]) if job["data"] else None,
            resume=job["resume"],
            look=FirstLook(force=job["force"]),
            console=_Telling(out if place.rank == 0 else None),
            processes=processes,
            budget=job["budget"],
        )


def _described(error: BaseException) -> dict[str, Any]:
    from perpixel.training.processes import LostProcessError

    told: dict[str, Any] = {"kind": type(error).__name__, "lost": isinstance(error, LostProcessError)}
    if isinstance(error, PerpixelError):
        return told | {name: getattr(error, name) for name in ("what", "where", "rule", "cure", "details")}
    return told | {"traceback": traceback.format_exc()}


def main() -> None:
    """Do the job; the error that ends it is told, not shown."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed does not come between the lines
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_starter, daemon=True).start()
    try:
        _train(job, out)
    except BaseException as error:
        tell(out, {"error": _described(error)})
        os._exit(1)  # at once: this closes the connections, which is how the others notice


if __name__ == "__main__":
    main()
