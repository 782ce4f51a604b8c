"""Checks of depth maps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from statistics import median

import numpy as np

from perpixel.inspection.checks import Check, View
from perpixel.inspection.finding import Finding, Severity
from perpixel.inspection.metres import best_reading, likely_scale
from perpixel.inspection.record import DepthFacts, Record
from perpixel.recipe import DepthTarget

__all__ = ["DEPTH_CHECKS"]

_CODE_SHARE = 0.002
_CLIPPED = 0.02
_LOST = 0.5
_FEW_LEVELS = 40
_BEYOND = 0.1
_METRES = (0.05, 300.0)  # of half of all readings: nearer or farther is no scene that a camera sees
_UPWARD = 0.35  # rank correlation of depth and row, in the median
_ALL = 0.9
_CURES = {
    "linear planar": "target: {encoding: linear, geometry: planar}",
    "linear radial": "target: {encoding: linear, geometry: radial, vertical_fov_deg: ...}",
    "srgb planar": "target: {encoding: srgb, geometry: planar}",
    "srgb radial": "target: {encoding: srgb, geometry: radial, vertical_fov_deg: ...}",
    "inverse": "target: {quantity: inverse}, with metres_at_zero and metres_at_full",
    "reversed": "exchange target.metres_at_zero and target.metres_at_full",
}


def _measured(view: View) -> list[tuple[Record, DepthFacts]]:
    return [(record, record.depth) for record in view.records if record.depth is not None]


def _target(view: View) -> DepthTarget:
    assert isinstance(view.recipe.target, DepthTarget)  # these checks are of such recipes
    return view.recipe.target


def unreadable(view: View) -> Iterator[Finding]:
    """Files that the declaration does not fit: other types, numbers that are no depth."""
    by_text: dict[str, list[Record]] = defaultdict(list)
    for record, facts in _measured(view):
        if facts.error:
            by_text["declared" if "declared is" in facts.error else "numbers"].append(record)
    for kind, records in by_text.items():
        first = records[0].depth
        assert first is not None  # the loop looked
        sentence, names = f"in {len(records)} files {first.error}.", view.target_names(records)
        if kind == "declared":
            cure = f"target: {{stored: {first.dtype}}}, with the scale of these files"
            yield Finding.of("depth-type", "error", sentence, names, cure)
        else:
            cure = "name the numbers under target.invalid (no reading) or target.beyond (too far away)."
            yield Finding.of("depth-numbers", "error", sentence, names, cure)


def codes(view: View) -> Iterator[Finding]:
    """Zeros and largest numbers that are read as depth."""
    target, measured = _target(view), _measured(view)
    if not measured:
        return
    zero = sum(facts.zero for _, facts in measured) / len(measured)
    full = sum(facts.full for _, facts in measured) / len(measured)
    top = {"uint8": 255.0, "uint16": 65535.0}.get(target.stored, -1.0)
    declared = [float(code) for code in (*target.invalid, *target.beyond)]
    if zero > _CODE_SHARE and 0.0 not in declared and _declared(target) not in ("inverse", "reversed"):
        found = [record for record, facts in measured if facts.zero > _CODE_SHARE]
        sentence = f"{zero:.1%} of the pixels are 0, which nearly always means no reading, and 0 is not declared."
        yield Finding.of("depth-zero", "error", sentence, view.target_names(found), "target: {invalid: [0.0]}")
    if full > _CLIPPED and top not in declared:
        found = [record for record, facts in measured if facts.full > _CLIPPED]
        sentence = f"{full:.1%} of the pixels hold the largest number, {top:g}, and are read as one depth:"
        sentence += " clipped, or background."
        cure = f"target: {{beyond: [{top}]}}, or invalid where they mean no reading."
        yield Finding.of("depth-clipped", "warning", sentence, view.target_names(found), cure)


def missing(view: View) -> Iterator[Finding]:
    """Maps without readings, or with few."""
    measured = _measured(view)
    if not measured:
        return
    hollow = [record for record, facts in measured if not facts.error and facts.valid < 0.01]
    if hollow:
        severity: Severity = "error" if len(hollow) > _LOST * len(measured) else "warning"
        cure = "leave them out, or correct the target section."
        yield Finding.of(
            "depth-hollow", severity, f"{len(hollow)} maps have no readings.", view.target_names(hollow), cure
        )
    share = median(facts.valid for _, facts in measured)
    if 0.01 <= share < _LOST:
        sentence = f"half of the maps have readings at fewer than {share:.0%} of their pixels."
        yield Finding("depth-sparse", "note", sentence, len(measured))


def resolution(view: View) -> Iterator[Finding]:
    """Few levels; maps stretched one by one; 8 bits."""
    measured = _measured(view)
    if not measured:
        return
    few = [record for record, facts in measured if facts.levels < _FEW_LEVELS and facts.highest > facts.lowest]
    if len(few) > 0.5 * len(measured):
        levels = median(record.depth.levels for record in few if record.depth)
        sentence = f"depth comes in steps: {levels:.0f} different numbers a file."
        cure = "use files of 16 bits, or fractions."
        yield Finding.of("depth-levels", "warning", sentence, view.target_names(few), cure)
    flat = [record for record, facts in measured if facts.levels <= 2 and facts.valid > 0.01]
    if flat:
        sentence = f"{len(flat)} maps hold one depth all over."
        yield Finding.of("depth-flat", "warning", sentence, view.target_names(flat), "leave them out.")
    if _target(view).stored == "uint8" and not few:
        yield Finding("depth-8-bits", "note", "8 bits hold 256 depths at most.", len(measured))


def stretched(view: View) -> Iterator[Finding]:
    """Maps that run from 0 to the largest number each, whatever they show."""
    measured = _measured(view)
    tops = {"uint8": 255.0, "uint16": 65535.0}
    found = [
        record
        for record, facts in measured
        if facts.dtype in tops
        and facts.highest == tops[facts.dtype]
        and facts.lowest == 0
        and 0 < facts.full < _CODE_SHARE
        and 0 < facts.zero < 0.05
    ]
    if len(found) >= 8 and len(found) > _ALL * len(measured):
        sentence = (
            "each map runs from 0 to the largest number: they were stretched one by one, and hold no metres any more."
        )
        cure = "use the original files; for relative depth set target.output=relative."
        yield Finding.of("depth-stretched", "error", sentence, view.target_names(found), cure)


def distribution(view: View) -> Iterator[Finding]:
    """Metres that no camera sees; what lies beyond the declared range."""
    measured = [(record, facts) for record, facts in _measured(view) if facts.metres_7]
    if not measured:
        return
    target = _target(view)
    middle = median(facts.metres_7[3] for _, facts in measured)
    if not _METRES[0] <= middle <= _METRES[1]:
        raw_middle, raw_high = (median(facts.raw_7[at] for _, facts in measured if facts.raw_7) for at in (3, 6))
        scale, unit = likely_scale(raw_middle, raw_high)
        sentence = f"half of all readings are nearer than {middle:.3g} m. The numbers would be plausible as {unit}:"
        sentence += f" {raw_middle * scale:.3g} m."
        yield Finding("depth-unit", "error", sentence, len(measured), (), f"target: {{scale: {scale:.6g}}}")
    far = [record for record, facts in measured if _too_far(facts) > _BEYOND]
    near = [record for record, facts in _measured(view) if not facts.error and not facts.metres_7 and facts.raw_7]
    if len(far) + len(near) > 0.5 * len(view.records):
        share = float(np.mean([_too_far(facts) for _, facts in _measured(view)]))
        sentence = (
            f"{share:.0%} of the pixels are farther than target.maximum_m ({target.maximum_m:g} m) and count nowhere."
        )
        cure = "raise target.maximum_m, or correct the scale."
        yield Finding.of("depth-range", "warning", sentence, view.target_names(far or near), cure)


def _too_far(facts: DepthFacts) -> float:
    """Share of pixels beyond range by their metres; the largest number and infinity stand for the background."""
    return facts.beyond - facts.full - facts.odd


def decoding(view: View) -> Iterator[Finding]:
    """Another reading makes planes flat: sRGB read linearly, radial as planar, inverse as depth, near as far."""
    target, facts = _target(view), [facts for _, facts in _measured(view)]
    reading, bends = best_reading(facts)
    declared = _declared(target)
    if not reading or declared not in bends or reading == declared:
        yield from _upside_down(view)
        return
    sentence = (
        f"planes are flat when the numbers are read as {reading} ({bends[reading]:.3f}), and bend under the declared"
        f" {declared} ({bends[declared]:.3f})."
    )
    if (target.vertical_fov_deg, target.horizontal_fov_deg, target.fx) == (None, None, None) and "radial" in reading:
        sentence += " No camera is declared; a vertical field of view of 60 degrees was tried."
    names = view.target_names([record for record, found in _measured(view) if found.planes])
    if {reading, declared} & {"reversed", "inverse"}:
        yield Finding.of("depth-inverted", "error", sentence, names, _CURES[reading])
    else:
        yield Finding.of("depth-decoding", "warning", sentence, names, _CURES[reading])


def _declared(target: DepthTarget) -> str:
    if target.quantity != "depth":
        return "inverse"
    if target.scale is None and float(target.metres_at_zero or 0) > float(target.metres_at_full or 0):
        return "reversed"
    return f"{target.encoding} {target.geometry}"


def _upside_down(view: View) -> Iterator[Finding]:
    """Depth that grows downward, in nearly every picture: the ground is near at the bottom."""
    target = _target(view)
    sign = -1 if _declared(target) in ("inverse", "reversed") else 1
    measured = [(record, sign * facts.by_row) for record, facts in _measured(view) if facts.by_row]
    if len(measured) < 8 or median(value for _, value in measured) < _UPWARD:
        return
    share = sum(value > 0 for _, value in measured) / len(measured)
    if share > 0.8:
        sentence = f"in {share:.0%} of the maps depth grows from top to bottom: far may be stored as near."
        sentence += " Fairly sure, by position alone."
        cure = "exchange target.metres_at_zero and metres_at_full, or set target.quantity=inverse."
        names = view.target_names([record for record, _ in measured])
        yield Finding.of("depth-inverted", "warning", sentence, names, cure)


DEPTH_CHECKS: tuple[Check, ...] = (*(unreadable, codes, missing, resolution, stretched, distribution, decoding),)
