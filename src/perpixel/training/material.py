"""Data made ready for a training: listed, split, decoded, described."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from perpixel.console import Console
from perpixel.data.cache import DecodedSamples, decode_samples, fingerprint
from perpixel.data.samples import Sample, data_root, list_samples
from perpixel.data.split import make_split
from perpixel.errors import RequestError
from perpixel.recipe import Recipe
from perpixel.run import Run
from perpixel.tasks import Task
from perpixel.training.first_look import FirstLook


@dataclass(frozen=True)
class Material:
    """Data made ready for one training."""

    samples: list[Sample]
    decoded: DecodedSamples
    subsets: dict[str, str]
    groups: dict[str, str]
    facts: dict[str, Any]
    fingerprint: str
    inspection: dict[str, Any] | None = None

    @property
    def ids(self) -> list[str]:
        """Ids by position."""
        return [sample.id for sample in self.samples]

    def positions(self, subset: str) -> list[int]:
        """Positions of a subset's samples."""
        return [position for position, sample in enumerate(self.samples) if self.subsets[sample.id] == subset]


def prepare(
    recipe: Recipe, task: Task, console: Console, split_of: Run | None = None, look: FirstLook | None = None
) -> Material:
    """List, inspect, split and decode the data; of a run that goes on the split stays, and no second look is taken."""
    root = data_root(recipe.data)
    samples = list_samples(recipe.data, root)
    look = look or FirstLook()
    seen = look(recipe, samples, root, console) if split_of is None else None
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
    console.say(f"{len(samples)} pairs in {root}, read in {time.monotonic() - started:.1f} s")
    for note, count in decoded.notes.items():
        console.say(f"  {count} images: {note}")
    look.say(console)
    if split_of is None:
        position = {sample.id: index for index, sample in enumerate(samples)}
        subsets, groups = make_split(
            samples, recipe.split, lambda sample: task.stratum_value(decoded.target(position[sample.id]))
        )
    else:
        subsets, groups = split_of.read_split()
        unknown = sorted(set(subsets) ^ {sample.id for sample in samples})
        if unknown:
            raise RequestError("the data are not those this run began with", where=root, details=unknown[:8])
    facts = task.describe(decoded.target(i) for i, s in enumerate(samples) if subsets[s.id] == "train")
    counts = {name: list(subsets.values()).count(name) for name in sorted(set(subsets.values()))}
    console.say(f"split {recipe.split.method}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    console.say(task.facts_table(facts))
    return Material(samples, decoded, subsets, groups, facts, key, seen)
