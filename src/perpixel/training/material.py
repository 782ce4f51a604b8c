"""Data made ready for a training: listed, split, decoded, described."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.console import Console
from perpixel.data.cache import DecodedSamples, decode_samples, fingerprint
from perpixel.data.samples import Sample, data_root, list_samples
from perpixel.data.shards import ShardedSamples
from perpixel.data.split import make_split
from perpixel.errors import RequestError
from perpixel.recipe import AugmentationSection, Recipe
from perpixel.run import Run
from perpixel.tasks import Task
from perpixel.training.first_look import FirstLook
from perpixel.training.further import Further, JoinedSamples, further_pairs, require_files

_DESCRIBED = 5000  # targets of shards: to read all of them would be to read all shards once more


@dataclass(frozen=True)
class Material:
    """Data made ready for one training.

    ``augmentations`` are those of positions that another recipe describes (``data.also``), ``also`` what the manifest
    says of these.
    """

    samples: list[Sample]
    decoded: DecodedSamples
    subsets: dict[str, str]
    groups: dict[str, str]
    facts: dict[str, Any]
    fingerprint: str
    inspection: dict[str, Any] | None = None
    augmentations: dict[int, AugmentationSection] = field(default_factory=dict)
    also: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """Ids by position."""
        return [sample.id for sample in self.samples]

    def chunks(self, subset: str) -> tuple[NDArray[np.int64], int] | None:
        """The chunk of each of a subset's samples, and the window to shuffle in, of data in shards."""
        if not isinstance(self.decoded, ShardedSamples):
            return None
        return self.decoded.chunk_n[self.positions(subset)], self.decoded.window

    def positions(self, subset: str) -> list[int]:
        """Positions of a subset's samples."""
        return [position for position, sample in enumerate(self.samples) if self.subsets[sample.id] == subset]


def prepare(
    recipe: Recipe, task: Task, console: Console, split_of: Run | None = None, look: FirstLook | None = None
) -> Material:
    """List, inspect, split and decode the data; of a run that goes on the split stays, and no second look is taken."""
    root = data_root(recipe.data)
    samples = list_samples(recipe.data, root)
    if recipe.data.also:
        require_files(samples, root)
    look = look or FirstLook()
    seen = None
    if split_of is None:
        look(recipe, samples, root, console)
    started = time.monotonic()
    use_cache = recipe.data.cache == "auto"
    key = fingerprint(samples, task.meaning, contents=use_cache)
    decoded = decode_samples(
        samples,
        task.decode_target,
        key=key if use_cache else None,
        image_scale=task.image_scale,
        progress=lambda done, total: console.progress("reading", done, total),
    )
    console.say(f"{len(samples)} pairs in {recipe.data.root}, read in {time.monotonic() - started:.1f} s")
    for note, count in decoded.notes.items():
        console.say(f"  {count} images: {note}")
    further = [further_pairs(file, task, look if split_of is None else None, console) for file in recipe.data.also]
    look.say(console)
    if split_of is None:
        position = {sample.id: index for index, sample in enumerate(samples)}
        subsets, groups = make_split(
            samples,
            recipe.split,
            lambda sample: (
                sample.stored.stratum if sample.stored else task.stratum_value(decoded.target(position[sample.id]))
            ),
        )
        seen = look.at_split(recipe, subsets, root, console)
        subsets |= {sample.id: "train" for more in further for sample in more.samples}
        groups |= {id_: group for more in further for id_, group in more.groups.items()}
    else:
        subsets, groups = split_of.read_split()
    material = _joined(samples, decoded, further, key)
    unknown = sorted(set(subsets) ^ set(material.ids))
    if unknown:
        raise RequestError("the data are not those this run began with", where=root, details=unknown[:8])
    counts = {name: list(subsets.values()).count(name) for name in sorted(set(subsets.values()))}
    console.say(f"split {recipe.split.method}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    material = replace(material, subsets=subsets, groups=groups, inspection=seen)
    described = material.positions("train")
    if material.chunks("train") is not None and len(described) > _DESCRIBED:
        # Shards were shuffled when they were written, so the first are as good as any.
        described = described[:_DESCRIBED]
        console.say(f"the first {_DESCRIBED} training targets stand for all:")
    facts = task.describe(material.decoded.target(place) for place in described)
    console.say(task.facts_table(facts))
    return replace(material, facts=facts)


def _joined(samples: list[Sample], decoded: DecodedSamples, further: Sequence[Further], key: str) -> Material:
    """The recipe's own samples, and those of other recipes behind them; not split yet."""
    augmentations: dict[int, AugmentationSection] = {}
    joined = list(samples)
    for more in further:
        augmentations |= dict.fromkeys(range(len(joined), len(joined) + len(more.samples)), more.augmentation)
        joined += more.samples
    if further:
        decoded = JoinedSamples([decoded, *(more.decoded for more in further)])
    return Material(
        joined, decoded, {}, {}, {}, key, augmentations=augmentations, also=[more.facts for more in further]
    )
