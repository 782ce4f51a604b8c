"""Depth losses: the contract that every term keeps, and each term against its formula written out in loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from perpixel.losses.depth import DEPTH_LOSSES, RELATIVE_DEPTH_LOSSES, DepthLossOptions, WeightedDepthLoss

Images = list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]]

OPTIONS = DepthLossOptions()
EACH = DepthLossOptions(per_image=True)
every_loss = pytest.mark.parametrize("name", DEPTH_LOSSES)
every_scope = pytest.mark.parametrize("options", [OPTIONS, EACH], ids=["batch", "per_image"])
LOGARITHMIC = {"silog", "silog_eigen", "silog_root", "log_gradient"}


def case(seed: int = 0, images: int = 3, side: int = 9, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    shape = (images, side, side)
    output = (0.5 + 4 * torch.rand(shape, generator=generator, dtype=torch.float64)).to(dtype)
    target = (0.5 + 4 * torch.rand(shape, generator=generator, dtype=torch.float64)).to(dtype)
    return output, target, torch.rand(shape, generator=generator) > 0.25


def value_and_gradient(
    name: str, output: Tensor, target: Tensor, valid: Tensor, options: DepthLossOptions = OPTIONS
) -> tuple[Tensor, Tensor]:
    output = output.clone().requires_grad_()
    loss = DEPTH_LOSSES[name](output, target, valid, options)
    assert loss.shape == ()
    (gradient,) = torch.autograd.grad(loss, output)
    return loss.detach(), gradient


@every_loss
@every_scope
@given(
    seed=st.integers(0, 10**6),
    output_filler=st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -3.0, 1e30]),
    target_filler=st.sampled_from([math.nan, math.inf, 0.0, -1.0, 1e30]),
)
@settings(max_examples=10)
def test_pixels_without_truth_change_nothing(
    name: str, options: DepthLossOptions, seed: int, output_filler: float, target_filler: float
) -> None:
    output, target, valid = case(seed)
    value, gradient = value_and_gradient(name, output, target, valid, options)
    other = value_and_gradient(
        name,
        output.masked_fill(~valid, output_filler),
        target.masked_fill(~valid, target_filler),
        valid,
        options,
    )
    assert value > 0 and torch.equal(value, other[0]) and torch.equal(gradient, other[1])
    assert not gradient[~valid].any() and gradient[valid].count_nonzero() > 0


@every_loss
@every_scope
def test_a_batch_without_truth_gives_zero_and_zero_gradients(name: str, options: DepthLossOptions) -> None:
    output, target, valid = case()
    nowhere = torch.zeros_like(valid)
    value, gradient = value_and_gradient(name, output.fill_(math.nan), target.fill_(math.nan), nowhere, options)
    assert value == 0 and torch.equal(gradient, torch.zeros_like(gradient))


@every_loss
@every_scope
def test_an_image_without_truth_weighs_nothing(name: str, options: DepthLossOptions) -> None:
    output, target, valid = case()
    valid[1] = False
    alone = value_and_gradient(name, output[[0, 2]], target[[0, 2]], valid[[0, 2]], options)[0]
    assert float(value_and_gradient(name, output, target, valid, options)[0]) == pytest.approx(float(alone), rel=1e-6)


@every_loss
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("pixels", ["one", "first image's only"])
def test_outputs_that_are_not_finite_show(name: str, wrong: float, pixels: str) -> None:
    output, target, valid = case()
    valid[0, 2, 2] = True
    if pixels != "one":
        valid[0] = False
        valid[0, 2, 2] = True
    output[0, 2, 2] = wrong
    assert not torch.isfinite(DEPTH_LOSSES[name](output, target, valid, OPTIONS))


@pytest.mark.parametrize("name", sorted(LOGARITHMIC))
@pytest.mark.parametrize("wrong", [0.0, -1.0])
def test_outputs_without_logarithm_show(name: str, wrong: float) -> None:
    output, target, valid = case()
    valid[1, 4, 4], output[1, 4, 4] = True, wrong
    assert not torch.isfinite(DEPTH_LOSSES[name](output, target, valid, OPTIONS))


@every_loss
@every_scope
def test_a_perfect_output_has_no_loss_and_a_finite_gradient(name: str, options: DepthLossOptions) -> None:
    _, target, valid = case()
    perfect = 1 / target if name in RELATIVE_DEPTH_LOSSES else target
    value, gradient = value_and_gradient(name, perfect, target, valid, options)
    # 1e-7 stands under the roots of silog.
    assert float(value) <= 10 * math.sqrt(1e-7) * 1.01 and torch.isfinite(gradient).all()


@every_loss
def test_half_precision_is_computed_in_single(name: str) -> None:
    output, target, valid = case()
    short = output.bfloat16()
    value, gradient = value_and_gradient(name, short, target, valid)
    assert value.dtype == torch.float32 and gradient.dtype == torch.bfloat16
    assert torch.equal(value, value_and_gradient(name, short.float(), target, valid)[0])


@every_loss
@every_scope
def test_gradients_are_those_of_the_value(name: str, options: DepthLossOptions) -> None:
    output, target, valid = case(seed=4, images=2, side=5, dtype=torch.float64)
    if name == "berhu":
        # Its threshold is a constant to the gradient: where no output is the largest error, it is one indeed.
        output[:, 0, 0], target[:, 0, 0], valid[:, 0, 0] = 30.0, 1.0, True
        free = torch.ones_like(valid)
        free[:, 0, 0] = False
        start = output.masked_fill(~free, 0.0).requires_grad_()
        fixed = output.masked_fill(free, 0.0)
        assert torch.autograd.gradcheck(
            lambda given: DEPTH_LOSSES[name](given * free + fixed, target, valid, options), (start,)
        )
        return
    start = output.requires_grad_()
    assert torch.autograd.gradcheck(lambda given: DEPTH_LOSSES[name](given, target, valid, options), (start,))


def test_berhu_gradient_by_hand() -> None:
    output = torch.tensor([[[1.0, 1.1, 3.0, 6.0]]])
    valid = torch.ones_like(output, dtype=torch.bool)
    _, gradient = value_and_gradient("berhu", output, torch.ones_like(output), valid)
    # c = 1: sign of e below, e / c above, over four pixels
    assert torch.allclose(gradient, torch.tensor([[[0.0, 1.0, 2.0, 5.0]]]) / 4)


# ---------------------------------------------------------------- formulas, written out


def pooled(images: Images) -> tuple[list[float], list[float]]:
    outputs, targets = [], []
    for output, target, valid in images:
        outputs += output[valid].tolist()
        targets += target[valid].tolist()
    return outputs, targets


def log_errors(images: Images) -> list[float]:
    return [math.log(p) - math.log(t) for p, t in zip(*pooled(images), strict=True)]


def reference_silog(images: Images, lam: float) -> float:
    g = log_errors(images)
    return sum(x * x for x in g) / len(g) - lam * (sum(g) / len(g)) ** 2


def reference_berhu(images: Images) -> float:
    errors = [abs(p - t) for p, t in zip(*pooled(images), strict=True)]
    c = max(errors) / 5
    return sum(e if e <= c else (e * e + c * c) / (2 * c) for e in errors) / len(errors)


def reference_gradient(residuals: Images, scales: int = 4) -> float:
    """Of (residual, _, valid): MegaDepth's sum over scales."""
    total = 0.0
    for scale in range(scales):
        step, summed, count = 2**scale, 0.0, 0
        for residual, _, valid in residuals:
            part, kept = residual[::step, ::step], valid[::step, ::step]
            count += int(kept.sum())
            for row, column in np.argwhere(kept):
                for y, x in ((row + 1, column), (row, column + 1)):
                    if y < kept.shape[0] and x < kept.shape[1] and kept[y, x]:
                        summed += abs(part[y, x] - part[row, column])
        total += summed / count if count else 0
    return total


def robust(values: NDArray[np.float64]) -> NDArray[np.float64]:
    lower_median = np.sort(values)[(len(values) - 1) // 2]
    return np.asarray((values - lower_median) / np.abs(values - lower_median).mean())


def normalised_residuals(images: Images) -> Images:
    results = []
    for output, target, valid in images:
        residual = np.zeros(output.shape)
        residual[valid] = robust(output[valid]) - robust(1 / target[valid])
        results.append((residual, target, valid))
    return results


def reference_trim(images: Images) -> float:
    losses = []
    for residual, _, valid in normalised_residuals(images):
        sizes = sorted(abs(residual[valid]))
        losses.append(sum(sizes[: len(sizes) - len(sizes) // 5]) / (2 * len(sizes)))
    return sum(losses) / len(losses)


def reference_ssi_mse(images: Images) -> float:
    losses = []
    for output, target, valid in images:
        matrix = np.stack([output[valid], np.ones(valid.sum())], axis=1)
        truth = 1 / target[valid]
        solution = np.linalg.lstsq(matrix, truth, rcond=None)[0]
        losses.append(((matrix @ solution - truth) ** 2).mean() / 2)
    return sum(losses) / len(losses)


def mean_of_images(reference: Callable[[Images], float]) -> Callable[[Images], float]:
    return lambda images: sum(reference([image]) for image in images) / len(images)


REFERENCES: dict[str, Callable[[Images], float]] = {
    "mse": lambda images: float(np.mean(np.subtract(*pooled(images)) ** 2)),
    "l1": lambda images: float(np.mean(np.abs(np.subtract(*pooled(images))))),
    "berhu": reference_berhu,
    "silog": lambda images: 10 * math.sqrt(reference_silog(images, 0.85) + 1e-7),
    "silog_eigen": lambda images: reference_silog(images, 0.5),
    "silog_root": lambda images: math.sqrt(reference_silog(images, 0.5) + 1e-7),
    "log_gradient": lambda images: reference_gradient(
        [
            (np.log(np.where(valid, output, 1)) - np.log(np.where(valid, target, 1)), target, valid)
            for output, target, valid in images
        ]
    ),
    "ssi_trim": reference_trim,
    "ssi_mse": reference_ssi_mse,
    "ssi_gradient": lambda images: reference_gradient(normalised_residuals(images)),
}


@every_loss
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_formula_written_out(name: str, seed: int) -> None:
    output, target, valid = case(seed, side=11, dtype=torch.float64)
    images = [tuple(part.numpy() for part in image) for image in zip(output, target, valid, strict=True)]
    assert set(REFERENCES) == set(DEPTH_LOSSES)
    value = float(DEPTH_LOSSES[name](output, target, valid, OPTIONS))
    assert value == pytest.approx(REFERENCES[name](images), rel=1e-9)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["silog", "silog_eigen", "silog_root"])
def test_silog_of_each_image(name: str) -> None:
    output, target, valid = case(7, dtype=torch.float64)
    images = [tuple(part.numpy() for part in image) for image in zip(output, target, valid, strict=True)]
    value = float(DEPTH_LOSSES[name](output, target, valid, EACH))
    assert value == pytest.approx(mean_of_images(REFERENCES[name])(images), rel=1e-9)  # type: ignore[arg-type]


def test_silog_is_that_of_zoedepth() -> None:
    """alpha sqrt(var + beta mean^2), whose variance divides by n - 1, which no image of real size can tell."""
    output, target, valid = case(3, side=64, dtype=torch.float64)
    g = output[valid].log() - target[valid].log()
    published = 10 * torch.sqrt(torch.var(g) + 0.15 * g.mean() ** 2)
    assert float(DEPTH_LOSSES["silog"](output, target, valid, OPTIONS)) == pytest.approx(float(published), rel=1e-4)


@pytest.mark.parametrize("name", sorted(RELATIVE_DEPTH_LOSSES))
def test_scale_and_shift_of_disparity_change_nothing(name: str) -> None:
    output, target, valid = case(5, dtype=torch.float64)
    value = DEPTH_LOSSES[name](output, target, valid, OPTIONS)
    moved = DEPTH_LOSSES[name](300 * output - 1000, target, valid, OPTIONS)
    assert float(moved) == pytest.approx(float(value), rel=1e-9)
    if name != "ssi_mse":  # least squares may turn the sign, the medians may not
        assert float(DEPTH_LOSSES[name](-output, target, valid, OPTIONS)) != pytest.approx(float(value), rel=1e-2)


def test_log_gradient_ignores_scale_and_silog_nearly() -> None:
    output, target, valid = case(6, dtype=torch.float64)
    gradient = DEPTH_LOSSES["log_gradient"]
    value, larger = (float(gradient(scale * output, target, valid, OPTIONS)) for scale in (1, 3))
    assert larger == pytest.approx(value, rel=1e-9)
    unscaled = DepthLossOptions(silog_beta=0.0)
    value, larger = (float(DEPTH_LOSSES["silog"](scale * output, target, valid, unscaled)) for scale in (1, 3))
    assert larger == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("name", sorted(RELATIVE_DEPTH_LOSSES))
def test_flat_maps_give_no_nan(name: str) -> None:
    output, target, valid = case()
    for flat_output, flat_target in ((torch.full_like(output, 2.0), target), (output, torch.full_like(target, 2.0))):
        value, gradient = value_and_gradient(name, flat_output, flat_target, valid)
        assert torch.isfinite(value) and torch.isfinite(gradient).all()


def test_the_trimmed_share_feels_no_gradient() -> None:
    output, target, valid = case(8, images=1, side=5)
    valid[:] = True
    target = 1 / output.clone()
    output[0, 1, 1] = 500.0
    value, gradient = value_and_gradient("ssi_trim", output, target, valid)
    all_kept = value_and_gradient("ssi_trim", output, target, valid, DepthLossOptions(trim=0.0))[0]
    assert value < 0.5 * all_kept and torch.isfinite(gradient).all()


def test_sums_of_terms() -> None:
    output, target, valid = case()
    total = WeightedDepthLoss([(1.0, "silog"), (0.5, "log_gradient")])(output, target, valid)
    parts = [DEPTH_LOSSES[name](output, target, valid, OPTIONS) for name in ("silog", "log_gradient")]
    assert torch.allclose(total, parts[0] + 0.5 * parts[1])
    metric = WeightedDepthLoss([(1.0, "ssi_trim")])(output.masked_fill(~valid, 0.0).requires_grad_(), target, valid)
    assert torch.allclose(metric, DEPTH_LOSSES["ssi_trim"](1 / output, target, valid, OPTIONS))
    relative = WeightedDepthLoss([(1.0, "ssi_trim"), (0.5, "ssi_gradient")], relative=True)(output, target, valid)
    parts = [DEPTH_LOSSES[name](output, target, valid, OPTIONS) for name in ("ssi_trim", "ssi_gradient")]
    assert torch.allclose(relative, parts[0] + 0.5 * parts[1])


def test_inverting_an_output_of_zero_without_truth_leaves_the_gradient_finite() -> None:
    output, target, valid = case()
    output = output.masked_fill(~valid, 0.0).requires_grad_()
    WeightedDepthLoss([(1.0, "ssi_trim"), (1.0, "l1")])(output, target, valid).backward()
    assert output.grad is not None and torch.isfinite(output.grad).all()


def test_bad_requests_are_refused() -> None:
    output, target, valid = case()
    with pytest.raises(ValueError, match="at least one term"):
        WeightedDepthLoss([])
    with pytest.raises(ValueError, match="no depth loss is named 'dice'; there are berhu, "):
        WeightedDepthLoss([(1.0, "dice"), (1.0, "l1")])
    with pytest.raises(ValueError, match="silog need metres"):
        WeightedDepthLoss([(1.0, "silog"), (1.0, "ssi_trim")], relative=True)
    for bad in ({"trim": 1.0}, {"gradient_scales": 0}, {"silog_beta": -1.0}, {"silog_alpha": 0.0}):
        with pytest.raises(ValueError, match="trim must be"):
            DepthLossOptions(**bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="of one size"):
        DEPTH_LOSSES["mse"](output[:, None], target, valid, OPTIONS)
    with pytest.raises(ValueError, match="valid must be bool"):
        DEPTH_LOSSES["mse"](output, target, valid.float(), OPTIONS)
