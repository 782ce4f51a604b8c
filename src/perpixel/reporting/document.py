"""What a report says, before anyone decides how it looks: sections of blocks, written as HTML or as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Block", "Code", "Document", "Facts", "Figure", "Folded", "Section", "Strip", "Table", "Text"]


@dataclass(frozen=True)
class Text:
    """A paragraph; a part between backticks is code. A ``warning`` is told apart by more than its colour."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Facts:
    """Names and what they are, a line each."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Rows of texts; the first ``left`` columns hold words, the others numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    left: int = 1


@dataclass(frozen=True)
class Figure:
    """A plot: the bytes of a PNG, with what it shows in words for those who do not see it."""

    png: bytes
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Strip:
    """Pictures of one image side by side, image_hwc of 8 bits by name; the first is the one that others cover."""

    caption: str
    panels: Mapping[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class Code:
    """Commands, or a recipe, as they are typed."""

    text: str


@dataclass(frozen=True)
class Folded:
    """What few readers want; opened by its reader where the page can do that. It holds no strips."""

    summary: str
    blocks: Sequence[Text | Facts | Table | Figure | Code]


Block = Text | Facts | Table | Figure | Strip | Code | Folded


@dataclass(frozen=True)
class Section:
    """A part of a report; a ``folded`` one is opened by its reader."""

    title: str
    blocks: Sequence[Block]
    folded: bool = False


@dataclass(frozen=True)
class Document:
    """A report.

    Attributes:
        title: one line.
        answer: what the reader came for, in sentences.
        warnings: why the answer should not be believed.
        sections: the rest.
    """

    title: str
    answer: Sequence[str]
    warnings: Sequence[str] = ()
    sections: Sequence[Section] = field(default_factory=list)
