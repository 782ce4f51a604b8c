"""From a bare folder to pairs: which files are images, which are targets, and the templates of their names."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from perpixel.errors import DataError
from perpixel.inspection.listing import walk
from perpixel.recipe import builtin_names, load_recipe

__all__ = ["Layout", "Series", "find_layouts"]

_SUBSETS = ("train", "training", "val", "valid", "validation", "test", "testing")
_IMAGE_WORDS = ("image", "img", "rgb", "color", "colour", "photo", "input", "low", "noisy", "dark", "lr", "pic", "left")
_TARGET_WORDS = (
    *("mask", "label", "seg", "annot", "gt", "truth", "target", "depth", "disp", "clean", "high", "normal", "hr"),
    *("sharp", "bright", "matte", "class"),
)
_LEAST_SHARE = 0.5  # of the smaller series; below, two series are no pairs


@dataclass(frozen=True)
class Series:
    """Files that differ in one part of their name: ``template`` holds {id}, and {subset} where there are subsets."""

    template: str
    files: dict[tuple[str, str], Path]
    """by (subset, id)."""


@dataclass(frozen=True)
class Layout:
    """Two series that belong together.

    ``words`` says how well the names tell which side is the image: above 0, ``images`` is; 0, the names do not tell.
    """

    images: Series
    targets: Series
    words: int
    unlabelled: Series | None = None

    @property
    def keys(self) -> list[tuple[str, str]]:
        """(subset, id) of every pair, sorted."""
        return sorted(self.images.files.keys() & self.targets.files.keys())

    @property
    def share(self) -> float:
        """Of all files of both series, those that have a partner."""
        return len(self.keys) / max(1, len(self.images.files.keys() | self.targets.files.keys()))

    def swapped(self) -> Layout:
        """Targets for images."""
        return replace(self, images=self.targets, targets=self.images, words=-self.words)


def find_layouts(root: Path) -> list[Layout]:
    """The likely layouts of a folder, the likeliest first.

    Raises:
        DataError: there are no pictures, or none that belong together.
    """
    files = walk(root)
    if not files:
        raise DataError("there is no picture in this folder", where=root, cure="give the folder that holds the images.")
    places = list(_places(root, files))
    layouts = [layout for left, right in combinations(places, 2) for layout in _matched(left, right)]
    layouts += [layout for place in places for layout in _within(place)]
    layouts = [layout for layout in layouts if layout.keys]
    if not layouts:
        raise DataError(
            "no two groups of files belong together by their names",
            where=root,
            details=[
                f"{len(place.names)} files in {place.folder or '.'}, such as {place.names[0][1]}"
                for place in places[:8]
            ],
            rule="image and target share a part of their name: images/7.png and masks/7.png, or a.png and a_mask.png.",
            cure="rename them, or list them in a CSV with the columns image,target and name it in data.pairs_csv.",
        )
    layouts = [_with_unlabelled(layout if layout.words >= 0 else layout.swapped(), places) for layout in layouts]
    most = max(len(layout.keys) for layout in layouts)
    known = {(recipe.data.images, recipe.data.targets) for recipe in map(load_recipe, builtin_names())}

    def unlikely(layout: Layout) -> tuple[float, bool, int]:
        builtin = (layout.images.template, layout.targets.template) in known
        return -(len(layout.keys) / most) * layout.share, not builtin, -abs(layout.words)

    return sorted(layouts, key=unlikely)


@dataclass(frozen=True)
class _Place:
    """Files of one ending in one folder, subsets taken together: ``folder`` holds {subset} in their place."""

    folder: str
    ending: str
    names: list[tuple[str, str, Path]]
    """(subset, stem, path)."""


def _places(root: Path, files: Iterable[Path]) -> Iterator[_Place]:
    groups: dict[tuple[str, str], list[tuple[str, str, Path]]] = defaultdict(list)
    for path in files:
        parts = path.parent.relative_to(root).parts
        subset = next((part for part in parts if part.lower() in _SUBSETS), "")
        general = "/".join("{subset}" if part == subset and subset else part for part in parts)
        groups[general, path.suffix].append((subset, path.stem, path))
    for (folder, ending), names in sorted(groups.items()):
        yield _Place(folder, ending, names)


def _matched(left: _Place, right: _Place) -> Iterator[Layout]:
    """Pairs across two folders, or two endings of one: by equal names, by what differs, by the number at the end."""
    for first, second in _ways(left, right):
        keys = first.keys() & second.keys()
        if len(keys) >= max(1, _LEAST_SHARE * min(len(first), len(second))):
            yield _layout(left, right, first, second)
            return


_Ids = dict[tuple[str, str], tuple[str, Path]]
"""(subset, id) to the template of the stem and the path."""


def _ways(left: _Place, right: _Place) -> Iterator[tuple[_Ids, _Ids]]:
    yield _by_affixes(left, "", ""), _by_affixes(right, "", "")
    yield _by_affixes(left, *_affixes(left)), _by_affixes(right, *_affixes(right))
    yield _by_number(left), _by_affixes(right, *_affixes(right))
    yield _by_affixes(left, *_affixes(left)), _by_number(right)


def _affixes(place: _Place) -> tuple[str, str]:
    """What all stems begin and end with, letters that may belong to a number left out."""
    stems = [stem for _, stem, _ in place.names]
    prefix = re.sub(r"[0-9]+$", "", _common(stems))
    suffix = re.sub(r"^[0-9]+", "", _common([stem[len(prefix) :][::-1] for stem in stems])[::-1])
    return prefix, suffix


def _common(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    return first[
        : next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    ]


def _by_affixes(place: _Place, prefix: str, suffix: str) -> _Ids:
    end = -len(suffix) or None
    ids: _Ids = {}
    for subset, stem, path in place.names:
        if id_ := stem[len(prefix) : end]:
            ids[subset, id_] = (f"{prefix}{{id}}{suffix}", path)
    return ids


def _by_number(place: _Place) -> _Ids:
    """The digits at the end of the stem, after an underscore; two files of one number are none."""
    ids: _Ids = {}
    for subset, stem, path in place.names:
        match = re.fullmatch(r".+_([0-9]+)", stem)
        if match is None or (subset, match[1]) in ids:
            return {}
        ids[subset, match[1]] = ("{any}_{id}", path)
    return ids


def _layout(left: _Place, right: _Place, first: _Ids, second: _Ids) -> Layout:
    sides = [_series(place, ids) for place, ids in ((left, first), (right, second))]
    words = _image_like(sides[0].template) - _image_like(sides[1].template)
    if "{any}" in sides[1].template:  # the name of an image must tell that of its target
        return Layout(sides[1], sides[0], 1)
    if "{any}" in sides[0].template:
        return Layout(sides[0], sides[1], 1)
    return Layout(sides[0], sides[1], words)


def _series(place: _Place, ids: _Ids) -> Series:
    stem = Counter(template for template, _ in ids.values()).most_common(1)[0][0]
    template = "/".join(filter(None, [place.folder, stem + place.ending]))
    return Series(template, {key: path for key, (_, path) in ids.items()})


def _image_like(template: str) -> int:
    """2 of a name that says image, -2 of one that says target; the file's own name and the last folder count."""
    words = "/".join(template.lower().split("/")[-2:]).replace("{subset}", "").replace("{id}", "")
    if any(word in words for word in _TARGET_WORDS):
        return -2
    return 2 if any(word in words for word in _IMAGE_WORDS) else 0


def _within(place: _Place) -> Iterator[Layout]:
    """Pairs in one folder: ``a_rgb.png`` and ``a_mask.png``, or ``rgb_a.png`` and ``mask_a.png``."""
    for pattern, form in ((r"(.+)([_\-. ][^_\-. ]+)", "{{id}}{}"), (r"([^_\-. ]+[_\-. ])(.+)", "{}{{id}}")):
        kinds: dict[str, _Ids] = defaultdict(dict)
        at_end = form.startswith("{{")
        for subset, stem, path in place.names:
            match = re.fullmatch(pattern, stem)
            if match:
                id_, kind = (match[1], match[2]) if at_end else (match[2], match[1])
                kinds[kind][subset, id_] = (form.format(kind), path)
        bare = {(subset, stem): ("{id}", path) for subset, stem, path in place.names}
        large = {kind: ids for kind, ids in kinds.items() if len(ids) >= max(2, len(place.names) / 5)}
        for first, second in combinations(large.values(), 2):
            if len(first.keys() & second.keys()) >= _LEAST_SHARE * min(len(first), len(second)):
                yield _layout(place, place, first, second)
        for ids in large.values():  # a.jpg and a_mask.jpg
            others = {key: value for key, value in bare.items() if key in ids}
            if len(others) >= _LEAST_SHARE * len(ids):
                yield _layout(place, place, others, ids)


def _with_unlabelled(layout: Layout, places: Sequence[_Place]) -> Layout:
    """Subsets without any target, such as a test folder, and images elsewhere that have none, are unlabelled."""
    targets = {subset for subset, _ in layout.targets.files}
    bare = {key: path for key, path in layout.images.files.items() if key[0] not in targets}
    kept = {key: path for key, path in layout.images.files.items() if key[0] in targets}
    subsets = {subset for subset, _ in bare}
    if len(subsets) == 1:
        template = layout.images.template.replace("{subset}", subsets.pop())
        unlabelled = Series(template, {("", id_): path for (_, id_), path in bare.items()})
        return replace(layout, images=replace(layout.images, files=kept), unlabelled=unlabelled)
    for place in places:
        folder, *rest = {subset for subset, _, _ in place.names}
        known = place.folder in {layout.images.template.rpartition("/")[0], layout.targets.template.rpartition("/")[0]}
        if not known and not rest and folder.lower() in ("test", "testing") and len(place.names) > 1:
            template = f"{place.folder.replace('{subset}', folder)}/{{id}}{place.ending}"
            return replace(layout, unlabelled=Series(template, {("", stem): path for _, stem, path in place.names}))
    return layout


def one_subset(template: str, subsets: set[str]) -> str:
    """A template without {subset} where there is only one subset."""
    return template.replace("{subset}", next(iter(subsets))) if len(subsets) == 1 else template
