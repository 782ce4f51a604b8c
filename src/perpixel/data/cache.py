"""Decoded samples: kept once on disk, memory-mapped, under a key made of the files' contents."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perpixel.data.cache_folder import cache_folder
from perpixel.data.problems import in_few_sentences
from perpixel.data.samples import Sample
from perpixel.data.shards import ShardedSamples
from perpixel.errors import DataError
from perpixel.images import image_size, read_image

Progress = Callable[[int, int], None]
_ReadPair = Callable[[Sample], tuple[NDArray[Any], NDArray[Any], list[str]]]

_FORMAT = 2
_LARGEST_BYTES = 16 * 2**30
_SHOWN = 8
_PARTIAL = ".building-"
_ARRAY = np.dtype([("start", "i8"), ("height", "i8"), ("width", "i8"), ("channels", "i8"), ("type", "S3")])


class DecodeTarget(Protocol):
    """Reads a target file."""

    def __call__(self, path: Path, notes: list[str] | None = None) -> NDArray[Any]:
        """target_hw, or target_hwc where it is an image; adds to ``notes`` what had to be done; raises DataError."""


class DecodedSamples(Protocol):
    """Images and targets at their original sizes, by position."""

    notes: dict[str, int]

    def __len__(self) -> int: ...

    def image(self, index: int) -> NDArray[Any]:
        """image_hwc, RGB, uint8; uint16 too where targets are images."""

    def target(self, index: int) -> NDArray[Any]:
        """target_hw in the task's own values; target_hwc where it is an image."""


class StreamedSamples:
    """Files are decoded each time they are asked for; one that is no good is a DataError then."""

    def __init__(
        self,
        samples: Sequence[Sample],
        decode_target: DecodeTarget,
        why: str | None = None,
        *,
        image_scale: int | None = None,
    ) -> None:
        self.samples, self.decode_target, self.image_scale = samples, decode_target, image_scale
        self.notes = {f"decoded anew each time: {why}": len(samples)} if why else {}

    def __len__(self) -> int:
        return len(self.samples)

    def image(self, index: int) -> NDArray[Any]:
        return read_image(self.samples[index].image, keep_16_bits=self.image_scale is not None).pixels_hwc

    def target(self, index: int) -> NDArray[Any]:
        sample = self.samples[index]
        assert sample.target is not None
        target_hw = self.decode_target(sample.target)
        _require_one_size(sample, image_size(sample.image), target_hw, self.image_scale)
        return target_hw


@dataclass
class CachedSamples:
    """Decoded samples in one memory-mapped file; ``table_n2`` says of each the place of its image and of its target."""

    folder: Path
    table_n2: NDArray[Any]
    notes: dict[str, int]

    def __post_init__(self) -> None:
        self._bytes = np.memmap(self.folder / "pixels.bin", dtype=np.uint8, mode="r")

    def __len__(self) -> int:
        return len(self.table_n2)

    def image(self, index: int) -> NDArray[Any]:
        return self._array(*self.table_n2[index, 0])

    def target(self, index: int) -> NDArray[Any]:
        return self._array(*self.table_n2[index, 1])

    def _array(self, start: int, height: int, width: int, channels: int, type_: bytes) -> NDArray[Any]:
        dtype = np.dtype(type_.decode())
        shape = (height, width, channels) if channels else (height, width)
        size = height * width * (channels or 1) * dtype.itemsize
        return np.asarray(self._bytes[start : start + size]).view(dtype).reshape(shape)


def decode_samples(
    samples: Sequence[Sample],
    decode_target: DecodeTarget,
    *,
    key: str | None,
    image_scale: int | None = None,
    progress: Progress | None = None,
) -> DecodedSamples:
    """Decode labelled samples, from the cache when they are in it; those of shards whenever they are asked for.

    Args:
        decode_target: reads a target file; raises DataError.
        key: the samples' `fingerprint`, the name of their cache; None streams from the files.
        image_scale: targets are images, so many times as high and as wide, and images of 16 bits stay so; None:
            targets are maps of the images' size, and images have 8 bits.

    Raises:
        DataError: says everything that is wrong with the files, in a line a kind of problem. Streamed samples
            raise it one by one, when they are asked for.
    """
    places = [sample.stored for sample in samples if sample.stored is not None]
    if places:
        return ShardedSamples(places)
    if key is None:
        return StreamedSamples(samples, decode_target, image_scale=image_scale)
    folder = cache_folder() / f"samples-{key}"
    if not (folder / "index.json").is_file():
        why_not = _build(samples, lambda sample: read_pair(sample, decode_target, image_scale), folder, progress)
        if why_not:
            return StreamedSamples(samples, decode_target, why_not, image_scale=image_scale)
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return CachedSamples(folder, np.load(folder / "table.npy"), index["notes"])


def fingerprint(samples: Sequence[Sample], meaning: str, *, contents: bool) -> str:
    """A name for these data: ids, files and what the targets mean.

    Args:
        meaning: what target values mean (the class map).
        contents: over the files' contents; else over their sizes alone.

    Raises:
        DataError: the targets of shards mean something else.
    """
    if samples and (stored := samples[0].stored) is not None:
        stored.shards.require_meaning(meaning)
        return stored.shards.fingerprint
    joined = hashlib.blake2b(f"{_FORMAT}\n{meaning}\n".encode(), digest_size=12)
    files = [(sample.id, path) for sample in samples for path in (sample.image, sample.target) if path]
    with ThreadPoolExecutor(4) as pool:
        digests = pool.map(_digest if contents else _size, [path for _, path in files])
        for (id_, _), digest in zip(files, digests, strict=True):
            joined.update(id_.encode("utf-8", "surrogateescape") + b"\0" + digest)
    return joined.hexdigest()


def _size(path: Path) -> bytes:
    return str(path.stat().st_size).encode()


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()


def _build(samples: Sequence[Sample], read: _ReadPair, folder: Path, progress: Progress | None) -> str | None:
    """Decode everything into ``folder``, which appears whole or not at all; returns why it could not be done."""
    partial = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder.parent)
        most = min(_LARGEST_BYTES, shutil.disk_usage(folder.parent).free // 2)
        partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=folder.parent))
        if not _write(samples, read, partial, most, progress):
            return f"they do not fit into the cache ({most / 2**30:.1f} GiB at most)"
        os.replace(partial, folder)
    except OSError as error:
        # Another process may have finished the same cache first; its content is the same.
        if not (folder / "index.json").is_file():
            return f"the cache folder {folder.parent} cannot be used ({error.strerror})"
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
    return None


def _remove_abandoned(folder: Path) -> None:
    """What a killed process left half built; a living one is never a day old."""
    for partial in folder.glob(f"{_PARTIAL}*"):
        if time.time() - partial.stat().st_mtime > 86400:
            shutil.rmtree(partial, ignore_errors=True)


def _write(samples: Sequence[Sample], read: _ReadPair, partial: Path, most: int, progress: Progress | None) -> bool:
    table_n2 = np.zeros((len(samples), 2), dtype=_ARRAY)
    problems: list[DataError] = []
    notes: dict[str, int] = {}
    with (partial / "pixels.bin").open("wb") as file:
        for position, sample in enumerate(samples):
            try:
                image_hwc, target_hw, file_notes = read(sample)
            except DataError as error:
                problems.append(error)
                continue
            for note in file_notes:
                notes[note] = notes.get(note, 0) + 1
            for column, array in enumerate((image_hwc, target_hw)):
                file.write(b"\0" * (-file.tell() % 16))
                channels = array.shape[2] if array.ndim == 3 else 0
                table_n2[position, column] = file.tell(), *array.shape[:2], channels, array.dtype.str.encode()
                file.write(np.ascontiguousarray(array).tobytes())
            if file.tell() > most:
                return False
            if progress:
                progress(position + 1, len(samples))
    refuse(problems, len(samples))
    np.save(partial / "table.npy", table_n2)
    (partial / "index.json").write_text(json.dumps({"notes": notes}), encoding="utf-8")
    return True


def read_pair(
    sample: Sample, decode_target: DecodeTarget, image_scale: int | None = None
) -> tuple[NDArray[Any], NDArray[Any], list[str]]:
    """Decode one image, its target, and notes; ``image_scale`` as in `decode_samples`.

    Raises:
        DataError: a file is unreadable, or the sizes do not belong together.
    """
    loaded = read_image(sample.image, keep_16_bits=image_scale is not None)
    assert sample.target is not None
    notes = list(loaded.notes)
    try:
        target_hw = decode_target(sample.target, notes)
    except DataError as error:
        swapped = _swapped(sample, decode_target) if image_scale is None else None  # of two images nobody can tell
        raise (swapped or error) from None
    _require_one_size(sample, loaded.pixels_hwc.shape, target_hw, image_scale)
    return loaded.pixels_hwc, target_hw, notes


def _swapped(sample: Sample, decode_target: DecodeTarget) -> DataError | None:
    """When the target cannot be read as one: an error that says that the image can, or None."""
    try:
        image_hw = decode_target(sample.image)
    except DataError:
        return None
    if image_hw.min() == image_hw.max():  # a black picture is anybody's target
        return None
    return DataError(
        "the image can be read as a target, and the target cannot: they look swapped",
        where=sample.id,
        cure="exchange data.images and data.targets.",
    )


def _require_one_size(
    sample: Sample, image_shape: tuple[int, ...], target_hw: NDArray[Any], image_scale: int | None
) -> None:
    (height, width), (target_height, target_width) = image_shape[:2], target_hw.shape[:2]
    scale = image_scale or 1
    if (scale * height, scale * width) == (target_height, target_width):
        return
    sizes = f"the image is {width}x{height}, its target {target_width}x{target_height} (width x height)"
    if image_scale is None:
        raise DataError(sizes, where=sample.id, rule="image and target have one size.")
    factors = target_height / height, target_width / width
    found = f"{factors[0]:.4g}" if factors[0] == factors[1] else f"{factors[1]:.4g} by {factors[0]:.4g}"
    cure = "take these pairs away, or correct them."
    if factors[0] == factors[1] and factors[0] in (1, 2, 3, 4):
        cure = f"if all pairs are like this: --set target.scale={factors[0]:.0f}."
    elif max(factors) < 1:
        cure = "data.images and data.targets look swapped: exchange them."
    raise DataError(
        f"{sizes}: a factor of {found}",
        where=f"{sample.image} and {sample.target}",
        rule=f"the target is target.scale = {image_scale} times as high and as wide as the image.",
        cure=cure,
    )


def refuse(problems: list[DataError], count: int) -> None:
    """Raise a DataError that says of all problems, if there are any, in a line a kind."""
    if problems:
        said = in_few_sentences(problems)
        rest = len(said) - _SHOWN
        raise DataError(
            f"{len(problems)} of {count} samples cannot be used",
            details=said[:_SHOWN] + ([f"and {rest} other problems"] if rest > 0 else []),
            cure="correct the files or what the recipe says of them; nothing is left out silently.",
        )
