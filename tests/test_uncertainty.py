"""Uncertainty by spread over views: as scipy ranks it, known where the views' answers are known, and written."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from perpixel import api
from perpixel.console import Console
from perpixel.data.samples import Sample
from perpixel.errors import RequestError
from perpixel.evaluation.pairs import Pairs
from perpixel.evaluation.uncertainty import score_uncertainty
from perpixel.images import write_image
from perpixel.inference.ensemble import Ensemble
from perpixel.inference.predictor import Predictor
from perpixel.inference.spread import view_spread
from perpixel.metrics.uncertainty import REMOVED, Uncertainty
from perpixel.recipe import load_recipe
from perpixel.run import Run, read_json
from perpixel.tasks import build_task

RNG = np.random.default_rng(4)


def everywhere(values_hw: Any) -> Any:
    return np.ones(values_hw.shape, dtype=bool)


def test_the_correlation_is_that_of_scipy() -> None:
    error_hw = RNG.random((40, 50)).astype(np.float32)
    unsure_hw = error_hw**3 + 0.3 * RNG.random((40, 50)).round(1)  # with ties
    found = Uncertainty()
    expected = spearmanr(unsure_hw.ravel(), error_hw.ravel()).statistic
    assert found.update(unsure_hw, error_hw, everywhere(error_hw)) == pytest.approx(expected)
    assert found.compute()["rank_correlation"] == pytest.approx(expected)
    assert 0.3 < expected < 0.95


def test_sparsification_by_hand() -> None:
    error_hw = np.arange(1, 21, dtype=float).reshape(4, 5)
    perfect, inverted = Uncertainty(), Uncertainty()
    perfect.update(error_hw, error_hw, everywhere(error_hw))
    inverted.update(-error_hw, error_hw, everywhere(error_hw))
    figures, worst = perfect.compute(), inverted.compute()
    assert figures["remaining_error"] == figures["least_possible"] == worst["least_possible"]
    assert figures["remaining_error"][REMOVED.index(0.5)] == pytest.approx(5.5 / 10.5)
    assert worst["remaining_error"][REMOVED.index(0.5)] == pytest.approx(15.5 / 10.5)
    assert (figures["rank_correlation"], worst["rank_correlation"]) == (pytest.approx(1), pytest.approx(-1))
    assert figures["sparsification_error"] == 0
    assert worst["sparsification_error"] > 0.5


def test_chance_removes_nothing_of_the_error_and_ignored_pixels_change_nothing() -> None:
    error_hw, unsure_hw = RNG.random((100, 100)), RNG.random((100, 100))
    valid_hw = RNG.random((100, 100)) > 0.5
    first, second = Uncertainty(), Uncertainty()
    first.update(unsure_hw, error_hw, valid_hw)
    second.update(np.where(valid_hw, unsure_hw, np.nan), np.where(valid_hw, error_hw, np.nan), valid_hw)
    assert first.compute() == second.compute()
    assert first.compute()["remaining_error"][10] == pytest.approx(1, abs=0.05)


def test_where_nothing_varies_nothing_is_told() -> None:
    found = Uncertainty()
    flat_hw = np.ones((10, 10))
    assert math.isnan(found.update(flat_hw, RNG.random((10, 10)), everywhere(flat_hw)))
    assert math.isnan(found.update(RNG.random((10, 10)), flat_hw, ~everywhere(flat_hw)))
    assert found.compute() == {"images": 0}


class Ramp(nn.Module):
    """Adds more the farther right a pixel lies, whatever the image."""

    context, tile_step = 0, 1

    def forward(self, image_bchw: torch.Tensor) -> torch.Tensor:
        return image_bchw + torch.linspace(0, 0.2, image_bchw.shape[3])


def ramp(*settings: str) -> Predictor:
    recipe = load_recipe("lowlight", ["target.scale=1", *settings])
    sections: dict[str, Any] = {"input_section": recipe.input, "inference": recipe.inference}
    task = build_task(recipe)
    model: Any = Ramp()
    return Predictor(model, task, decision={}, precision="fp32", device=torch.device("cpu"), **sections)


@pytest.mark.parametrize("settings", [(), ("inference.flip=true",)])
def test_the_spread_is_half_of_what_mirror_images_differ_by(settings: tuple[str, ...]) -> None:
    image_hwc = RNG.integers(0, 200, (8, 11, 3), dtype=np.uint8)
    predictor = ramp(*settings)
    ramp_w = np.linspace(0, 0.2, 11)
    expected_hw = np.broadcast_to(np.abs(ramp_w - ramp_w[::-1]) / 2, (8, 11))
    assert view_spread(predictor, image_hwc) == pytest.approx(expected_hw, abs=1e-6)
    assert predictor.inference.flip is bool(settings)  # as it was
    assert view_spread(Ensemble([predictor, ramp()]), image_hwc) == pytest.approx(expected_hw, abs=1e-6)


def test_all_eight_views_are_turned_back() -> None:
    image_hwc = RNG.integers(0, 200, (9, 9, 3), dtype=np.uint8)
    spread_hw = view_spread(ramp("inference.self_ensemble=true"), image_hwc)
    assert spread_hw == pytest.approx(np.rot90(spread_hw), abs=1e-6)
    assert spread_hw == pytest.approx(spread_hw[:, ::-1], abs=1e-6)
    assert spread_hw[0, 0] > spread_hw[4, 4] == pytest.approx(0, abs=1e-6)


def test_an_evaluation_of_it_is_written(tmp_path: Path) -> None:
    predictor = ramp()
    samples = []
    for number in range(3):
        image_hwc = RNG.integers(0, 200, (12, 15, 3), dtype=np.uint8)
        image, target = tmp_path / f"{number}.png", tmp_path / f"{number}_gt.png"
        write_image(image, image_hwc)
        # Off where the views disagree: at the left and the right edge.
        off_w = np.rint(60 * np.abs(np.linspace(-1, 1, 15)))
        prediction_hwc = predictor.predict([image_hwc])[0].astype(int)
        write_image(target, np.clip(prediction_hwc - off_w[None, :, None], 0, 255).astype(np.uint8))
        samples.append(Sample(str(number), image, target))
    pairs = Pairs(samples, predictor.task, tmp_path, "key", "val", True)
    (line,) = score_uncertainty(predictor, pairs, tmp_path / "out", Console())
    figures = read_json(tmp_path / "out/uncertainty.json")
    assert figures["images"] == 3
    assert figures["rank_correlation"] > 0.8
    assert f"rank correlation with the error {figures['rank_correlation']:.3f}" in line
    assert (tmp_path / "out/sparsification.png").is_file()


def test_classes_have_calibration_instead(tiny_run: Run, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "evaluation")
    with pytest.raises(RequestError, match="the calibration says"):
        api.evaluate(tmp_path / "run", uncertainty=True)
    assert not (tmp_path / "run" / "evaluation").exists()  # told before anything is scored
    with pytest.raises(RequestError, match="one run on one data set"):
        api.evaluate(tiny_run.path, data=[tmp_path / "a", tmp_path / "b"], uncertainty=True)
