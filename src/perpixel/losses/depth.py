"""Losses of depth, their catalogue, and weighted sums of them.

A term is a function ``(output_bhw, target_bhw, valid_bhw, options) -> scalar``:

- ``output_bhw``: depth in metres, any float type, computed in float32 (float64 stays). The logarithms of `silog` and
  `log_gradient` need it above 0. The terms of `RELATIVE_DEPTH_LOSSES` take disparity up to scale and shift instead,
  larger where it is nearer.
- ``target_bhw``: depth in metres, above 0; anything where ``valid_bhw`` is False.
- ``valid_bhw``: bool; pixels where it is False change neither the value nor a gradient.

A batch without a valid pixel gives 0, and zero gradients. No term hides a non-finite value: an output that is not
finite at a valid pixel, or not above 0 where its logarithm is taken, gives a loss that is not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perpixel.losses.base import weighted_mean

__all__ = ["DEPTH_LOSSES", "RELATIVE_DEPTH_LOSSES", "DepthLossFunction", "DepthLossOptions", "WeightedDepthLoss"]


@dataclass(frozen=True)
class DepthLossOptions:
    """Options of all terms; each term reads those that concern it.

    Attributes:
        per_image: berhu's threshold and the statistics of silog are taken image by image, and silog averaged over the
            images that have a valid pixel; else over the batch as if it were one image, as ZoeDepth and BTS do.
        silog_alpha: factor of silog.
        silog_beta: weight of the squared mean in silog; 1 - lambda of Eigen et al. 2014.
        gradient_scales: how many scales the gradient terms have; each has half the pixels a side of the one before.
        trim: share of the largest residuals of an image that ssi_trim leaves out.
    """

    per_image: bool = False
    silog_alpha: float = 10.0
    silog_beta: float = 0.15
    gradient_scales: int = 4
    trim: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.trim < 1 or self.gradient_scales < 1 or self.silog_beta < 0 or not self.silog_alpha > 0:
            raise ValueError(
                "trim must be from 0 to below 1, gradient_scales at least 1, silog_beta at least 0 and silog_alpha "
                f"above 0; they are {self}"
            )


DepthLossFunction = Callable[[Tensor, Tensor, Tensor, DepthLossOptions], Tensor]


# ---------------------------------------------------------------- metres


def mse(output_bhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor, options: DepthLossOptions) -> Tensor:
    """Mean squared error over the valid pixels of the batch, in square metres."""
    output_bhw, target_bhw = _prepare(output_bhw, target_bhw, valid_bhw)
    return weighted_mean((output_bhw - target_bhw).square(), valid_bhw.to(output_bhw.dtype))


def l1(output_bhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor, options: DepthLossOptions) -> Tensor:
    """Mean absolute error over the valid pixels of the batch, in metres."""
    output_bhw, target_bhw = _prepare(output_bhw, target_bhw, valid_bhw)
    return weighted_mean((output_bhw - target_bhw).abs(), valid_bhw.to(output_bhw.dtype))


def berhu(output_bhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor, options: DepthLossOptions) -> Tensor:
    """Reverse Huber: |e| up to c, (e^2 + c^2) / (2 c) above; c is a fifth of the largest |e| (Laina et al. 2016).

    c counts as a constant: no gradient passes through it. In the paper it is of the batch.
    """
    output_bhw, target_bhw = _prepare(output_bhw, target_bhw, valid_bhw)
    error_bhw = (output_bhw - target_bhw).abs()
    largest = error_bhw.detach().amax((1, 2), keepdim=True) if options.per_image else error_bhw.detach().amax()
    threshold = 0.2 * largest
    # Where c is 0 every error is 0 and the first branch holds; NaN fails the comparison and stays NaN in the second.
    safe = torch.where(threshold == 0, 1.0, threshold)
    loss_bhw = torch.where(error_bhw <= threshold, error_bhw, (error_bhw.square() + safe.square()) / (2 * safe))
    return weighted_mean(loss_bhw, valid_bhw.to(loss_bhw.dtype))


def silog(output_bhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor, options: DepthLossOptions) -> Tensor:
    """alpha * sqrt(Var(g) + beta * mean(g)^2), where g = log output - log target.

    With alpha 10 and beta 0.15 it is the loss of ZoeDepth (Bhat et al. 2023), and of BTS (Lee et al. 2019) with
    lambda 0.85. Var divides by the number of pixels, so that one pixel has one too. 1e-7 under the root keeps the
    gradient finite where all is right.
    """
    variance_n, mean_n, counted_n = _log_moments(output_bhw, target_bhw, valid_bhw, options)
    root_n = (variance_n + options.silog_beta * mean_n.square() + 1e-7).sqrt()
    return options.silog_alpha * weighted_mean(root_n, counted_n)


def silog_eigen(output_bhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor, options: DepthLossOptions) -> Tensor:
    """mean(g^2) - 0.5 mean(g)^2, without a root: the training loss of Eigen et al. 2014, equation 4, lambda 0.5.

    In the paper it is taken image by image.
    """
    variance_n, mean_n, counted_n = _log_moments(output_bhw, target_bhw, valid_bhw, options)
    return weighted_mean(variance_n + 0.5 * mean_n.square(), counted_n)


def silog_root(output_bhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor, options: DepthLossOptions) -> Tensor:
    """sqrt(mean(g^2) - 0.5 mean(g)^2): the root of `silog_eigen`, with lambda 0.5 too (GLPN, Kim et al. 2022)."""
    variance_n, mean_n, counted_n = _log_moments(output_bhw, target_bhw, valid_bhw, options)
    return weighted_mean((variance_n + 0.5 * mean_n.square() + 1e-7).sqrt(), counted_n)


def log_gradient(output_bhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor, options: DepthLossOptions) -> Tensor:
    """Multi-scale gradient of g = log output - log target (Li and Snavely 2018, MegaDepth, equation 3).

    Each scale keeps every second pixel of the one before. It adds the absolute differences of neighbours that are
    both valid, along rows and columns, divided by the number of its valid pixels in the batch.
    """
    output_bhw, target_bhw = _prepare(output_bhw, target_bhw, valid_bhw, fill=1.0)
    return _gradient_loss(output_bhw.log() - target_bhw.log(), valid_bhw, options.gradient_scales)


# ---------------------------------------------------------------- disparity up to scale and shift


def ssi_trim(output_bhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor, options: DepthLossOptions) -> Tensor:
    """Scale- and shift-invariant trimmed absolute error in disparity (Ranftl et al. 2020, MiDaS, equations 5 to 8).

    Output and true disparity, 1 / target, are each brought to median 0 and mean absolute deviation 1. Of an image's n
    residuals the largest 20 % are left out; the sum of the others is divided by 2 n, then averaged over the images.
    """
    output_bhw, disparity_bhw = _prepare_relative(output_bhw, target_bhw, valid_bhw)
    losses = []
    for output_hw, disparity_hw, valid_hw in zip(output_bhw, disparity_bhw, valid_bhw, strict=True):
        pair = _normalised_pair(output_hw[valid_hw], disparity_hw[valid_hw])
        if pair is not None:
            residual_n = (pair[0] - pair[1]).abs()
            kept_n = residual_n.sort().values[: len(residual_n) - int(options.trim * len(residual_n))]
            losses.append(kept_n.sum() / (2 * len(residual_n)))
    return _mean_in_sight(losses, output_bhw)


def ssi_mse(output_bhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor, options: DepthLossOptions) -> Tensor:
    """Scale- and shift-invariant squared error in disparity (Ranftl et al. 2020, MiDaS, equations 1 to 4).

    The scale and the shift of an image are those that fit 1 / target best by least squares; half the mean squared
    residual is averaged over the images. Its unit is 1/m^2.
    """
    output_bhw, disparity_bhw = _prepare_relative(output_bhw, target_bhw, valid_bhw)
    losses = []
    for output_hw, disparity_hw, valid_hw in zip(output_bhw, disparity_bhw, valid_bhw, strict=True):
        output_n, disparity_n = output_hw[valid_hw], disparity_hw[valid_hw]
        if len(output_n) < 2:
            continue
        output_n, disparity_n = output_n - output_n.mean(), disparity_n - disparity_n.mean()
        spread = output_n.square().mean()
        scale = (output_n * disparity_n).mean() / torch.where(spread == 0, 1.0, spread)
        losses.append((scale * output_n - disparity_n).square().mean() / 2)
    return _mean_in_sight(losses, output_bhw)


def ssi_gradient(output_bhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor, options: DepthLossOptions) -> Tensor:
    """Multi-scale gradient of the residual of `ssi_trim` (Ranftl et al. 2020, equation 11); 0.5 beside it there."""
    output_bhw, disparity_bhw = _prepare_relative(output_bhw, target_bhw, valid_bhw)
    residuals, counted = [], []
    for output_hw, disparity_hw, valid_hw in zip(output_bhw, disparity_bhw, valid_bhw, strict=True):
        pair = _normalised_pair(output_hw[valid_hw], disparity_hw[valid_hw])
        if pair is not None:
            residuals.append(torch.zeros_like(output_hw).masked_scatter(valid_hw, pair[0] - pair[1]))
            counted.append(valid_hw)
    losses = [_gradient_loss(torch.stack(residuals), torch.stack(counted), options.gradient_scales)] if counted else []
    return _mean_in_sight(losses, output_bhw)


DEPTH_LOSSES: dict[str, DepthLossFunction] = {
    "berhu": berhu,
    "l1": l1,
    "log_gradient": log_gradient,
    "mse": mse,
    "silog": silog,
    "silog_eigen": silog_eigen,
    "silog_root": silog_root,
    "ssi_gradient": ssi_gradient,
    "ssi_mse": ssi_mse,
    "ssi_trim": ssi_trim,
}
RELATIVE_DEPTH_LOSSES = frozenset({"ssi_gradient", "ssi_mse", "ssi_trim"})
"""Terms whose output is disparity up to scale and shift; of the others it is metres."""


class WeightedDepthLoss:
    """A weighted sum of terms of `DEPTH_LOSSES`.

    Args:
        terms: (weight, name) of each term.
        options: what the terms share.
        relative: the output is disparity up to scale and shift, which only `RELATIVE_DEPTH_LOSSES` can judge. Else it
            is metres, and those terms get 1 / output.

    Raises:
        ValueError: there is no term, no loss of that name, or one that needs metres where there are none.
    """

    def __init__(
        self,
        terms: Sequence[tuple[float, str]],
        options: DepthLossOptions | None = None,
        *,
        relative: bool = False,
    ) -> None:
        if not terms:
            raise ValueError("a loss needs at least one term")
        names = [name for _, name in terms]
        unknown = [name for name in names if name not in DEPTH_LOSSES]
        if unknown:
            raise ValueError(
                f"no depth loss is named {', '.join(map(repr, unknown))}; there are {', '.join(DEPTH_LOSSES)}"
            )
        metric = [name for name in names if name not in RELATIVE_DEPTH_LOSSES]
        if relative and metric:
            raise ValueError(f"{', '.join(metric)} need metres; the output is disparity up to scale and shift")
        self.terms = list(terms)
        self.options = options if options is not None else DepthLossOptions()
        self.relative = relative

    def __call__(self, output_bhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor) -> Tensor:
        """The scalar loss of (B, H, W) output, (B, H, W) metres and (B, H, W) bool."""
        output_bhw = _precise(output_bhw)  # so that the terms' gradients too are added up in float32
        values = []
        for weight, name in self.terms:
            invert = name in RELATIVE_DEPTH_LOSSES and not self.relative
            # Filled first: the gradient of 1 / 0 at a pixel without truth would be NaN.
            given_bhw = 1 / output_bhw.masked_fill(~valid_bhw, 1.0) if invert else output_bhw
            values.append(weight * DEPTH_LOSSES[name](given_bhw, target_bhw, valid_bhw, self.options))
        return torch.stack(values).sum()


# ---------------------------------------------------------------- what the terms share


def _precise(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _prepare(output_bhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor, fill: float = 0.0) -> tuple[Tensor, Tensor]:
    """Output and target in float32 (float64 stays), with ``fill`` at pixels without truth, so that nothing leaks.

    Raises:
        ValueError: the shapes differ, or ``valid_bhw`` is not bool.
    """
    if output_bhw.ndim != 3 or not output_bhw.shape == target_bhw.shape == valid_bhw.shape:
        raise ValueError(
            f"output, target and valid must be (B, H, W) of one size; they are {tuple(output_bhw.shape)}, "
            f"{tuple(target_bhw.shape)} and {tuple(valid_bhw.shape)}"
        )
    if valid_bhw.dtype != torch.bool:
        raise ValueError(f"valid must be bool; it is {valid_bhw.dtype}")
    output_bhw = _precise(output_bhw).masked_fill(~valid_bhw, fill)
    return output_bhw, target_bhw.to(output_bhw.dtype).masked_fill(~valid_bhw, fill)


def _prepare_relative(output_bhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor) -> tuple[Tensor, Tensor]:
    output_bhw, target_bhw = _prepare(output_bhw, target_bhw, valid_bhw, fill=1.0)
    return output_bhw, 1 / target_bhw


def _log_moments(
    output_bhw: Tensor, target_bhw: Tensor, valid_bhw: Tensor, options: DepthLossOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Variance and mean of log output - log target, and 1 where there is a valid pixel: an image each, or one in all.

    The variance is taken around the mean: mean(g^2) - mean(g)^2 would lose its digits where the mean is large.
    """
    output_bhw, target_bhw = _prepare(output_bhw, target_bhw, valid_bhw, fill=1.0)
    rows = len(output_bhw) if options.per_image else 1
    g_nm = (output_bhw.log() - target_bhw.log()).reshape(rows, -1)
    valid_nm = valid_bhw.reshape(rows, -1).to(g_nm.dtype)
    count_n = valid_nm.sum(1)
    safe_n = count_n.clamp_min(1)
    mean_n = (g_nm * valid_nm).sum(1) / safe_n
    variance_n = ((g_nm - mean_n[:, None]).square() * valid_nm).sum(1) / safe_n
    return variance_n, mean_n, (count_n > 0).to(g_nm.dtype)


def _normalised_pair(output_n: Tensor, disparity_n: Tensor) -> tuple[Tensor, Tensor] | None:
    """Both at median 0 and mean absolute deviation 1; None when the truth is flat, and so has no scale to compare."""
    if len(disparity_n) < 2:
        return None
    truth_spread = (disparity_n - disparity_n.median()).abs().mean()
    if truth_spread <= 1e-6 * disparity_n.median():
        return None
    centred_n = output_n - output_n.median()
    # A flat output has no scale either; it keeps its size, which is 0.
    spread = centred_n.abs().mean().clamp_min(1e-6)
    return centred_n / spread, (disparity_n - disparity_n.median()) / truth_spread


def _mean_in_sight(losses: list[Tensor], output_bhw: Tensor) -> Tensor:
    """Mean of the losses; 0 without any. NaN when an output is not finite.

    Such an output may else be out of sight: sorting puts NaN last, among the residuals that are left out, and an
    image that cannot be aligned is passed over.
    """
    sight = output_bhw.mul(0.0).sum()
    return torch.stack(losses).mean() + sight if losses else sight


def _gradient_loss(residual_bhw: Tensor, valid_bhw: Tensor, scales: int) -> Tensor:
    """Sum over scales of the absolute differences of valid neighbours, over the number of valid pixels of the scale."""
    # So that a batch without a pair of neighbours has a gradient, of 0, too.
    loss = residual_bhw.masked_fill(~valid_bhw, 0.0).mul(0.0).sum()
    for scale in range(scales):
        step = 2**scale
        part_bhw, kept_bhw = residual_bhw[:, ::step, ::step], valid_bhw[:, ::step, ::step]
        total = part_bhw.new_zeros(())
        for axis in (1, 2):
            last = part_bhw.shape[axis] - 1
            pairs = kept_bhw.narrow(axis, 1, last) & kept_bhw.narrow(axis, 0, last)
            total = total + part_bhw.diff(dim=axis).abs().masked_fill(~pairs, 0.0).sum()
        loss = loss + total / kept_bhw.sum().clamp_min(1)
    return loss
