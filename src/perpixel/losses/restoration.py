"""Losses of restoration, their catalogue, and weighted sums of them.

A term is a function ``(output_bchw, target_bchw, valid_bhw) -> scalar``:

- ``output_bchw``: what the network puts out, near [0, 1] and not clamped; any float type, computed in float32 (float64
  stays), inside autocast too.
- ``target_bchw``: the clean image in [0, 1]; anything where ``valid_bhw`` is False.
- ``valid_bhw``: bool, or None where all pixels have truth. Where it is False, output and target count as equal, and but
  for ``frequency`` and ``perceptual``, which look at the whole rectangle, the pixel is in no average.

A batch without a valid pixel gives 0, and zero gradients. No term hides a non-finite output at a valid pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perpixel.losses.base import weighted_mean

__all__ = ["RESTORATION_LOSSES", "PerceptualLoss", "RestorationLossFunction", "WeightedRestorationLoss"]

RestorationLossFunction = Callable[[Tensor, Tensor, Tensor | None], Tensor]

CHARBONNIER_EPS = 1e-3
_SSIM_WINDOW, _SSIM_SIGMA = 11, 1.5


def mse(output_bchw: Tensor, target_bchw: Tensor, valid_bhw: Tensor | None = None) -> Tensor:
    """Mean squared error over the valid pixels of the batch and their channels."""
    output_bchw, target_bchw, weight_b1hw = _prepare(output_bchw, target_bchw, valid_bhw)
    return _mean((output_bchw - target_bchw).square(), weight_b1hw)


def l1(output_bchw: Tensor, target_bchw: Tensor, valid_bhw: Tensor | None = None) -> Tensor:
    """Mean absolute error over the valid pixels of the batch and their channels."""
    output_bchw, target_bchw, weight_b1hw = _prepare(output_bchw, target_bchw, valid_bhw)
    return _mean((output_bchw - target_bchw).abs(), weight_b1hw)


def charbonnier(output_bchw: Tensor, target_bchw: Tensor, valid_bhw: Tensor | None = None) -> Tensor:
    """Mean of sqrt(e^2 + eps^2) - eps with eps 1e-3 (Lai et al. 2017, LapSRN).

    The published form keeps the constant eps, so that it is never 0; without it the gradient is the same.
    """
    output_bchw, target_bchw, weight_b1hw = _prepare(output_bchw, target_bchw, valid_bhw)
    root_bchw = ((output_bchw - target_bchw).square() + CHARBONNIER_EPS**2).sqrt() - CHARBONNIER_EPS
    return _mean(root_bchw, weight_b1hw)


def ssim(output_bchw: Tensor, target_bchw: Tensor, valid_bhw: Tensor | None = None) -> Tensor:
    """1 - mean SSIM (Wang et al. 2004): Gaussian window 11 x 11, sigma 1.5, K1 0.01, K2 0.03, range 1.

    Each channel by itself, averaged over the windows that lie within the image and hold valid pixels only. It is
    scikit-image's with ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1``.

    Raises:
        ValueError: the images are smaller than the window.
    """
    if min(output_bchw.shape[-2:]) < _SSIM_WINDOW:
        raise ValueError(f"SSIM needs images of {_SSIM_WINDOW} x {_SSIM_WINDOW}: {tuple(output_bchw.shape[-2:])}")
    x_bchw, y_bchw, weight_b1hw = _prepare(output_bchw, target_bchw, valid_bhw)
    with torch.autocast(x_bchw.device.type, enabled=False):  # it would make the products bfloat16
        products = torch.cat([x_bchw, y_bchw, x_bchw * x_bchw, y_bchw * y_bchw, x_bchw * y_bchw])
        mean_x, mean_y, mean_xx, mean_yy, mean_xy = _blur(products).chunk(5)
    c1, c2 = 0.01**2, 0.03**2
    covariance = mean_xy - mean_x * mean_y
    variances = mean_xx - mean_x.square() + mean_yy - mean_y.square()
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    loss_bchw = 1 - luminance * (2 * covariance + c2) / (variances + c2)
    whole_b1hw = weight_b1hw if valid_bhw is None else -F.max_pool2d(-weight_b1hw, _SSIM_WINDOW, stride=1)
    return _mean(loss_bchw, whole_b1hw[..., : loss_bchw.shape[-2], : loss_bchw.shape[-1]])


def gradient(output_bchw: Tensor, target_bchw: Tensor, valid_bhw: Tensor | None = None) -> Tensor:
    """Edges: mean absolute error of the differences of neighbours that are both valid, along rows plus columns."""
    output_bchw, target_bchw, weight_b1hw = _prepare(output_bchw, target_bchw, valid_bhw)
    error_bchw = output_bchw - target_bchw
    loss = error_bchw.mul(0.0).sum()  # so that a single pixel has a gradient, of 0, too
    for axis in (2, 3):
        last = error_bchw.shape[axis] - 1
        pairs = weight_b1hw.narrow(axis, 1, last) * weight_b1hw.narrow(axis, 0, last)
        loss = loss + _mean(error_bchw.diff(dim=axis).abs(), pairs)
    return loss


def frequency(output_bchw: Tensor, target_bchw: Tensor, valid_bhw: Tensor | None = None) -> Tensor:
    """Mean absolute error of real and imaginary parts of the Fourier transform (Cho et al. 2021, MIMO-UNet).

    The transform is orthonormal, so that its size does not grow with that of the crop. MIMO-UNet's is not: its weight
    of 0.1 on crops of 256 x 256 is one of 25.6 here. Pixels without truth have an error of 0 in the transform.
    """
    output_bchw, target_bchw, _ = _prepare(output_bchw, target_bchw, valid_bhw)
    return torch.view_as_real(torch.fft.fft2(output_bchw - target_bchw, norm="ortho")).abs().mean()


RESTORATION_LOSSES: dict[str, RestorationLossFunction] = {
    "charbonnier": charbonnier,
    "frequency": frequency,
    "gradient": gradient,
    "l1": l1,
    "mse": mse,
    "ssim": ssim,
}


class PerceptualLoss(nn.Module):
    """Mean absolute difference of an encoder's features, averaged over its levels (Johnson et al. 2016, with L1).

    The encoder is frozen: it never learns, keeps its batch statistics, and computes in float32.

    Args:
        encoder: maps normalised image_bchw to a sequence of feature maps, such as timm's with ``features_only=True``.
            It should be pretrained; nothing here can see whether it is.
        mean, std: the encoder's normalisation, a channel, for RGB in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)

    def forward(self, output_bchw: Tensor, target_bchw: Tensor, valid_bhw: Tensor | None = None) -> Tensor:
        """The scalar loss; pixels without truth are black in both images."""
        output_bchw, target_bchw, _ = _prepare(output_bchw, target_bchw, valid_bhw)
        with torch.autocast(output_bchw.device.type, enabled=False):
            with torch.no_grad():
                wanted = self.encoder(self._normalised(target_bchw))
            found = self.encoder(self._normalised(output_bchw))
        return torch.stack([F.l1_loss(*pair) for pair in zip(found, wanted, strict=True)]).mean()

    def train(self, mode: bool = True) -> PerceptualLoss:
        """Stays in evaluation mode."""
        return super().train(False)

    def _normalised(self, image_bchw: Tensor) -> Tensor:
        return (image_bchw - self.mean) / self.std


class WeightedRestorationLoss:
    """A weighted sum of terms of `RESTORATION_LOSSES`.

    Args:
        terms: (weight, name) of each term.
        perceptual: what the name ``perceptual`` stands for; without it there is no such term.

    Raises:
        ValueError: there is no term, or no loss of that name.
    """

    def __init__(self, terms: Sequence[tuple[float, str]], *, perceptual: PerceptualLoss | None = None) -> None:
        if not terms:
            raise ValueError("a loss needs at least one term")
        known: dict[str, RestorationLossFunction] = dict(RESTORATION_LOSSES)
        if perceptual is not None:
            known["perceptual"] = perceptual
        unknown = [name for _, name in terms if name not in known]
        if unknown:
            raise ValueError(
                f"no restoration loss is named {', '.join(map(repr, unknown))}; there are {', '.join(known)}"
            )
        self.terms = [(weight, known[name]) for weight, name in terms]

    def __call__(self, output_bchw: Tensor, target_bchw: Tensor, valid_bhw: Tensor | None = None) -> Tensor:
        """The scalar loss of (B, C, H, W) output and target and (B, H, W) bool."""
        output_bchw = _precise(output_bchw)  # so that the terms' gradients too are added up in float32
        return torch.stack([weight * term(output_bchw, target_bchw, valid_bhw) for weight, term in self.terms]).sum()


# ---------------------------------------------------------------- what the terms share


def _precise(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _prepare(output_bchw: Tensor, target_bchw: Tensor, valid_bhw: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Output and target in float32 (float64 stays), 0 where there is no truth, and weight_b1hw: 1 where there is.

    Raises:
        ValueError: the shapes do not belong together, or ``valid_bhw`` is not bool.
    """
    if output_bchw.ndim != 4 or output_bchw.shape != target_bchw.shape:
        shapes = f"{tuple(output_bchw.shape)} and {tuple(target_bchw.shape)}"
        raise ValueError(f"output and target must be (B, C, H, W) of one size; they are {shapes}")
    output_bchw = _precise(output_bchw)
    target_bchw = target_bchw.to(output_bchw.dtype)
    if valid_bhw is None:
        return output_bchw, target_bchw, torch.ones_like(output_bchw[:, :1])
    if valid_bhw.dtype != torch.bool or valid_bhw.shape != (len(output_bchw), *output_bchw.shape[2:]):
        raise ValueError(f"valid must be bool (B, H, W); it is {valid_bhw.dtype} {tuple(valid_bhw.shape)}")
    void_b1hw = ~valid_bhw[:, None]
    weight_b1hw = valid_bhw[:, None].to(output_bchw.dtype)
    return output_bchw.masked_fill(void_b1hw, 0.0), target_bchw.masked_fill(void_b1hw, 0.0), weight_b1hw


def _mean(values_bchw: Tensor, weight_b1hw: Tensor) -> Tensor:
    return weighted_mean(values_bchw, weight_b1hw.expand_as(values_bchw))


def _blur(values_bchw: Tensor) -> Tensor:
    """Gaussian means of the windows that lie within the image.

    By two matrix products, which on a CPU take a tenth of the time of a convolution of single channels.
    """
    height, width = values_bchw.shape[-2:]
    return _band(height, values_bchw) @ values_bchw @ _band(width, values_bchw).T


def _band(side: int, like: Tensor) -> Tensor:
    """Matrix (side - 10, side) whose every row is the Gaussian, one place further than in the row above."""
    windows = side - _SSIM_WINDOW + 1
    start_n1 = torch.arange(windows, device=like.device)[:, None]
    offset_ns = torch.arange(side, device=like.device) - start_n1 - _SSIM_WINDOW // 2
    inside_ns = offset_ns.abs() <= _SSIM_WINDOW // 2
    band_ns = torch.exp(-offset_ns.to(like.dtype).square() / (2 * _SSIM_SIGMA**2)) * inside_ns
    return band_ns / band_ns.sum(1, keepdim=True)
