"""What the network sees of an image, and how training changes it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from perpixel.recipe.section import (
    Float,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    Probability,
    Section,
    Side,
)


class InputSection(Section):
    """What the network sees: ``size`` is (height, width) in pixels.

    ``resize`` squashes to that size; ``pad`` keeps the aspect, shrinks only what is larger, and mirrors
    the border into the rest. ``crop`` keeps the aspect and scales the image until its longer side has
    ``long_side`` pixels (null: leaves it at its own size); training sees random crops of ``size`` of it,
    prediction the whole of it. ``progressive`` lists later sizes of the crops as [epoch, side]: squares of that side
    from that epoch on, counted from 0.
    """

    size: tuple[Side, Side] = (128, 128)
    fit: Literal["resize", "pad", "crop"] = "resize"
    long_side: Side | None = None
    progressive: tuple[tuple[NonNegativeInt, Side], ...] = ()

    @model_validator(mode="after")
    def _long_side_is_of_crops(self) -> InputSection:
        if self.long_side is not None and self.fit != "crop":
            raise ValueError("input.long_side belongs to fit 'crop'; 'resize' and 'pad' bring images to input.size")
        if self.progressive and self.fit != "crop":
            raise ValueError("input.progressive is of crops: it needs input.fit 'crop'")
        epochs = [epoch for epoch, _ in self.progressive]
        if epochs != sorted(set(epochs)):
            raise ValueError("input.progressive must go on from epoch to epoch, as in [[40, 64], [70, 96]]")
        return self

    def at_epoch(self, epoch: int) -> InputSection:
        """What training sees in an epoch, counted from 0: ``size`` is that of the epoch's crops."""
        sides = [side for start, side in self.progressive if start <= epoch]
        return self.model_copy(update={"size": (sides[-1], sides[-1])}) if sides else self


class AugmentationSection(Section):
    """Random changes of training samples: probabilities of groups, and the limits of what they do.

    Of ``input.fit: crop``: ``crop_scale`` is the range of a random enlargement before the crop;
    ``rare_class_crops`` the probability that a crop is laid around a pixel of a class drawn evenly from
    those in the picture, instead of anywhere.

    ``affine``: ``shift`` and ``scale`` are fractions of the size, ``rotate`` is in degrees.

    ``photometric``: ``brightness`` is a fraction of the full range, ``hue`` of the colour circle;
    ``contrast``, ``gamma``, ``saturation`` and ``temperature`` (red against blue) are fractions of their
    neutral value 1. ``grayscale`` is a probability of its own.

    ``degrade``: ``blur`` is the largest Gaussian sigma in pixels, ``noise`` the largest sigma as a
    fraction of the full range, ``jpeg`` the largest loss of quality (0.7: quality 100 down to 30).
    """

    horizontal_flip: Probability = 0.5
    vertical_flip: Probability = 0.0
    quarter_turns: Probability = 0.0
    crop_scale: tuple[PositiveFloat, PositiveFloat] = (1.0, 1.0)
    rare_class_crops: Probability = 0.0
    affine: Probability = 0.0
    shift: Fraction = 0.0
    scale: Fraction = 0.0
    rotate: Annotated[Float, Field(ge=0, le=180)] = 0.0
    photometric: Probability = 0.0
    brightness: Fraction = 0.0
    contrast: Fraction = 0.0
    gamma: Fraction = 0.0
    hue: Annotated[Float, Field(ge=0, le=0.5)] = 0.0
    saturation: Fraction = 0.0
    temperature: Fraction = 0.0
    grayscale: Probability = 0.0
    degrade: Probability = 0.0
    blur: NonNegativeFloat = 0.0
    noise: Fraction = 0.0
    jpeg: Fraction = 0.0

    @field_validator("crop_scale")
    @classmethod
    def _in_order(cls, scale: tuple[float, float]) -> tuple[float, float]:
        if scale[0] > scale[1]:
            raise ValueError("crop_scale is a range [smallest, largest], as in [0.5, 2.0]")
        return scale
