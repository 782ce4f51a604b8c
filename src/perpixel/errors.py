"""The exception tree of perpixel.

Every error that a user can cause answers four questions: *what* went wrong, *where* (file, key,
value), which *rule* was broken, and what the *cure* is. The command line prints exactly that and
no traceback.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["DataError", "PerpixelError", "RecipeError", "RequestError", "RunError", "WeightsError"]


class PerpixelError(Exception):
    """A run that failed. Exit status 1.

    Args:
        what: one sentence: what happened.
        where: file, key or value that it happened to.
        rule: the rule that was broken, where it is not plain from ``what``.
        cure: what to do now, as an imperative sentence.
        details: further lines, one a problem; all of them are shown.
    """

    exit_status = 1

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        rule: str | None = None,
        cure: str | None = None,
        details: Sequence[str] = (),
    ) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.rule = rule
        self.cure = cure
        self.details = list(details)
        super().__init__(self.text())

    def text(self) -> str:
        """The whole message, as the command line prints it."""
        lines = [self.what if self.where is None else f"{self.where}: {self.what}"]
        lines += [f"  - {detail}" for detail in self.details]
        if self.rule:
            lines.append(f"  Rule: {self.rule}")
        if self.cure:
            lines.append(f"  Cure: {self.cure}")
        return "\n".join(lines)


class RequestError(PerpixelError):
    """A request that was wrong: nothing was started. Exit status 2."""

    exit_status = 2


class RecipeError(RequestError):
    """A recipe that is not valid; ``details`` lists every problem of the file."""


class DataError(RequestError):
    """A data set that does not hold what the recipe says."""


class WeightsError(RequestError):
    """Weights that cannot be found or do not fit the model."""


class RunError(PerpixelError):
    """A run that failed, or a run folder that does not hold what is asked of it."""
