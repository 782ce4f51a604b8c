"""The Lovasz extension of the Jaccard loss (Berman, Triki and Blaschko 2018).

Only errors above zero are sorted. The others come last in the order, so they change no weight before
them, and weigh nothing themselves; late in training they are nearly all pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from perpixel.losses.base import LossOptions, class_weights, prepare

__all__ = ["lovasz", "lovasz_extension"]


def lovasz(logits_bkhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor, options: LossOptions) -> Tensor:
    """Lovasz hinge when K = 1; else Lovasz softmax, averaged over the classes that the truth has."""
    logits_bkhw, target_bhw = prepare(logits_bkhw, target_bhw, valid_bhw)
    weights = class_weights(logits_bkhw, options).tolist()
    whole = bool(valid_bhw.all())
    images = list(zip(logits_bkhw.flatten(2), target_bhw.flatten(1), valid_bhw.flatten(1), strict=True))
    if not options.per_image:
        images = [(logits_bkhw.movedim(1, 0).flatten(1), target_bhw.flatten(), valid_bhw.flatten())]
    losses: list[Tensor | None] = []
    for logits_kn, target_n, valid_n in images:
        if not whole:
            logits_kn, target_n = logits_kn[:, valid_n], target_n[valid_n]
        if not len(target_n):
            continue
        if len(logits_kn) == 1:
            losses.append(_hinge(logits_kn[0], target_n == 1))
        else:
            losses.append(_softmax(logits_kn, target_n, weights))
    counted = [loss for loss in losses if loss is not None]
    # Nothing counted: zero with a graph.
    return torch.stack(counted).mean() if counted else logits_bkhw.mul(0.0).sum()


def _hinge(logits_n: Tensor, truth_n: Tensor) -> Tensor:
    return lovasz_extension(1.0 - logits_n * (2.0 * truth_n - 1.0), truth_n)


def _softmax(logits_kn: Tensor, target_n: Tensor, weights: list[float]) -> Tensor | None:
    """The loss of one image; None when all classes that it has weigh nothing."""
    probability_kn = logits_kn.softmax(dim=0)
    losses, total = [], 0.0
    for index, weight in enumerate(weights):
        truth_n = target_n == index
        if weight > 0 and truth_n.any():
            losses.append(weight * lovasz_extension((truth_n.float() - probability_kn[index]).abs(), truth_n))
            total += weight
    return torch.stack(losses).sum() / total if losses else None


def lovasz_extension(errors_n: Tensor, truth_n: Tensor, prune: bool = True) -> Tensor:
    """Lovasz extension of the Jaccard loss of one class at max(errors, 0), algorithm 1 of the paper.

    Args:
        errors_n: error of every pixel; those at or below 0 count as 0.
        truth_n: bool, whether the pixel is of the class.
        prune: sort the errors above 0 alone: those above the rounding of 1, below which a probability near 1 has
            no errors to tell. The result is the same to that rounding, sooner.
    """
    positives = truth_n.sum()
    if prune:
        wrong_n = ~(errors_n <= torch.finfo(errors_n.dtype).eps)  # what is no number stays, and is seen in the loss
        errors_n, truth_n = errors_n[wrong_n], truth_n[wrong_n]
    order_n = _descending(errors_n.detach().relu())
    return (errors_n[order_n].relu() * _jaccard_steps(truth_n[order_n], positives)).sum()


def _descending(errors_n: Tensor) -> Tensor:
    """The order of errors from the largest down; equal ones stay as they are.

    On a processor numpy sorts whole numbers, above the bits of an error and below its place, many times faster than
    PyTorch sorts: the bits of floats that are not negative are in the order of the floats.
    """
    if errors_n.device.type != "cpu" or errors_n.dtype != torch.float32:
        return errors_n.sort(descending=True, stable=True).indices
    errors_n = errors_n + 0.0  # -0 has the bits of a large number
    keys_n = (~errors_n.numpy().view(np.uint32)).astype(np.uint64)
    keys_n <<= np.uint64(32)
    keys_n |= np.arange(len(keys_n), dtype=np.uint64)
    keys_n.sort()
    keys_n &= np.uint64(0xFFFFFFFF)
    return torch.from_numpy(keys_n.astype(np.int64))


def _jaccard_steps(truth_n: Tensor, positives: Tensor) -> Tensor:
    """How much the Jaccard loss grows as each pixel, in this order, becomes wrong.

    One more false negative takes 1 from the intersection I, so the loss 1 - I/U grows by 1/U; one more false
    positive adds 1 to the union, so it grows by I/(U - 1) - I/U. The closed form keeps the digits that the
    difference of two neighbouring losses loses on large images.
    """
    missed_n = truth_n.cumsum(0)  # whole numbers: float32 stops counting at 2^24
    intersection_n = positives - missed_n
    union_n = positives + torch.arange(1, len(truth_n) + 1, device=truth_n.device) - missed_n
    union_n = union_n.float()
    grown_n = intersection_n.float() / union_n / (union_n - 1.0).clamp_min(1.0)
    # Without any positive the first false positive takes the loss from 0 to 1.
    grown_n = torch.where(union_n == 1.0, 1.0, grown_n)
    return torch.where(truth_n, 1.0 / union_n, grown_n)
