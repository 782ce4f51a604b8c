"""How a person looks at the predictions of a task: what the page needs to know, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ClassView", "DistanceView", "PictureView", "View"]


@dataclass(frozen=True)
class ClassView:
    """Predictions hold indices of classes.

    Attributes:
        names, colors: of each class; sRGB, 0 to 255.
        background: the class that stays transparent over a picture, if there is one.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    background: int | None = None
    title: str = "Segmentation: a class for each pixel"


@dataclass(frozen=True)
class DistanceView:
    """Predictions hold metres, or, without a ``unit``, numbers that are larger where it is nearer.

    Attributes:
        unit: ``m``, or nothing.
        vertical_fov_deg, horizontal_fov_deg: of the camera that the training data are of, where it is known.
    """

    unit: str
    vertical_fov_deg: float | None = None
    horizontal_fov_deg: float | None = None
    title: str = "Depth: a distance for each pixel"


@dataclass(frozen=True)
class PictureView:
    """Predictions are pictures, ``scale`` times as high and as wide as the input."""

    scale: int = 1
    title: str = "Restoration: a clean picture"


View = ClassView | DistanceView | PictureView
