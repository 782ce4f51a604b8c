"""`perpixel shard`: the pairs of a recipe in few large files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from perpixel.console import Console
from perpixel.data.cache import read_pair, refuse
from perpixel.data.samples import Sample, data_root, list_samples
from perpixel.data.shard_arrays import encode_array, encode_image
from perpixel.data.shards import ShardRow, write_index
from perpixel.errors import DataError, RequestError
from perpixel.recipe import Recipe
from perpixel.sharding.tars import pairs_in_tars, tars_of, write_tars
from perpixel.tasks import Task, build_task
from perpixel.training.first_look import FirstLook

FORMS = ("litdata", "webdataset")
_BATCH = 256
_THREADS = 4
_LARGEST_MB = 2000  # offsets in a chunk have 32 bits


def shard(
    recipe: Recipe,
    out: Path,
    *,
    data: Path | None,
    size_mb: float,
    form: str,
    force: bool,
    console: Console,
) -> Path:
    """Write the pairs of a recipe as shards, in an order that is random and the same each time.

    Args:
        out: the folder to write; it appears whole or not at all.
        data: the data folder, or tars as WebDataset lays them out, instead of the recipe's ``data.root``.
        size_mb: megabytes (10^6 bytes) of a shard.
        form: one of `FORMS`.
        force: write them in spite of errors that a look at the data finds.

    Raises:
        RequestError: something is there already, no such form or size, or litdata is not installed.
        DataError: data that are not there or not as the recipe says.
    """
    _check(out, size_mb, form)
    place = data or (Path(recipe.data.root).expanduser() if recipe.data.root else None)
    tars = tars_of(place) if place is not None and place.exists() else []
    root = place if tars and place is not None else data_root(recipe.data, data)
    samples = [] if tars else list_samples(recipe.data, root)
    if samples and samples[0].stored is not None:
        raise RequestError("these are shards already", where=root, cure="give the files that they were written from.")
    if tars and form == "webdataset":
        raise RequestError("these are tars already", where=root, cure="leave out --to webdataset.")
    folder = root if root.is_dir() else root.parent
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": str(folder.resolve())})})
    look = FirstLook(force=force)
    if samples:
        look(recipe, samples, root, console)
        samples = [samples[place] for place in np.random.default_rng(0).permutation(len(samples))]
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        if form == "webdataset":
            look.say(console)
            write_tars(samples, partial, int(size_mb * 1e6), lambda done, total: console.progress("files", done, total))
        else:
            _write_shards(recipe, partial, root, samples, tars, int(size_mb * 1e6), look, console)
        partial.chmod(0o777 & ~_umask())
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    files = sorted(out.iterdir())
    console.say(f"{out}: {sum(file.stat().st_size for file in files) / 1e6:,.1f} MB in {len(files)} files")
    return out


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _check(out: Path, size_mb: float, form: str) -> None:
    if form not in FORMS:
        raise RequestError(f"--to is {form!r}", rule=f"there are: {', '.join(FORMS)}.")
    if not 0.001 <= size_mb <= _LARGEST_MB:
        raise RequestError(f"--size-mb is {size_mb:g}", rule=f"a shard has 0.001 to {_LARGEST_MB} megabytes.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RequestError("this is not an empty folder", where=out, cure="name another --out.")


class _Packed(NamedTuple):
    """A sample as it is stored."""

    row: ShardRow
    leaves: tuple[bytes, bytes, bytes]
    notes: list[str]


@dataclass
class _Tally:
    """What was written, and what was wrong."""

    rows: list[ShardRow] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)
    problems: list[DataError] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)


def _write_shards(
    recipe: Recipe,
    folder: Path,
    root: Path,
    samples: Sequence[Sample],
    tars: Sequence[Path],
    most_bytes: int,
    look: FirstLook,
    console: Console,
) -> None:
    task, tally = build_task(recipe), _Tally()
    writer = litdata_writer(folder, most_bytes)
    batches: Iterator[Sequence[Sample]] = pairs_in_tars(tars, _BATCH) if tars else _batches(samples)
    with ThreadPoolExecutor(_THREADS) as pool:
        for batch in batches:
            if tars and not tally.seen:  # the files of a tar are there for a moment only
                look(recipe, batch, root, console)
            for packed in pool.map(lambda sample: _pack(sample, task), batch):
                _add(packed, writer, tally)
            console.progress("samples", len(tally.seen), len(samples) or len(tally.seen))
    look.say(console)
    refuse(tally.problems, len(tally.seen))
    if not tally.rows:
        raise DataError("these tars hold no sample", where=root)
    writer.done()
    writer.merge()
    write_index(
        folder,
        tally.rows,
        meaning=task.meaning,
        image_scale=task.image_scale,
        notes=tally.notes,
        inspection=look.seen(recipe, root),
        source={"recipe": recipe.name} | recipe.data.model_dump(mode="json"),
    )
    console.say(f"{len(tally.rows)} pairs of {root}")
    for note, count in tally.notes.items():
        console.say(f"  {count} images: {note}")


def _batches(samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
    return (samples[start : start + _BATCH] for start in range(0, len(samples), _BATCH))


def litdata_writer(folder: Path, most_bytes: int) -> Any:
    """litdata's writer of chunks of at most so many bytes; raises RequestError where it is not installed."""
    try:
        from litdata.streaming.writer import BinaryWriter
    except ImportError:
        raise RequestError(
            "shards are written by litdata, which is not installed", cure="pip install 'perpixel[shards]'."
        ) from None
    return BinaryWriter(str(folder), chunk_bytes=most_bytes)


def _pack(sample: Sample, task: Task) -> _Packed | DataError:
    try:
        image_hwc, target_hw, notes = read_pair(sample, task.decode_target, task.image_scale)
    except DataError as error:
        return error
    row = ShardRow(sample.id, sample.subset, float(task.stratum_value(target_hw)), sample.attributes)
    return _Packed(row, (sample.id.encode(), encode_image(image_hwc, sample.image), encode_array(target_hw)), notes)


def _add(packed: _Packed | DataError, writer: Any, tally: _Tally) -> None:
    """Write a sample; after a problem the others are only read, so that all problems are told at once."""
    if isinstance(packed, DataError):
        tally.problems.append(packed)
        tally.seen.add(f"problem {len(tally.problems)}")
        return
    if packed.row.id in tally.seen:
        tally.problems.append(DataError("an id names two samples", where=packed.row.id, rule="ids are unique."))
    tally.seen.add(packed.row.id)
    for note in packed.notes:
        tally.notes[note] = tally.notes.get(note, 0) + 1
    if not tally.problems:
        writer[len(tally.rows)] = packed.leaves
        tally.rows.append(packed.row)
