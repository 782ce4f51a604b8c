"""Synthetic data sets, for demonstrations and tests without any download. They only import what is below them."""

from collections.abc import Callable

from perpixel.synthesis.desert_dataset import synthesize_desert
from perpixel.synthesis.night_dataset import synthesize_night
from perpixel.synthesis.objects_dataset import synthesize_objects
from perpixel.synthesis.salt_dataset import synthesize_salt

__all__ = ["WRITERS", "synthesize_desert", "synthesize_night", "synthesize_objects", "synthesize_salt"]

WRITERS: dict[str, Callable[..., None]] = {
    "salt": synthesize_salt,
    "desert": synthesize_desert,
    "night": synthesize_night,
    "objects": synthesize_objects,
}
"""What writes each kind of data set."""
