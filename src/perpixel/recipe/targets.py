"""Target sections: what the values of a data set's target files mean."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from perpixel.recipe.section import Float, Int, Level, NonNegativeFloat, NonNegativeInt, PositiveFloat, Section

RawValue = Int | tuple[Int, Int, Int]


class ClassSpec(Section):
    """One class: its name, the raw values that stand for it in the files, and its colour in pictures."""

    name: Annotated[str, Field(min_length=1)]
    values: tuple[RawValue, ...] = Field(min_length=1)
    color: tuple[Level, Level, Level]


class SegmentationTarget(Section):
    """A label map. ``ignore`` lists raw values that no loss and no metric sees."""

    kind: Literal["segmentation"] = "segmentation"
    classes: tuple[ClassSpec, ...] = Field(min_length=2, max_length=255)
    ignore: tuple[RawValue, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> SegmentationTarget:
        values = [value for spec in self.classes for value in spec.values] + list(self.ignore)
        unique: dict[str, list[Any]] = {
            "name": [spec.name for spec in self.classes],
            "color": [spec.color for spec in self.classes],
            "value": values,
        }
        for what, items in unique.items():
            repeated = sorted({str(item) for item in items if items.count(item) > 1})
            if repeated:
                raise ValueError(f"each class {what} may stand once; repeated: {', '.join(repeated)}")
        if len({isinstance(value, int) for value in values}) > 1:
            raise ValueError("raw values are either all whole numbers or all colours [red, green, blue]")
        return self


Code = Float | Literal["nan", "inf"]
Angle = Annotated[Float, Field(gt=0, lt=180)]


class DepthTarget(Section):
    """A depth map. How stored numbers stand for metres is what `perpixel.depth_codec.DepthCodec` says of its fields,
    which are these: ``stored`` to ``key``.

    ``minimum_m`` and ``maximum_m`` bound what counts as truth, what a prediction may be, and what figures look at.
    ``output`` is how the network's output is read: ``metres`` as they are, ``log`` for their natural logarithm,
    ``relative`` for disparity up to scale and shift. ``crop`` is the part of the picture that figures look at.
    ``scale_free``: enlarging a training picture leaves its metres as they are, instead of dividing them.
    """

    kind: Literal["depth"]
    stored: Literal["uint8", "uint16", "float32"]
    scale: PositiveFloat | None = None
    metres_at_zero: NonNegativeFloat | Literal["inf"] | None = None
    metres_at_full: NonNegativeFloat | Literal["inf"] | None = None
    quantity: Literal["depth", "inverse", "disparity"] = "depth"
    encoding: Literal["linear", "srgb"] = "linear"
    geometry: Literal["planar", "radial"] = "planar"
    fx: PositiveFloat | None = None
    fy: PositiveFloat | None = None
    cx: Float | None = None
    cy: Float | None = None
    vertical_fov_deg: Angle | None = None
    horizontal_fov_deg: Angle | None = None
    baseline_m: PositiveFloat | None = None
    focal_px: PositiveFloat | None = None
    invalid: tuple[Code, ...] = (0.0,)
    beyond: tuple[Code, ...] = ()
    minimum_m: NonNegativeFloat = 0.0
    maximum_m: PositiveFloat
    key: str | None = None
    output: Literal["metres", "log", "relative"] = "log"
    crop: Literal["none", "garg", "eigen", "eigen_nyu"] = "none"
    scale_free: bool = False

    @model_validator(mode="after")
    def _one_meaning(self) -> DepthTarget:
        from perpixel.depth_codec import DepthCodec

        DepthCodec(**self.codec_settings())  # its ValueError says what is open or contradictory
        return self

    def codec_settings(self) -> dict[str, Any]:
        """The arguments of `DepthCodec`."""
        settings = self.model_dump(exclude={"kind", "output", "crop", "scale_free"})
        for name in ("metres_at_zero", "metres_at_full"):
            if settings[name] is not None:
                settings[name] = float(settings[name])
        for name in ("invalid", "beyond"):
            settings[name] = tuple(float(code) for code in settings[name])
        return settings


class RestorationTarget(Section):
    """A clean image, ``scale`` times as high and as wide as the degraded one.

    ``bits`` a channel are those of the clean images' files, and of the predictions that are written. ``border``
    pixels on each side, at the size of the clean image, count in no figure: publications on super-resolution leave
    out as many as the factor.
    """

    kind: Literal["restoration"]
    scale: Literal[1, 2, 3, 4] = 1
    bits: Literal[8, 16] = 8
    border: NonNegativeInt = 0


Target = Annotated[SegmentationTarget | DepthTarget | RestorationTarget, Field(discriminator="kind")]
