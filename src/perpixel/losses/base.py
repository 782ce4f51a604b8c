"""What every loss term shares: its signature, its options, and how pixels without truth are taken out.

A term is a function ``(logits_bkhw, target_bhw, valid_bhw, options) -> scalar``:

- ``logits_bkhw``: any float type, computed in float32. K = 1 is binary: the logit of the foreground.
- ``target_bhw``: class indices, 0..K-1 (0 or 1 when K = 1); anything where ``valid_bhw`` is False.
- ``valid_bhw``: bool; pixels where it is False change neither the value nor a gradient.

A batch without a valid pixel gives 0, and zero gradients. No term hides a non-finite value: logits that
are NaN at a valid pixel give a loss that is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LossFunction", "LossOptions", "class_weights", "one_hot", "prepare", "weighted_mean"]


@dataclass(frozen=True, eq=False)
class LossOptions:
    """Options of all terms; each term reads those that concern it.

    Attributes:
        per_image: the set losses (dice, jaccard, tversky, lovasz) are taken image by image and then
            averaged over the images that have a valid pixel; else over the batch as if it were one image.
        class_weights: K weights, or 2 when binary; None weighs all alike. In the pixel losses (bce,
            cross_entropy, focal) each pixel counts with the weight of its true class, and the sum is
            divided by the sum of those weights. In the set losses each class's loss counts with the weight
            of the class; binary set losses know the foreground alone, so weights change nothing there.
        eps: added to numerator and denominator of dice, jaccard and tversky; above 0.
        focal_gamma: exponent of (1 - p) in focal; 0 is cross entropy.
        tversky_alpha: weight of false positives in tversky.
        tversky_beta: weight of false negatives in tversky.
    """

    per_image: bool = True
    class_weights: Tensor | None = None
    eps: float = 1e-6
    focal_gamma: float = 2.0
    tversky_alpha: float = 0.5
    tversky_beta: float = 0.5

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise ValueError(f"eps must be above 0, or an empty class divides 0 by 0; it is {self.eps}")


LossFunction = Callable[[Tensor, Tensor, Tensor, LossOptions], Tensor]


def prepare(logits_bkhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 logits and targets with zeros at pixels without truth, so that nothing there can leak.

    Raises:
        ValueError: the shapes do not belong together, or ``valid_bhw`` is not bool.
    """
    expected = (logits_bkhw.shape[0], *logits_bkhw.shape[2:])
    if logits_bkhw.ndim != 4 or target_bhw.shape != expected or valid_bhw.shape != expected:
        raise ValueError(
            f"logits (B, K, H, W) need target and valid (B, H, W); they are {tuple(logits_bkhw.shape)}, "
            f"{tuple(target_bhw.shape)} and {tuple(valid_bhw.shape)}"
        )
    if valid_bhw.dtype != torch.bool:
        raise ValueError(f"valid must be bool; it is {valid_bhw.dtype}")
    void_bhw = ~valid_bhw
    return logits_bkhw.float().masked_fill(void_bhw[:, None], 0.0), target_bhw.masked_fill(void_bhw, 0)


def class_weights(logits_bkhw: Tensor, options: LossOptions) -> Tensor:
    """One float32 weight a class, (K,), or (2,) when binary; ones where none are given.

    Raises:
        ValueError: their number is not that of the classes.
    """
    count = max(2, logits_bkhw.shape[1])
    weights = options.class_weights
    if weights is None:
        return torch.ones(count, device=logits_bkhw.device)
    if weights.shape != (count,):
        raise ValueError(f"{count} classes need {count} class weights; given: shape {tuple(weights.shape)}")
    return weights.to(device=logits_bkhw.device, dtype=torch.float32)


def one_hot(target_bhw: Tensor, classes: int) -> Tensor:
    """Targets as float32 (B, classes, H, W); with one class, the foreground's."""
    if classes == 1:
        return (target_bhw == 1)[:, None].float()
    return torch.nn.functional.one_hot(target_bhw, classes).movedim(-1, 1).float()


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """sum(weights * values) / sum(weights) over all elements; 0 where every weight is 0."""
    total = weights.sum()
    return (weights * values).sum() / torch.where(total > 0, total, 1.0)
