"""What an inspection says: findings, and the sentences and numbers around them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from perpixel.recipe import Recipe

__all__ = ["Finding", "Inspection", "Severity", "in_order"]

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
_SHOWN_FILES = 5


@dataclass(frozen=True)
class Finding:
    """One thing that is seen in a data set.

    Attributes:
        rule: what was looked for, such as ``pair-shift``; a test plants each of them.
        severity: ``error``: a training would fail, or learn something else than is meant; ``warning``: its figures
            would be worse, or better, than the truth; ``note``: good to know.
        sentence: what is seen.
        count: of files, pairs or values that it is seen in.
        files: up to five of them.
        cure: what to do, where it can be a line of the recipe.
    """

    rule: str
    severity: Severity
    sentence: str
    count: int = 1
    files: tuple[str, ...] = ()
    cure: str = ""

    @classmethod
    def of(
        cls,
        rule: str,
        severity: Severity,
        sentence: str,
        files: Sequence[object] = (),
        cure: str = "",
        count: int | None = None,
    ) -> Finding:
        """A finding that counts its ``files`` and keeps the first five."""
        names = tuple(str(name) for name in files[:_SHOWN_FILES])
        return cls(rule, severity, sentence, max(1, len(files)) if count is None else count, names, cure)

    def text(self) -> str:
        """As a person reads it in a terminal."""
        lines = [f"{self.severity.upper():7} {self.rule}: {self.sentence}"]
        if self.files:
            more = f" and {self.count - len(self.files)} more" if self.count > len(self.files) else ""
            lines.append(f"        {', '.join(self.files)}{more}")
        if self.cure:
            lines.append(f"        Cure: {self.cure}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Inspection:
    """The result of a look at a data set.

    Attributes:
        root: the data folder.
        facts: sentences on what the data are, such as the layout, with how sure that is.
        findings: errors first.
        figures: numbers for the page: pairs, pixels of every value, pairs by subset.
        recipe: the one that was inspected; of a bare folder the proposed one; None where nothing can be proposed.
    """

    root: str
    facts: list[str]
    findings: list[Finding]
    figures: dict[str, Any] = field(default_factory=dict)
    recipe: Recipe | None = None

    def of_severity(self, severity: Severity) -> list[Finding]:
        """The findings of one severity."""
        return [finding for finding in self.findings if finding.severity == severity]

    @property
    def errors(self) -> list[Finding]:
        """What stops a training."""
        return self.of_severity("error")

    def verdict(self) -> str:
        """One line."""
        counts = [(len(self.of_severity(severity)), severity) for severity in SEVERITIES]
        said = ", ".join(f"{count} {severity}{'' if count == 1 else 's'}" for count, severity in counts)
        return f"{said}: " + ("not fit for training as it is." if self.errors else "fit for training.")

    def text(self) -> str:
        """All of it, for a terminal."""
        return "\n".join([*self.facts, "", *(finding.text() for finding in self.findings), "", self.verdict()])

    def as_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "root": self.root,
            "verdict": self.verdict(),
            "facts": self.facts,
            "findings": [vars(finding) | {"files": list(finding.files)} for finding in self.findings],
            "figures": self.figures,
            "recipe": self.recipe.to_dict() if self.recipe else None,
        }


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Errors, warnings, notes; within them those of most files first."""
    return sorted(findings, key=lambda item: (SEVERITIES.index(item.severity), -item.count, item.rule))
