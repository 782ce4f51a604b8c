"""The segmentation task: facts, decisions, baselines, pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from perpixel.errors import RecipeError, RequestError
from perpixel.images import read_image, read_label_map
from perpixel.recipe import InferenceSection, LossSection, SegmentationTarget
from perpixel.tasks import check_monitor
from perpixel.tasks.classmap import IGNORED
from perpixel.tasks.segmentation import SegmentationTask

BINARY: dict[str, Any] = {"threshold": 0.5, "minimum_area": 0}


def task(classes: int = 2, *, loss: dict[str, Any] | None = None, **inference: Any) -> SegmentationTask:
    specs = [{"name": f"c{i}", "values": [i], "color": [0, 100 * i % 256, i]} for i in range(classes)]
    return SegmentationTask(
        SegmentationTarget.model_validate({"classes": specs, "ignore": [9]}),
        LossSection(**(loss or {})),
        InferenceSection(**inference),
    )


def test_facts_count_pixels_and_images() -> None:
    targets = [np.array([[0, 0], [1, 255]], dtype=np.uint8), np.array([[0, 0, 0]], dtype=np.uint8)]
    assert task(3).describe(targets) == {
        "images": 2,
        "class_pixels": {"c0": 5, "c1": 1, "c2": 0},
        "images_with_class": {"c0": 2, "c1": 1, "c2": 0},
        "ignored_pixels": 1,
    }


def test_balanced_class_weights_by_hand() -> None:
    facts = {"class_pixels": {"c0": 60, "c1": 30, "c2": 0, "c3": 10}}
    weights = task(4, loss={"name": "cross_entropy", "class_weights": "balanced"}).class_weights(facts)
    # total 100 over 3 classes present; the absent one has no pixel to weigh
    assert weights is not None
    assert weights.tolist() == pytest.approx([100 / 180, 100 / 90, 1, 100 / 30])
    assert (weights * torch.tensor([60, 30, 0, 10])).sum() == pytest.approx(100)
    assert task(2).class_weights(facts) is None
    given = task(2, loss={"class_weights": (1.0, 3.0)}).class_weights(facts)
    assert given is not None
    assert given.tolist() == [1, 3]


def test_log_balanced_class_weights_by_hand() -> None:
    facts = {"class_pixels": {"c0": 90, "c1": 10, "c2": 0}}
    weights = task(3, loss={"name": "cross_entropy", "class_weights": "log_balanced"}).class_weights(facts)
    assert weights is not None
    expected = [1 / math.log(1.92), 1 / math.log(1.12), 1 / math.log(1.02)]
    assert weights.tolist() == pytest.approx(expected)
    assert weights.dtype == torch.float32 and weights[2] < 51


@pytest.mark.parametrize("weights", ["balanced", "log_balanced", (1.0, 3.0)])
def test_class_weights_that_would_change_nothing_are_refused(weights: Any) -> None:
    for name in ("dice", "lovasz", "0.5*tversky + jaccard"):
        with pytest.raises(RecipeError, match="class weights would change nothing"):
            task(2, loss={"name": name, "class_weights": weights})
        task(2, loss={"name": f"{name} + bce", "class_weights": weights})
        task(2, loss={"name": name, "class_weights": weights, "warm_start": "bce", "warm_start_epochs": 1})
        task(3, loss={"name": name, "class_weights": [*weights, 1.0] if isinstance(weights, tuple) else weights})


@pytest.mark.parametrize(("classes", "names"), [(2, ("bce", "bce_dice", "focal")), (3, ("dice", "lovasz", "focal"))])
def test_class_weights_change_the_losses_that_take_them(classes: int, names: tuple[str, ...]) -> None:
    output_bkhw = torch.randn(2, task(classes).out_channels, 6, 6, generator=torch.Generator().manual_seed(1))
    target_bhw = (torch.arange(72) % 5 == 0).to(torch.uint8).reshape(2, 6, 6)
    facts = {"class_pixels": {f"c{index}": 100 // (index + 1) ** 3 for index in range(classes)}}
    for name in names:
        values = [
            task(classes, loss={"name": name, "class_weights": weights}).loss(facts)(0, output_bkhw, target_bhw)
            for weights in ("none", "balanced", "log_balanced")
        ]
        assert len({round(value.item(), 6) for value in values}) == 3, name


def test_the_table_of_training_targets() -> None:
    targets = [np.array([[0, 0], [1, 255]], dtype=np.uint8), np.zeros((1, 3), dtype=np.uint8)]
    weighed = task(3, loss={"name": "cross_entropy", "class_weights": "balanced"})
    assert weighed.facts_table(weighed.describe(targets)).splitlines() == [
        "training targets: 2 images",
        "  class  pixels     images  loss weight",
        "  c0     83.3333%        2        0.600",
        "  c1     16.6667%        1        3.000",
        "  c2      0.0000%        0        1.000  WARNING: no training image has it, so it cannot be learned",
        "  ignored: 14.2857% of all pixels",
    ]
    assert task(2).facts_table(task(2).describe([])).count("WARNING") == 2


def test_stratum_value_leaves_ignored_pixels_out() -> None:
    assert task(3).stratum_value(np.array([0, 1, 2, IGNORED], dtype=np.uint8)) == pytest.approx(2 / 3)
    assert task(3).stratum_value(np.full(3, IGNORED, dtype=np.uint8)) == 0


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", ["bce_dice", "lovasz", "cross_entropy", "focal"])
def test_the_loss_ignores_pixels_without_truth(classes: int, name: str) -> None:
    if (name, classes) in {("bce_dice", 3), ("cross_entropy", 2)}:
        pytest.skip("a loss of the other kind of task")
    weights = "none" if (name, classes) == ("lovasz", 2) else "balanced"
    generator = torch.Generator().manual_seed(1)
    compute = task(classes, loss={"name": name, "class_weights": weights}).loss(
        {"class_pixels": dict.fromkeys(range(classes), 4)}
    )
    output_bkhw = torch.randn(2, task(classes).out_channels, 6, 6, generator=generator, requires_grad=True)
    target_bhw = torch.randint(0, classes, (2, 6, 6), generator=generator, dtype=torch.uint8)
    target_bhw[:, :3] = IGNORED
    compute(0, output_bkhw, target_bhw).backward()
    assert output_bkhw.grad is not None
    assert not output_bkhw.grad[:, :, :3].any()
    assert output_bkhw.grad[:, :, 3:].any()


def test_the_warm_start_ends_with_its_epochs() -> None:
    target_bhw, output_bkhw = torch.ones(1, 4, 4, dtype=torch.uint8), torch.zeros(1, 1, 4, 4)
    facts = {"class_pixels": {"c0": 1, "c1": 1}}
    warm = task(loss={"name": "lovasz", "warm_start": "bce", "warm_start_epochs": 2}).loss(facts)
    only_bce, only_lovasz = (task(loss={"name": name}).loss(facts) for name in ("bce", "lovasz"))
    assert [warm(epoch, output_bkhw, target_bhw) for epoch in (0, 1)] == [only_bce(0, output_bkhw, target_bhw)] * 2
    assert warm(2, output_bkhw, target_bhw) == only_lovasz(2, output_bkhw, target_bhw)


def test_scores_are_probabilities() -> None:
    assert task(2).scores(torch.zeros(1, 1, 2, 2)).unique().tolist() == [0.5]
    scores_bkhw = task(3).scores(torch.randn(2, 3, 4, 4).bfloat16())
    assert scores_bkhw.dtype == torch.float32
    assert torch.allclose(scores_bkhw.sum(1), torch.ones(2, 4, 4))


def test_finalize_threshold_and_minimum_area() -> None:
    scores_khw = np.zeros((1, 8, 8), dtype=np.float32)
    scores_khw[0, :2, :2] = 0.6  # 4 px
    scores_khw[0, 2, 2] = 0.6  # and one that touches at a corner: 5 px together
    scores_khw[0, 6, 4:7] = 0.9  # 3 px
    scores_khw[0, 0, 7] = 0.5  # not above the threshold
    chosen = task()
    assert chosen.finalize(scores_khw, BINARY).sum() == 8
    assert chosen.finalize(scores_khw, BINARY | {"threshold": 0.7}).sum() == 3
    assert chosen.finalize(scores_khw, BINARY | {"minimum_area": 3}).sum() == 8
    kept_hw = chosen.finalize(scores_khw, BINARY | {"minimum_area": 4})
    assert kept_hw.sum() == 5
    assert kept_hw[2, 2] == 1
    assert chosen.finalize(scores_khw, BINARY | {"minimum_area": 6}).sum() == 0
    assert kept_hw.dtype == np.uint8


def test_finalize_of_many_classes_is_the_best_class() -> None:
    scores_khw = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
    predicted_hw = task(4).finalize(scores_khw, {})
    assert all(
        predicted_hw[i, j] == max(range(4), key=lambda k: scores_khw[k, i, j]) for i in range(5) for j in range(6)
    )


def test_confidence_is_the_probability_of_what_is_predicted() -> None:
    scores_khw = np.array([[[0.9, 0.4, 0.4, 0.2]]], dtype=np.float32)
    predicted_hw = np.array([[1, 1, 0, 0]], dtype=np.uint8)  # the second by a low threshold, the third by a high one
    confidence_hw = task(2).confidence(scores_khw, predicted_hw)
    assert confidence_hw.dtype == np.float32
    assert confidence_hw.tolist() == [pytest.approx([0.9, 0.4, 0.6, 0.8])]
    scores_khw = np.random.default_rng(0).dirichlet([1, 1, 1], (4, 5)).transpose(2, 0, 1).astype(np.float32)
    many = task(3)
    assert np.array_equal(many.confidence(scores_khw, many.finalize(scores_khw, {})), scores_khw.max(axis=0))
    # What interpolation overshoots, and what is no number, stays within 0..1.
    odd_khw = np.array([[[1.0001, np.nan]], [[0, np.nan]], [[0, np.nan]]], dtype=np.float32)
    assert many.confidence(odd_khw, np.array([[0, 2]], dtype=np.uint8)).tolist() == [[1, 0]]


def planted() -> list[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    """A body scored 0.45 on ground scored 0.37, and specks of 30 px scored as high as the body."""
    scored = []
    for position in (10, 20):
        target_hw = np.zeros((40, 40), dtype=np.uint8)
        target_hw[position : position + 15, 5:20] = 1
        scores_khw = np.where(target_hw, 0.45, 0.37).astype(np.float32)[None]
        scores_khw[0, 0:5, 30:36] = 0.45
        scored.append((scores_khw, target_hw))
    return scored


def area_and_threshold(decision: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in decision.items() if key != "temperature"}


def test_the_planted_decision_is_found() -> None:
    chosen = task(threshold="validation", minimum_area="validation")
    assert chosen.chosen_on_validation == ("threshold", "minimum_area", "temperature")
    assert area_and_threshold(chosen.choose(planted(), "iou_per_image")) == {"threshold": 0.4, "minimum_area": 50}
    only_area = task(threshold=0.41, minimum_area="validation")
    assert area_and_threshold(only_area.choose(planted(), "iou/c1")) == {"threshold": 0.41, "minimum_area": 50}
    only_threshold = task(threshold="validation", minimum_area=7)
    assert area_and_threshold(only_threshold.choose(planted(), "mean_iou")) == {"threshold": 0.4, "minimum_area": 7}
    assert task(threshold=0.3).chosen_on_validation == ("temperature",)
    assert task(3, threshold="validation").chosen_on_validation == ("temperature",)


def test_every_monitor_can_be_chosen_by() -> None:
    chosen = task(threshold="validation")
    for monitor, info in chosen.metrics().infos().items():
        if info.direction == "neither":
            continue
        assert 0.37 <= chosen.choose(planted(), monitor)["threshold"] < 0.6


def test_equal_figures_leave_the_plainest_decision() -> None:
    chosen = task(threshold="validation", minimum_area="validation")
    clear = [(np.where(target_hw, 0.99, 0.01).astype(np.float32)[None], target_hw) for _, target_hw in planted()]
    assert area_and_threshold(chosen.choose(clear, "iou_per_image")) == BINARY
    empty_hw = np.zeros((20, 20), dtype=np.uint8)
    # No truth: the figure is 0 where something is predicted, and nan, which is better, where nothing is.
    high = [(np.full((1, 20, 20), 0.57, dtype=np.float32), empty_hw)]
    assert area_and_threshold(chosen.choose(high, "iou/c1")) == {"threshold": 0.6, "minimum_area": 0}
    assert area_and_threshold(chosen.choose([], "iou_per_image")) == BINARY


def test_a_lower_figure_is_chosen_downward(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from perpixel.metrics import SegmentationMetrics

    original = SegmentationMetrics.infos
    monkeypatch.setattr(
        SegmentationMetrics,
        "infos",
        lambda self: {key: replace(info, direction="lower") for key, info in original(self).items()},
    )
    worst = task(threshold="validation").choose(planted(), "iou_per_image")
    assert worst["threshold"] < 0.37 or worst["threshold"] >= 0.45


def test_ignored_pixels_do_not_choose() -> None:
    scored = [(scores_khw, np.where(target_hw == 0, IGNORED, target_hw)) for scores_khw, target_hw in planted()]
    # On the body alone every threshold below 0.45 is right: the plainest of them wins, though the ground is lost.
    assert task(threshold="validation").choose(scored, "pixel_accuracy")["threshold"] == pytest.approx(0.4)


def test_baselines() -> None:
    facts = {"class_pixels": {"c0": 3, "c1": 9}}
    trivial = task(2).baselines(facts)
    assert {name: constant(np.zeros((2, 3, 3), np.uint8)).tolist() for name, constant in trivial.items()} == {
        "all c0": [[0] * 3] * 2,
        "all c1": [[1] * 3] * 2,
    }
    assert list(task(3).baselines({"class_pixels": {"c0": 1, "c1": 5, "c2": 2}})) == ["all c1"]


def test_pictures() -> None:
    prediction_hw = np.array([[0, 1, IGNORED]], dtype=np.uint8)
    image_hwc = np.full((1, 3, 3), 100, dtype=np.uint8)
    assert task(2).paint(prediction_hw).tolist() == [[[0, 0, 0], [0, 100, 1], [0, 0, 0]]]
    # 0.55 * 100 = 55; 0.55 * 100 + 0.45 * 100 = 100
    assert task(2).overlay(image_hwc, prediction_hw).tolist() == [[[100] * 3, [55, 100, 55], [100] * 3]]
    assert task(3).overlay(image_hwc, prediction_hw)[0, 0].tolist() == [55, 55, 55]


def test_predictions_are_written_in_the_data_sets_values(tmp_path: Path) -> None:
    target = {
        "classes": [
            {"name": "rock", "values": [7], "color": [0, 0, 0]},
            {"name": "salt", "values": [65535, 1], "color": [255, 0, 0]},
        ]
    }
    salt = SegmentationTask(SegmentationTarget.model_validate(target), LossSection(), InferenceSection())
    prediction_hw = np.array([[0, 1], [1, 0]], dtype=np.uint8)
    scores_khw = np.array([[[0.25, 0.75], [1.0, 0.0]]], dtype=np.float32)
    image_hwc = np.full((2, 2, 3), 100, dtype=np.uint8)
    files = salt.write_prediction(tmp_path / "p.q", image_hwc, scores_khw, prediction_hw)
    assert [path.name for path in files] == ["p.q.png", "p.q_color.png", "p.q_overlay.png", "p.q_confidence.png"]
    assert read_label_map(files[0]).values_hw.tolist() == [[7, 65535], [65535, 7]]  # type: ignore[union-attr]
    assert np.array_equal(salt.decode_target(files[0]), prediction_hw)
    assert read_image(files[1]).pixels_hwc.tolist() == [[[0] * 3, [255, 0, 0]], [[255, 0, 0], [0] * 3]]
    assert np.array_equal(read_image(files[2]).pixels_hwc, salt.overlay(image_hwc, prediction_hw))
    confidence = read_label_map(files[3])
    assert confidence.values_hw.tolist() == [[191, 191], [255, 255]]  # type: ignore[union-attr]


def test_targets_of_other_raw_values_are_comparable_if_the_classes_agree() -> None:
    two = task(2)
    other = two.target.model_copy(
        update={
            "classes": tuple(spec.model_copy(update={"values": (90 + i,)}) for i, spec in enumerate(two.target.classes))
        }
    )
    two.require_same_maps(SegmentationTask(other, LossSection(), InferenceSection()), Path("x.yaml"))
    reversed_ = two.target.model_copy(update={"classes": two.target.classes[::-1]})
    with pytest.raises(RequestError, match=r"x\.yaml.*not those of the run") as caught:
        two.require_same_maps(SegmentationTask(reversed_, LossSection(), InferenceSection()), Path("x.yaml"))
    assert caught.value.details == ["the run's: c0, c1", "this recipe's: c1, c0"]
    with pytest.raises(RequestError) as caught:
        two.require_same_maps(task(3), Path("x.yaml"))
    assert caught.value.details[-1] == "not in the run: c2"


def test_submission_masks_and_monitors() -> None:
    assert task(2).submission_map(np.array([[0, 1]], dtype=np.uint8)).tolist() == [[False, True]]
    raw = [spec.values[0] for spec in task(3).target.classes]
    assert task(3).submission_map(np.array([[0, 2]], dtype=np.uint8)).tolist() == [[raw[0], raw[2]]]
    check_monitor(task(2), "competition_score")
    with pytest.raises(RecipeError, match="competition_score") as caught:
        check_monitor(task(3), "competition_score")
    assert "iou_per_image" in caught.value.text()
    check_monitor(task(3), "map_50_components")
    with pytest.raises(RecipeError, match="mean_confidence/c0"):  # there is no better end
        check_monitor(task(3), "mean_confidence/c0")


def test_the_meaning_follows_the_values_and_not_the_colours() -> None:
    def meaning(values: list[int], color: list[int]) -> str:
        classes = [
            {"name": "a", "values": [0], "color": [1, 1, 1]},
            {"name": "b", "values": values, "color": color},
        ]
        target = SegmentationTarget.model_validate({"classes": classes})
        return SegmentationTask(target, LossSection(), InferenceSection()).meaning

    assert meaning([1], [2, 2, 2]) == meaning([1], [3, 3, 3])
    assert meaning([1], [2, 2, 2]) != meaning([1, 2], [2, 2, 2])
