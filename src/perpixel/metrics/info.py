"""What a figure is: nothing is reported without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["MetricInfo"]


@dataclass(frozen=True)
class MetricInfo:
    """Meaning of one figure.

    Attributes:
        name: its name for people.
        unit: "" for a plain ratio.
        direction: which end is the better one; ``neither``: it is no figure to choose by.
        averaging: over what it is summed or averaged, in one phrase.
        description: one or two sentences, with the rule for 0/0.
    """

    name: str
    unit: str
    direction: Literal["higher", "lower", "neither"]
    averaging: str
    description: str
