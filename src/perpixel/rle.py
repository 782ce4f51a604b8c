"""The run-length code of the TGS salt competition: ``start length start length ...``.

Pixels are numbered from 1, top to bottom and then left to right (column-major). No pixel set: the empty string.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import DataError

__all__ = ["decode", "encode"]

_RULE = "Pairs `start length`, counted from 1 down the columns, in rising order, without overlap, inside the image."


def encode(mask_hw: NDArray[np.bool_]) -> str:
    """The run-length code of ``mask_hw``: each run as long as it can be, in rising order.

    Raises:
        DataError: not a two-dimensional array of booleans.
    """
    mask_hw = np.asarray(mask_hw)
    if mask_hw.ndim != 2 or mask_hw.dtype != np.bool_:
        raise DataError(
            f"shape {mask_hw.shape} of {mask_hw.dtype} is no mask",
            rule="A mask is a two-dimensional array of booleans.",
            cure="Compare the labels with a class or a threshold first.",
        )
    padded = np.zeros(mask_hw.size + 2, dtype=np.bool_)
    padded[1:-1] = mask_hw.ravel(order="F")
    # Changes come in pairs: position of the first pixel of a run (from 1), position after its last.
    runs = np.flatnonzero(padded[1:] != padded[:-1]).reshape(-1, 2) + 1
    runs[:, 1] -= runs[:, 0]
    return " ".join(map(str, runs.ravel().tolist()))


def decode(text: str, shape_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask (``shape_hw``, boolean) that ``text`` stands for. Runs that touch are accepted.

    Raises:
        DataError: an odd count of numbers, something else than whole numbers, a run out of the image or without
            pixels, or runs that overlap or are not in rising order.
    """
    words = text.split()
    if not all(word.isascii() and word.isdecimal() and len(word) < 18 for word in words):
        raise _refused("something else than whole numbers", text)
    if len(words) % 2:
        raise _refused(f"{len(words)} numbers, the last start is without a length", text)
    height, width = shape_hw
    starts, lengths = np.array([int(word) for word in words], dtype=np.int64).reshape(-1, 2).T
    ends = starts + lengths
    if (lengths < 1).any():
        raise _refused("a run without pixels", text)
    if (starts < 1).any() or (ends > height * width + 1).any():
        raise _refused(f"a run outside of the {height * width} pixels of {height} x {width}", text)
    if (starts[1:] < ends[:-1]).any():
        raise _refused("runs that overlap or are not in rising order", text)
    changes = np.zeros(height * width + 1, dtype=np.int8)
    changes[starts - 1] += 1
    changes[ends - 1] -= 1  # each index occurs once among the ends, and once among the starts
    flat = np.cumsum(changes[:-1], dtype=np.int8).astype(np.bool_)
    return flat.reshape(width, height).T.copy()


def _refused(what: str, text: str) -> DataError:
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return DataError(f"this run-length code holds {what}", where=repr(shown), rule=_RULE, cure="Write the code again.")
