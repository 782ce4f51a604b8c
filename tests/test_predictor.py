"""The one code path from an image to a prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from perpixel.errors import RunError
from perpixel.inference.predictor import Predictor, to_network
from perpixel.models import build_model
from perpixel.recipe import InferenceSection, InputSection, load_recipe
from perpixel.run import Run
from perpixel.tasks import build_task
from tiny import weights


def predictor(
    *,
    fit: str = "resize",
    size: tuple[int, int] = (32, 32),
    flip: bool = False,
    scales: tuple[float, ...] = (1.0,),
    seed: int = 3,
) -> Predictor:
    torch.manual_seed(seed)
    model = build_model(
        architecture="unet", encoder="mobilenetv3_small_050", weights="none", out_channels=1, decoder_norm=True
    )
    inference = InferenceSection(flip=flip, scales=scales)
    task = build_task(load_recipe("salt", ["inference.threshold=0.5"]))
    input_section = InputSection.model_validate({"size": size, "fit": fit})
    return Predictor(
        model,
        task,
        input_section=input_section,
        inference=inference,
        decision=task.first_decision(),
        precision="fp32",
        device=torch.device("cpu"),
    )


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("fit", ["resize", "pad", "crop"])
def test_images_of_any_size_come_back_at_their_own(fit: str) -> None:
    images = [picture(40, 40), picture(17, 90), picture(32, 32), picture(1, 5), picture(100, 33)]
    chosen = predictor(fit=fit)
    scores = chosen.scores(images)
    for image_hwc, scores_khw, prediction_hw in zip(images, scores, chosen.predict(images), strict=True):
        assert scores_khw.shape == (1, *image_hwc.shape[:2])
        assert scores_khw.dtype == np.float32
        assert 0 <= scores_khw.min() <= scores_khw.max() <= 1
        assert np.array_equal(prediction_hw, scores_khw[0] > 0.5)


@pytest.mark.parametrize(("fit", "flip"), [("pad", False), ("pad", True), ("crop", True)])
def test_an_image_is_predicted_alike_in_any_company(fit: str, flip: bool) -> None:
    chosen = predictor(fit=fit, flip=flip)
    images = [picture(32, 32, seed) for seed in range(4)] + [picture(50, 20), np.zeros((9, 9, 3), dtype=np.uint8)]
    together = chosen.scores(images)
    alone = [chosen.scores([image_hwc])[0] for image_hwc in images]
    back = chosen.scores(images[::-1])[::-1]
    for first, second, third in zip(together, alone, back, strict=True):
        # As near as float32 sums in another order come to each other.
        np.testing.assert_allclose(first, second, atol=1e-5)
        np.testing.assert_allclose(first, third, atol=1e-5)


@pytest.mark.parametrize(("fit", "size"), [("resize", (32, 32)), ("pad", (32, 32)), ("pad", (24, 20))])
def test_with_the_flip_a_mirrored_image_has_the_mirrored_prediction(fit: str, size: tuple[int, int]) -> None:
    image_hwc = picture(*size)
    for flip in (True, False):
        chosen = predictor(fit=fit, flip=flip)
        scores_khw, mirrored_khw = chosen.scores([image_hwc, np.ascontiguousarray(image_hwc[:, ::-1])])
        difference = np.abs(scores_khw - mirrored_khw[:, :, ::-1]).max()
        assert bool(difference < 1e-5) is flip


class Brightness(torch.nn.Module):
    """A network that says how red a pixel is, and keeps the sizes that it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, image_bchw: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(image_bchw.shape[2:]))
        return (image_bchw[:, :1] - 0.5) * 40


def test_scales_are_averaged_as_scores() -> None:
    """Twice the same scale is that scale; several are the mean of each alone; each view has its size."""
    image_hwc = picture(40, 60)
    alone = {scale: predictor(fit="crop", scales=(scale,)).scores([image_hwc])[0] for scale in (0.5, 1.0, 1.5)}
    together = predictor(fit="crop", scales=(0.5, 1.0, 1.5)).scores([image_hwc])[0]
    np.testing.assert_allclose(together, sum(alone.values()) / 3, atol=1e-5)
    np.testing.assert_allclose(predictor(fit="crop", scales=(0.5, 0.5)).scores([image_hwc])[0], alone[0.5], atol=1e-6)
    assert np.abs(alone[0.5] - alone[1.0]).max() > 1e-4
    chosen = predictor(fit="crop", scales=(0.5, 1.0, 1.5), flip=True)
    chosen.model = network = Brightness()  # type: ignore[assignment]
    chosen.scores([image_hwc])
    assert network.seen == [(20, 30)] * 2 + [(40, 60)] * 2 + [(60, 90)] * 2


def test_a_scale_shifts_nothing() -> None:
    y, x = np.mgrid[:60, :80]
    ramp = np.stack([np.clip(128 + (x - 39.5) / 2 + (y - 29.5) / 2, 0, 255)] * 3, axis=2).astype(np.uint8)
    plain, scaled = predictor(fit="crop"), predictor(fit="crop", scales=(0.5, 1.5, 0.73))
    plain.model, scaled.model = Brightness(), Brightness()  # type: ignore[assignment]
    inside = (slice(4, -4), slice(4, -4))
    first, second = plain.scores([ramp])[0][0][inside], scaled.scores([ramp])[0][0][inside]
    assert np.abs(first - second).max() < 0.05


def test_images_of_one_size_share_a_batch() -> None:
    chosen = predictor(fit="crop")
    chosen.model = network = Brightness()  # type: ignore[assignment]
    images = [picture(20, 30), picture(40, 30, 1), picture(20, 30, 2)]
    scores = chosen.scores(images)
    assert network.seen == [(20, 30), (40, 30)]
    for image_hwc, scores_khw in zip(images, scores, strict=True):
        np.testing.assert_allclose(scores_khw[0], chosen.scores([image_hwc])[0][0], atol=1e-6)


def test_padding_is_cut_off_again() -> None:
    """A pad fit of an image of the network's own size is that image; a smaller one is its centre."""
    image_hwc = picture(20, 27)
    for fit in ("pad", "resize"):
        chosen = predictor(fit=fit)
        chosen.model = Brightness()  # type: ignore[assignment]
        prediction_hw = chosen.predict([image_hwc])[0]
        agreement = np.mean(prediction_hw == (image_hwc[..., 0] > 127.5))
        assert agreement == 1 if fit == "pad" else 0.6 < agreement < 1


def test_pixel_values_are_scaled_once() -> None:
    image_bchw = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    assert to_network(image_bchw, torch.device("cpu")).flatten().tolist() == pytest.approx([0, 0.2, 1])


def test_a_run_gives_back_what_was_trained(tiny_run: Run) -> None:
    chosen = Predictor.from_run(tiny_run)
    stored: dict[str, Any] = weights(tiny_run.best_path)
    state = chosen.model.state_dict()
    assert stored.keys() == state.keys()
    assert all(np.array_equal(stored[name], tensor.numpy()) for name, tensor in state.items())
    assert not chosen.model.training
    assert chosen.decision == {
        "threshold": chosen.decision["threshold"],
        "minimum_area": chosen.decision["minimum_area"],
        "temperature": chosen.decision["temperature"],
    }
    assert chosen.precision == tiny_run.recipe.training.precision


def test_a_run_without_a_model_is_an_error(tmp_path: Path, tiny_run: Run) -> None:
    run = Run(tmp_path)
    run.write_recipe(tiny_run.recipe)
    with pytest.raises(RunError, match="no trained model") as caught:
        Predictor.from_run(run)
    assert "--resume" in caught.value.text()
