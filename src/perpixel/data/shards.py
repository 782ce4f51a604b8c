"""Shards: many pairs in few files, as litdata lays them out; read sample by sample, here or from object storage.

A folder of shards holds litdata's own ``index.json`` and ``chunk-*.bin``, and beside them what litdata does not know:
``perpixel-shards.json`` (what target values mean, a digest of each chunk) and ``samples.csv`` (a row a sample, in their
order). A sample is three leaves of bytes: id, image, target. So nothing is ever unpickled, and litdata's readers can
read it too. The layout of a chunk (litdata 0.2, ``BinaryWriter``): the number of samples and the offsets of all and of
the end, uint32; of a sample the lengths of its leaves, uint32, then the leaves.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import struct
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perpixel.data.shard_arrays import decode_array
from perpixel.data.shard_cache import ChunkCache, digest_of
from perpixel.errors import DataError

__all__ = ["INDEX", "LEAVES", "TABLE", "Chunk", "ShardRow", "ShardedSamples", "Shards", "Stored", "open_shards"]

INDEX, TABLE = "perpixel-shards.json", "samples.csv"
LEAVES = ("id", "image", "target")
FORMAT = 1
_COLUMNS = ["id", "subset", "stratum"]
_CHUNK_NAME = re.compile(r"chunk-\d+-\d+\.bin")
_TRIES = 100


class Chunk(NamedTuple):
    """A file of shards; ``digest`` as `digest_of` gives it."""

    name: str
    samples: int
    bytes: int
    digest: str


class ShardRow(NamedTuple):
    """What the table says of a sample; ``stratum`` is the figure that a stratified split balances."""

    id: str
    subset: str | None
    stratum: float
    attributes: dict[str, str]


@dataclass
class Shards:
    """A folder of shards, opened.

    Attributes:
        root: the folder, or, of one that is elsewhere, where its index lies here.
        meaning: `Task.meaning` of the targets.
        image_scale: that of the task, as `decode_samples` takes it.
        inspection: what a look at the data said when they were written.
        cache: keeps chunks of a folder that is elsewhere; None where ``root`` holds them.
        window: the samples of about so many chunks are shuffled among each other.
    """

    root: Path
    chunks: list[Chunk]
    meaning: str
    image_scale: int | None
    fingerprint: str
    notes: dict[str, int]
    inspection: dict[str, Any]
    window: int
    cache: ChunkCache | None = None
    _sound: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._ends = list(accumulate(chunk.samples for chunk in self.chunks))

    def __len__(self) -> int:
        return self._ends[-1]

    def chunk_of(self, position: int) -> int:
        """The number of the chunk that holds a sample."""
        return bisect_right(self._ends, position)

    def read(self, position: int, leaf: str) -> bytes:
        """One leaf of a sample; raises DataError where its chunk is missing or damaged, or cannot be fetched."""
        number = self.chunk_of(position)
        chunk = self.chunks[number]
        row = position - (self._ends[number] - chunk.samples)
        for _ in range(_TRIES):
            try:
                with self._path(chunk).open("rb") as file:
                    return _leaf(file, row, LEAVES.index(leaf))
            except FileNotFoundError:  # another process has made room in the cache just now
                continue
        raise DataError(
            f"the cache lost {chunk.name} again and again",
            where=self.root,
            cure="let it hold more chunks: --set data.shard_cache=32.",
        )

    def _path(self, chunk: Chunk) -> Path:
        """The file of a chunk, which was found to be sound."""
        if self.cache is not None:
            return self.cache.path(chunk.name, chunk.digest)
        path = self.root / chunk.name
        if chunk.name not in self._sound:
            if not path.is_file():
                raise DataError("this chunk is missing", where=path, cure=_CURE)
            if path.stat().st_size != chunk.bytes or digest_of(path) != chunk.digest:
                raise DataError("this chunk is damaged: it is not what was written", where=path, cure=_CURE)
            self._sound.add(chunk.name)
        return path

    def require_meaning(self, meaning: str) -> None:
        """Raise DataError unless the targets mean the same as those of a recipe."""
        if meaning != self.meaning:
            raise DataError(
                "the targets of these shards were read by another recipe: their values mean something else",
                where=self.root / INDEX,
                details=[f"in the shards: {self.meaning}", f"in the recipe: {meaning}"],
                cure="take the target section that they were written with, or write them anew with perpixel shard.",
            )


_CURE = f"copy it again from where the shards came from, or write them anew with perpixel shard; {INDEX} lists all."


def _leaf(file: BinaryIO, row: int, leaf: int) -> bytes:
    file.seek(4 + 4 * row)
    (start,) = struct.unpack("<I", file.read(4))
    file.seek(start)
    sizes = struct.unpack(f"<{len(LEAVES)}I", file.read(4 * len(LEAVES)))
    file.seek(start + 4 * len(LEAVES) + sum(sizes[:leaf]))
    return file.read(sizes[leaf])


class Stored(NamedTuple):
    """Where a sample lies that is no file of its own."""

    shards: Shards
    position: int
    stratum: float


class ShardedSamples:
    """Samples of shards, decoded each time they are asked for.

    Attributes:
        chunk_n: the number of each sample's chunk: neighbours in it are read together.
    """

    def __init__(self, places: Sequence[Stored]) -> None:
        self.shards = places[0].shards
        # An array: of a list each worker would make a copy of its own, page by page, by counting references.
        self.positions = np.array([place.position for place in places])
        self.chunk_n: NDArray[np.int64] = np.array([self.shards.chunk_of(place.position) for place in places])
        self.window = self.shards.window
        self.notes = self.shards.notes

    def __len__(self) -> int:
        return len(self.positions)

    def image(self, index: int) -> NDArray[Any]:
        return self._array(index, "image")

    def target(self, index: int) -> NDArray[Any]:
        return self._array(index, "target")

    def _array(self, index: int, leaf: str) -> NDArray[Any]:
        return decode_array(self.shards.read(int(self.positions[index]), leaf))


# ---------------------------------------------------------------- the index


def open_shards(root: Path, most_chunks: int) -> tuple[Shards, list[ShardRow]] | None:
    """The shards of a folder and what is known of each sample, in their order; None where it holds no shards.

    Args:
        root: a folder, or what `perpixel.data.shard_cache.mirrored` made of a URL.
        most_chunks: of shards that are elsewhere, how many chunks may lie here at once.

    Raises:
        DataError: shards that perpixel did not write, or whose index is damaged.
    """
    if not (root / INDEX).is_file():
        if (root / "index.json").is_file() and any(root.glob("chunk-*.bin")):
            raise DataError(
                "these shards do not say what their samples are",
                where=root,
                rule=f"shards to train on are those of perpixel shard, with {INDEX} beside litdata's index.json.",
            )
        return None
    try:
        stored = json.loads((root / INDEX).read_text(encoding="utf-8"))
        text = (root / TABLE).read_text(encoding="utf-8")
        rows = _rows(text)
        chunks = [Chunk(*chunk) for chunk in stored["chunks"]]
        _require_plain_bytes(root)
        sound = (
            stored["format"] == FORMAT
            and all(_CHUNK_NAME.fullmatch(chunk.name) for chunk in chunks)
            and sum(chunk.samples for chunk in chunks) == len(rows) > 0
            and stored["fingerprint"] == shards_fingerprint(stored["meaning"], stored["image_scale"], chunks, text)
        )
        opened = Shards(
            root,
            chunks,
            stored["meaning"],
            stored["image_scale"],
            stored["fingerprint"],
            stored["notes"],
            stored["inspection"],
            window=max(1, most_chunks // 2),
            cache=ChunkCache.of(root, most_chunks),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, csv.Error) as error:
        raise DataError(f"the index of these shards cannot be read: {error}", where=root / INDEX, cure=_CURE) from None
    if not sound:
        raise DataError("the index of these shards does not agree with itself", where=root / INDEX, cure=_CURE)
    return opened, rows


def _require_plain_bytes(root: Path) -> None:
    """Raise DataError unless litdata's index declares leaves of plain bytes, as perpixel writes them."""
    config = json.loads((root / "index.json").read_text(encoding="utf-8"))["config"]
    if config["data_format"] != ["bytes"] * len(LEAVES) or config["compression"] or config["encryption"]:
        raise DataError(
            f"the samples of these shards are {', '.join(map(str, config['data_format']))}",
            where=root / "index.json",
            rule="perpixel reads plain bytes alone, never what could run code when it is opened, such as pickle.",
            cure="write them anew with perpixel shard.",
        )


def shards_fingerprint(meaning: str, image_scale: int | None, chunks: Sequence[Chunk], table: str) -> str:
    """A name for all that is in shards."""
    said = json.dumps([FORMAT, meaning, image_scale, [list(chunk) for chunk in chunks]])
    return hashlib.blake2b(said.encode() + table.encode(), digest_size=12).hexdigest()


def write_index(
    root: Path,
    rows: Sequence[ShardRow],
    *,
    meaning: str,
    image_scale: int | None,
    notes: Mapping[str, int],
    inspection: Mapping[str, Any],
    source: Mapping[str, Any],
) -> None:
    """Write what litdata does not know beside its chunks and its index."""
    listed = json.loads((root / "index.json").read_text(encoding="utf-8"))["chunks"]
    chunks = [
        Chunk(entry["filename"], entry["chunk_size"], entry["chunk_bytes"], digest_of(root / entry["filename"]))
        for entry in listed
    ]
    table = _table(rows)
    (root / TABLE).write_text(table, encoding="utf-8")
    stored = {
        "format": FORMAT,
        "samples": len(rows),
        "meaning": meaning,
        "image_scale": image_scale,
        "fingerprint": shards_fingerprint(meaning, image_scale, chunks, table),
        "notes": dict(notes),
        "inspection": dict(inspection),
        "source": dict(source),
        "chunks": chunks,
    }
    (root / INDEX).write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _table(rows: Sequence[ShardRow]) -> str:
    names = sorted({name for row in rows for name in row.attributes})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_COLUMNS, *names])
    for row in rows:
        attributes = [row.attributes.get(name, "") for name in names]
        writer.writerow([row.id, row.subset or "", repr(row.stratum), *attributes])
    return text.getvalue()


def _rows(text: str) -> list[ShardRow]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    names = next(reader)[len(_COLUMNS) :]
    return [
        ShardRow(id_, subset or None, float(stratum), {k: v for k, v in zip(names, values, strict=True) if v})
        for id_, subset, stratum, *values in reader
    ]
