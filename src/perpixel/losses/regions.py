"""Losses that compare the predicted region of a class with the true one: Tversky and its two famous cases.

With K = 1 the region is the foreground, whether or not the truth has any. With K >= 2 the mean goes
over the classes that the truth has (in the image, or in the batch): against an absent class a softmax
can never be right, and its false positives already are false negatives of a class that is there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from perpixel.losses.base import LossOptions, class_weights, one_hot, prepare, weighted_mean

__all__ = ["dice", "jaccard", "tversky"]


def tversky(logits_bkhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor, options: LossOptions) -> Tensor:
    """1 - (TP + eps) / (TP + alpha FP + beta FN + eps), on probabilities (Salehi et al. 2017).

    alpha weighs false positives, beta false negatives.
    """
    return _tversky(
        logits_bkhw, target_bhw, valid_bhw, options, options.tversky_alpha, options.tversky_beta, options.eps
    )


def jaccard(logits_bkhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor, options: LossOptions) -> Tensor:
    """1 - (TP + eps) / (TP + FP + FN + eps), on probabilities."""
    return _tversky(logits_bkhw, target_bhw, valid_bhw, options, 1.0, 1.0, options.eps)


def dice(logits_bkhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor, options: LossOptions) -> Tensor:
    """1 - (2 TP + eps) / (2 TP + FP + FN + eps), on probabilities."""
    return _tversky(logits_bkhw, target_bhw, valid_bhw, options, 0.5, 0.5, options.eps / 2)


def _tversky(
    logits_bkhw: Tensor,
    target_bhw: Tensor,
    valid_bhw: Tensor,
    options: LossOptions,
    alpha: float,
    beta: float,
    eps: float,
) -> Tensor:
    classes = logits_bkhw.shape[1]
    logits_bkhw, target_bhw = prepare(logits_bkhw, target_bhw, valid_bhw)
    probability_bkhw = logits_bkhw.sigmoid() if classes == 1 else logits_bkhw.softmax(dim=1)
    valid_b1hw = valid_bhw[:, None].float()
    truth_bkhw = one_hot(target_bhw, classes) * valid_b1hw

    over = (2, 3) if options.per_image else (0, 2, 3)
    correct = (probability_bkhw * truth_bkhw).sum(over)
    false_positive = (probability_bkhw * (valid_b1hw - truth_bkhw)).sum(over)
    false_negative = ((1.0 - probability_bkhw) * truth_bkhw).sum(over)
    score = (correct + eps) / (correct + alpha * false_positive + beta * false_negative + eps)

    counted = valid_b1hw.sum(over) > 0 if classes == 1 else truth_bkhw.sum(over) > 0
    weights_k = torch.ones_like(score[..., :1]) if classes == 1 else class_weights(logits_bkhw, options)
    return _mean_over_images((1.0 - score).view(-1, classes), (weights_k * counted).view(-1, classes))


def _mean_over_images(loss_nk: Tensor, weights_nk: Tensor) -> Tensor:
    """Weighted mean over the classes of each image, then mean over the images that have any weight."""
    weight_n = weights_nk.sum(dim=1)
    loss_n = (loss_nk * weights_nk).sum(dim=1) / torch.where(weight_n > 0, weight_n, 1.0)
    return weighted_mean(loss_n, (weight_n > 0).float())
