"""Running out of memory: told as an error that names what to lower, wherever it happens. Needs no torch."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from perpixel.errors import RunError
from perpixel.recipe import InferenceSection, Recipe

# What libraries write into an error of another type than MemoryError: PyTorch on processors (Linux, Windows), CUDA and
# its libraries, C++, OpenCV, ONNX Runtime, and PyTorch's loader where the system has killed one of its workers.
_SIGNS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "STATUS_ALLOC_FAILED",
    "std::bad_alloc",
    "Insufficient memory",
    "Failed to allocate memory",
    "is killed by signal: Killed",
)
_SIDE = 32  # sides are proposed in its multiples
_LARGE_TILE = 512
_RULE_OF_USE = "a run predicts as its recipe says; perpixel predict takes other values with --set."


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, of whatever library, says that memory is used up."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, Exception) and any(sign in str(error) for sign in _SIGNS)


@contextlib.contextmanager
def out_of_memory_told(what_to_lower: Callable[[], Sequence[str]], where: Path | str, rule: str) -> Iterator[None]:
    """Raise a RunError in place of an error that says that memory is used up; what the failed calls held is freed.

    Args:
        what_to_lower: settings and the values that they should have, a line each; asked only when it has happened.
        where: the run or the folder that was worked at.
        rule: where these settings can be given.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, RunError) or not is_out_of_memory(error):
            raise
        told = str(error).strip().splitlines()[:1] or [type(error).__name__]
        drop(error)
        lower = what_to_lower()
        raise RunError(
            f"too little memory: {told[0][:200]}",
            where=where,
            details=lower,
            rule=rule,
            cure="lower one of these, or use a machine with more memory.",
        ) from error


@contextlib.contextmanager
def predicting(section: InferenceSection, images: Sequence[NDArray[Any]]) -> Iterator[None]:
    """The same around the prediction of some image_hwc."""
    longest = max((max(image_hwc.shape[:2]) for image_hwc in images), default=0)
    where = f"predicting {len(images)} image{'s' if len(images) != 1 else ''} of up to {longest} pixels a side"
    with out_of_memory_told(lambda: of_inference(section, len(images), longest), where, _RULE_OF_USE):
        yield


@contextlib.contextmanager
def using(section: InferenceSection, where: Path | str) -> Iterator[None]:
    """The same around what is done with many images: reading, predicting, scoring, writing."""
    with out_of_memory_told(lambda: of_inference(section, section.batch_size, 2 * _LARGE_TILE), where, _RULE_OF_USE):
        yield


def drop(error: BaseException) -> None:
    """Free what the calls that ended with an error held."""
    traceback.clear_frames(error.__traceback__)
    release()


def release() -> None:
    """Give memory that nobody holds any more back to the system and to the GPU."""
    gc.collect()
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # glibc
        trim(0)


def of_training(recipe: Recipe) -> list[str]:
    """What makes a training smaller."""
    size, (height, width) = recipe.training.batch_size, recipe.input.size
    lower = []
    if size == "auto":
        lower.append("training.batch_size from auto to 1")
    elif size > 1:
        same = f"a step stays as it is with optimizer.accumulate={2 * recipe.optimizer.accumulate}"
        lower.append(f"training.batch_size from {size} to {size // 2} ({same}), or auto")
    if max(height, width) > _SIDE:
        lower.append(f"input.size from [{height}, {width}] to [{_half(height)}, {_half(width)}]")
    encoder = recipe.model.encoder
    lower.append(f"model.encoder from {encoder} to a smaller one" if encoder != "none" else "model.architecture")
    if recipe.training.workers:
        lower.append(f"training.workers from {recipe.training.workers} to 0")
    return lower


def of_inference(section: InferenceSection, images: int, longest: int) -> list[str]:
    """What makes a prediction smaller.

    Args:
        images: how many were predicted at once.
        longest: their longest side in pixels.
    """
    lower = []
    if section.batch_size > 1 and (images > 1 or section.tile):
        lower.append(f"inference.batch_size from {section.batch_size} to {max(1, section.batch_size // 2)}")
    if section.tile is not None and section.tile > 2 * _SIDE:
        lower.append(f"inference.tile from {section.tile} to {_half(section.tile)}")
    elif section.tile is None and longest > _LARGE_TILE:
        lower.append(f"inference.tile from null (whole images) to {_LARGE_TILE}")
    return lower or ["the size of the images"]


def _half(side: int) -> int:
    return max(_SIDE, side // 2 // _SIDE * _SIDE)
