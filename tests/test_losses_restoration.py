"""Losses of restoration against torch, scikit-image, numpy's Fourier transform, and finite differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from perpixel.losses.restoration import (
    CHARBONNIER_EPS,
    RESTORATION_LOSSES,
    PerceptualLoss,
    WeightedRestorationLoss,
)

names = pytest.mark.parametrize("name", list(RESTORATION_LOSSES))


def pair(seed: int = 0, size: tuple[int, int] = (15, 18), dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(2, 3, *size, generator=generator, dtype=dtype)
    return target + 0.2 * torch.randn(2, 3, *size, generator=generator, dtype=dtype), target


class Encoder(nn.Module):
    """Two levels of features, with a normalisation that has two modes."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.Tanh())
        self.two = nn.Conv2d(4, 6, 3, stride=2, padding=1)

    def forward(self, x_bchw: Tensor) -> list[Tensor]:
        first = self.one(x_bchw)
        return [first, self.two(first)]


def perceptual() -> PerceptualLoss:
    return PerceptualLoss(Encoder(), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))


def fourier(output: Tensor, target: Tensor) -> float:
    spectrum = np.fft.fft2((output - target).numpy().astype(np.float64)) / np.sqrt(output[0, 0].numel())
    return float((np.abs(spectrum.real).mean() + np.abs(spectrum.imag).mean()) / 2)


def differences(output: Tensor, target: Tensor) -> float:
    error = (output - target).numpy().astype(np.float64)
    return float(np.abs(np.diff(error, axis=2)).mean() + np.abs(np.diff(error, axis=3)).mean())


def dissimilarity(output: Tensor, target: Tensor) -> float:
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    arrays = [(a.numpy().astype(np.float64), b.numpy().astype(np.float64)) for a, b in zip(output, target, strict=True)]
    return 1 - float(np.mean([structural_similarity(a, b, channel_axis=0, **options) for a, b in arrays]))


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("mse", F.mse_loss),
        ("l1", F.l1_loss),
        ("charbonnier", lambda a, b: (torch.hypot(a - b, torch.tensor(1e-3)) - CHARBONNIER_EPS).mean()),
        ("ssim", dissimilarity),
        ("gradient", differences),
        ("frequency", fourier),
    ],
)
def test_values_are_those_of_a_reference(name: str, reference: Callable[[Tensor, Tensor], Tensor | float]) -> None:
    output, target = pair()
    assert float(RESTORATION_LOSSES[name](output, target, None)) == pytest.approx(
        float(reference(output, target)), rel=2e-5
    )


@names
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    output, target = pair(1, (12, 11), torch.float64)
    valid = torch.ones(2, 12, 11, dtype=torch.bool)
    valid[0, 11, 2] = False
    loss = RESTORATION_LOSSES[name]
    assert torch.autograd.gradcheck(lambda x: loss(x, target[:1, :1], valid[:1]), output[:1, :1].requires_grad_())


@names
def test_zero_at_equality_with_zero_gradient(name: str) -> None:
    _, target = pair()
    output = target.clone().requires_grad_()
    value = RESTORATION_LOSSES[name](output, target, None)
    (gradient,) = torch.autograd.grad(value, output)
    assert float(value.detach()) == pytest.approx(0, abs=1e-6)
    assert gradient.abs().max() < 1e-6


@names
def test_pixels_without_truth_change_nothing(name: str) -> None:
    output, target = pair(2)
    valid = torch.ones(2, 15, 18, dtype=torch.bool)
    valid[:, :, 15:] = False
    spoiled = output.masked_fill(~valid[:, None], torch.nan).requires_grad_()
    value = RESTORATION_LOSSES[name](spoiled, target.masked_fill(~valid[:, None], torch.inf), valid)
    (gradient,) = torch.autograd.grad(value, spoiled)
    assert torch.isfinite(gradient).all()
    assert (gradient[..., 15:] == 0).all()
    if name != "frequency":  # which is of the whole rectangle
        cropped = RESTORATION_LOSSES[name](output[..., :15], target[..., :15], None)
        torch.testing.assert_close(value, cropped)


@names
def test_nothing_valid_is_zero_and_all_valid_is_none(name: str) -> None:
    output, target = pair(3)
    loss = RESTORATION_LOSSES[name]
    spoiled = torch.full_like(output, torch.nan).requires_grad_()
    value = loss(spoiled, target, torch.zeros(2, 15, 18, dtype=torch.bool))
    assert float(value.detach()) == 0
    assert (torch.autograd.grad(value, spoiled)[0] == 0).all()
    torch.testing.assert_close(
        loss(output, target, torch.ones(2, 15, 18, dtype=torch.bool)), loss(output, target, None)
    )


@names
def test_a_broken_output_is_not_hidden(name: str) -> None:
    output, target = pair(4)
    output[0, 0, 7, 7] = torch.nan
    assert torch.isnan(RESTORATION_LOSSES[name](output, target, None))


@pytest.mark.parametrize("name", [*RESTORATION_LOSSES, "perceptual"])
def test_float32_inside_autocast(name: str) -> None:
    output, target = pair(5)
    loss = WeightedRestorationLoss([(1.0, name)], perceptual=perceptual() if name == "perceptual" else None)
    low = output.bfloat16()
    expected = loss(low.float(), target)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(low, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)


def test_frequency_does_not_grow_with_the_crop() -> None:
    small, large = (RESTORATION_LOSSES["frequency"](*pair(6, (side, side)), None) for side in (16, 128))
    assert float(large / small) == pytest.approx(1, abs=0.05)


def test_a_sum_weighs_its_terms() -> None:
    output, target = pair(7)
    loss = WeightedRestorationLoss([(1.0, "charbonnier"), (0.05, "frequency")])
    parts = [RESTORATION_LOSSES[name](output, target, None) for name in ("charbonnier", "frequency")]
    torch.testing.assert_close(loss(output, target), parts[0] + 0.05 * parts[1])


def test_perceptual_is_the_mean_over_levels_and_its_encoder_never_changes() -> None:
    loss = perceptual()
    before = {name: tensor.clone() for name, tensor in loss.state_dict().items()}
    output, target = pair(8)
    output.requires_grad_()
    value = loss.train()(output, target)
    value.backward()
    assert output.grad is not None and output.grad.abs().sum() > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in loss.state_dict().items())
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25)))
    levels = zip(loss.encoder((output - mean) / std), loss.encoder((target - mean) / std), strict=True)
    expected = sum((a - b).abs().mean() for a, b in levels) / 2
    torch.testing.assert_close(value, expected)
    assert float(loss(target, target)) == 0


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ([], "at least one"),
        ([(1.0, "perceptual")], "no restoration loss is named 'perceptual'"),
        ([(1.0, "l3")], "'l3'"),
    ],
)
def test_wrong_terms_are_refused(terms: list[tuple[float, str]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        WeightedRestorationLoss(terms)


def test_wrong_shapes_are_refused() -> None:
    output, target = pair()
    with pytest.raises(ValueError, match="one size"):
        RESTORATION_LOSSES["mse"](output, target[..., :-1], None)
    with pytest.raises(ValueError, match="bool"):
        RESTORATION_LOSSES["mse"](output, target, torch.ones(2, 15, 18))
    with pytest.raises(ValueError, match="11 x 11"):
        RESTORATION_LOSSES["ssim"](output[..., :10], target[..., :10], None)
