"""Measures of one file: header, photograph, label map, depth map. Plain functions of arrays, without torch."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perpixel.errors import DataError
from perpixel.images import LabelFile, image_size, opened, stored_bits, upright_turn
from perpixel.inspection.record import DepthFacts, FileFacts, ImageFacts, LabelFacts

__all__ = ["ARRAY_ENDINGS", "MOST_PIXELS", "depth_facts", "file_facts", "image_facts", "label_facts", "to_8_bits"]

MOST_PIXELS = 50_000_000
"""Larger pictures are reported and not decoded: the bound on memory of an inspection."""

ARRAY_ENDINGS = (".npy", ".npz", ".exr", ".h5", ".hdf5")
THUMB, EDGES, BORDER = 16, 24, 64
_KEPT_VALUES = 256
_TINY = 5  # pixels
_Float = NDArray[np.float32]


# ---------------------------------------------------------------- the file


def file_facts(path: Path) -> FileFacts:
    """What the file is. Never raises: what is wrong is in ``trouble`` and ``said``."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        return FileFacts(trouble="damaged", said=f"the file cannot be read: {error.strerror}")
    facts: dict[str, Any] = {"size": size, "digest": digest}
    if not size:
        return FileFacts(**facts, trouble="empty", said="the file is empty")
    if path.suffix.lower() in ARRAY_ENDINGS:
        return FileFacts(**facts, format=path.suffix[1:].upper())
    try:
        with opened(path) as image:
            facts |= _head(path, image)
        facts["height"], facts["width"] = image_size(path)
    except DataError as error:
        return FileFacts(**facts, trouble=_trouble(error), said=error.what)
    if facts["height"] * facts["width"] > MOST_PIXELS:
        said = f"{facts['width']} x {facts['height']} pixels are more than an inspection decodes"
        return FileFacts(**facts, trouble="huge", said=said)
    return FileFacts(**facts)


def _head(path: Path, image: Image.Image) -> dict[str, Any]:
    notes: list[str] = []
    upright_turn(image, notes)
    orientation = int(notes[0].rstrip(")").rsplit(" ", 1)[1]) if notes else 1
    transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    return {
        "format": image.format or "",
        "mode": image.mode,
        "bits": stored_bits(path, image),
        "orientation": orientation,
        "transparency": "opaque" if transparent else "none",
        "profile": _profile_name(image.info.get("icc_profile")),
    }


def _profile_name(profile: bytes | None) -> str:
    if not profile:
        return ""
    from PIL import ImageCms

    try:
        return (ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))) or "").strip()
    except (ImageCms.PyCMSError, OSError):
        return "a damaged profile"


def _trouble(error: DataError) -> str:
    words = {"pictures": "several", "more pixels": "huge", "not an image": "no-image", "damaged": "damaged"}
    return next((trouble for word, trouble in words.items() if word in error.what), "other")


def leaves_folder(path: Path, root: Path) -> bool:
    """Whether the file is a link to a place outside of ``root``."""
    inside = os.path.realpath(root)
    return os.path.commonpath([inside, os.path.realpath(path)]) != inside


# ---------------------------------------------------------------- photographs


def image_facts(image_hwc: NDArray[Any]) -> ImageFacts:
    """Facts of RGB, uint8 or uint16."""
    image_hwc = to_8_bits(image_hwc)
    luma_hw = cv2.cvtColor(image_hwc, cv2.COLOR_RGB2GRAY)
    small_hwc = shrink(image_hwc, 256)
    flat_n3 = small_hwc.reshape(-1, 3)
    levels_3n = [np.cumsum(np.bincount(flat_n3[:, channel], minlength=256)) for channel in range(3)]
    laplacian_hw = cv2.Laplacian(luma_hw.astype(np.float32), cv2.CV_32F)
    return ImageFacts(
        mean_3=[round(float(value) / 255, 5) for value in flat_n3.mean(axis=0)],
        middle_3=[round(float(np.searchsorted(sums, sums[-1] / 2)) / 255, 5) for sums in levels_3n],
        noise=noise_level(luma_hw),
        sharpness=float(laplacian_hw.std() / 255),
        dark=float((luma_hw == 0).mean()),
        bright=float((luma_hw == 255).mean()),
        levels=int((np.bincount(luma_hw.reshape(-1), minlength=256) > 0).sum()),
        grey=bool((flat_n3 == flat_n3[:, :1]).all()),
        thumb_hwc=cv2.resize(image_hwc, (THUMB, THUMB), interpolation=cv2.INTER_AREA),
        hash=difference_hash(luma_hw),
        borders_4n=_borders(luma_hw),
        edges_hw=grid(picture_edges(small_hwc)),
    )


def to_8_bits(image_hwc: NDArray[Any]) -> NDArray[np.uint8]:
    """uint16 divided by 257; uint8 as it is."""
    if image_hwc.dtype == np.uint16:
        image_hwc = ((image_hwc.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.asarray(image_hwc, dtype=np.uint8)


def noise_level(luma_hw: NDArray[np.uint8]) -> float:
    """Standard deviation of the noise, 0 to 1, by a mask that is blind to planes (Immerkaer 1996).

    The median instead of the mean keeps edges and texture out.
    """
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
    if min(luma_hw.shape) < 3:
        return 0.0
    answer_hw = cv2.filter2D(luma_hw, cv2.CV_16S, mask)[1:-1, 1:-1]
    sums = np.cumsum(np.bincount(np.abs(answer_hw).reshape(-1)))
    # The median of |N(0, 6 s)| is 0.6745 * 6 s: 36 is the sum of the squares of the mask.
    return float(np.searchsorted(sums, sums[-1] / 2) / (0.6745 * 6) / 255)


def difference_hash(luma_hw: NDArray[np.uint8]) -> str:
    """64 bits: whether each of 8 x 8 cells is brighter than its neighbour to the right."""
    cells_hw = cv2.resize(luma_hw, (9, 8), interpolation=cv2.INTER_AREA)
    return np.packbits(cells_hw[:, 1:] > cells_hw[:, :-1]).tobytes().hex()


def _borders(luma_hw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    lines = (luma_hw[0], luma_hw[-1], luma_hw[:, 0], luma_hw[:, -1])
    resized = [cv2.resize(line[None], (BORDER, 1), interpolation=cv2.INTER_AREA)[0] for line in lines]
    return np.stack(resized).astype(np.uint8)


# ---------------------------------------------------------------- label maps


def label_facts(label: LabelFile) -> LabelFacts:
    """Facts of a label map, whatever its values mean."""
    keys_hw = label_keys(label)
    values, counts = _counted(keys_hw)
    order = np.argsort(-counts, kind="stable")[:_KEPT_VALUES]
    components, tiny = _components(keys_hw, values)
    return LabelFacts(
        kind=label.kind,
        lossy=label.lossy,
        colored=label.values_hw is None,
        counts=dict(zip(values[order].tolist(), counts[order].tolist(), strict=True)),
        values=len(values),
        components=components,
        tiny=tiny,
        edges_hw=grid(label_edges(keys_hw)),
    )


def label_keys(label: LabelFile) -> NDArray[np.int64]:
    """The stored numbers; of colours red * 65536 + green * 256 + blue."""
    if label.values_hw is not None:
        return label.values_hw.astype(np.int64)
    assert label.colors_hwc is not None  # a label file has one of the two
    keys_hw: NDArray[np.int64] = label.colors_hwc.astype(np.int64) @ np.array([65536, 256, 1])
    return keys_hw


def _counted(keys_hw: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The different values, sorted, and how often each is met. Counting is ten times faster than sorting."""
    if keys_hw.min(initial=0) >= 0 and keys_hw.max(initial=0) <= 65535:
        counts = np.bincount(keys_hw.reshape(-1))
        values = np.nonzero(counts)[0]
        return values, counts[values]
    return np.unique(keys_hw, return_counts=True)


def _components(keys_hw: NDArray[np.int64], values: NDArray[Any]) -> tuple[int, int]:
    """Connected parts of one value each, and how many of them are tiny. Files of very many values have none."""
    if len(values) > 64:
        return 0, 0
    components = tiny = 0
    for value in values:
        mask_hw = np.equal(keys_hw, value).view(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask_hw, connectivity=8)
        areas = stats[1:, cv2.CC_STAT_AREA]
        components, tiny = components + len(areas), tiny + int((areas < _TINY).sum())
    return components, tiny


# ---------------------------------------------------------------- depth maps


def depth_facts(raw_hw: NDArray[Any]) -> DepthFacts:
    """Facts of stored numbers, whatever they mean."""
    integers = raw_hw.dtype.kind in "ui"
    full = float(np.iinfo(raw_hw.dtype).max) if integers else np.inf
    finite_hw = np.isfinite(raw_hw)
    numbers = raw_hw[finite_hw & (raw_hw != 0) & (raw_hw < full)].astype(np.float64)
    finite = raw_hw[finite_hw]
    return DepthFacts(
        dtype=str(raw_hw.dtype),
        lowest=float(finite.min()) if finite.size else 0.0,
        highest=float(finite.max()) if finite.size else 0.0,
        levels=len(np.unique(finite)),
        zero=float((raw_hw == 0).mean()),
        full=float((raw_hw == full).mean()) if integers else 0.0,
        odd=float(1 - finite_hw.mean()),
        raw_7=quantiles_7(numbers),
        by_row=_rank_by_row(raw_hw, finite_hw & (raw_hw != 0) & (raw_hw < full)),
        edges_hw=grid(depth_edges(raw_hw)),
    )


def quantiles_7(numbers: NDArray[Any]) -> list[float]:
    """1, 5, 25, 50, 75, 95 and 99 %; empty of nothing."""
    if not numbers.size:
        return []
    return [float(f"{value:.6g}") for value in np.quantile(numbers, (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99))]


def _rank_by_row(raw_hw: NDArray[Any], valid_hw: NDArray[np.bool_]) -> float:
    """Spearman's correlation of number and row, over at most 4096 pixels; 0 of too few."""
    from scipy.stats import rankdata

    rows, columns = np.nonzero(valid_hw)
    if len(rows) < 64:
        return 0.0
    chosen = np.linspace(0, len(rows) - 1, min(4096, len(rows))).astype(int)
    numbers = rankdata(raw_hw[rows[chosen], columns[chosen]])
    if numbers.std() == 0 or rows[chosen].std() == 0:
        return 0.0
    return float(np.corrcoef(numbers, rankdata(rows[chosen]))[0, 1])


# ---------------------------------------------------------------- edges


def shrink(image: NDArray[Any], side: int) -> NDArray[Any]:
    """Scaled down by area until the longer side has ``side`` pixels; smaller ones as they are."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def picture_edges(image_hwc: NDArray[np.uint8]) -> _Float:
    """Strength of the edges of a photograph, 0 to 1: its gradient over the mean one of its surroundings."""
    luma_hw = cv2.GaussianBlur(cv2.cvtColor(image_hwc, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.0)
    strength_hw = cv2.magnitude(cv2.Sobel(luma_hw, cv2.CV_32F, 1, 0), cv2.Sobel(luma_hw, cv2.CV_32F, 0, 1))
    around_hw = cv2.blur(strength_hw, (33, 33)) + 1.0
    return np.asarray(strength_hw / (strength_hw + around_hw), dtype=np.float32)


def label_edges(keys_hw: NDArray[np.int64]) -> _Float:
    """1 beside a change of value, else 0."""
    edges_hw = np.zeros(keys_hw.shape, dtype=np.float32)
    down, right = keys_hw[1:] != keys_hw[:-1], keys_hw[:, 1:] != keys_hw[:, :-1]
    for part, change in ((np.s_[1:], down), (np.s_[:-1], down), (np.s_[:, 1:], right), (np.s_[:, :-1], right)):
        edges_hw[part] = np.maximum(edges_hw[part], change)
    return edges_hw


def depth_edges(raw_hw: NDArray[Any]) -> _Float:
    """Strength of the steps of a depth map, 0 to 1, between pixels that both have a reading."""
    valid_hw = np.isfinite(raw_hw) & (raw_hw > 0)
    numbers_hw = np.log(np.where(valid_hw, raw_hw, 1).astype(np.float32))
    edges_hw = np.zeros(raw_hw.shape, dtype=np.float32)
    for axis in (0, 1):
        step = np.abs(np.diff(numbers_hw, axis=axis))
        kept = np.minimum(step, 0.2) * 5 * (np.diff(valid_hw.astype(np.int8), axis=axis) == 0)
        for part in (np.s_[1:], np.s_[:-1]):
            view = edges_hw[part] if axis == 0 else edges_hw[:, part]
            np.maximum(view, kept, out=view)
    return edges_hw


def grid(edges_hw: _Float) -> NDArray[np.uint8]:
    """Edges as 24 x 24 means, uint8."""
    small_hw = cv2.resize(edges_hw, (EDGES, EDGES), interpolation=cv2.INTER_AREA)
    return np.asarray(np.rint(255 * small_hw).clip(0, 255), dtype=np.uint8)
