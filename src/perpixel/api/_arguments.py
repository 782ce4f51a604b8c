"""What the verbs do with their arguments."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from perpixel.errors import RequestError

RUNS = Path("runs")


def as_path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)


def as_paths(values: str | Path | Iterable[str | Path] | None) -> list[Path]:
    if values is None:
        return []
    return [Path(value) for value in ([values] if isinstance(values, str | Path) else values)]


def as_seconds(budget: str | None) -> float | None:
    """``30m``, ``1h30m`` or ``45s`` in seconds.

    Raises:
        RequestError: it is written otherwise, or is nothing.
    """
    if budget is None:
        return None
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", budget.strip())
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    if not (total := 3600 * hours + 60 * minutes + seconds):
        raise RequestError(
            "this is no time", where=f"--budget {budget}", rule="hours, minutes and seconds, as in 30m, 1h30m or 45s."
        )
    return float(total)
