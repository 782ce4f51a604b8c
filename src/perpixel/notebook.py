"""How things show themselves in a notebook: plain HTML, without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["notebook_html"]


def notebook_html(
    title: str, sentences: Sequence[str], headings: Sequence[str] = (), rows: Sequence[Sequence[str]] = ()
) -> str:
    """A title, sentences below it, and a table where there are rows; all texts are escaped."""
    parts = [f"<b>{escape(title)}</b>", *(f"<div>{escape(sentence)}</div>" for sentence in sentences)]
    if rows:
        head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    return "<div>" + "".join(parts) + "</div>"
