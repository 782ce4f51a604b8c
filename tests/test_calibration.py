"""Calibration: the error as others compute it, a temperature that is found again, and classes that it never changes."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from perpixel import api
from perpixel._torchvision import ensure_torchvision
from perpixel.evaluation.calibration import calibration_line, reliability_plot
from perpixel.evaluation.evaluate import read_evaluation
from perpixel.images import read_label_map
from perpixel.inference.predictor import Predictor
from perpixel.metrics import Calibration, TemperatureFit, tempered
from perpixel.run import Run, read_json, write_json

ensure_torchvision()  # torchmetrics imports it

from torchmetrics.functional.classification import (  # noqa: E402
    binary_calibration_error,
    multiclass_calibration_error,
)

RNG = np.random.default_rng(3)


def softmax(logit_khw: NDArray[Any]) -> NDArray[np.float32]:
    power_khw = np.exp(logit_khw - logit_khw.max(axis=0))
    return (power_khw / power_khw.sum(axis=0)).astype(np.float32)


def drawn(probability_khw: NDArray[Any]) -> NDArray[np.int64]:
    """True classes that come true as often as these probabilities say."""
    edges_khw = np.cumsum(probability_khw, axis=0)
    index_hw = (RNG.random(probability_khw.shape[1:]) > edges_khw).sum(axis=0)
    return np.minimum(index_hw, len(probability_khw) - 1)


def overconfident(classes: int = 5, side: int = 60, by: float = 2.5) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    logit_khw = RNG.normal(0, 1.2, (classes, side, side))
    return softmax(by * logit_khw), drawn(softmax(logit_khw))


def everywhere(target_hw: NDArray[Any]) -> NDArray[np.bool_]:
    return np.ones(target_hw.shape, dtype=bool)


def test_the_error_is_that_of_torchmetrics() -> None:
    scores_khw, target_hw = overconfident()
    calibration = Calibration()
    calibration.update(scores_khw.max(axis=0), scores_khw.argmax(axis=0) == target_hw, everywhere(target_hw))
    flat_nk, flat_n = torch.tensor(scores_khw.reshape(5, -1).T), torch.tensor(target_hw.reshape(-1))
    expected = multiclass_calibration_error(flat_nk, flat_n, num_classes=5, n_bins=15, norm="l1")
    assert calibration.compute() == pytest.approx(float(expected), abs=1e-5)
    assert calibration.compute() > 0.1


def test_confidence_in_the_foreground_is_that_of_torchmetrics_too() -> None:
    probability_n = RNG.random(5000).astype(np.float32)
    right_n = RNG.random(5000) < probability_n**2
    calibration = Calibration()
    calibration.update(probability_n[None], right_n[None], np.ones((1, 5000), dtype=bool))
    # As torchmetrics has it: the confidence is the probability of class 1, whatever is predicted.
    expected = binary_calibration_error(torch.tensor(probability_n), torch.tensor(right_n.astype(int)), n_bins=15)
    assert calibration.compute() == pytest.approx(float(expected), abs=1e-5)


def test_edges_of_bins_by_hand() -> None:
    calibration = Calibration()
    assert math.isnan(calibration.compute())
    confidence_hw = np.array([[0.0, 1.0, 1.0, 0.5]], dtype=np.float32)
    calibration.update(confidence_hw, np.array([[True, True, False, False]]), np.ones((1, 4), dtype=bool))
    assert calibration.compute() == pytest.approx((1 + 1 + 0.5) / 4)
    detail = calibration.reliability("x")
    assert (detail.confidence, detail.accuracy, detail.pixels) == ([0, 0.5, 1], [1, 0, 0.5], [1, 1, 2])


def test_batches_and_ignored_pixels_change_no_digit() -> None:
    scores_khw, target_hw = overconfident()
    confidence_hw, right_hw = scores_khw.max(axis=0), scores_khw.argmax(axis=0) == target_hw
    valid_hw = RNG.random(target_hw.shape) > 0.3
    whole, parts, other = Calibration(), Calibration(), Calibration()
    whole.update(confidence_hw, right_hw, valid_hw)
    spoilt_hw = np.where(valid_hw, confidence_hw, np.nan).astype(np.float32)
    for rows in (slice(40, 60), slice(0, 7)):
        parts.update(spoilt_hw[rows], (right_hw ^ ~valid_hw)[rows], valid_hw[rows])
    other.update(spoilt_hw[7:40], right_hw[7:40], valid_hw[7:40])
    parts.merge(other)
    assert parts.reliability("") == whole.reliability("")


def test_what_is_no_confidence_is_refused() -> None:
    one = np.ones((1, 1), dtype=bool)
    with pytest.raises(ValueError, match="0 to 1"):
        Calibration().update(np.array([[1.5]], dtype=np.float32), one, one)
    with pytest.raises(ValueError, match="0 to 1"):
        Calibration().update(np.array([[np.nan]], dtype=np.float32), one, one)
    with pytest.raises(ValueError, match="one size"):
        Calibration().update(np.ones((1, 2), dtype=np.float32), one, one)


@pytest.mark.parametrize("classes", [2, 5])
def test_the_temperature_is_the_one_that_an_optimiser_finds(classes: int) -> None:
    scores_khw, target_hw = overconfident(classes)
    logit_kn = np.log(scores_khw.astype(np.float64)).reshape(classes, -1)

    def surprise(temperature: float) -> float:
        probability_kn = softmax(logit_kn / temperature).astype(np.float64)
        return float(-np.log(probability_kn[target_hw.reshape(-1), np.arange(target_hw.size)]).sum())

    best = minimize_scalar(surprise, bounds=(0.2, 7), method="bounded").x
    fit = TemperatureFit()
    given_khw = scores_khw if classes > 2 else scores_khw[1:]  # of two classes a network gives the second
    fit.update(given_khw[:, :25], target_hw[:25], everywhere(target_hw[:25]))
    fit.update(given_khw[:, 25:], target_hw[25:], everywhere(target_hw[25:]))
    assert fit.compute() == pytest.approx(best, rel=2e-3)
    assert 2.2 < best < 2.8


def test_ignored_pixels_and_images_without_truth_do_not_fit() -> None:
    scores_khw, target_hw = overconfident()
    valid_hw = np.zeros(target_hw.shape, dtype=bool)
    assert TemperatureFit().compute() == 1
    fit, half = TemperatureFit(), TemperatureFit()
    fit.update(scores_khw, target_hw, valid_hw)
    assert fit.compute() == 1
    valid_hw[:30] = True
    half.update(scores_khw[:, :30], target_hw[:30], valid_hw[:30])
    fit.update(scores_khw, np.where(valid_hw, target_hw, 255), valid_hw)
    assert fit.compute() == half.compute()


def test_a_model_that_is_always_right_ends_at_the_sharpest_temperature() -> None:
    fit = TemperatureFit()
    fit.update(np.full((1, 4, 4), 0.9, dtype=np.float32), np.ones((4, 4), dtype=int), np.ones((4, 4), dtype=bool))
    assert fit.compute() == 0.125


def test_tempering_by_hand_and_back() -> None:
    assert tempered(np.array([[[0.2]]], dtype=np.float32), 0.5)[0, 0, 0] == pytest.approx(0.04 / (0.04 + 0.64))
    half_k11 = tempered(np.array([[[0.36]], [[0.64]]], dtype=np.float32), 2)
    assert half_k11.reshape(-1).tolist() == pytest.approx([0.6 / 1.4, 0.8 / 1.4])
    scores_khw, _ = overconfident()
    assert tempered(scores_khw, 1) is scores_khw
    assert tempered(tempered(scores_khw, 3), 1 / 3) == pytest.approx(scores_khw, abs=1e-4)
    assert np.isnan(tempered(np.full((1, 1, 1), np.nan, dtype=np.float32), 2)).all()


def test_a_temperature_lowers_the_error() -> None:
    scores_khw, target_hw = overconfident()
    fit = TemperatureFit()
    fit.update(scores_khw, target_hw, everywhere(target_hw))
    errors = []
    for probability_khw in (scores_khw, tempered(scores_khw, fit.compute())):
        calibration = Calibration()
        right_hw = probability_khw.argmax(axis=0) == target_hw
        calibration.update(probability_khw.max(axis=0), right_hw, everywhere(target_hw))
        errors.append(calibration.compute())
    assert errors[1] < 0.2 * errors[0]
    details = [calibration.reliability("Calibration with temperature 2.5")]
    assert calibration_line(details)[0].startswith(f"expected calibration error: {errors[1]:.4f} with temperature 2.5 ")
    assert (reliability_plot(details) or b"").startswith(b"\x89PNG")
    assert calibration_line([]) == []
    assert reliability_plot([]) is None


def test_a_run_carries_its_temperature_everywhere(tiny_run: Run, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.path, tmp_path / "run")
    run = Run(tmp_path / "run")
    decision = read_json(run.decision_path)
    table = api.evaluate(run.path, subset="test")["table"]
    assert f"with temperature {decision['temperature']}, " in table
    stored = read_evaluation(run, "test")
    assert stored is not None
    titles = [detail["title"] for detail in stored["details"] if detail["kind"] == "Reliability"]
    assert titles == ["Calibration without temperature", f"Calibration with temperature {decision['temperature']}"]
    assert (run.evaluation_dir("test") / "reliability.png").is_file()

    photo = next((Path(run.recipe.data.root or "") / "test/images").glob("*.png"))
    api.predict(run.path, photo, tmp_path / "own")
    write_json(run.decision_path, decision | {"temperature": 8.0})
    api.predict(run.path, photo, tmp_path / "hot")
    classes, confidences = (
        [read_label_map(tmp_path / place / f"{photo.stem}{end}").values_hw for place in ("own", "hot")]
        for end in (".png", "_confidence.png")
    )
    assert np.array_equal(*classes)  # the threshold is one of the network's own probabilities
    assert np.abs(np.asarray(confidences[1], dtype=int) - 127.5).mean() < 64
    assert not np.array_equal(*confidences)
    assert "temperature" in api.evaluate(run.path)["protocol"]["chosen_on_this_subset"]

    write_json(run.decision_path, {key: decision[key] for key in ("threshold", "minimum_area")})  # of an older run
    again = api.evaluate(run.path)
    assert "temperature" not in again["table"]
    assert "expected calibration error: " in again["table"]
    assert Predictor.from_run(run).calibrated(np.full((1, 1, 1), 0.3, dtype=np.float32)) == pytest.approx(0.3)
