"""A report as one HTML file that needs no network: light and dark, wide and narrow, on paper, by keyboard."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perpixel.reporting.document import Block, Code, Document, Facts, Figure, Folded, Section, Strip, Table, Text

__all__ = ["to_html"]

_WIDEST = 512  # pixels of a picture's longer side
_SHORT = 24  # characters that stay on one line of a table: a wide one scrolls
_PHONE_READS = 900  # pixels of a plot's width up to which its letters are still read on a phone
_SMALL_PNG = 60_000  # bytes up to which a picture stays without loss

_STYLE = """
:root { color-scheme: light dark; --ink: #1b2026; --dim: #59636e; --paper: #fff; --card: #f4f6f8; --line: #d9dee4;
  --accent: #0b6bb8; --bad: #a3161a; --bad-paper: #fdeeee; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --dim: #9da7b2; --paper: #14171b; --card: #1d2228;
  --line: #343c46; --accent: #6cb6f5; --bad: #ff9a94; --bad-paper: #3a1b1c; } }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
  max-width: 68rem; padding: 1.6rem 1.1rem 5rem; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .8rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .7rem; padding-top: .5rem; border-top: 1px solid var(--line); }
p { margin: .5rem 0; max-width: 46rem; }
.answer p { font-size: 1.12rem; }
.warning { background: var(--bad-paper); border-left: .35rem solid var(--bad); border-radius: .3rem;
  padding: .5rem .9rem; max-width: none; }
.warning b { color: var(--bad); }
nav { font-size: .9rem; margin: 1rem 0 0; } nav a { display: inline-block; margin: 0 1rem .2rem 0; }
a { color: var(--accent); }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .3rem 1.2rem; margin: .6rem 0; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .92rem; }
caption span { display: block; max-width: min(60ch, 88vw); }
caption { text-align: left; color: var(--dim);
  padding-bottom: .3rem; }
th, td { padding: .28rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th { color: var(--dim); font-weight: 600; white-space: normal; vertical-align: bottom; }
th.word, td.word { text-align: left; white-space: normal; } td.short { white-space: nowrap; }
code, pre { font: .86em/1.5 ui-monospace, monospace; } p code, dd code { background: var(--card); padding: .1em .3em;
  border-radius: .25rem; overflow-wrap: anywhere; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .4rem; padding: .8rem 1rem;
  overflow-x: auto; }
figure { margin: 1rem 0; } figcaption { font-size: .88rem; color: var(--dim); margin-top: .3rem; }
figure.plot img { max-width: 100%; height: auto; background: #fff; border-radius: .4rem; padding: .4rem; }
.strip { background: var(--card); border: 1px solid var(--line); border-radius: .4rem; padding: .6rem .8rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .6rem; }
.panels img { width: 100%; height: auto; image-rendering: auto; border-radius: .2rem; display: block; }
.panels span { font-size: .8rem; color: var(--dim); }
.over { position: relative; max-width: 36rem; margin-top: .6rem; } .over img { width: 100%; display: block; }
.over .top { position: absolute; inset: 0; clip-path: inset(0 0 0 50%); }
.controls { display: flex; flex-wrap: wrap; gap: .3rem 1rem; margin: .5rem 0; font-size: .9rem; }
input[type=range] { width: 100%; max-width: 36rem; accent-color: var(--accent); }
summary { cursor: pointer; color: var(--accent); font-size: .92rem; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
footer { margin-top: 3rem; color: var(--dim); font-size: .85rem; }
@media (max-width: 40rem) { body { padding: 1rem .8rem 3rem; } dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .5rem; } .panels { grid-template-columns: 1fr 1fr; } .wide { overflow-x: auto; }
  .wide img { max-width: none !important; width: 46rem; } }
@page { margin: 16mm 14mm; }
@media print { :root { color-scheme: light; --ink: #1b2026; --dim: #59636e; --paper: #fff; --card: #f4f6f8;
  --line: #d9dee4; --accent: #0b6bb8; --bad: #a3161a; --bad-paper: #fdeeee; }
  body { max-width: none; font-size: 10pt; padding: 0; } nav, .compare, .part > summary { display: none; }
  summary { color: var(--ink); list-style: none; }
  details::details-content { content-visibility: visible; display: block; height: auto; }
  .strip, figure, tr, pre { break-inside: avoid; } h2, caption, thead { break-after: avoid; }
  .scroll { overflow: visible; } table { font-size: 8pt; } th, td { padding: .2rem .4rem; white-space: normal; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; } .panels { grid-template-columns: repeat(4, 1fr); } }
"""

# A strip's pictures are there without it; it only lays one over another.
_SCRIPT = """
document.querySelectorAll(".strip").forEach(strip => {
  const pictures = [...strip.querySelectorAll(".panels figure")], details = strip.querySelector(".compare");
  const [base, top] = details.querySelectorAll("img"), range = details.querySelector("input[type=range]");
  const show = () => top.style.clipPath = `inset(0 0 0 ${range.value}%)`;
  const choose = name => { const chosen = pictures.find(item => item.dataset.name === name).querySelector("img");
    top.src = chosen.src; top.alt = chosen.alt; };
  details.addEventListener("toggle", () => { base.src = pictures[0].querySelector("img").src;
    choose(details.querySelector("input[type=radio]:checked").value); show(); });
  range.addEventListener("input", show);
  details.querySelectorAll("input[type=radio]").forEach(radio =>
    radio.addEventListener("change", () => choose(radio.value)));
});
"""


def to_html(document: Document) -> str:
    """The whole page."""
    sections = [(f"part-{number}", section) for number, section in enumerate(document.sections, start=1)]
    links = "".join(f'<a href="#{key}">{escape(section.title)}</a>' for key, section in sections)
    parts = [
        f"<h1>{escape(document.title)}</h1>",
        *(_text(Text(warning, warning=True)) for warning in document.warnings),
        f'<div class="answer">{"".join(_text(Text(sentence)) for sentence in document.answer)}</div>',
        f'<nav aria-label="Sections">{links}</nav>',
        *(_section(key, section) for key, section in sections),
    ]
    script = f"<script>{_SCRIPT}</script>" if any(_strips(document.sections)) else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(document.title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main>{''.join(parts)}</main><footer>Made by perpixel. This file is all there is: it asks nothing of"
        f" the network.</footer>{script}</body></html>\n"
    )


def _strips(sections: Iterable[Section]) -> Iterable[Strip]:
    return (block for section in sections for block in section.blocks if isinstance(block, Strip))


def _section(key: str, section: Section) -> str:
    blocks = "".join(
        _strip(block, f"{key}-{number}") if isinstance(block, Strip) else _block(block)
        for number, block in enumerate(section.blocks)
    )
    if section.folded:
        blocks = f'<details class="part"><summary>Show</summary>{blocks}</details>'
    return f'<section id="{key}"><h2>{escape(section.title)}</h2>{blocks}</section>\n'


def _block(block: Block) -> str:
    match block:
        case Text():
            return _text(block)
        case Facts(rows):
            return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{_inline(text)}</dd>" for name, text in rows) + "</dl>"
        case Table():
            return _table(block)
        case Figure(png, alt, caption):
            shown = f"<figcaption>{_inline(caption)}</figcaption>" if caption else ""
            scrolled = _png_width(png) > _PHONE_READS  # on a phone, also by keyboard
            wide = ' wide" tabindex="0' if scrolled else ""
            return f'<figure class="plot{wide}"><img src="{_uri(png, "png")}" alt="{escape(alt)}">{shown}</figure>'
        case Code(text):
            return f"<pre><code>{escape(text)}</code></pre>"
        case Folded(summary, blocks):
            return _folded(summary, "".join(map(_block, blocks)))
        case _:
            raise TypeError(f"{type(block).__name__} is no block")


def _png_width(png: bytes) -> int:
    return int.from_bytes(png[16:20], "big")


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def _text(block: Text) -> str:
    if block.warning:
        return f'<p class="warning" role="alert"><b>Beware:</b> {_inline(block.text)}</p>'
    return f"<p>{_inline(block.text)}</p>"


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def _class(cell: str) -> str:
    return ' class="word short"' if len(cell) <= _SHORT else " class=word"


def _table(table: Table) -> str:
    def row(cells: Iterable[str], tag: str) -> str:
        shown = (
            f"<{tag}{_class(cell) if column < table.left else ''}>{_inline(cell)}</{tag}>"
            for column, cell in enumerate(cells)
        )
        return f"<tr>{''.join(shown)}</tr>"

    caption = f"<caption><span>{_inline(table.caption)}</span></caption>" if table.caption else ""
    body = "".join(row(cells, "td") for cells in table.rows)
    return (
        f'<div class="scroll" tabindex="0"><table>{caption}<thead>{row(table.headings, "th")}</thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _strip(strip: Strip, key: str) -> str:
    pictures = "".join(
        f'<figure style="margin:0" data-name="{escape(name)}"><img loading="lazy" src="{picture_uri(image_hwc)}"'
        f' alt="{escape(name)} of {escape(strip.caption)}"><span>{escape(name)}</span></figure>'
        for name, image_hwc in strip.panels.items()
    )
    names = list(strip.panels)
    choices = "".join(
        f'<label><input type="radio" name="{key}" value="{escape(name)}"{" checked" if number == 0 else ""}>'
        f" {escape(name)}</label>"
        for number, name in enumerate(names[1:])
    )
    return (
        f'<figure class="strip"><figcaption>{_inline(strip.caption)}</figcaption><div class="panels">{pictures}</div>'
        f'<details class="compare"><summary>Lay one over the {escape(names[0])}</summary>'
        f'<div class="controls" role="radiogroup" aria-label="picture on top">{choices}</div>'
        f'<input type="range" min="0" max="100" value="50" aria-label="where the picture on top begins, in percent">'
        f'<div class="over"><img alt="{escape(names[0])}"><img class="top" alt=""></div></details></figure>'
    )


def picture_uri(image_hwc: NDArray[np.uint8]) -> str:
    """A picture for a page: made smaller where it is large, without loss where that is cheap."""
    picture = Image.fromarray(image_hwc)
    picture.thumbnail((_WIDEST, _WIDEST), Image.Resampling.LANCZOS)
    lossless = io.BytesIO()
    picture.save(lossless, "png", optimize=True)
    if len(lossless.getvalue()) <= _SMALL_PNG:
        return _uri(lossless.getvalue(), "png")
    small = io.BytesIO()
    picture.convert("RGB").save(small, "jpeg", quality=90)
    return _uri(small.getvalue(), "jpeg")


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
