"""What an inspection remembers of a pair: a few numbers and tiny pictures, kilobytes whatever the size of the files."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.data.samples import Sample

__all__ = ["DepthFacts", "FileFacts", "ImageFacts", "LabelFacts", "PairFacts", "Record", "from_text", "to_text"]

_Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class FileFacts:
    """A picture file from outside.

    Attributes:
        digest: of the content.
        trouble: why its pixels cannot be read: ``empty``, ``damaged``, ``no-image``, ``several``, ``huge``,
            ``link``, ``numbers`` (32 bits, fractions) or ``other``; "" where they can.
        said: the same as a sentence.
        transparency: ``none``, ``opaque`` or ``partly``.
        profile: name of an embedded colour profile.
    """

    size: int = 0
    digest: str = ""
    trouble: str = ""
    said: str = ""
    format: str = ""
    mode: str = ""
    bits: int = 0
    height: int = 0
    width: int = 0
    orientation: int = 1
    transparency: str = "none"
    profile: str = ""


@dataclass(frozen=True)
class ImageFacts:
    """A photograph.

    Attributes:
        mean_3, middle_3: mean and median of red, green and blue, 0 to 1.
        noise: standard deviation of the noise, 0 to 1 (Immerkaer 1996).
        sharpness: standard deviation of the Laplacian of the luma, 0 to 1.
        dark, bright: share of pixels at the lowest and at the highest level.
        levels: different values of luma at 8 bits.
        thumb_hwc: 16 x 16 RGB.
        hash: difference hash of 64 bits, as hexadecimal digits.
        borders_4n: luma along the top, bottom, left and right edge, 64 numbers each.
        edges_hw: where edges are, 24 x 24.
    """

    mean_3: list[float]
    middle_3: list[float]
    noise: float
    sharpness: float
    dark: float
    bright: float
    levels: int
    grey: bool
    thumb_hwc: _Bytes
    hash: str
    borders_4n: _Bytes
    edges_hw: _Bytes


@dataclass(frozen=True)
class LabelFacts:
    """A label map. ``counts``: pixels of the commonest values (of colours: red * 65536 + green * 256 + blue).

    ``values`` counts all different values, ``components`` the connected parts of one value and ``tiny`` those of fewer
    than five pixels. ``error`` is what the reading of the file as the recipe says raised.
    """

    kind: str
    lossy: bool
    colored: bool
    counts: dict[int, int]
    values: int
    components: int
    tiny: int
    edges_hw: _Bytes
    error: str = ""
    by_class: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DepthFacts:
    """A depth map: stored numbers, and metres as the recipe reads them.

    Attributes:
        dtype: of the stored numbers.
        lowest, highest: of the finite ones.
        levels: different stored numbers.
        zero, full, odd: share of pixels that are 0, that hold the largest number, that are not finite.
        raw_7, metres_7: quantiles 1, 5, 25, 50, 75, 95, 99 % of what is neither; of the valid metres.
        valid, beyond: share of pixels that the recipe takes for readings, and for too far away.
        by_row: rank correlation of the stored number and the row, from top to bottom.
        planes: how far surfaces are from flat under each way to read the numbers; relative, smaller is flatter.
        error: what the reading of the file as the recipe says raised.
    """

    dtype: str
    lowest: float
    highest: float
    levels: int
    zero: float
    full: float
    odd: float
    raw_7: list[float]
    by_row: float
    edges_hw: _Bytes
    planes: dict[str, float] = field(default_factory=dict)
    metres_7: list[float] = field(default_factory=list)
    valid: float = 0.0
    beyond: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class PairFacts:
    """How image and target go together.

    Attributes:
        surface_hw: correlation of their edges for shifts of the target from -10 to 10 pixels, down and to the right,
            of the picture scaled to 256 pixels; int8, 100 is 1.
        turned_3: correlation without shift after mirroring left-right, top-bottom, and both.
        step: pixels of the image that a step of the surface is.
        channels_33: correlation of the image's red, green and blue (rows) with the target's, of pictures.
        likeness: peak signal-to-noise ratio in decibels of the target and the image enlarged to it, of pictures.
    """

    surface_hw: NDArray[np.int8]
    turned_3: list[float]
    step: float
    channels_33: list[list[float]] = field(default_factory=list)
    likeness: float = 0.0


@dataclass(frozen=True)
class Record:
    """One sample. What could not be read is None."""

    sample: Sample
    image_file: FileFacts
    target_file: FileFacts | None = None
    image: ImageFacts | None = None
    label: LabelFacts | None = None
    depth: DepthFacts | None = None
    picture: ImageFacts | None = None
    pair: PairFacts | None = None


_PARTS: dict[str, type[Any]] = {
    "image_file": FileFacts,
    "target_file": FileFacts,
    "image": ImageFacts,
    "label": LabelFacts,
    "depth": DepthFacts,
    "picture": ImageFacts,
    "pair": PairFacts,
}


def to_text(record: Record) -> str:
    """A record without its sample, as JSON."""
    parts = {name: asdict(part) for name in _PARTS if (part := getattr(record, name)) is not None}
    return json.dumps(parts, default=_plain)


def from_text(text: str, sample: Sample) -> Record:
    """The inverse of `to_text`."""
    values = json.loads(text, object_hook=_array)
    for name in ("counts", "by_class"):  # JSON knows only names
        if "label" in values:
            values["label"][name] = {int(key): count for key, count in values["label"][name].items()}
    return Record(sample, **{name: _PARTS[name](**part) for name, part in values.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {"shape": value.shape, "type": value.dtype.str, "data": base64.b64encode(value.tobytes()).decode()}
    return value.item()  # numbers of numpy


def _array(values: dict[str, Any]) -> Any:
    if values.keys() != {"shape", "type", "data"}:
        return values
    return np.frombuffer(base64.b64decode(values["data"]), dtype=values["type"]).reshape(values["shape"])
