"""Features of an encoder on disk: a file a feature, memory-mapped, a row for each image that went through it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_LARGEST_BYTES = 16 * 2**30
_INDEX = "index.json"


# What is kept of a feature: its values, float32 rounded to float16; its values; or nothing but its shape.
Keep = Literal["half", "exact", "shape"]


@dataclass(frozen=True)
class Feature:
    """How one of the encoder's features is kept.

    Attributes:
        shape: of one image's, without the batch: (channels, height, width), or (features,).
        dtype: what the encoder yields, such as ``float32``.
        stored: what is kept; None: nothing, the decoder asks only for its shape.
        channels_last: how it lies in memory, in the encoder's output and on disk: the decoder's sums depend on it.
    """

    shape: tuple[int, ...]
    dtype: str
    stored: str | None
    channels_last: bool

    @classmethod
    def of(cls, feature: Tensor, keep: Keep) -> Feature:
        """That of a batch's features."""
        last = feature.ndim == 4 and feature.is_contiguous(memory_format=torch.channels_last)
        stored = torch.float16 if keep == "half" and feature.dtype == torch.float32 else feature.dtype
        return cls(
            shape=tuple(feature.shape[1:]),
            dtype=_name(feature.dtype),
            stored=_name(stored) if keep != "shape" and feature.numel() else None,
            channels_last=last and not feature.is_contiguous(),
        )

    @property
    def bytes(self) -> int:
        """What one image takes."""
        return int(np.prod(self.shape)) * _dtype(self.stored).itemsize if self.stored else 0

    def pack(self, feature: Tensor) -> NDArray[np.uint8]:
        """rows_nb: the bytes of each image of a batch; raises `TooNarrow`."""
        kept = feature.detach().to(_dtype(self.stored or self.dtype))
        if kept.dtype != feature.dtype and bool((kept.isinf() & feature.isfinite()).any()):
            raise TooNarrow
        kept = kept.permute(0, 2, 3, 1) if self.channels_last else kept
        return kept.contiguous().cpu().flatten(1).view(torch.uint8).numpy()

    def unpack(self, rows_nb: NDArray[np.uint8]) -> Tensor:
        """What `pack` packed, in the encoder's type and layout."""
        rows = torch.from_numpy(rows_nb).view(_dtype(self.stored or self.dtype))
        if self.channels_last:
            channels, height, width = self.shape
            feature = rows.view(-1, height, width, channels).permute(0, 3, 1, 2)
        else:
            feature = rows.view(-1, *self.shape)
        return feature.to(_dtype(self.dtype))

    def blank(self, count: int) -> Tensor:
        """In place of what is not kept: zeros of its shape, which take no memory."""
        return torch.zeros((), dtype=_dtype(self.dtype)).expand(count, *self.shape)


class TooNarrow(Exception):  # noqa: N818 - a request for another type, not a fault
    """A value is beyond what float16 holds."""


class FeatureStore:
    """A finished store; raises OSError, ValueError, KeyError or TypeError when its folder is none."""

    def __init__(self, folder: Path) -> None:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        self.count, self.seconds = int(index["count"]), float(index["seconds"])
        self.features = [Feature(**kept | {"shape": tuple(kept["shape"])}) for kept in index["features"]]
        self._rows = [
            np.memmap(_file(folder, number), np.uint8, "r", shape=(self.count, feature.bytes))
            if feature.stored
            else None
            for number, feature in enumerate(self.features)
        ]

    @property
    def bytes(self) -> int:
        """What it takes on disk."""
        return self.count * sum(feature.bytes for feature in self.features)

    def read(self, rows: Sequence[int]) -> list[Tensor]:
        """The features of a batch, as the encoder would yield them, but for rounding."""
        return [
            feature.blank(len(rows)) if kept is None else feature.unpack(np.asarray(kept[list(rows)]))
            for feature, kept in zip(self.features, self._rows, strict=True)
        ]


def open_store(folder: Path) -> FeatureStore | None:
    """The store in this folder, or None; a damaged one is removed."""
    if not folder.exists():
        return None
    try:
        return FeatureStore(folder)
    except (OSError, ValueError, KeyError, TypeError):
        shutil.rmtree(folder, ignore_errors=True)
        return None


def build_store(
    folder: Path, count: int, encode: Callable[[], Iterator[list[Tensor]]], keep: Sequence[Keep]
) -> str | None:
    """Write a store, which appears whole or not at all.

    Args:
        count: number of rows.
        encode: begins a new pass that yields the features of all rows, a batch at a time.
        keep: what to keep of each feature; where a value is beyond float16, "half" becomes "exact" for all of them.

    Returns:
        Why it could not be written, or None.
    """
    partial, started = None, time.monotonic()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        most = room(folder.parent)
        # Of this name, because what a killed process leaves of it is removed by the cache of decoded samples.
        partial = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
        try:
            features = _write(partial, count, encode(), keep, most)
        except TooNarrow:
            exact: list[Keep] = ["exact" if kept == "half" else kept for kept in keep]
            features = _write(partial, count, encode(), exact, most)
        if features is None:
            return f"its features do not fit into the cache ({most / 2**30:.1f} GiB at most)"
        seconds = time.monotonic() - started
        index = {"count": count, "seconds": seconds, "features": [asdict(feature) for feature in features]}
        (partial / _INDEX).write_text(json.dumps(index), encoding="utf-8")
        os.replace(partial, folder)
    except OSError as error:
        # Another process may have finished the same store first; its content is the same.
        if open_store(folder) is None:
            return f"the cache folder {folder.parent} cannot be used ({error.strerror})"
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
    return None


def room(folder: Path) -> int:
    """Bytes that features may take in a folder."""
    return min(_LARGEST_BYTES, shutil.disk_usage(folder).free // 2)


def _write(
    partial: Path, count: int, batches: Iterator[list[Tensor]], keep: Sequence[Keep], most: int
) -> list[Feature] | None:
    """Write all rows; None: they do not fit."""
    kinds: list[Feature] = []
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(_file(partial, number).open("wb")) for number in range(len(keep))]
        for features in batches:
            if not kinds:
                kinds = [Feature.of(feature, kept) for feature, kept in zip(features, keep, strict=True)]
                if count * sum(kind.bytes for kind in kinds) > most:
                    return None
            for kind, feature, file in zip(kinds, features, files, strict=True):
                if kind.stored:
                    file.write(kind.pack(feature).data)
    return kinds


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number}.bin"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(name: str | None) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, name or "float32")
    return dtype
