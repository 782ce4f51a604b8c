"""What the verbs do with their arguments."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

RUNS = Path("runs")


def as_path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)


def as_paths(values: str | Path | Iterable[str | Path] | None) -> list[Path]:
    if values is None:
        return []
    return [Path(value) for value in ([values] if isinstance(values, str | Path) else values)]
