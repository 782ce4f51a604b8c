"""The quick part of an inspection, before a training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perpixel.console import Console
from perpixel.data.samples import Sample
from perpixel.errors import DataError
from perpixel.inspection import Finding, quick_inspection, split_inspection
from perpixel.inspection.record import Record
from perpixel.recipe import Recipe

__all__ = ["FirstLook"]


class FirstLook:
    """Looks at the data of a training; at those that several trainings share only once.

    Args:
        force: go on in spite of errors. The manifest remembers them.
    """

    def __init__(self, *, force: bool = False) -> None:
        self._force = force
        self._seen: dict[str, dict[str, Any]] = {}
        self._records: dict[str, list[Record]] = {}
        self._unsaid: list[str] = []

    def __call__(self, recipe: Recipe, samples: Sequence[Sample], root: Path, console: Console) -> None:
        """Look, unless the same data were seen already.

        Raises:
            DataError: there are errors, and ``force`` is not asked.
        """
        key = _key(recipe, root)
        if samples[0].stored is not None:  # they were looked at when the shards were written
            self._seen[key], self._records[key] = samples[0].stored.shards.inspection, []
        if key not in self._seen:
            records = self._records[key] = []
            findings = quick_inspection(recipe, samples, console=console, keep=records)
            errors = [finding for finding in findings if finding.severity == "error"]
            warnings = [_line(finding) for finding in findings if finding.severity == "warning"]
            if errors and not self._force:
                raise _refusal(errors, root)
            self._unsaid += [f"error, forced: {_line(finding)}" for finding in errors]
            self._unsaid += [f"warning: {line}" for line in warnings]
            self._seen[key] = {
                "forced": bool(errors),
                "errors": [_line(finding) for finding in errors],
                "warnings": warnings,
            }

    def at_split(self, recipe: Recipe, subsets: Mapping[str, str], root: Path, console: Console) -> dict[str, Any]:
        """Look whether what was seen of data stands on both sides of their split, and say so.

        Returns:
            what the manifest remembers: ``forced``, and the sentences under ``errors``, ``warnings`` and ``split``.
        """
        leaks = [_line(finding) for finding in split_inspection(recipe, self._records[_key(recipe, root)], subsets)]
        for line in leaks:
            console.say(f"WARNING: the split leaks: {line}")
        return self.seen(recipe, root) | {"split": leaks}

    def seen(self, recipe: Recipe, root: Path) -> dict[str, Any]:
        """``forced``, and the sentences under ``errors`` and ``warnings``."""
        return dict(self._seen[_key(recipe, root)])

    def say(self, console: Console) -> None:
        """A line for each thing that is wrong, once. Apart from the look: what is said begins a run's log."""
        for line in self._unsaid:
            console.say(line)
        self._unsaid.clear()


def _key(recipe: Recipe, root: Path) -> str:
    return json.dumps([str(root), recipe.to_dict()["data"], recipe.to_dict()["target"]], default=str)


def _line(finding: Finding, root: Path = Path()) -> str:
    first = f" [{root / finding.files[0]}{', ...' if len(finding.files) > 1 else ''}]" if finding.files else ""
    return f"{finding.rule}: {finding.sentence}{first}"


def _refusal(errors: Sequence[Finding], root: Path) -> DataError:
    details = [_line(finding, root) + (f" Cure: {finding.cure}" if finding.cure else "") for finding in errors]
    return DataError(
        f"these data are not fit for training: {len(errors)} error{'s' if len(errors) > 1 else ''}",
        where=root,
        details=details,
        cure="look with `perpixel inspect RECIPE --data DIR --report page.html`; --force trains all the same.",
    )
