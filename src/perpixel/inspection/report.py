"""The page of an inspection: one HTML file that holds its pictures, for light and dark screens."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from perpixel.inspection.agreement import REACH
from perpixel.inspection.checks import View
from perpixel.inspection.finding import Finding, Inspection
from perpixel.inspection.groups import thumbs
from perpixel.inspection.pictures import data_uri, panel, shift_map
from perpixel.inspection.record import FileFacts, Record
from perpixel.recipe import SegmentationTarget, dump_recipe

__all__ = ["report_html"]

_GALLERY = 6
_EXAMPLES = 3  # pairs shown with a finding that concerns all of them
_MOST_BARS = 40
_OF_ALL_PAIRS = ("pair-", "depth-", "restoration-", "label-foreground")  # rules that pictures of any pair show
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2127; --dim: #5b6570; --paper: #fff; --card: #f5f6f8; --line: #dde1e6;
  --error: #b3261e; --warning: #8a5a00; --note: #2b5f9e; --good: #1b6e3c; --bar: #4a7fb5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --dim: #9aa5b1; --paper: #15181c; --card: #1e2329;
  --line: #333b44; --error: #ff8a80; --warning: #f2bd5b; --note: #8ab8f0; --good: #7fd49b; --bar: #5b93cc; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
  max-width: 75rem; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
ul { padding-left: 1.2rem; } .dim { color: var(--dim); } h2 .dim { font-size: .9rem; font-weight: 400; }
.verdict { font-size: 1.1rem; font-weight: 600; margin: .4rem 0 1rem; color: var(--tone); }
article { background: var(--card); border: 1px solid var(--line); border-left: .35rem solid var(--tone);
  border-radius: .4rem; padding: .7rem 1rem; margin: .7rem 0; break-inside: avoid; }
.error { --tone: var(--error); } .warning { --tone: var(--warning); } .note { --tone: var(--note); }
.good { --tone: var(--good); }
article h3 { font-size: 1rem; margin: 0; } article h3 b { color: var(--tone); } article p { margin: .3rem 0; }
code, pre { font: 13px/1.45 ui-monospace, monospace; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .4rem; padding: .8rem; overflow-x: auto; }
summary { cursor: pointer; } figure { margin: 0; } figcaption { font-size: .8rem; color: var(--dim); }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); gap: .8rem;
  margin: .6rem 0 .2rem; }
.pictures img { width: 100%; height: auto; display: block; border-radius: .2rem; }
.pictures .small img { width: auto; max-width: 100%; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 0 2.5rem; }
.charts h2 { margin-top: 1.4rem; }
.bars { display: grid; grid-template-columns: minmax(4rem, max-content) 1fr max-content; gap: .25rem .7rem;
  align-items: center; font-size: .9rem; }
.bars i { background: var(--tone, var(--bar)); height: .8rem; border-radius: .2rem; min-width: 2px;
  box-shadow: 0 0 0 1px var(--line); } .bars i.none { visibility: hidden; }
.bars span:nth-child(3n) { text-align: right; color: var(--dim); font-variant-numeric: tabular-nums; }
"""
_LEGEND = {
    "labels": "image, label map, outlines of the map over the image",
    "depth": "image, depth (near in warm colours, no reading grey), its steps over the image",
    "picture": "image, clean image, twice their difference at equal brightness",
}


def report_html(inspection: Inspection, view: View) -> str:
    """The page. Pictures are read from the files anew; of what cannot be shown there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what libraries have to say of odd files is among the findings
        return _page(inspection, view)


def _page(inspection: Inspection, view: View) -> str:
    shown: dict[str, Record] = {}
    for record in [*view.unlabelled, *view.records]:
        shown[view.name(record)] = shown[view.target_name(record)] = record
    title = f"Inspection of {escape(Path(inspection.root).name or inspection.root)}"
    tone = next((kind for kind in ("error", "warning") if inspection.of_severity(kind)), "good")
    parts = [
        f"<h1>{title}</h1><p class='dim'>{escape(inspection.root)}</p>",
        f"<p class='verdict {tone}'>{escape(inspection.verdict())}</p>",
        "<ul>" + "".join(f"<li>{escape(fact)}</li>" for fact in inspection.facts) + "</ul>",
        "<h2>Findings</h2>" if inspection.findings else "<p>Nothing was found that is worth a word.</p>",
        *(_finding(finding, shown, view) for finding in inspection.findings),
        *_charts(inspection, view),
        *_galleries(view),
    ]
    if inspection.recipe is not None and view.proposed:
        recipe = escape(dump_recipe(inspection.recipe))
        parts.append(f"<h2>Proposed recipe</h2><details><summary>all of it</summary><pre>{recipe}</pre></details>")
    head = "<meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"
    head += f"<title>{title}</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def _finding(finding: Finding, shown: dict[str, Record], view: View) -> str:
    records = list({id(shown[name]): shown[name] for name in finding.files if name in shown}.values())
    count = f" <span class='dim'>({finding.count})</span>" if finding.count > 1 else ""
    lines = [f"<h3><b>{finding.severity}</b> {escape(finding.rule)}{count}</h3>", f"<p>{escape(finding.sentence)}</p>"]
    if finding.cure:
        lines.append(f"<p><b>Cure:</b> <code>{escape(finding.cure)}</code></p>")
    if finding.files:
        more = f" and {finding.count - len(finding.files)} more" if finding.count > len(finding.files) else ""
        lines.append(f"<p class='dim'>{escape(', '.join(finding.files))}{more}</p>")
    elif finding.severity != "note" and finding.rule.startswith(_OF_ALL_PAIRS):
        records = [record for record in view.records if record.pair is not None and _has_edges(record)][:_EXAMPLES]
    extra = _shift(view) if finding.rule == "pair-shift" else ""
    return f"<article class='{finding.severity}'>{''.join(lines)}{_pictures(records, view, extra)}</article>"


def _shift(view: View) -> str:
    map_hwc = shift_map(view.records)
    if map_hwc is None:
        return ""
    said = f"agreement of edges for shifts of the target up to {REACH} steps each way; the lines cross where none is"
    return f"<figure class='small'><img src='{data_uri(map_hwc)}' alt='{said}'><figcaption>{said}</figcaption></figure>"


def _pictures(records: Iterable[Record], view: View, extra: str = "") -> str:
    figures = [extra] if extra else []
    target = view.recipe.target
    colors, key = _colors(view), getattr(target, "key", None)
    for record in records:
        picture_hwc = panel(record, colors, key)
        if picture_hwc is not None:
            name = escape(record.sample.id, quote=True)
            height, width = picture_hwc.shape[:2]
            image = f"<img src='{data_uri(picture_hwc)}' width='{width}' height='{height}' loading='lazy' alt='{name}'>"
            figures.append(f"<figure>{image}<figcaption>{name}</figcaption></figure>")
    return f"<div class='pictures'>{''.join(figures)}</div>" if figures else ""


def _colors(view: View) -> dict[int, Sequence[int]]:
    target = view.recipe.target
    if not isinstance(target, SegmentationTarget):
        return {}
    return {value: spec.color for spec in target.classes for value in spec.values if isinstance(value, int)}


# ---------------------------------------------------------------- numbers


def _charts(inspection: Inspection, view: View) -> list[str]:
    figures, target = inspection.figures, view.recipe.target
    charts: dict[str, str] = {}
    if (classes := figures.get("classes")) and isinstance(target, SegmentationTarget):
        tones = {spec.name: "#{:02x}{:02x}{:02x}".format(*spec.color) for spec in target.classes}
        charts["Pixels by class"] = _bars(classes, tones=tones)
    if values := figures.get("values"):
        said = {f"{value} in {images} files": pixels for value, (pixels, images) in list(values.items())[:_MOST_BARS]}
        charts["Pixels by stored value"] = _bars(said)
    if metres := figures.get("metres"):
        names = ("1 %", "5 %", "25 %", "50 %", "75 %", "95 %", "99 %")
        nearer = {f"{name} of the readings": value for name, value in zip(names, metres, strict=True)}
        charts["Nearer than so many metres are"] = _bars(nearer, unit=" m")
    if subsets := figures.get("subsets"):
        charts["Samples by subset"] = _bars(dict(sorted(subsets.items())))
    if sizes := _sizes(record.image_file for record in view.records if record.image):
        charts["Images by size"] = _bars(sizes)
    if bright := _histogram([float(np.mean(record.image.mean_3)) for record in view.records if record.image]):
        charts["Images by mean brightness"] = _bars(bright)
    return [
        "<div class='charts'>",
        *(f"<section><h2>{name}</h2>{bars}</section>" for name, bars in charts.items()),
        "</div>",
    ]


def _sizes(files: Iterable[FileFacts]) -> dict[str, float]:
    """The eight commonest, width first."""
    counts = Counter(f"{file.width} x {file.height}" for file in files)
    common = dict(counts.most_common(8))
    rest = counts.total() - sum(common.values())
    return {**common, **({"others": rest} if rest else {})}


def _histogram(numbers: Sequence[float]) -> dict[str, float]:
    if not numbers:
        return {}
    counts, ends = np.histogram(numbers, bins=10, range=(0, 1))
    return {
        f"{low:.1f} to {high:.1f}": int(count) for low, high, count in zip(ends[:-1], ends[1:], counts, strict=True)
    }


def _bars(numbers: dict[str, float], *, unit: str = "", tones: dict[str, str] | None = None) -> str:
    """A bar for each number, with its share of their sum; with a unit, the number alone."""
    most, total = max([*numbers.values(), 1e-9]), sum(numbers.values()) or 1
    rows = []
    for name, number in numbers.items():
        said = f"{number:.3g}{unit}" if unit else f"{number:,.0f} ({number / total:.1%})"
        tone = f"; background: {tones[name]}" if tones else ""
        bar = f"<i style='width:{100 * number / most:.1f}%{tone}'></i>" if number else "<i class='none'></i>"
        rows.append(f"<span>{escape(name)}</span>{bar}<span>{said}</span>")
    return f"<div class='bars'>{''.join(rows)}</div>"


# ---------------------------------------------------------------- galleries


def _galleries(view: View) -> list[str]:
    """Random pairs, those that look least like the others, and those whose edges agree least."""
    whole = [record for record in view.records if record.image is not None and record.pair is not None]
    if not whole:
        return []
    thumbs_nd = thumbs(whole)
    far = np.abs(thumbs_nd - np.median(thumbs_nd, axis=0)).mean(axis=1)
    edged = sorted((record for record in whole if _has_edges(record)), key=_agreement)
    chosen = {
        "Random pairs": random.Random(0).sample(whole, min(_GALLERY, len(whole))),
        "Extreme pairs: least like the others": _one_a_group([whole[index] for index in np.argsort(-far)], view),
        "Suspicious pairs: edges of image and target agree least": _one_a_group(edged, view),
    }
    first = whole[0]
    legend = _LEGEND["labels" if first.label else "depth" if first.depth else "picture"]
    parts = []
    for title, records in chosen.items():
        if records:
            parts += [f"<h2>{title} <span class='dim'>{legend}</span></h2>", _pictures(records, view)]
    return parts


def _one_a_group(records: Sequence[Record], view: View) -> list[Record]:
    """The first ones; views of one scene would all be there, or none."""
    first: dict[str, Record] = {}
    for record in records:
        first.setdefault(view.groups.get(record.sample.id) or record.sample.id, record)
    return list(first.values())[:_GALLERY]


def _has_edges(record: Record) -> bool:
    edges = record.label or record.depth or record.picture
    return edges is not None and bool(edges.edges_hw.any())


def _agreement(record: Record) -> float:
    assert record.pair is not None  # the caller looked
    return float(record.pair.surface_hw[REACH, REACH])
