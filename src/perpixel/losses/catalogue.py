"""The loss terms by name, and the sums of them that a training uses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from perpixel.losses.base import LossFunction, LossOptions
from perpixel.losses.lovasz import lovasz
from perpixel.losses.pixelwise import bce, cross_entropy, focal
from perpixel.losses.regions import dice, jaccard, tversky

__all__ = ["LOSSES", "WarmStartLoss", "WeightedLoss", "bce_dice"]


def bce_dice(logits_bkhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor, options: LossOptions) -> Tensor:
    """`bce` + `dice`, one to one."""
    # float32 here already, or the terms' gradients are added up in the precision of the logits.
    arguments = (logits_bkhw.float(), target_bhw, valid_bhw, options)
    return bce(*arguments) + dice(*arguments)


LOSSES: dict[str, LossFunction] = {
    "bce": bce,
    "bce_dice": bce_dice,
    "cross_entropy": cross_entropy,
    "dice": dice,
    "focal": focal,
    "jaccard": jaccard,
    "lovasz": lovasz,
    "tversky": tversky,
}


class WeightedLoss:
    """A weighted sum of terms of `LOSSES`.

    Args:
        terms: (weight, name) of each term.
        options: what the terms share.

    Raises:
        ValueError: there is no term, or no loss of that name.
    """

    def __init__(self, terms: Sequence[tuple[float, str]], options: LossOptions) -> None:
        if not terms:
            raise ValueError("a loss needs at least one term")
        unknown = [name for _, name in terms if name not in LOSSES]
        if unknown:
            raise ValueError(f"no loss is named {', '.join(map(repr, unknown))}; there are {', '.join(LOSSES)}")
        self.terms = [(weight, LOSSES[name]) for weight, name in terms]
        self.options = options

    def __call__(self, logits_bkhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor) -> Tensor:
        """The scalar loss of (B, K, H, W) logits, (B, H, W) class indices and (B, H, W) bool."""
        logits_bkhw = logits_bkhw.float()  # so that the terms' gradients too are added up in float32
        values = [weight * term(logits_bkhw, target_bhw, valid_bhw, self.options) for weight, term in self.terms]
        return torch.stack(values).sum()


class WarmStartLoss:
    """One loss for the first epochs and another from then on.

    Args:
        warm: the loss of epochs 0 to ``warm_epochs`` - 1.
        main: the loss from epoch ``warm_epochs`` on.
        warm_epochs: 0 or more.
    """

    def __init__(self, warm: WeightedLoss, main: WeightedLoss, warm_epochs: int) -> None:
        self.warm, self.main, self.warm_epochs = warm, main, warm_epochs

    def __call__(self, epoch: int, logits_bkhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor) -> Tensor:
        """The scalar loss in ``epoch``, which counts from 0."""
        loss = self.main if epoch >= self.warm_epochs else self.warm
        return loss(logits_bkhw, target_bhw, valid_bhw)
