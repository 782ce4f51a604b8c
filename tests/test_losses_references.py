"""Losses against torch, segmentation-models-pytorch and definitions written out as loops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from perpixel._torchvision import ensure_torchvision
from perpixel.losses import LOSSES, LossOptions
from perpixel.losses.lovasz import _descending, lovasz_extension

ensure_torchvision()
from segmentation_models_pytorch import losses as smp  # noqa: E402
from segmentation_models_pytorch.losses._functional import softmax_focal_loss_with_logits  # noqa: E402

IMAGE = LossOptions()
BATCH = LossOptions(per_image=False)
seeds = pytest.mark.parametrize("seed", range(4))


def case(classes: int, seed: int, present: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Random logits, targets of the first ``present`` classes with 255 where there is no truth, and valid."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, classes, 8, 9, generator=generator)
    valid = torch.rand(2, 8, 9, generator=generator) > 0.3
    target = torch.randint(present or max(2, classes), (2, 8, 9), generator=generator)
    return logits, target.masked_fill(~valid, 255), valid


def check(
    name: str, options: LossOptions, arguments: tuple[Tensor, Tensor, Tensor], expected_of: Callable[[Tensor], Tensor]
) -> None:
    """Value and gradient agree with a reference that is a function of the logits."""
    logits, target, valid = arguments
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = LOSSES[name](ours, target, valid, options)
    expected = expected_of(theirs)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    gradient, expected_gradient = torch.autograd.grad(value, ours)[0], torch.autograd.grad(expected, theirs)[0]
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


def by_image(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The mean over images of a loss of (logits, target), each image a batch of its own."""

    def mean(logits: Tensor, target: Tensor) -> Tensor:
        values = [loss(logits[i : i + 1], target[i : i + 1]) for i in range(len(logits))]
        return torch.stack(values).mean()

    return mean


@seeds
@pytest.mark.parametrize("weights", [None, torch.tensor([0.3, 2.0])])
def test_binary_cross_entropy_is_torchs(seed: int, weights: Tensor | None) -> None:
    arguments = _, target, valid = case(1, seed)
    pixel_weights = torch.ones(int(valid.sum())) if weights is None else weights[target[valid]]

    def expected(logits: Tensor) -> Tensor:
        truth = target[valid].float()
        loss = F.binary_cross_entropy_with_logits(logits[:, 0][valid], truth, pixel_weights, reduction="sum")
        return loss / pixel_weights.sum()

    for name in ("bce", "cross_entropy"):
        check(name, replace(IMAGE, class_weights=weights), arguments, expected)


@seeds
@pytest.mark.parametrize("weights", [None, torch.tensor([0.3, 2.0, 1.0, 0.0])])
def test_cross_entropy_is_torchs(seed: int, weights: Tensor | None) -> None:
    arguments = _, target, _ = case(4, seed)
    options = replace(IMAGE, class_weights=weights)
    check(
        "cross_entropy", options, arguments, lambda logits: F.cross_entropy(logits, target, weights, ignore_index=255)
    )


@seeds
def test_bce_of_many_classes_is_one_against_the_rest(seed: int) -> None:
    arguments = _, target, valid = case(3, seed)

    def expected(logits: Tensor) -> Tensor:
        parts = [
            F.binary_cross_entropy_with_logits(logits[:, k][valid], (target[valid] == k).float()) for k in range(3)
        ]
        return torch.stack(parts).mean()

    check("bce", IMAGE, arguments, expected)


@seeds
@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
def test_focal_is_that_of_smp(seed: int, gamma: float) -> None:
    options = replace(IMAGE, focal_gamma=gamma)
    arguments = _, target, _ = case(1, seed)
    binary = smp.FocalLoss("binary", gamma=gamma, ignore_index=255)
    check("focal", options, arguments, lambda logits: binary(logits, target))
    arguments = _, target, valid = case(4, seed)

    def expected(logits: Tensor) -> Tensor:
        return softmax_focal_loss_with_logits(logits.movedim(1, -1)[valid], target[valid], gamma=gamma)

    check("focal", options, arguments, expected)


def test_focal_weighs_each_pixel_by_its_class() -> None:
    weights = torch.tensor([0.25, 0.75])
    arguments = _, target, valid = case(1, 0)

    def expected(logits: Tensor) -> Tensor:
        # smp's alpha weighs the foreground, 1 - alpha the background, and its sum is divided by the pixels.
        loss = smp.FocalLoss("binary", alpha=0.75, ignore_index=255, reduction="sum")(logits, target)
        return loss / weights[target[valid]].sum()

    check("focal", replace(IMAGE, class_weights=weights), arguments, expected)


def smp_region(name: str, mode: str) -> torch.nn.Module:
    if name == "tversky":
        return smp.TverskyLoss(mode, alpha=0.2, beta=0.7, ignore_index=255)
    return {"dice": smp.DiceLoss, "jaccard": smp.JaccardLoss}[name](mode, ignore_index=255)


@seeds
@pytest.mark.parametrize("name", ["dice", "jaccard", "tversky"])
@pytest.mark.parametrize("classes", [1, 2, 4])
@pytest.mark.parametrize("per_image", [False, True])
def test_region_losses_are_those_of_smp(seed: int, name: str, classes: int, per_image: bool) -> None:
    arguments = _, target, _ = case(classes, seed)
    reference = smp_region(name, "binary" if classes == 1 else "multiclass")
    loss = by_image(reference) if per_image else reference
    options = LossOptions(per_image=per_image, eps=1e-9, tversky_alpha=0.2, tversky_beta=0.7)
    check(name, options, arguments, lambda logits: loss(logits, target))


@seeds
@pytest.mark.parametrize("name", ["dice", "jaccard", "tversky"])
def test_region_losses_leave_absent_classes_out(seed: int, name: str) -> None:
    """smp counts an absent class as 0 and divides by all five; here two of five classes are absent."""
    arguments = _, target, _ = case(5, seed, present=3)
    reference = smp_region(name, "multiclass")
    options = LossOptions(per_image=False, eps=1e-9, tversky_alpha=0.2, tversky_beta=0.7)
    check(name, options, arguments, lambda logits: reference(logits, target) * 5 / 3)


def test_region_losses_weigh_classes() -> None:
    weights = torch.tensor([0.2, 3.0, 1.0])
    arguments = _, target, _ = case(3, 0)
    reference = smp.DiceLoss("multiclass", ignore_index=255, class_weights=weights)
    options = LossOptions(per_image=False, eps=1e-9, class_weights=weights)
    check("dice", options, arguments, lambda logits: reference(logits, target))


def test_dice_by_hand() -> None:
    logits = torch.tensor([[[[0.0, 0.0, 40.0, -40.0]]]])  # p = 1/2, 1/2, 1, 0
    target = torch.tensor([[[1, 0, 1, 0]]])
    valid = torch.ones_like(target, dtype=torch.bool)
    value = LOSSES["dice"](logits, target, valid, replace(IMAGE, eps=0.5))
    assert float(value) == pytest.approx(1 - (2 * 1.5 + 0.5) / (2 + 2 + 0.5))
    # alpha weighs false positives, beta false negatives: TP = 1.5, FP = 0.5, FN = 0.5
    options = replace(IMAGE, eps=1e-9, tversky_alpha=3.0, tversky_beta=0.0)
    assert float(LOSSES["tversky"](logits, target, valid, options)) == pytest.approx(1 - 1.5 / (1.5 + 1.5))
    one_miss = torch.tensor([[[[40.0, -40.0, -40.0, -40.0]]]])  # TP = 1, FP = 0, FN = 1
    assert float(LOSSES["tversky"](one_miss, target, valid, options)) == pytest.approx(0, abs=1e-6)


@seeds
@pytest.mark.parametrize("classes", [1, 4])
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("present", [None, 1])
def test_lovasz_is_that_of_smp(seed: int, classes: int, per_image: bool, present: int | None) -> None:
    arguments = _, target, _ = case(classes, seed, present)
    reference = smp.LovaszLoss("binary" if classes == 1 else "multiclass", per_image=per_image, ignore_index=255)
    options = LossOptions(per_image=per_image)

    def expected(logits: Tensor) -> Tensor:
        return reference(logits[:, 0] if classes == 1 else logits, target)

    check("lovasz", options, arguments, expected)


def test_lovasz_weighs_classes() -> None:
    weights = torch.tensor([0.5, 2.0, 7.0])  # the last class is absent
    arguments = logits, target, valid = case(3, 1, present=2)
    probability = logits.softmax(dim=1)
    parts = []
    for index in (0, 1):
        truth = (target == index)[valid]
        parts.append(brute_force((truth.float() - probability[:, index][valid]).abs().tolist(), truth.tolist()))
    value = LOSSES["lovasz"](*arguments, LossOptions(per_image=False, class_weights=weights))
    assert float(value) == pytest.approx((0.5 * parts[0] + 2.0 * parts[1]) / 2.5, rel=1e-5)


def brute_force(errors: list[float], truth: list[bool]) -> float:
    """Equations 8 and 9 of the paper with set functions: sum of m_i times what pixel i adds to the Jaccard loss."""

    def jaccard_loss(wrong: set[int]) -> float:
        foreground = {i for i, value in enumerate(truth) if value}
        union = foreground | wrong
        return len(wrong) / len(union) if union else 0.0

    total, wrong = 0.0, set[int]()
    for pixel in sorted(range(len(errors)), key=lambda i: -errors[i]):
        before = jaccard_loss(wrong)
        wrong.add(pixel)
        total += max(0.0, errors[pixel]) * (jaccard_loss(wrong) - before)
    return total


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("prune", [True, False])
def test_lovasz_extension_is_the_definition(seed: int, prune: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    pixels = 1 + seed
    errors = 2 * torch.randn(pixels, generator=generator)
    truth = torch.rand(pixels, generator=generator) < (0.0, 0.3, 0.9, 1.0)[seed % 4]
    value = lovasz_extension(errors, truth, prune)
    assert float(value) == pytest.approx(brute_force(errors.tolist(), truth.tolist()), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("share_wrong", [0.0, 0.05, 0.9])
def test_pruning_changes_neither_value_nor_gradient(share_wrong: float) -> None:
    truth = torch.rand(5000) < 0.3
    errors = torch.where(torch.rand(5000) < share_wrong, torch.rand(5000), -torch.rand(5000)).requires_grad_()
    pruned, full = lovasz_extension(errors, truth), lovasz_extension(errors, truth, prune=False)
    torch.testing.assert_close(pruned, full)
    gradients = torch.autograd.grad(pruned, errors)[0], torch.autograd.grad(full, errors)[0]
    torch.testing.assert_close(*gradients)
    assert bool(gradients[0].any()) == (share_wrong > 0)


def test_lovasz_sorts_as_pytorch_does() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(5000, generator=generator)
    ties = (values * 50).round() / 50
    special = torch.tensor([0.0, -0.0, 1e-45, torch.inf, 1.0, 3.4e38, 1e-45, -0.0])
    for errors in (values, ties, special, torch.zeros(0), values.double()):
        expected = errors.sort(descending=True, stable=True).indices
        assert torch.equal(_descending(errors), expected)


def test_lovasz_does_not_hide_what_is_no_number() -> None:
    logits = torch.zeros(1, 1, 4, 4)
    logits[0, 0, 1, 2] = torch.nan
    valid, target = torch.ones(1, 4, 4, dtype=torch.bool), torch.ones(1, 4, 4, dtype=torch.long)
    assert LOSSES["lovasz"](logits, target, valid, LossOptions()).isnan()


def test_lovasz_at_corners_is_the_jaccard_loss() -> None:
    """On errors of 0 and 1 the extension is the set function itself, whatever the image's size."""
    truth = torch.zeros(2_000_000, dtype=torch.bool)
    truth[:1_000_000] = True
    errors = torch.zeros(2_000_000)
    errors[600_000:1_300_000] = 1.0  # 400 000 missed, 300 000 too many
    assert float(lovasz_extension(errors, truth)) == pytest.approx(1 - 600_000 / 1_300_000, rel=1e-6)
