"""One pass over the files: a record a sample, from the cache where the content is known already."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.data.cache_folder import cache_folder
from perpixel.data.samples import Sample
from perpixel.depth_codec import DepthCodec
from perpixel.depth_files import read_numbers
from perpixel.errors import DataError, RequestError
from perpixel.images import read_image, read_label_map
from perpixel.inspection.agreement import pair_facts
from perpixel.inspection.look import depth_facts, file_facts, image_facts, label_facts, label_keys, quantiles_7
from perpixel.inspection.planes import bends
from perpixel.inspection.record import Record, from_text, to_text
from perpixel.recipe import DepthTarget, RestorationTarget, SegmentationTarget

__all__ = ["Reading", "measure_all", "measure_one", "reading_of"]

Progress = Callable[[int, int], None]
_VERSION = 4  # to be raised whenever a record of the same files would be another one
_BATCH = 64
_LARGE = 4_000_000  # pixels; pairs of larger pictures are looked at one by one, so that memory does not grow with cores
_ONE_LARGE = threading.Lock()
_NO_PIXELS = ("empty", "damaged", "no-image", "several", "huge", "numbers", "other")


@dataclass(frozen=True)
class Reading:
    """How target files are looked at: as ``labels``, ``depth`` or ``picture``. Another ``meaning``, another result."""

    kind: str
    meaning: str
    codec: DepthCodec | None = None


def reading_of(target: SegmentationTarget | DepthTarget | RestorationTarget) -> Reading:
    """How to look at the target files of a recipe. Label maps look alike whatever the classes are."""
    makers: dict[type[Any], Callable[[Any], Reading]] = {
        SegmentationTarget: lambda _: Reading("labels", "labels"),
        RestorationTarget: lambda _: Reading("picture", "picture"),
        DepthTarget: lambda depth: Reading(
            "depth", repr(sorted(depth.codec_settings().items())), DepthCodec(**depth.codec_settings())
        ),
    }
    return makers[type(target)](target)


def measure_all(
    samples: Sequence[Sample], reading: Reading, *, progress: Progress | None = None, cache: bool = True
) -> list[Record]:
    """Records in the order of the samples. Files that are no good make a record that says so; nothing is raised."""
    records: list[Record] = []
    with warnings.catch_warnings(), _Store(cache) as store, ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore")  # what libraries have to say of odd files becomes a finding where it matters
        for start in range(0, len(samples), _BATCH):
            batch = samples[start : start + _BATCH]
            headed = list(pool.map(_headed, batch))
            keys = [_key(record, reading) for record in headed]
            known = [store.get(key) for key in keys]
            done = list(pool.map(lambda item: _from(item[0], item[1], reading), zip(headed, known, strict=True)))
            store.put([(key, to_text(record)) for key, record, old in zip(keys, done, known, strict=True) if not old])
            records += done
            if progress is not None:
                progress(len(records), len(samples))
    return records


def measure_one(sample: Sample, reading: Reading) -> Record:
    """The record of one sample, without the cache."""
    return _looked_at(_headed(sample), reading)


def _headed(sample: Sample) -> Record:
    target = file_facts(sample.target) if sample.target is not None else None
    return Record(sample, file_facts(sample.image), target)


def _from(headed: Record, known: str | None, reading: Reading) -> Record:
    if known:
        with contextlib.suppress(ValueError, KeyError, TypeError):  # a damaged entry is made anew
            return from_text(known, headed.sample)
    sizes = [facts.height * facts.width for facts in (headed.image_file, headed.target_file) if facts is not None]
    with _ONE_LARGE if max(sizes) > _LARGE else contextlib.nullcontext():
        return _looked_at(headed, reading)


def _key(record: Record, reading: Reading) -> str:
    """Names content and meaning; also the names' endings, which some readers go by."""
    parts = [str(_VERSION), reading.kind, reading.meaning]
    for facts, path in ((record.image_file, record.sample.image), (record.target_file, record.sample.target)):
        parts += [facts.digest, facts.trouble, path.suffix.lower()] if facts is not None and path is not None else [""]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def _looked_at(record: Record, reading: Reading) -> Record:
    image_hwc = None
    if record.image_file.trouble not in _NO_PIXELS:
        try:
            loaded = read_image(record.sample.image, keep_16_bits=True)
            image_hwc = loaded.pixels_hwc
            height, width = image_hwc.shape[:2]  # no header tells it of a picture whose name ends in .npy
            file = replace(record.image_file, height=height, width=width)
            record = replace(record, image=image_facts(image_hwc), image_file=file)
            if any(note.startswith("transparency") for note in loaded.notes):
                record = replace(record, image_file=replace(record.image_file, transparency="partly"))
        except DataError as error:
            record = replace(record, image_file=replace(record.image_file, trouble=_kind(error), said=error.what))
    if record.target_file is None or record.target_file.trouble in _NO_PIXELS:
        return record
    return _with_target(record, image_hwc, reading)


def _with_target(record: Record, image_hwc: NDArray[Any] | None, reading: Reading) -> Record:
    path, file = record.sample.target, record.target_file
    assert path is not None and file is not None  # the caller looked
    target: NDArray[Any]
    try:
        if reading.kind == "labels":
            label = read_label_map(path)
            record, target = replace(record, label=label_facts(label)), label_keys(label)
        elif reading.kind == "depth":
            target = read_numbers(path, reading.codec.key if reading.codec else None)
            record = _with_depth(record, target, path, reading.codec)
        else:
            target = read_image(path, keep_16_bits=True).pixels_hwc
            record = replace(record, picture=image_facts(target))
    except (DataError, RequestError) as error:
        return replace(record, target_file=replace(file, trouble=_kind(error), said=error.what))
    record = replace(record, target_file=replace(file, height=target.shape[0], width=target.shape[1]))
    if image_hwc is None:
        return record
    return replace(record, pair=pair_facts(image_hwc, target, reading.kind))


def _with_depth(record: Record, raw_hw: NDArray[Any], path: Path, codec: DepthCodec | None) -> Record:
    facts = depth_facts(raw_hw)
    camera = codec.camera(*raw_hw.shape) if codec is not None else None
    facts = replace(facts, planes=bends(raw_hw, camera))
    if codec is not None:
        try:
            depth_hw, valid_hw = codec.decode(raw_hw, where=path)
            far_hw = codec.beyond_range(raw_hw, where=path)
            facts = replace(
                facts,
                metres_7=quantiles_7(depth_hw[valid_hw]),
                valid=float(valid_hw.mean()),
                beyond=float(far_hw.mean()),
            )
        except DataError as error:
            facts = replace(facts, error=error.what)
    return replace(record, depth=facts)


def _kind(error: DataError | RequestError) -> str:
    for word, kind in (
        ("damaged", "damaged"),
        ("not an image", "no-image"),
        ("32-bit", "numbers"),
        ("fractions", "numbers"),
    ):
        if word in error.what:
            return kind
    return "other"


class _Store:
    """Records by key in one SQLite file of the cache folder; where that cannot be used, nothing is remembered."""

    def __init__(self, wanted: bool) -> None:
        self._base: sqlite3.Connection | None = None
        self._wanted = wanted

    def __enter__(self) -> _Store:
        if self._wanted:
            with contextlib.suppress(OSError, sqlite3.Error):
                cache_folder().mkdir(parents=True, exist_ok=True)
                self._base = sqlite3.connect(cache_folder() / "inspection.sqlite", timeout=5)
                self._base.execute("CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, value TEXT)")
        return self

    def __exit__(self, *_: object) -> None:
        if self._base is not None:
            self._base.close()

    def get(self, key: str) -> str | None:
        """What is remembered under a key."""
        if self._base is None:
            return None
        try:
            row = self._base.execute("SELECT value FROM records WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error:
            return None
        return str(row[0]) if row else None

    def put(self, rows: Sequence[tuple[str, str]]) -> None:
        """Remember; a full or locked store forgets."""
        if self._base is not None and rows:
            with contextlib.suppress(sqlite3.Error), self._base:
                self._base.executemany("INSERT OR REPLACE INTO records VALUES (?, ?)", rows)


def spread(items: Sequence[Any], count: int) -> Iterator[Any]:
    """At most ``count`` of the items, evenly spread."""
    for position in np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)):
        yield items[position]
