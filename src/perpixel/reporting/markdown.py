"""A report as Markdown with PNGs beside it, for a repository."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perpixel.reporting.document import Block, Code, Document, Facts, Figure, Folded, Section, Strip, Table, Text
from perpixel.run import write_atomic

__all__ = ["markdown_table", "write_figures", "write_markdown"]

_HIGHEST = 200  # pixels of a strip
_GAP = 6


def write_markdown(path: Path, document: Document, *, pictures: bool = True) -> None:
    """Write ``path`` and its pictures into the folder of the same name without its ending; or no pictures."""
    folder = path.with_suffix("")
    lines = [f"# {document.title}", ""]
    for warning in document.warnings:
        lines += [f"> **Beware:** {warning}", ""]
    for sentence in document.answer:
        lines += [sentence, ""]
    for section in document.sections:
        if not pictures and all(isinstance(block, Figure | Strip) for block in section.blocks):
            continue
        lines += [f"## {section.title}", ""]
        for number, block in enumerate(section.blocks, start=1):
            if pictures or not isinstance(block, Figure | Strip):
                lines += [*_block(block, folder, _png_name(section, number)), ""]
    write_atomic(path, "\n".join(lines).rstrip() + "\n")


def write_figures(folder: Path, document: Document) -> int:
    """Write the plots and pictures alone; how many there were."""
    found = [
        (_png_name(section, number), block)
        for section in document.sections
        for number, block in enumerate(section.blocks, start=1)
        if isinstance(block, Figure | Strip)
    ]
    for name, block in found:
        list(_block(block, folder, name))  # writes the picture; its lines are not wanted
    return len(found)


def _png_name(section: Section, number: int) -> str:
    return f"{re.sub(r'[^a-z0-9]+', '-', section.title.lower()).strip('-')}-{number}.png"


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of a table whose first ``left`` columns hold words, the others numbers."""
    rule = [":---" if column < left else "---:" for column in range(len(headings))]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in [headings, rule, *rows]]
    return ["| " + " | ".join(row) + " |" for row in cells]


def _block(block: Block, folder: Path, name: str) -> Iterator[str]:
    match block:
        case Text(text, warning):
            yield f"> **Beware:** {text}" if warning else text
        case Facts(rows):
            yield from (f"- **{title}**: {text}" for title, text in rows)
        case Table(headings, rows, caption, left):
            yield from ([caption, ""] if caption else [])
            yield from markdown_table(headings, rows, left)
        case Code(text):
            yield from ["```", text, "```"]
        case Folded(summary, blocks):
            yield from [f"**{summary}**", ""]
            for number, inner in enumerate(blocks, start=1):
                yield from [*_block(inner, folder, name.replace(".png", f"-{number}.png")), ""]
        case Figure(png, alt, caption):
            write_atomic(folder / name, png)
            yield f"![{alt}]({folder.name}/{name})"
            yield from ["", caption] if caption else []
        case Strip(caption, panels):
            write_atomic(folder / name, _side_by_side(list(panels.values())))
            yield f"{caption}: {' | '.join(panels)}"
            yield from ["", f"![{', '.join(panels)} of {caption}]({folder.name}/{name})"]


def _side_by_side(images: Sequence[NDArray[np.uint8]]) -> bytes:
    pictures = [Image.fromarray(image_hwc) for image_hwc in images]
    height = min(_HIGHEST, max(picture.height for picture in pictures))
    scaled = [picture.resize((max(1, round(picture.width * height / picture.height)), height)) for picture in pictures]
    width = sum(picture.width + _GAP for picture in scaled) - _GAP
    page, left = Image.new("RGB", (width, height), "white"), 0
    for picture in scaled:
        page.paste(picture, (left, 0))
        left += picture.width + _GAP
    content = io.BytesIO()
    page.save(content, "png", optimize=True)
    return content.getvalue()
