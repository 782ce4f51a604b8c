"""Checks of the stored values of label maps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from perpixel.data.problems import in_few_sentences
from perpixel.errors import DataError
from perpixel.inspection.checks import Check, View
from perpixel.inspection.class_values import by_color, class_of, labelled, raw_counts, target_of, values_of
from perpixel.inspection.finding import Finding
from perpixel.inspection.measure import spread
from perpixel.inspection.record import Record

__all__ = ["VALUE_CHECKS"]

_MOST_VALUES = 64
_READ_AGAIN = 24  # files whose reading says what is wrong


def values(view: View) -> Iterator[Finding]:
    """Values that the class map does not name, and the likeliest reason."""
    target = target_of(view)
    known = set(class_of(target))
    unfit = []
    for record, label in labelled(view):
        unexpected = label.colored and not by_color(target) and label.kind != "palette"
        if not label.lossy and (unexpected or set(values_of(label, target)) - known):
            unfit.append(record)
    if not unfit:
        return
    pixels, _ = raw_counts(unfit)
    for explain in (_photographs, _cut_to_8_bits, _interpolated):
        found = explain(view, unfit, pixels)
        if found is not None:
            yield found
            return
    yield Finding.of("label-values", "error", _as_read(view, unfit), view.target_names(unfit), "", len(unfit))


def _as_read(view: View, unfit: Sequence[Record]) -> str:
    """What the training itself would say of these files."""
    from perpixel.tasks.classmap import ClassMap

    class_map, errors = ClassMap(target_of(view)), []
    for record in spread(unfit, _READ_AGAIN):
        try:
            class_map.read(record.sample.target)
        except DataError as error:
            errors.append(error)
    sentences = in_few_sentences(errors)
    return sentences[0].split(": ", 1)[1] if sentences else "the files hold values that the class map does not name."


def _photographs(view: View, unfit: Sequence[Record], pixels: Mapping[int, int]) -> Finding | None:
    photos = [
        record for record in unfit if record.label and record.label.colored and record.label.values > 4 * _MOST_VALUES
    ]
    if len(photos) < 0.5 * len(unfit):
        return None
    few = [record for record in photos if record.image is not None and record.image.levels <= _MOST_VALUES]
    names = view.target_names(photos)
    if len(few) >= 0.5 * len(photos):
        data = view.recipe.data
        cure = f"data: {{images: {data.targets!r}, targets: {data.images!r}}}"
        sentence = "images and targets are swapped: the targets are photographs, and the images are maps."
        return Finding.of("pair-swapped", "error", sentence, names, cure)
    sentence = "the targets are photographs, or were saved with loss: far too many colours for classes."
    return Finding.of(
        "label-photographs", "error", sentence, names, "name the folder of the label maps in data.targets."
    )


def _cut_to_8_bits(view: View, unfit: Sequence[Record], pixels: Mapping[int, int]) -> Finding | None:
    """Values above 255 that were cut off, shifted or clipped when the files were saved with 8 bits."""
    target = target_of(view)
    named = sorted(value for value in class_of(target) if not by_color(target))
    if not named or named[-1] <= 255 or any(record.label and "16" in record.label.kind for record in unfit):
        return None
    ways: dict[str, Callable[[int], int]] = {
        "their upper bits cut off (value modulo 256)": lambda value: value & 255,
        "their lower bits cut off (value / 256)": lambda value: value >> 8,
        "clipped at 255": lambda value: min(value, 255),
    }
    for said, cut in ways.items():
        if set(pixels) <= {cut(value) for value in named}:
            merged = defaultdict(list)
            for value in named:
                merged[cut(value)].append(str(value))
            lost = [" and ".join(group) for group in merged.values() if len(group) > 1]
            lost_said = f" Classes {'; '.join(lost)} became one and cannot be told apart any more." if lost else ""
            sentence = f"values of 16 bits were saved with 8, {said}.{lost_said}"
            cure = "use the original files of 16 bits."
            return Finding.of("label-cut-to-8-bits", "error", sentence, view.target_names(unfit), cure)
    return None


def _interpolated(view: View, unfit: Sequence[Record], pixels: Mapping[int, int]) -> Finding | None:
    """Few pixels, of many values that lie between the named ones: resized with interpolation."""
    target = target_of(view)
    if by_color(target):
        named = class_of(target)
        near = sum(count for value, count in pixels.items() if value in named)
        shares = near / max(1, sum(pixels.values()))
        if not 0.7 < shares < 1 or len(pixels) < 3 * len(named):
            return None
    else:
        known = class_of(target)
        foreign = {value: count for value, count in pixels.items() if value not in known}
        shares = 1 - sum(foreign.values()) / max(1, sum(pixels.values()))
        between = all(min(known) < value < max(known) for value in foreign)
        if not between or shares < 0.5 or len(foreign) < max(4, len(known)):
            return None
    sentence = (
        f"{1 - shares:.1%} of the pixels hold values between those of the classes: the maps were resized or turned with"
        " interpolation, which makes classes up along every edge."
    )
    cure = "use the original maps; resize maps by nearest neighbour alone."
    return Finding.of("label-interpolated", "error", sentence, view.target_names(unfit), cure)


def lossy(view: View) -> Iterator[Finding]:
    """Label maps that were saved as JPEG."""
    found = [record for record, label in labelled(view) if label.lossy]
    if found:
        sentence = f"{len(found)} label maps were saved as JPEG, which smears their values along every edge."
        cure = "use the original files, PNG or TIFF."
        yield Finding.of("label-jpeg", "error", sentence, view.target_names(found), cure)


def ignored_foreground(view: View) -> Iterator[Finding]:
    """Masks of 0 and 255 where 255 is declared to be ignored: nothing but background would be learned."""
    target = target_of(view)
    known = class_of(target)
    pixels, _ = raw_counts(view.records)
    seen = {known[value] for value in pixels if value in known}
    ignored = [value for value in pixels if known.get(value) == -1]
    if ignored and len(seen - {-1}) == 1 and len(pixels) == 2:
        share = sum(pixels[value] for value in ignored) / sum(pixels.values())
        sentence = f"the files hold two values, and {ignored[0]} ({share:.0%} of the pixels) is declared as ignored:"
        sentence += " the foreground would count nowhere."
        name = target.classes[-1].name
        cure = f"write {ignored[0]} in the values of {name}, and take it out of target.ignore."
        yield Finding("label-foreground-ignored", "error", sentence, len(view.records), (), cure)


def kinds(view: View) -> Iterator[Finding]:
    """Different ways to store labels within one data set: palettes, numbers, colours."""
    by_kind: dict[str, list[Record]] = defaultdict(list)
    for record, label in labelled(view):
        by_kind["colours" if label.colored else "palette" if label.kind == "palette" else "numbers"].append(record)
    if len(by_kind) > 1:
        said = ", ".join(f"{len(records)} with {kind}" for kind, records in by_kind.items())
        fewest = min(by_kind.values(), key=len)
        sentence = f"label maps are stored in different ways: {said}. Their numbers need not mean the same."
        yield Finding.of("label-kinds", "warning", sentence, view.target_names(fewest), "save all of them in one way.")


def scales(view: View) -> Iterator[Finding]:
    """The foreground is 1 in some masks and 255 in others."""
    foregrounds: dict[int, list[Record]] = defaultdict(list)
    known = class_of(target_of(view))
    for record, label in labelled(view):
        held = {value for value in label.counts if known.get(value) == 1}
        if len(held) == 1 and len(target_of(view).classes) == 2:
            foregrounds[held.pop()].append(record)
    if len(foregrounds) > 1:
        fewest = min(foregrounds.values(), key=len)
        said = ", ".join(f"{value} in {len(records)}" for value, records in foregrounds.items())
        sentence = f"the foreground has different values in different files: {said}."
        cure = "make sure that they mean the same."
        yield Finding.of("label-scales", "warning", sentence, view.target_names(fewest), cure)


VALUE_CHECKS: tuple[Check, ...] = (values, lossy, ignored_foreground, kinds, scales)
