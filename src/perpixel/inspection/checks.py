"""What all checks look at, and the tables of checks. A check is a function from a `View` to findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from perpixel.inspection.finding import Finding
from perpixel.inspection.record import Record
from perpixel.recipe import Recipe

__all__ = ["Check", "View"]


@dataclass(frozen=True)
class View:
    """A data set as checks see it.

    Attributes:
        recipe: what the data are declared to be.
        root: the data folder.
        records: of the pairs, sorted by id.
        unlabelled: records of images without targets.
        subsets, groups: by sample id; empty where the data cannot be split.
        proposed: the recipe comes from `perpixel.inspection.propose`, not from a person.
    """

    recipe: Recipe
    root: Path
    records: Sequence[Record]
    unlabelled: Sequence[Record] = ()
    subsets: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    proposed: bool = False

    def name(self, record: Record) -> str:
        """The image's name below the data folder."""
        return self.relative(record.sample.image)

    def target_name(self, record: Record) -> str:
        """The target's name below the data folder."""
        return self.relative(record.sample.target) if record.sample.target is not None else ""

    def relative(self, path: Path) -> str:
        """A path below the data folder; others as they are."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def names(self, records: Iterable[Record]) -> list[str]:
        """The images' names."""
        return [self.name(record) for record in records]

    def target_names(self, records: Iterable[Record]) -> list[str]:
        """The targets' names."""
        return [self.target_name(record) for record in records]


Check = Callable[[View], Iterable[Finding]]
