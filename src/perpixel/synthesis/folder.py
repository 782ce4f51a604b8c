"""The folder of a synthetic data set: begun, continued after a kill, finished, and never mixed with another."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from perpixel.errors import RequestError
from perpixel.run import write_json

__all__ = ["begin", "finish"]

_FINISHED, _PARTIAL = "synthesis.json", "synthesis.partial.json"


def begin(out_dir: Path, arguments: dict[str, Any]) -> bool:
    """Make ``out_dir`` ready for the data set that ``arguments`` (as JSON) describe; True if it holds it whole.

    Raises:
        RequestError: the folder holds something else.
    """
    if _is_finished(out_dir, arguments):
        return True
    write_json(out_dir / _PARTIAL, arguments)
    for pattern in (".*.tmp", ".*.*-????????"):  # what a killed call of `images` and `run` leaves half-written
        for left_over in out_dir.rglob(pattern):
            left_over.unlink()
    return False


def finish(out_dir: Path) -> None:
    """The last step: only now the data set is whole."""
    os.replace(out_dir / _PARTIAL, out_dir / _FINISHED)


def _is_finished(out_dir: Path, arguments: dict[str, Any]) -> bool:
    """Whether ``out_dir`` already holds the data set; False if it is to be begun or continued.

    Raises:
        RequestError: the folder holds something else.
    """
    for name in (_FINISHED, _PARTIAL):
        if (out_dir / name).is_file():
            found = (out_dir / name).read_text(encoding="utf-8")
            if found.split() == json.dumps(arguments, indent=2).split():
                return name == _FINISHED
            what = f"this folder holds another synthetic data set: {' '.join(found.split())}"
            break
    else:
        if not out_dir.exists() or (out_dir.is_dir() and all(path.name.startswith(".") for path in out_dir.iterdir())):
            return False
        what = "this folder holds other files" if out_dir.is_dir() else "this is not a folder"
    raise RequestError(
        what,
        where=out_dir,
        rule=f"A data set is written to a folder of its own; this one would be {json.dumps(arguments)}.",
        cure="Give another folder, or remove this one.",
    )
