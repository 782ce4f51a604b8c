"""The pairs of a data set, listed without giving up where some are missing: what is missing becomes findings."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from perpixel.data.archives import unpack_missing
from perpixel.data.samples import Sample, _match_template, _with_tables, list_samples
from perpixel.errors import DataError
from perpixel.inspection.finding import Finding
from perpixel.inspection.look import ARRAY_ENDINGS, leaves_folder
from perpixel.recipe import DataSection

__all__ = ["Listing", "is_picture", "list_pairs", "walk"]

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".jp2")
_MOST_FILES = 500_000
_NEAREST = 3


@dataclass
class Listing:
    """Pairs of which both files exist, images without targets that the recipe names, and what is wrong with names."""

    pairs: list[Sample]
    unlabelled: list[Sample] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def list_pairs(data: DataSection, root: Path) -> Listing:
    """All pairs of a data section; raises DataError where there is no pair at all."""
    unpack_missing(data.archives, root)
    try:
        listing = Listing(list_samples(data, root))
    except DataError as error:
        pairs = [] if data.pairs_csv else _complete_pairs(data, root)
        if not pairs:
            raise
        listing = Listing(pairs, findings=_why_not(error, data, root, pairs))
    if data.unlabelled is not None:
        found = _match_template(data.unlabelled, root)
        listing.unlabelled = [Sample(id_, path, None, subset) for id_, subset, path in found]
    if not data.pairs_csv:
        listing.findings += _without_image(data, root, listing.pairs)
    listing.findings += _names(listing, root, data)
    return listing


def walk(root: Path) -> list[Path]:
    """Every picture and array below a folder, sorted; hidden ones left out, and links are not followed to folders."""
    found = []
    for folder, folders, names in root.walk() if hasattr(root, "walk") else _walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        found += [folder / name for name in sorted(names) if is_picture(name)]
        if len(found) > _MOST_FILES:
            break
    return found


def _walk(root: Path) -> list[tuple[Path, list[str], list[str]]]:
    import os

    return [(Path(folder), folders, names) for folder, folders, names in os.walk(root)]


def is_picture(name: str) -> bool:
    """Whether a name, by its ending, is that of a picture or of an array; hidden files are none."""
    return not name.startswith(".") and name.lower().endswith(PICTURE_ENDINGS + ARRAY_ENDINGS)


def _complete_pairs(data: DataSection, root: Path) -> list[Sample]:
    pairs: dict[str, Sample] = {}
    for id_, subset, path in _match_template(data.images, root):
        target = _target_of(data, root, id_, subset)
        if target.is_file():
            name = id_ if subset is None else f"{subset}/{id_}"
            pairs.setdefault(name, Sample(name, path, target, subset))
    return _with_tables([pairs[name] for name in sorted(pairs)], data.tables, root)


def _target_of(data: DataSection, root: Path, id_: str, subset: str | None) -> Path:
    return root / data.targets.replace("{subset}", subset or "").replace("{id}", id_)


def _why_not(error: DataError, data: DataSection, root: Path, pairs: Sequence[Sample]) -> list[Finding]:
    """Why `list_samples` refused the data."""
    bare = {path for _, _, path in _match_template(data.unlabelled, root)} if data.unlabelled is not None else set()
    images = [item for item in _match_template(data.images, root) if item[2] not in bare]
    missing = [
        (path, target) for id_, subset, path in images if not (target := _target_of(data, root, id_, subset)).is_file()
    ]
    if not missing:
        rule = "pair-ambiguous" if "id names two" in error.what else "pair-list"
        return [Finding.of(rule, "error", error.what + ".", error.details, error.cure or "", len(error.details))]
    near = _nearest(missing[0][1], {target.target for target in pairs if target.target})
    return [
        Finding.of(
            "pair-missing-target",
            "error",
            f"{len(missing)} of {len(images)} images have no target; a missing one is never read as an empty one."
            f" {_relative(missing[0][1], root)} is not there{near}.",
            [_relative(path, root) for path, _ in missing],
            "add the files or move the images away; images that are meant to have none belong in data.unlabelled.",
        )
    ]


def _nearest(path: Path, taken: set[Path]) -> str:
    """``; the nearest names are ...`` of files in the same folder that belong to no image."""
    if not path.parent.is_dir():
        return f", nor is its folder {path.parent.name}"
    free = [other.name for other in path.parent.iterdir() if other not in taken and not other.name.startswith(".")]
    near = difflib.get_close_matches(path.name, free[:2000], n=_NEAREST, cutoff=0.5)
    return f"; the nearest names are {', '.join(near)}" if near else ""


def _without_image(data: DataSection, root: Path, pairs: Sequence[Sample]) -> list[Finding]:
    taken = {pair.target for pair in pairs}
    lonely = [path for _, _, path in _match_template(data.targets, root) if path not in taken]
    if not lonely:
        return []
    return [
        Finding.of(
            "pair-missing-image",
            "warning",
            f"{len(lonely)} targets belong to no image.",
            [_relative(path, root) for path in lonely],
            f"data.images is {data.images!r}: correct it, or add the images.",
        )
    ]


def _names(listing: Listing, root: Path, data: DataSection) -> list[Finding]:
    paths = [path for pair in listing.pairs for path in (pair.image, pair.target) if path is not None]
    paths += [sample.image for sample in listing.unlabelled]
    relative = [_relative(path, root) for path in paths]
    findings = []
    same: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(relative):
        same[unicodedata.normalize("NFC", name).casefold()].append(name)
    if alike := [name for names in same.values() if len(names) > 1 for name in names]:
        findings.append(
            Finding.of(
                "file-names",
                "warning",
                "names differ only in case or in their Unicode form: other systems take them for one file.",
                alike,
                "rename them.",
            )
        )
    if outside := [
        name for name, path in zip(relative, paths, strict=True) if path.is_symlink() and leaves_folder(path, root)
    ]:
        findings.append(
            Finding.of("file-link", "warning", "links lead out of the data folder.", outside, "copy the files into it.")
        )
    return findings + _strays(paths, root, data)


def _strays(paths: Sequence[Path], root: Path, data: DataSection) -> list[Finding]:
    """Pictures beside the pairs that no template finds: in the very folders, under another ending, say."""
    folders, taken = {path.parent for path in paths}, set(paths)
    beside = [path for folder in sorted(folders) for path in sorted(folder.iterdir()) if is_picture(path.name)]
    strays = [path for path in beside if path not in taken and path.is_file()]
    lonely = {path for _, _, path in _match_template(data.targets, root)}
    strays = [path for path in strays if path not in lonely]
    missing_target = {path for _, _, path in _match_template(data.images, root)}
    strays = [path for path in strays if path not in missing_target]
    if data.pairs_csv or not strays:
        return []
    twins = {path.with_suffix("") for path in taken}
    if doubled := [path for path in strays if path.with_suffix("") in twins]:
        sentence = "one name stands twice in a folder, with two endings: which file is meant is not plain."
        names = [_relative(path, root) for path in doubled]
        return [Finding.of("pair-ambiguous", "warning", sentence, names, "move one of the two away.")]
    endings = Counter(path.suffix for path in strays).most_common(3)
    said = ", ".join(f"{count} {ending}" for ending, count in endings)
    sentence = f"pictures lie beside the pairs that data.images and data.targets do not find ({said})."
    return [Finding.of("file-stray", "note", sentence, [_relative(path, root) for path in strays])]


def _relative(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return str(path)
