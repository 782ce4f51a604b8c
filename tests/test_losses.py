"""The contract that every loss of the catalogue keeps, and the sums of losses."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from perpixel.losses import LOSSES, LossOptions, WarmStartLoss, WeightedLoss

OPTIONS = LossOptions()
BATCH = LossOptions(per_image=False)
every_loss = pytest.mark.parametrize("name", LOSSES)
every_k = pytest.mark.parametrize("classes", [1, 2, 4])
every_scope = pytest.mark.parametrize("options", [OPTIONS, BATCH], ids=["per_image", "batch"])


def case(classes: int, seed: int = 0, images: int = 3, side: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    """Random logits, targets with 255 at the fifth of the pixels without truth, and valid."""
    generator = torch.Generator().manual_seed(seed)
    shape = (images, side, side)
    logits = 3 * torch.randn(images, classes, side, side, generator=generator)
    valid = torch.rand(shape, generator=generator) > 0.2
    target = torch.randint(max(2, classes), shape, generator=generator).masked_fill(~valid, 255)
    return logits, target, valid


def value_and_gradient(
    name: str, logits: Tensor, target: Tensor, valid: Tensor, options: LossOptions
) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    loss = LOSSES[name](logits, target, valid, options)
    assert loss.shape == () and loss.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss.detach(), gradient


def logits_of(target: Tensor, classes: int, size: float) -> Tensor:
    """Logits of that size that are right everywhere; wrong everywhere when it is negative."""
    if classes == 1:
        return size * (2.0 * target - 1.0)[:, None]
    return size * (2.0 * torch.nn.functional.one_hot(target, classes).movedim(-1, 1) - 1.0)


@every_loss
@every_k
@every_scope
def test_ignored_pixels_change_nothing(name: str, classes: int, options: LossOptions) -> None:
    logits, target, valid = case(classes)
    value, gradient = value_and_gradient(name, logits, target, valid, options)
    other = logits.masked_fill(~valid[:, None], math.nan)
    other_target = target.masked_fill(~valid, -7)
    other_value, other_gradient = value_and_gradient(name, other, other_target, valid, options)
    assert value == other_value and value > 0
    assert torch.equal(gradient, other_gradient)
    assert not gradient.masked_select(~valid[:, None]).any()
    assert gradient.masked_select(valid[:, None]).count_nonzero() > 0


@every_loss
@every_k
@every_scope
def test_an_image_without_valid_pixel_changes_nothing(name: str, classes: int, options: LossOptions) -> None:
    logits, target, valid = case(classes)
    valid[1] = False
    kept = torch.tensor([0, 2])
    value, _ = value_and_gradient(name, logits, target, valid, options)
    expected, _ = value_and_gradient(name, logits[kept], target[kept], valid[kept], options)
    torch.testing.assert_close(value, expected)


@every_loss
@every_k
@every_scope
def test_batch_without_valid_pixel_gives_zero_with_a_graph(name: str, classes: int, options: LossOptions) -> None:
    logits, target, valid = case(classes)
    value, gradient = value_and_gradient(name, logits * math.nan, target.fill_(255), torch.zeros_like(valid), options)
    assert value == 0 and torch.equal(gradient, torch.zeros_like(gradient))


@every_loss
@every_k
@every_scope
def test_a_right_prediction_is_the_minimum_and_a_wrong_one_is_not(
    name: str, classes: int, options: LossOptions
) -> None:
    logits, target, valid = case(classes)
    target = target.masked_fill(~valid, 0)
    right, _ = value_and_gradient(name, logits_of(target, classes, 30.0), target, valid, options)
    random, _ = value_and_gradient(name, logits, target, valid, options)
    wrong, _ = value_and_gradient(name, logits_of(target, classes, -30.0), target, valid, options)
    assert 0 <= right < 1e-5
    assert right < random < wrong


@every_loss
@every_k
@every_scope
@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_extreme_logits_stay_finite(name: str, classes: int, options: LossOptions, size: float, gamma: float) -> None:
    _, target, valid = case(classes)
    logits = logits_of(target.masked_fill(~valid, 0), classes, size)
    value, gradient = value_and_gradient(name, logits, target, valid, replace(options, focal_gamma=gamma))
    assert value.isfinite() and gradient.isfinite().all()


@every_loss
@every_k
@every_scope
@pytest.mark.parametrize("true_class", [0, 1])
@pytest.mark.parametrize("size", [30.0, 0.0, -30.0])
def test_images_of_a_single_class_stay_finite(
    name: str, classes: int, options: LossOptions, true_class: int, size: float
) -> None:
    target = torch.full((2, 5, 5), true_class)
    valid = torch.ones_like(target, dtype=torch.bool)
    value, gradient = value_and_gradient(name, logits_of(target, classes, size), target, valid, options)
    assert value.isfinite() and value >= 0 and gradient.isfinite().all()
    assert value < 1e-5 if size > 0 else value > 0.1


@every_loss
@every_k
@every_scope
def test_a_step_against_the_gradient_lowers_the_loss(name: str, classes: int, options: LossOptions) -> None:
    logits, target, valid = case(classes)
    value, gradient = value_and_gradient(name, logits, target, valid, options)
    step = 0.05 / float(gradient.abs().max())
    lower, _ = value_and_gradient(name, logits - step * gradient, target, valid, options)
    assert gradient.isfinite().all() and lower < value


@every_loss
@every_k
def test_low_precision_logits_are_computed_in_float32(name: str, classes: int) -> None:
    logits, target, valid = case(classes)
    low = logits.bfloat16()
    value, gradient = value_and_gradient(name, low, target, valid, OPTIONS)
    expected, expected_gradient = value_and_gradient(name, low.float(), target, valid, OPTIONS)
    assert value == expected
    assert torch.equal(gradient, expected_gradient.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert LOSSES[name](low, target, valid, OPTIONS) == expected


@every_loss
@every_k
@every_scope
def test_equal_class_weights_change_nothing_whatever_their_size(name: str, classes: int, options: LossOptions) -> None:
    logits, target, valid = case(classes)
    plain, _ = value_and_gradient(name, logits, target, valid, options)
    weights = torch.full((max(2, classes),), 5.0)
    weighted, _ = value_and_gradient(name, logits, target, valid, replace(options, class_weights=weights))
    torch.testing.assert_close(weighted, plain)


@every_loss
@every_scope
def test_a_class_of_weight_zero_counts_not(name: str, options: LossOptions) -> None:
    logits, target, valid = case(3)
    options = replace(options, class_weights=torch.tensor([1.0, 1.0, 0.0]))
    only_two = torch.full_like(target, 2)
    value, gradient = value_and_gradient(name, logits, only_two, valid, options)
    assert value == 0 and not gradient.any()
    _, gradient = value_and_gradient(name, logits, target, valid, options)
    assert gradient.masked_select((target < 2)[:, None]).any()
    if name in ("bce", "cross_entropy", "focal"):  # elsewhere such a pixel may be another class's false positive
        assert not gradient.masked_select((target == 2)[:, None]).any()


@every_loss
def test_shapes_that_do_not_belong_together_are_refused(name: str) -> None:
    logits, target, valid = case(3)
    with pytest.raises(ValueError, match=r"need target and valid \(B, H, W\)"):
        LOSSES[name](logits, target[:, None], valid, OPTIONS)
    with pytest.raises(ValueError, match="valid must be bool"):
        LOSSES[name](logits, target, valid.float(), OPTIONS)
    with pytest.raises(ValueError, match=r"3 classes need 3 class weights; given: shape \(2,\)"):
        LOSSES[name](logits, target, valid, LossOptions(class_weights=torch.ones(2)))


def test_catalogue_has_the_names_of_the_recipe() -> None:
    from perpixel.recipe import LOSS_NAMES

    assert sorted(LOSSES) == sorted(LOSS_NAMES["segmentation"])


def test_options_refuse_an_eps_that_divides_zero_by_zero() -> None:
    with pytest.raises(ValueError, match="eps must be above 0"):
        LossOptions(eps=0.0)


def test_weighted_loss_is_the_weighted_sum() -> None:
    logits, target, valid = case(1)
    loss = WeightedLoss([(0.5, "bce_dice"), (2.0, "lovasz")], BATCH)
    terms = {name: LOSSES[name](logits, target, valid, BATCH) for name in LOSSES}
    torch.testing.assert_close(terms["bce_dice"], terms["bce"] + terms["dice"])
    torch.testing.assert_close(loss(logits, target, valid), 0.5 * terms["bce_dice"] + 2.0 * terms["lovasz"])


def test_gradients_of_a_sum_are_added_in_float32() -> None:
    logits, target, valid = case(4)
    loss = WeightedLoss([(0.3, "focal"), (0.7, "cross_entropy"), (1.0, "dice")], OPTIONS)
    low = logits.bfloat16().requires_grad_()
    full = low.detach().float().requires_grad_()
    loss(low, target, valid).backward()
    loss(full, target, valid).backward()
    assert low.grad is not None and full.grad is not None
    assert torch.equal(low.grad, full.grad.bfloat16())


def test_weighted_loss_names_what_it_knows() -> None:
    with pytest.raises(ValueError, match=r"no loss is named 'lovas'; there are bce, .*lovasz"):
        WeightedLoss([(1.0, "bce"), (1.0, "lovas")], OPTIONS)
    with pytest.raises(ValueError, match="at least one term"):
        WeightedLoss([], OPTIONS)


def test_warm_start_changes_at_the_epoch_it_says() -> None:
    logits, target, valid = case(1)
    warm, main = WeightedLoss([(1.0, "bce")], OPTIONS), WeightedLoss([(1.0, "lovasz")], OPTIONS)
    schedule = WarmStartLoss(warm, main, warm_epochs=2)
    values = [schedule(epoch, logits, target, valid) for epoch in range(4)]
    expected = [loss(logits, target, valid) for loss in (warm, warm, main, main)]
    assert values == expected and values[0] != values[3]
    assert WarmStartLoss(warm, main, warm_epochs=0)(0, logits, target, valid) == expected[3]
