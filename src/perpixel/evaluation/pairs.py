"""Which pairs an evaluation scores: a subset of a run's own data, another folder, or the data of another recipe."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from perpixel.console import Console
from perpixel.data.cache import fingerprint
from perpixel.data.samples import Sample, data_root, list_samples
from perpixel.data.split import groups_of, named_subset
from perpixel.errors import RequestError
from perpixel.evaluation.evaluate import read_evaluation
from perpixel.recipe import DataSection, SplitSection, load_recipe
from perpixel.run import Run
from perpixel.tasks import Task, build_task


@dataclass(frozen=True)
class Pairs:
    """Pairs to score.

    Attributes:
        samples: those that are scored.
        task: reads the targets; its class map may have other raw values than the run's.
        subset: which subset of the data they are; None for all pairs of the folder.
        own: whether they are of the data that the run was trained on.
        recipe: the recipe file that describes the data, where it is not the run's.
        split_of: another run whose split says what ``subset`` is.
        groups: by sample id, what belongs together: scenes, or blocks of neighbours.
    """

    samples: list[Sample]
    task: Task
    root: Path
    fingerprint: str
    subset: str | None
    own: bool
    recipe: Path | None = None
    recipe_name: str | None = None
    split_of: Path | None = None
    groups: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """For people: the data's name."""
        return self.recipe_name or self.root.name or str(self.root)

    @property
    def part(self) -> str:
        """For people: which of the data's pairs."""
        return "all" if self.subset is None else self.subset + (f" of {self.split_of.name}" if self.split_of else "")


def open_pairs(run: Run, task: Task, *, subset: str, data: Path | None, console: Console) -> Pairs:
    """Pairs of the run's own data, of a folder in their layout, or of a recipe file's data.

    Of the run's own data, wherever they lie now, the run's ``subset`` is taken. Of other data the subset of that name,
    where their folders or their table name one; else all pairs. Of data that trained too (``data.also``) the pairs that
    did not.

    Raises:
        RequestError: no such subset of the run, a run in place of data, or a recipe of other classes.
        DataError: the data are not there, or not in this layout.
    """
    section, split, reader, recipe_file, recipe_name = run.recipe.data, run.recipe.split, task, None, None
    if data is not None and _is_recipe(data):
        section, split, reader, recipe_name = _described(task, data)
        recipe_file, data = data, None
    elif data is not None:
        _require_folder(data)
    root = data_root(section, data).resolve()
    samples = list_samples(section, root)
    key = fingerprint(samples, reader.meaning, contents=run.recipe.data.cache == "auto")
    trained_on = run.manifest.get("data", {}).get("fingerprint")
    if key == trained_on or (data is None and recipe_file is None):
        if key != trained_on:
            console.say(f"note: the files in {root} are not those this run was trained on")
        own = run.read_split()[1]
        return Pairs(_of_split(run, samples, subset), reader, root, key, subset, True, groups=own)
    chosen = [sample for sample in samples if named_subset(sample) == subset]
    if held_out := _not_trained_on(run, samples, recipe_name):
        chosen, subset = held_out, "held-out"
    return Pairs(
        chosen or samples,
        reader,
        root,
        key,
        subset if chosen else None,
        False,
        recipe_file,
        recipe_name,
        groups=groups_of(samples, split),
    )


def evaluation_name(run: Run, pairs: Pairs, taken: Collection[str] = ()) -> str:
    """The folder below ``evaluation/``; data of one name that lie in two places get two.

    Other data may be called "val": they must not replace the figures of the run's own subset.
    """
    if pairs.own:
        return str(pairs.subset)
    base = "-".join(filter(None, ["data", pairs.title.strip("/"), pairs.subset]))
    name, number = base, 2
    while name in taken or not _free(run, name, pairs):
        name, number = f"{base}-{number}", number + 1
    return name


def _free(run: Run, name: str, pairs: Pairs) -> bool:
    stored = read_evaluation(run, name)
    if stored is None:
        return True
    same_recipe = stored["protocol"].get("recipe") == (str(pairs.recipe) if pairs.recipe else None)
    return same_recipe and bool(stored["protocol"]["data"] == str(pairs.root))


def _not_trained_on(run: Run, samples: list[Sample], recipe_name: str | None) -> list[Sample]:
    """Of a recipe whose training pairs trained too (``data.also``), the others; empty where there was none."""
    trained = {id_ for id_ in run.read_split()[0] if id_.startswith(f"{recipe_name}:")} if recipe_name else set()
    return [sample for sample in samples if f"{recipe_name}:{sample.id}" not in trained] if trained else []


def _of_split(run: Run, samples: list[Sample], subset: str) -> list[Sample]:
    subsets, _ = run.read_split()
    chosen = [sample for sample in samples if subsets.get(sample.id) == subset]
    if not chosen:
        known = sorted(set(subsets.values()))
        raise RequestError(f"this run has no subset {subset!r}", where=run.split_path, rule=f"it has {known}.")
    return chosen


def _is_recipe(data: Path) -> bool:
    return data.suffix.lower() in (".yaml", ".yml") and not data.is_dir()


def _described(task: Task, file: Path) -> tuple[DataSection, SplitSection, Task, str]:
    """The data and split sections of a recipe file, what reads its targets, and its name."""
    recipe = load_recipe(file)
    reader = build_task(recipe)
    task.require_same_maps(reader, file)
    if recipe.data.root is None:
        raise RequestError(
            "this recipe names no data folder", where=file, cure="write root: DIR into its data section."
        )
    return recipe.data, recipe.split, reader, recipe.name


def _require_folder(data: Path) -> None:
    if data.is_file():
        raise RequestError(
            "this is a file, and no recipe",
            where=data,
            rule="--data is a folder in the layout of the run's own data, or a recipe file (.yaml) whose data and"
            " target sections describe another layout.",
        )
    if Run(data).recipe_path.is_file() and Run(data).manifest_path.is_file():
        raise RequestError(
            "this is the folder of a run, not of data",
            where=data,
            cure=f"give the folder of its data, or its recipe: --data {Run(data).recipe_path}.",
        )
