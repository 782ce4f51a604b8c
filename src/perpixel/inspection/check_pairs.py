"""Checks of image and target together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from perpixel.inspection.agreement import REACH
from perpixel.inspection.checks import Check, View
from perpixel.inspection.finding import Finding, Severity
from perpixel.inspection.record import PairFacts, Record
from perpixel.recipe import RestorationTarget

__all__ = ["PAIR_CHECKS"]

_FEW = 8  # pairs; with fewer nothing is said of all of them
_SHIFT = 2  # pixels of the scaled picture
_SURE = 5.0  # standard errors
_CLEAR = 0.02  # of correlation
_AGREE = 0.06  # edges of image and target go together, if only a little


def same_file(view: View) -> Iterator[Finding]:
    """Image and target are one and the same file. Of a blank picture and its empty mask that is no wonder."""
    same = [
        record
        for record in view.records
        if record.target_file
        and record.image_file.digest == record.target_file.digest != ""
        and not (record.image and record.image.levels == 1)
    ]
    if same:
        sentence = f"of {len(same)} pairs the target is a copy of the image."
        yield Finding.of(
            "pair-same-file", "error", sentence, view.target_names(same), "correct data.targets, or the files."
        )


def one_target(view: View) -> Iterator[Finding]:
    """One and the same target for different images."""
    by_digest: dict[str, list[Record]] = defaultdict(list)
    for record in view.records:
        if record.target_file is not None and record.target_file.digest and _is_telling(record):
            by_digest[record.target_file.digest].append(record)
    groups = [group for group in by_digest.values() if len({record.image_file.digest for record in group}) > 1]
    repeated = [record for group in groups for record in group]
    if not repeated:
        return
    often = len(repeated) > 0.01 * len(view.records) and not isinstance(view.recipe.target, RestorationTarget)
    everywhere = len(repeated) >= len(view.records) > 2 and len(groups) == 1
    # One clean picture may have several dark ones.
    severity: Severity = "error" if everywhere else "warning" if often else "note"
    shared = f"{len(groups)} target{'s' if len(groups) > 1 else ''}"
    sentence, cure = (
        f"{len(repeated)} different images share {shared}, equal to the byte.",
        "make sure that each has its own.",
    )
    yield Finding.of("pair-one-target", severity, sentence, view.target_names(repeated), cure)


def _is_telling(record: Record) -> bool:
    """Whether it would be a strange chance if two images had this target."""
    if record.label is not None:
        return record.label.components >= 3
    return record.depth is None or record.depth.levels > 2


def sizes(view: View) -> Iterator[Finding]:
    """Targets of another size, by a factor or not."""
    target = view.recipe.target
    wanted = target.scale if isinstance(target, RestorationTarget) else 1
    both = [(record, *found) for record in view.records if (found := _both_sizes(record))]
    wrong = [(record, image, other) for record, image, other in both if other != (image[0] * wanted, image[1] * wanted)]
    if not wrong:
        return
    _, (height, width), (rows, columns) = wrong[0]
    example = f"{width} x {height} with {columns} x {rows}"
    factors = {(other[0] / image[0], other[1] / image[1]) for _, image, other in wrong}
    down, across = factors.pop()
    factor = down if not factors and down == across else 0.0  # 0: no common one
    if (rows, columns) == (width, height):
        sentence, cure = f"of {len(wrong)} pairs one lies on its side: {example}.", "turn the targets, or the images."
    elif isinstance(target, RestorationTarget):
        sentence, cure = _wrong_factor(len(wrong), len(both), factor, wanted, example)
    else:
        by = f" by the factor {factor:.4g}" if factor else ""
        sentence = f"{len(wrong)} targets have another size than their image{by}: {example}."
        cure = "use targets of the images' size; labels and depths are enlarged by repetition, never by interpolation."
    yield Finding.of("pair-size", "error", sentence, [view.target_name(record) for record, _, _ in wrong], cure)


def _wrong_factor(wrong: int, of: int, factor: float, wanted: int, example: str) -> tuple[str, str]:
    """Sentence and cure of clean images that are not ``wanted`` times as large as their degraded ones."""
    if wrong == of and factor in (1, 2, 3, 4):
        said = f"the clean images are {factor:g} times as large ({example}), and target.scale is {wanted}."
        return said, f"target: {{scale: {factor:g}}}"
    times = f"{factor:.4g} times" if factor else "not one number of times"
    said = f"{wrong} of {of} clean images are {times} as large as their degraded ones, not {wanted} times: {example}."
    return said, "replace them by images of the right size, or leave them out."


def _both_sizes(record: Record) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """(height, width) of image and target, where both could be read."""
    image, file = record.image_file, record.target_file
    if record.image is None or file is None or file.trouble or not file.height:
        return None
    return (image.height, image.width), (file.height, file.width)


# ---------------------------------------------------------------- shift and turn


def surfaces(pairs: Sequence[PairFacts]) -> NDArray[np.float32]:
    """Correlation of edges for every shift, surfaces_nhw."""
    return np.stack([pair.surface_hw for pair in pairs]).astype(np.float32) / np.float32(100)


def shifted(view: View) -> Iterator[Finding]:
    """Targets that agree better with their images when they are moved."""
    pairs = [
        (record, record.pair) for record in view.records if record.pair is not None and record.pair.surface_hw.any()
    ]
    if len(pairs) >= _FEW:
        yield from _all_shifted([pair for _, pair in pairs], view.target_names([record for record, _ in pairs]))
    single = [(record, pair) for record, pair in pairs if pair.channels_33]  # edges of pictures are clear one by one
    moved = [(record, shift) for record, pair in single if any(shift := _shift_of(record, pair))]
    if moved and len(moved) <= 0.5 * len(pairs):
        y, x = moved[0][1]
        step = moved[0][0].pair.step if moved[0][0].pair else 1
        sentence = f"{len(moved)} targets lie beside their images, the first one {_moved(y, x, step)} of the image."
        names = view.target_names([record for record, _ in moved])
        yield Finding.of("pair-shift-some", "warning", sentence, names, "register them, or leave them out.")


def _all_shifted(pairs: Sequence[PairFacts], names: Sequence[str]) -> Iterator[Finding]:
    surfaces_nhw = surfaces(pairs)
    mean_hw = surfaces_nhw.mean(axis=0)
    y, x = (int(value) for value in np.unravel_index(int(mean_hw.argmax()), mean_hw.shape))
    gain = surfaces_nhw[:, y, x] - surfaces_nhw[:, REACH, REACH]
    sure = gain.mean() / max(1e-9, gain.std() / np.sqrt(len(gain)))
    y, x = y - REACH, x - REACH
    clear = gain.mean() >= _CLEAR and sure >= _SURE and mean_hw.max() >= max(_AGREE, 1.25 * mean_hw[REACH, REACH])
    if max(abs(y), abs(x)) < _SHIFT or not clear:
        return
    step = float(np.median([pair.step for pair in pairs]))
    sentence = (
        f"targets lie beside their images: about {_moved(y, x, step)} (edges agree {mean_hw.max():.2f} there and"
        f" {mean_hw[REACH, REACH]:.2f} where they are, {sure:.0f} standard errors apart)."
    )
    cure = "move the targets back, or cut both to what they share."
    yield Finding.of("pair-shift", "warning", sentence, names, cure)


def _moved(y: int, x: int, step: float) -> str:
    """A shift in words."""
    across, down = "to the right" if x > 0 else "to the left", "down" if y > 0 else "up"
    return f"{abs(x) * step:.0f} pixels {across} and {abs(y) * step:.0f} {down}"


def _shift_of(record: Record, pair: PairFacts) -> tuple[int, int]:
    """Rows and columns of one pair's shift; in small pictures chance agrees more somewhere."""
    surface = pair.surface_hw.astype(int)
    y, x = np.unravel_index(int(surface.argmax()), surface.shape)
    pixels = record.image_file.height * record.image_file.width / pair.step**2
    least = max(12.0, 1500 / np.sqrt(pixels))  # of 100
    if surface.max() < least or surface.max() - surface[REACH, REACH] < max(10, 0.3 * surface.max(), least / 2):
        return 0, 0
    return int(y) - REACH, int(x) - REACH


def turned(view: View) -> Iterator[Finding]:
    """Targets that agree better with their images when they are mirrored or turned by half."""
    pairs = [record.pair for record in view.records if record.pair is not None]
    if len(pairs) < _FEW:
        return
    own = np.array([pair.surface_hw[REACH, REACH] / 100 for pair in pairs])
    turned_n3 = np.array([pair.turned_3 for pair in pairs])
    for column, how in enumerate(("mirrored left to right", "upside down", "turned by 180 degrees")):
        gain = turned_n3[:, column] - own
        sure = gain.mean() / max(1e-9, gain.std() / np.sqrt(len(gain)))
        if gain.mean() > 2 * _CLEAR and sure > _SURE and turned_n3[:, column].mean() > 0.1:
            agree = f"edges agree {turned_n3[:, column].mean():.2f} that way, {own.mean():.2f} as they are"
            sentence = f"targets are {how} against their images: {agree}."
            yield Finding("pair-mirrored", "error", sentence, len(pairs), (), "turn them back.")


# ---------------------------------------------------------------- whose target is it


def unrelated(view: View) -> Iterator[Finding]:
    """Targets that go better with other images than with their own: exchanged, or shifted by one in a list."""
    usable = [record for record in view.records if record.image is not None and _edges(record) is not None]
    if len(usable) < 12:
        return
    left = _rows([record.image.edges_hw for record in usable if record.image])
    right = _rows([edges for record in usable if (edges := _edges(record)) is not None])
    scores_nn = left @ right.T if len(usable) <= 3000 else left[:3000] @ right[:3000].T
    usable = usable[: len(scores_nn)]
    own = scores_nn.diagonal()
    off = scores_nn[~np.eye(len(own), dtype=bool)]
    said, moved = _next_in_line(scores_nn)
    if said:
        names = view.target_names([usable[index] for index in moved])
        yield Finding.of("pair-next", "error", said, names, "look where the two lists lose step.")
        return
    sure = (own.mean() - off.mean()) / max(1e-9, float(np.hypot(own.std(), 1e-3)) / np.sqrt(len(own)))
    highest = float(surfaces([record.pair for record in usable if record.pair]).mean(axis=0).max())
    if sure < 2 and highest < _AGREE and len(usable) >= 20 and off.std() > 0:
        agree = f"edges agree {own.mean():.2f} and {off.mean():.2f}"
        sentence = f"targets go with their own images no better than with others ({agree})."
        cure = "make sure that data.images and data.targets name the same scenes."
        yield Finding("pair-unrelated", "warning", sentence, len(usable), (), cure)
        return
    yield from _exchanged(view, usable, scores_nn)


def _next_in_line(scores_nn: NDArray[np.float32]) -> tuple[str, list[int]]:
    """What is said where the targets of neighbours fit clearly better, and of which images; "" where they do not.

    Of targets that belong to nobody about a quarter fit a neighbour better by chance; one folder of several may be
    right.
    """
    own = scores_nn.diagonal()
    for step in (1, -1):
        other = scores_nn.diagonal(step)
        gain = other - (own[:-1] if step > 0 else own[1:])
        better = np.flatnonzero(gain > 0.1) + (step < 0)
        by_chance = 0.25 + _SURE * np.sqrt(0.25 * 0.75 / len(gain))
        all_moved = gain.mean() > 0.1 and gain.mean() > _SURE * gain.std() / np.sqrt(len(gain))
        if all_moved or len(better) > by_chance * len(gain):
            said = f"images go with the target of the {'next' if step > 0 else 'previous'} one"
            agree = f"edges agree {other.mean():.2f} and {own.mean():.2f}"
            return f"{said}: the two sides are shifted by one ({agree}).", [int(index) for index in better]
    return "", []


def _exchanged(view: View, usable: Sequence[Record], scores_nn: NDArray[np.float32]) -> Iterator[Finding]:
    """Two of which each goes with the other's image as targets usually go with their own, and not with its own."""
    own = scores_nn.diagonal()
    usual = float(np.median(own))
    best, best_of_target = scores_nn.argmax(axis=1), scores_nn.argmax(axis=0)
    here = np.arange(len(own))
    mutual = (best == best_of_target) & (best[best] == here) & (here < best)
    fits = np.minimum(scores_nn[here, best], scores_nn[best, here]) > 0.6 * usual
    strange = np.maximum(own, own[best]) < 0.4 * usual
    found = np.nonzero(mutual & fits & strange)[0].tolist() if usual > 0.2 else []
    wrong = [usable[at] for index in found for at in (index, int(best[index]))]
    if wrong:
        first = f"{wrong[0].sample.id} and {wrong[1].sample.id}"
        sentence = f"{len(wrong) // 2} pairs of targets look exchanged, such as those of {first}:"
        sentence += " each goes better with the other's image."
        yield Finding.of("pair-exchanged", "warning", sentence, view.target_names(wrong), "exchange the files.")


def _edges(record: Record) -> NDArray[np.uint8] | None:
    facts = record.label or record.depth or record.picture
    return facts.edges_hw if facts is not None and facts.edges_hw.std() > 0 else None


def _rows(grids: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Unit vectors of what each grid has beyond the mean of all: where edges usually are says nothing of a pair."""
    rows = np.stack([grid.reshape(-1) for grid in grids]).astype(np.float32)
    rows -= rows.mean(axis=0)
    rows -= rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6), dtype=np.float32)


PAIR_CHECKS: tuple[Check, ...] = (same_file, one_target, sizes, shifted, turned, unrelated)
