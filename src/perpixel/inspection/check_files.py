"""Checks of files, one by one and taken together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from perpixel.inspection.checks import Check, View
from perpixel.inspection.finding import Finding, Severity
from perpixel.inspection.record import FileFacts, Record

__all__ = ["FILE_CHECKS"]

_ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".mpo"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "WEBP": (".webp",),
}
_TROUBLES = {
    "empty": ("file-empty", "files are empty.", "fetch them again."),
    "damaged": ("file-damaged", "files are damaged or cut short.", "fetch or save them again."),
    "no-image": ("file-no-image", "files are no images, whatever their names say.", "remove or replace them."),
    "several": ("file-several", "files hold several pictures (frames or pages).", "save the one that is meant."),
    "huge": (
        "file-huge",
        "pictures have more pixels than are safe to hold; they were not looked at.",
        "cut into tiles.",
    ),
    "numbers": (
        "file-numbers",
        "images hold 32-bit numbers or fractions: nobody can tell what is white.",
        "save 8 or 16 bits.",
    ),
    "other": ("file-unusable", "files cannot be used:", ""),
}
_MOST_ASPECT = 8.0
_LEAST_SIDE = 16
_ODD_SHARE = 0.05
_BLANK = 3  # levels of luma at most


def _files(view: View) -> Iterator[tuple[str, Path, FileFacts]]:
    for record in [*view.records, *view.unlabelled]:
        yield view.name(record), record.sample.image, record.image_file
        if record.target_file is not None and record.sample.target is not None:
            yield view.target_name(record), record.sample.target, record.target_file


def troubles(view: View) -> Iterator[Finding]:
    """Files whose pixels cannot be had: empty, damaged, no images, animated, too large, of odd numbers."""
    kinds: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, _, facts in _files(view):
        if facts.trouble:
            kinds[facts.trouble].append((name, facts.said))
    for trouble, named in kinds.items():
        rule, sentence, cure = _TROUBLES[trouble]
        sentence = (
            f"{len(named)} {sentence} {named[0][1]}." if trouble in ("damaged", "other") else f"{len(named)} {sentence}"
        )
        yield Finding.of(rule, "error", sentence, [name for name, _ in named], cure)


def endings(view: View) -> Iterator[Finding]:
    """The content is of another format than the name says."""
    wrong = [
        (name, facts.format)
        for name, path, facts in _files(view)
        if facts.format in _ENDINGS and path.suffix.lower() not in _ENDINGS[facts.format]
    ]
    if wrong:
        sentence = f"{len(wrong)} files are not what their names end in: the first holds {wrong[0][1]}."
        yield Finding.of("file-ending", "warning", sentence, [name for name, _ in wrong], "give them the right ending.")


def colors(view: View) -> Iterator[Finding]:
    """CMYK, transparency, colour profiles."""
    images = [*view.records, *view.unlabelled]
    cmyk = [view.name(record) for record in images if record.image_file.mode == "CMYK"]
    if cmyk:
        sentence = f"{len(cmyk)} images are CMYK, for print: their colours are converted roughly."
        yield Finding.of("file-cmyk", "warning", sentence, cmyk, "save them as RGB.")
    partly = [view.name(record) for record in images if record.image_file.transparency == "partly"]
    if partly:
        sentence = f"{len(partly)} images are partly transparent: what lies under the transparency becomes visible."
        yield Finding.of("file-transparent", "warning", sentence, partly, "save them without transparency.")
    profiles = Counter(record.image_file.profile for record in images if record.image is not None)
    usual = ("srgb", "gray", "grey")
    odd = [record for record in images if (name := record.image_file.profile.lower()) and not _holds(name, usual)]
    if odd:
        sentence = f"{len(odd)} images have a colour profile that is not sRGB ({odd[0].image_file.profile});"
        severity: Severity = "warning" if len(profiles) > 1 else "note"
        names = view.names(odd)
        yield Finding.of(
            "file-profile", severity, sentence + " profiles are not applied.", names, "convert them to sRGB."
        )


def _holds(text: str, words: tuple[str, ...]) -> bool:
    return any(word in text for word in words)


def depths(view: View) -> Iterator[Finding]:
    """16 bits in some images, 8 in others; or 16 bits of which 8 are used."""
    readable = [record for record in view.records if record.image is not None]
    deep = [record for record in readable if record.image_file.bits == 16]
    if deep and len(deep) < len(readable):
        sentence = f"{len(deep)} of {len(readable)} images have 16 bits a channel, the others 8."
        cure = "make sure that both are equally bright."
        yield Finding.of("file-bits-mixed", "warning", sentence, view.names(deep), cure)
    elif deep:
        sentence = "images have 16 bits a channel; of label and depth maps they are read with 8."
        yield Finding.of("file-16-bits", "note", sentence, view.names(deep))
    dark = [
        record
        for record in deep
        if record.image is not None and max(record.image.mean_3) < 1 / 64 and record.image.levels < 8
    ]
    if dark:
        sentence = f"{len(dark)} images of 16 bits use the lowest values alone (10 or 12 bits in 16?): nearly black."
        cure = "stretch them to the full range."
        yield Finding.of("file-16-bits-unused", "warning", sentence, view.names(dark), cure)


def turned(view: View) -> Iterator[Finding]:
    """EXIF data that turn one side of a pair and not the other."""
    marked = [record for record in view.records if record.target_file and record.image_file.orientation != 1]
    alone = [record for record in marked if record.target_file and record.target_file.orientation == 1]
    if alone:
        sentence = f"{len(alone)} images are turned upright by their EXIF data, and their targets are not."
        cure = "make sure that the targets were drawn on the upright picture; if not, remove the EXIF orientation."
        yield Finding.of("file-turned", "warning", sentence, view.names(alone), cure)
    elif marked:
        sentence = "images and targets are turned upright by EXIF data."
        yield Finding.of("file-turned-both", "note", sentence, view.names(marked))


def sizes(view: View) -> Iterator[Finding]:
    """Absurd sides and aspects, and the odd one out."""
    readable = [record for record in view.records if record.image_file.height and record.image is not None]
    odd = [record for record in readable if _aspect(record) > _MOST_ASPECT or _side(record) < _LEAST_SIDE]
    if odd:
        first = odd[0].image_file
        sentence = f"{len(odd)} images have an absurd size, such as {first.width} x {first.height}."
        cure = "make sure that they are photographs at all."
        yield Finding.of("file-size", "warning", sentence, view.names(odd), cure)
    found = Counter((record.image_file.height, record.image_file.width) for record in readable)
    if len(found) > 1:
        (common, count), *_ = found.most_common(1)
        others = [record for record in readable if (record.image_file.height, record.image_file.width) != common]
        sentence = f"{len(found)} sizes; {count} of {len(readable)} images have {common[1]} x {common[0]}."
        yield Finding.of("file-sizes", "note", sentence, view.names(others))


def _aspect(record: Record) -> float:
    sides = record.image_file.height, record.image_file.width
    return max(sides) / max(1, min(sides))


def _side(record: Record) -> int:
    return min(record.image_file.height, record.image_file.width)


def blank(view: View) -> Iterator[Finding]:
    """Images that show nothing; a few are a note, for some data sets have them."""
    readable = [record for record in view.records if record.image is not None]
    empty = [record for record in readable if record.image and record.image.levels <= _BLANK and _is_still(record)]
    if empty:
        severity: Severity = "warning" if len(empty) > _ODD_SHARE * len(readable) else "note"
        sentence = f"{len(empty)} of {len(readable)} images are of one colour all over."
        yield Finding.of("file-blank", severity, sentence, view.names(empty), "leave them out.")


def _is_still(record: Record) -> bool:
    """No edges at 8 bits; of images of 16 bits `depths` speaks."""
    return record.image is not None and record.image.sharpness < 0.02 and record.image_file.bits < 16


def grey(view: View) -> Iterator[Finding]:
    """Grey images among coloured ones."""
    readable = [record for record in view.records if record.image is not None]
    found = [record for record in readable if record.image and record.image.grey]
    if found and len(found) < len(readable):
        sentence = f"{len(found)} of {len(readable)} images are grey, the others coloured."
        cure = "augmentation.grayscale makes a network ready for both."
        yield Finding.of("file-grey", "note", sentence, view.names(found), cure)


FILE_CHECKS: tuple[Check, ...] = (troubles, endings, colors, depths, turned, sizes, blank, grey)
