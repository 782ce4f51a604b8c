"""Losses that are a mean over pixels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from perpixel.losses.base import LossOptions, class_weights, one_hot, prepare, weighted_mean

__all__ = ["bce", "cross_entropy", "focal"]


def bce(logits_bkhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor, options: LossOptions) -> Tensor:
    """Binary cross entropy; with K >= 2 each class against the rest, averaged over the classes."""
    logits_bkhw, target_bhw = prepare(logits_bkhw, target_bhw, valid_bhw)
    truth_bkhw = one_hot(target_bhw, logits_bkhw.shape[1])
    loss_bhw = F.binary_cross_entropy_with_logits(logits_bkhw, truth_bkhw, reduction="none").mean(dim=1)
    return weighted_mean(loss_bhw, class_weights(logits_bkhw, options)[target_bhw] * valid_bhw)


def cross_entropy(logits_bkhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor, options: LossOptions) -> Tensor:
    """Softmax cross entropy; with K = 1 the same as `bce`."""
    if logits_bkhw.shape[1] == 1:
        return bce(logits_bkhw, target_bhw, valid_bhw, options)
    logits_bkhw, target_bhw = prepare(logits_bkhw, target_bhw, valid_bhw)
    loss_bhw = F.cross_entropy(logits_bkhw, target_bhw, reduction="none")
    return weighted_mean(loss_bhw, class_weights(logits_bkhw, options)[target_bhw] * valid_bhw)


def focal(logits_bkhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor, options: LossOptions) -> Tensor:
    """-(1 - p)^gamma log p, where p is the probability of the true class (Lin et al. 2017).

    There is no separate alpha: ``class_weights`` weigh the classes.
    """
    logits_bkhw, target_bhw = prepare(logits_bkhw, target_bhw, valid_bhw)
    # (1 - p)^gamma is taken through log(1 - p): the power's own derivative is infinite at p = 1 for gamma < 1.
    if logits_bkhw.shape[1] == 1:
        signed_bhw = logits_bkhw[:, 0] * (2.0 * target_bhw - 1.0)
        log_p_bhw, log_rest_bhw = F.logsigmoid(signed_bhw), F.logsigmoid(-signed_bhw)
    else:
        log_bkhw = logits_bkhw.log_softmax(dim=1)
        true_b1hw = target_bhw[:, None]
        log_p_bhw = log_bkhw.gather(1, true_b1hw)[:, 0]
        log_rest_bhw = log_bkhw.scatter(1, true_b1hw, -float("inf")).logsumexp(dim=1)
    loss_bhw = -(options.focal_gamma * log_rest_bhw).exp() * log_p_bhw
    return weighted_mean(loss_bhw, class_weights(logits_bkhw, options)[target_bhw] * valid_bhw)
