"""From stored numbers to metres: which decoding of depth files is likely, and how sure that is."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from perpixel.inspection.planes import USUAL_FOV
from perpixel.inspection.record import DepthFacts, Record
from perpixel.recipe import DepthTarget, builtin_names, load_recipe

__all__ = ["best_reading", "depth_target", "likely_scale"]

_USUAL_RANGE = 10.0  # metres that white stands for in a file of 8 bits, where nothing else is known
_INVERSE = {"metres_at_zero": 100.0, "metres_at_full": 0.5, "quantity": "inverse", "maximum_m": 100.0}
_CLEAR = 0.7  # the flattest reading bends at most so much of what the next one bends
_CODE_SHARE = 0.002  # of all pixels: the largest number is a code then
_SCALES = {
    0.001: "millimetres",
    1 / 256: "1/256 m, as KITTI's",
    1 / 5000: "1/5000 m, as TUM's",
    0.01: "centimetres",
    0.0001: "tenths of a millimetre",
}


def depth_target(records: Sequence[Record], images: str, targets: str) -> tuple[dict[str, Any], list[str]]:
    """A target section for depth files, and sentences on why.

    Args:
        records: pairs with `DepthFacts`.
        images, targets: the templates of the names, whose words are evidence too.
    """
    facts = [record.depth for record in records if record.depth is not None]
    stored = Counter(fact.dtype for fact in facts).most_common(1)[0][0]
    stored = {"uint8": "uint8", "uint16": "uint16"}.get(stored, "float32" if stored.startswith("float") else "uint16")
    reading, bends = best_reading(facts)
    held = f"{stored} numbers with {_median(facts, 'levels'):.0f} different ones a file"
    said = [f"task: depth (sure): the targets are {held}"]
    target: dict[str, Any] = {"kind": "depth", "stored": stored}
    maker = {"uint8": _of_8_bits, "uint16": _of_16_bits, "float32": _of_fractions}[stored]
    more, why = maker(facts, reading, targets)
    target |= more
    target["invalid"], target["beyond"] = _codes(facts, stored)
    if not reading and (known := _builtin(stored, images, targets)) is not None:
        name, target = known
        why = f"that of the built-in recipe {name}, whose file names these are (not sure: no plane tells)"
    if reading.endswith("radial"):
        target |= {"geometry": "radial", "vertical_fov_deg": USUAL_FOV}
        why += f"; radial distance, with a vertical field of view of {USUAL_FOV:g} degrees assumed: correct it"
    said.append(f"depth encoding: {why}")
    if bends:
        shown = ", ".join(f"{name} {value:.3f}" for name, value in sorted(bends.items(), key=lambda item: item[1])[:4])
        said.append(f"how far planes bend under each reading: {shown}")
    return target, said


def _builtin(stored: str, images: str, targets: str) -> tuple[str, dict[str, Any]] | None:
    """Name and target of the built-in recipe of 8-bit depth whose files are named alike; other depths tell more."""
    for name in builtin_names() if stored == "uint8" else ():
        recipe = load_recipe(name)
        alike = (recipe.data.images, recipe.data.targets) == (images, targets)
        if alike and isinstance(recipe.target, DepthTarget) and recipe.target.stored == stored:
            return name, recipe.target.model_dump(mode="json", exclude_none=True)
    return None


def best_reading(facts: Sequence[DepthFacts]) -> tuple[str, dict[str, float]]:
    """The reading under which planes are flattest, "" where none is clearly so; and how far they bend under each."""
    names = {name for fact in facts for name in fact.planes}
    bends = {name: statistics.median(fact.planes[name] for fact in facts if name in fact.planes) for name in names}
    if sum(bool(fact.planes) for fact in facts) < 3:
        return "", bends
    (first, least), (_, second) = sorted(bends.items(), key=lambda item: item[1])[:2]
    return (first if least < _CLEAR * second else ""), bends


def likely_scale(middle: float, high: float) -> tuple[float, str]:
    """Metres a unit of 16-bit numbers, from their median and their 99 % quantile; and how it is called."""
    plausible = [scale for scale in _SCALES if 0.2 <= middle * scale <= 60 and high * scale <= 200]
    best = plausible[0] if plausible else 0.001
    return best, _SCALES[best]


def _median(facts: Sequence[DepthFacts], name: str) -> float:
    return float(statistics.median(getattr(fact, name) for fact in facts))


def _quantile(facts: Sequence[DepthFacts], position: int) -> float:
    values = [fact.raw_7[position] for fact in facts if fact.raw_7]
    return float(statistics.median(values)) if values else 1.0


def _of_8_bits(facts: Sequence[DepthFacts], reading: str, name: str) -> tuple[dict[str, Any], str]:
    srgb = reading.startswith("srgb")
    near_white = reading == "reversed" or (not reading and _median(facts, "by_row") > 0.5)
    far = {"maximum_m": _USUAL_RANGE}
    assumed = f"8 bits do not tell the unit; white is taken for {_USUAL_RANGE:g} m (a guess: correct metres_at_full)"
    if reading == "inverse":
        return _INVERSE, "inverse depth from 100 m (black) to 0.5 m (white), a guess: correct the ends"
    if near_white:
        said = "near is white; " + assumed.replace("white", "black")
        return {"metres_at_zero": _USUAL_RANGE, "metres_at_full": 0.0} | far, said
    ends: dict[str, Any] = {"metres_at_zero": 0.0, "metres_at_full": _USUAL_RANGE} | far
    if srgb:
        return ends | {"encoding": "srgb"}, f"sRGB-encoded, because planes are flat then; {assumed}"
    return ends, f"{'linear, because planes are flat then' if reading else 'taken for linear'}; {assumed}"


def _of_16_bits(facts: Sequence[DepthFacts], reading: str, name: str) -> tuple[dict[str, Any], str]:
    middle, high = _quantile(facts, 3), _quantile(facts, 6)
    if reading in ("inverse", "reversed") or "disp" in name.lower():
        if reading != "reversed":
            return _INVERSE, "inverse depth or disparity; the ends are a guess: correct them"
        ends = {"metres_at_zero": _USUAL_RANGE, "metres_at_full": 0.0, "maximum_m": _USUAL_RANGE}
        return ends, "near is the largest number; the ends are a guess: correct them"
    scale, unit = likely_scale(middle, high)
    others = [
        called
        for other, called in _SCALES.items()
        if other != scale and 0.2 <= middle * other <= 60 and high * other <= 200
    ]
    sure = f"not sure; {' and '.join(others)} would do too" if others else "sure"
    said = (
        f"{unit} ({sure}): half of the readings are nearer than {middle * scale:.3g} m, 99 % than {high * scale:.3g} m"
    )
    return {
        "scale": scale,
        "maximum_m": _round_up(max((fact.raw_7[-1] for fact in facts if fact.raw_7), default=1.0) * scale * 1.2),
    }, said


def _of_fractions(facts: Sequence[DepthFacts], reading: str, name: str) -> tuple[dict[str, Any], str]:
    middle, high = _quantile(facts, 3), max((fact.raw_7[-1] for fact in facts if fact.raw_7), default=1.0)
    scale = 0.001 if middle > 200 else 1.0
    unit = "millimetres" if scale < 1 else "metres"
    said = f"fractions, taken for {unit}: half of the readings are nearer than {middle * scale:.3g} m"
    return {"scale": scale, "maximum_m": _round_up(high * scale * 1.2)}, said


def _codes(facts: Sequence[DepthFacts], stored: str) -> tuple[list[Any], list[Any]]:
    """Numbers that mean no reading, and beyond range."""
    if stored == "float32":
        return ([0.0, "nan"], ["inf"]) if any(fact.odd for fact in facts) else ([0.0], [])
    share = sum(fact.full for fact in facts) / len(facts)
    full = float(255 if stored == "uint8" else 65535)
    return [0.0], [full] if share > _CODE_SHARE else []


def _round_up(metres: float) -> float:
    """To the next of 1, 2, 5 times a power of ten."""
    power = 10 ** math.floor(math.log10(max(metres, 1e-3)))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= metres))
