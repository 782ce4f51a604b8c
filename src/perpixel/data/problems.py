"""Problems of many files, said in few sentences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence

from perpixel.errors import DataError

Explain = Callable[[Mapping[int, int]], DataError]
"""From the pixels of every value to the error that says what is wrong with them."""

_NAMED = 3


class ValuesError(DataError):
    """A target file holds values that its declaration does not name.

    Args:
        counts: pixels of every value in the file, by value.
        explain: makes the sentence; the same for all files of a data set, so that their counts can be added up.
        where: the file.
    """

    def __init__(self, counts: Mapping[int, int], explain: Explain, *, where: object) -> None:
        said = explain(counts)
        super().__init__(said.what, where=where, rule=said.rule, cure=said.cure, details=said.details)
        self.counts, self.explain = counts, explain


def in_few_sentences(errors: Sequence[DataError]) -> list[str]:
    """One line a kind of problem, the commonest first, with the number of files and the first of their names.

    Two errors are of one kind when they differ in numbers alone, or when the values of two files break the same
    declaration; the values of all such files are then explained together.
    """
    groups: dict[Hashable, list[DataError]] = {}
    for error in errors:
        groups.setdefault(_kind(error), []).append(error)
    return [_said(group) for group in sorted(groups.values(), key=len, reverse=True)]


def _kind(error: DataError) -> Hashable:
    if isinstance(error, ValuesError):
        return error.explain
    return tuple(re.sub(r"\d+", "0", text or "") for text in (error.what, error.rule, error.cure))


def _said(group: Sequence[DataError]) -> str:
    first = group[0]
    names = ", ".join(str(error.where) for error in group[:_NAMED])
    if len(group) == 1:
        return f"{names}: {_line(first)}"
    more = f" and {len(group) - _NAMED} more" if len(group) > _NAMED else ""
    head = f"{len(group)} files ({names}{more}): "
    if isinstance(first, ValuesError):
        total: Counter[int] = Counter()
        for error in group:
            total.update(error.counts if isinstance(error, ValuesError) else {})
        return head + _line(first.explain(total))
    same = all(error.what == first.what for error in group)
    return head + ("" if same else "for example: ") + _line(first)


def _line(error: DataError) -> str:
    parts = [error.what.rstrip("."), *error.details]
    parts += [f"Rule: {error.rule.rstrip('.')}"] if error.rule else []
    parts += [f"Cure: {error.cure.rstrip('.')}"] if error.cure else []
    return " ".join(". ".join(parts).split()) + "."
