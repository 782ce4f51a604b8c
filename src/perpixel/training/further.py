"""Training pairs of other recipes: real photographs beside rendered ones, say (``data.also``)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from perpixel.console import Console
from perpixel.data.cache import DecodedSamples, decode_samples, fingerprint
from perpixel.data.samples import Sample, data_root, list_samples
from perpixel.data.split import make_split
from perpixel.errors import RequestError
from perpixel.recipe import AugmentationSection, load_recipe
from perpixel.tasks import Task, build_task
from perpixel.training.first_look import FirstLook

__all__ = ["Further", "JoinedSamples", "further_pairs", "require_files"]


@dataclass(frozen=True)
class Further:
    """The training pairs of another recipe.

    Attributes:
        samples: their ids begin with the recipe's name: ``kitchen:0007``.
        groups: by id.
        augmentation: that of the recipe which describes them.
        facts: for the manifest.
    """

    samples: list[Sample]
    decoded: DecodedSamples
    groups: dict[str, str]
    augmentation: AugmentationSection
    facts: dict[str, Any]


class JoinedSamples:
    """Several decoded sets, one behind the other."""

    def __init__(self, parts: Sequence[DecodedSamples]) -> None:
        self.parts = list(parts)
        self._ends = list(accumulate(map(len, self.parts)))
        self.notes: dict[str, int] = {}
        for part in self.parts:
            self.notes |= {note: count + self.notes.get(note, 0) for note, count in part.notes.items()}

    def __len__(self) -> int:
        return self._ends[-1]

    def _place(self, index: int) -> tuple[DecodedSamples, int]:
        part = bisect_right(self._ends, index)
        return self.parts[part], index - (self._ends[part - 1] if part else 0)

    def image(self, index: int) -> NDArray[Any]:
        part, place = self._place(index)
        return part.image(place)

    def target(self, index: int) -> NDArray[Any]:
        part, place = self._place(index)
        return part.target(place)


def further_pairs(file: str, task: Task, look: FirstLook | None, console: Console) -> Further:
    """The pairs that a recipe file's own split trains with; ``look`` looks at them first.

    Raises:
        RequestError: the recipe names no data folder, or its targets are not of this task.
        DataError: its data are not there, not in this layout, or not fit for training.
    """
    recipe = load_recipe(file)
    reader = build_task(recipe)
    task.require_same_maps(reader, Path(file))
    if recipe.data.root is None:
        raise RequestError(
            "this recipe names no data folder",
            where=file,
            rule="a recipe of data.also says itself where its pairs lie.",
            cure="write root: DIR into its data section.",
        )
    root = data_root(recipe.data)
    samples = list_samples(recipe.data, root)
    require_files(samples, root)
    if look is not None:
        look(recipe, samples, root, console)
    by_id = {sample.id: sample for sample in samples}
    subsets, groups = make_split(
        samples, recipe.split, lambda sample: reader.stratum_value(reader.decode_target(_target(by_id[sample.id])))
    )
    chosen = [sample for sample in samples if subsets[sample.id] == "train"]
    use_cache = recipe.data.cache == "auto"
    key = fingerprint(chosen, reader.meaning, contents=use_cache)
    decoded = decode_samples(
        chosen,
        reader.decode_target,
        key=key if use_cache else None,
        image_scale=task.image_scale,
        progress=lambda done, total: console.progress(f"reading {recipe.name}", done, total),
    )
    console.say(f"{recipe.name}: {len(chosen)} of {len(samples)} pairs in {root} train too")
    return Further(
        samples=[replace(sample, id=f"{recipe.name}:{sample.id}") for sample in chosen],
        decoded=decoded,
        groups={f"{recipe.name}:{s.id}": f"{recipe.name}:{groups[s.id]}" if groups[s.id] else "" for s in chosen},
        augmentation=recipe.augmentation,
        facts={"recipe": str(file), "root": str(root.resolve()), "training_samples": len(chosen), "fingerprint": key},
    )


def require_files(samples: Sequence[Sample], root: Path) -> None:
    """Raise RequestError for samples of shards: what is joined is shuffled as one, which no cache of chunks bears."""
    if samples[0].stored is not None:
        raise RequestError(
            "these are shards, and data.also joins files alone",
            where=root,
            cure="take the folders that the shards were written from, or write one folder of shards of all the pairs.",
        )


def _target(sample: Sample) -> Path:
    assert sample.target is not None  # list_samples refuses samples without one
    return sample.target
