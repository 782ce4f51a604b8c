"""The loss section, and expressions of losses such as ``0.5*bce_dice + 0.5*lovasz``."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import field_validator, model_validator

from perpixel.recipe.section import NonNegativeFloat, NonNegativeInt, PositiveFloat, Section

LOSS_NAMES = {
    "segmentation": ("bce", "bce_dice", "cross_entropy", "dice", "focal", "jaccard", "lovasz", "tversky"),
    "depth": (
        "berhu",
        "l1",
        "log_gradient",
        "mse",
        "silog",
        "silog_eigen",
        "silog_root",
        "ssi_gradient",
        "ssi_mse",
        "ssi_trim",
    ),
    "restoration": ("charbonnier", "frequency", "gradient", "l1", "mse", "perceptual", "ssim"),
}
"""Losses by the kind of the target that they judge."""

_TERM = re.compile(r"^(?:(?P<weight>\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*\*\s*)?(?P<name>[a-z_][a-z0-9_]*)$")


def parse_loss(expression: str) -> list[tuple[float, str]]:
    """Weighted terms of a loss expression such as ``0.5*bce_dice + 0.5*lovasz``.

    Raises:
        ValueError: the expression is not a sum of known losses.
    """
    terms = []
    for part in expression.split("+"):
        match = _TERM.match(part.strip())
        if match is None:
            raise ValueError(f"{expression!r} is not a sum of losses like 'bce' or '0.5*bce_dice + 0.5*lovasz'")
        known = sorted({name for names in LOSS_NAMES.values() for name in names})
        if match["name"] not in known:
            raise ValueError(f"no loss is named {match['name']!r}; there are: {', '.join(known)}")
        weight = float(match["weight"] or 1)
        if weight <= 0:
            raise ValueError(f"the weight of {match['name']} must be above 0")
        terms.append((weight, match["name"]))
    return terms


class LossSection(Section):
    """``name`` is a loss or a weighted sum: ``bce_dice``, ``0.5*bce_dice + 0.5*lovasz``.

    ``per_image``: the set losses (Dice, Jaccard, Tversky, Lovasz) are taken image by image, or over the
    batch. ``warm_start`` is the loss of the first ``warm_start_epochs`` epochs.

    ``class_weights``: from the share p of a class among the training pixels, 1 / (K p) when ``balanced`` and
    1 / ln(1.02 + p) when ``log_balanced``, which stays below 51 however rare a class is; or a weight a class.
    With two classes the set losses know the foreground alone, and weights concern the other terms.

    ``silog_alpha`` and ``silog_beta``: alpha sqrt(Var(g) + beta mean(g)^2), of depth.

    ``perceptual_encoder``: whose features the loss ``perceptual`` compares; it keeps its ImageNet weights.
    """

    name: str = "bce_dice"
    per_image: bool = True
    class_weights: Literal["none", "balanced", "log_balanced"] | tuple[PositiveFloat, ...] = "none"
    focal_gamma: NonNegativeFloat = 2.0
    tversky_alpha: NonNegativeFloat = 0.5
    tversky_beta: NonNegativeFloat = 0.5
    silog_alpha: PositiveFloat = 10.0
    silog_beta: NonNegativeFloat = 0.15
    perceptual_encoder: str = "tf_efficientnet_lite0"
    warm_start: str | None = None
    warm_start_epochs: NonNegativeInt = 0

    @field_validator("name", "warm_start")
    @classmethod
    def _known(cls, expression: str | None) -> str | None:
        if expression is not None:
            parse_loss(expression)
        return expression

    @model_validator(mode="after")
    def _warm_start_is_whole(self) -> LossSection:
        if (self.warm_start is None) != (self.warm_start_epochs == 0):
            raise ValueError("warm_start and warm_start_epochs go together")
        return self
