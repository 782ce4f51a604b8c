"""Write a report: which kind of thing it is of, and in which form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from perpixel.console import Console
from perpixel.errors import RequestError
from perpixel.reporting.document import Document
from perpixel.reporting.html import to_html
from perpixel.reporting.markdown import write_figures, write_markdown
from perpixel.reports.grid_report import grid_document
from perpixel.reports.many import comparison_document
from perpixel.reports.run_report import run_document
from perpixel.run import Run, write_atomic

__all__ = ["report"]


def report(paths: Sequence[Path], out: Path, *, subset: str = "test", figures: bool = False, console: Console) -> Path:
    """Write the report of a run, of a grid, of a fine-tuning before and after, or of several runs side by side.

    Args:
        out: ``.html``: one file that holds everything; ``.md``: Markdown, with its pictures in a folder beside it.
        figures: ``out`` is a folder, and pictures and plots alone are written into it.
        subset: whose stored evaluations are compared, of several runs.

    Raises:
        RequestError: no run there, another ending, or runs that were not scored on the same images.
    """
    if figures:
        return _figures(paths, out, subset, console)
    if out.suffix not in (".html", ".md"):
        raise RequestError("a report is .html or .md", where=out, cure="name it report.html.")
    if out.is_dir():
        raise RequestError("this is a folder, and a report is one file", where=out)
    document = _document(paths, subset, console)
    if out.suffix == ".md":
        write_markdown(out, document)
    else:
        write_atomic(out, to_html(document))
    return out


def _figures(paths: Sequence[Path], out: Path, subset: str, console: Console) -> Path:
    if out.suffix or out.is_file():
        raise RequestError("--figures writes into a folder, and this is a file", where=out, cure="--out figures")
    if not write_figures(out, _document(paths, subset, console)):
        raise RequestError("there is nothing to draw yet", where=paths[0], cure="perpixel evaluate comes first.")
    return out


def _document(paths: Sequence[Path], subset: str, console: Console) -> Document:
    if len(paths) > 1:
        return comparison_document([Run.open(path) for path in paths], subset)
    if (paths[0] / "grid.json").is_file():
        return grid_document(paths[0])
    if (paths[0] / "before_after.json").is_file():
        return comparison_document([Run.open(paths[0] / name) for name in ("before", "after")], "test")
    return run_document(Run.open(paths[0]), console)
