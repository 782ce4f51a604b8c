"""Prediction of files: what is written agrees with the network, and the clock tells the truth."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from perpixel import api
from perpixel.console import Console
from perpixel.errors import RunError
from perpixel.images import read_image, read_label_map, write_image
from perpixel.inference import files as prediction
from perpixel.inference.predictor import Predictor
from perpixel.inference.timing import device_name
from perpixel.models import PixelModel
from perpixel.run import Run


def picture(seed: int, height: int = 33, width: int = 47) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_confidence_and_colours_are_those_of_the_scores(tiny_run: Run, tmp_path: Path) -> None:
    image_hwc = picture(1)
    write_image(tmp_path / "Bild ä 沙.png", image_hwc)
    (raw,) = api.predict(tiny_run.path, tmp_path / "Bild ä 沙.png", tmp_path / "out")
    predictor = Predictor.from_run(tiny_run)
    (scores_khw,) = predictor.scores([image_hwc])
    salt_hw = predictor.finalize(scores_khw) == 1
    assert raw.name == "Bild ä 沙.png"
    assert np.array_equal(read_label_map(raw).values_hw > 0, salt_hw)  # type: ignore[operator]
    confidence_hw = read_label_map(tmp_path / "out/Bild ä 沙_confidence.png").values_hw
    odds_hw = np.log(scores_khw[0] / (1 - scores_khw[0])) / predictor.decision["temperature"]
    expected_hw = np.where(salt_hw, 1 / (1 + np.exp(-odds_hw)), 1 / (1 + np.exp(odds_hw)))
    assert predictor.decision["temperature"] != 1
    assert confidence_hw is not None
    assert np.abs(confidence_hw / 255 - expected_hw).max() <= 0.5 / 255 + 1e-6
    color_hwc = read_image(tmp_path / "out/Bild ä 沙_color.png").pixels_hwc
    palette = [spec.color for spec in tiny_run.recipe.target.classes]
    assert np.array_equal(color_hwc, np.array(palette, dtype=np.uint8)[salt_hw.astype(int)])


class Hand:
    """A clock that a test sets: other processes share the machine, and real seconds would say nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        for module in ("files", "timing"):
            clock = SimpleNamespace(perf_counter=lambda: self.seconds)
            monkeypatch.setattr(f"perpixel.inference.{module}.time", clock)


def test_timing_is_warm_and_said(tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hand = Hand(monkeypatch)
    for number in range(6):
        write_image(tmp_path / "in" / f"{number}.png", picture(number, 20 + number))
    shown: list[list[int]] = []
    real, network = Predictor.scores, PixelModel.forward

    def forward(self: PixelModel, image_bchw: Any) -> Any:
        hand.seconds += 0.25 * len(image_bchw)
        return network(self, image_bchw)

    def scores(self: Predictor, images: list[Any]) -> list[Any]:
        shown.append([image_hwc.shape[0] for image_hwc in images])
        # A slow first call, which the warm-up swallows; then 4 s for four images, and 6 s for two.
        hand.seconds += {1: 1000, 2: 4, 3: 6}[len(shown)]
        return real(self, images)

    monkeypatch.setattr(Predictor, "scores", scores)
    monkeypatch.setattr(PixelModel, "forward", forward)
    stream = io.StringIO()
    api.predict(tiny_run.path, tmp_path / "in", tmp_path / "out", console=Console(stream))
    assert shown == [[20, 21, 22, 23], [20, 21, 22, 23], [24, 25]]
    timing = json.loads((tmp_path / "out/timing.json").read_text())
    assert (timing["images"], timing["batches"], timing["batch_size"], timing["threads"]) == (6, 2, 4, 1)
    assert timing["megapixels_median"] == pytest.approx(22.5 * 47 / 1e6, abs=1e-4)
    assert timing["network_seconds_per_image"] == 0.25
    assert timing["end_to_end_seconds_per_image"] == (1.25 + 3.25) / 2
    assert timing["device"].startswith(("cpu, ", "cuda, "))
    line = stream.getvalue().splitlines()[-1]
    assert line.startswith("250.0 ms an image in the network, 2250.0 ms from file to files (warm, median of 2 batches;")
    assert "1 thread, fp32" in line and timing["device"] in line


def test_the_clock_counts_the_network_alone_and_every_view(tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    hand = Hand(monkeypatch)
    predictor = Predictor.from_run(tiny_run)
    real = predictor.model.network.forward

    def slow(x_bchw: Any) -> Any:
        hand.seconds += 2
        return real(x_bchw)

    monkeypatch.setattr(predictor.model.network, "forward", slow)
    for flip, calls in ((False, 1), (True, 2)):
        predictor.inference = predictor.inference.model_copy(update={"flip": flip})
        with predictor.clock() as clock:
            predictor.scores([picture(0)])
            hand.seconds += 100
        assert clock.seconds == 2 * calls
        predictor.scores([picture(0)])
        assert clock.seconds == 2 * calls  # outside the block it stands still
    assert len(device_name(predictor.device)) > len("cpu, ")


def test_large_images_are_scored_few_at_a_time(tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, height in enumerate((10, 10, 40, 10, 10, 10)):
        write_image(tmp_path / f"{number}.png", picture(number, height, 10))
    (tmp_path / "6.png").write_bytes(b"no image")
    monkeypatch.setattr(prediction, "_SCORES_AT_ONCE", 300)
    predictor = Predictor.from_run(tiny_run)
    batches = list(prediction._batches(sorted(tmp_path.glob("*.png")), predictor))
    assert [[path.stem for path in batch] for batch in batches] == [["0", "1"], ["2"], ["3", "4", "5", "6"]]


def test_folders_below_are_left_alone_and_own_predictions_are_replaced(tiny_run: Run, tmp_path: Path) -> None:
    write_image(tmp_path / "in/a.png", picture(0))
    write_image(tmp_path / "in/below/b.png", picture(1))
    first = api.predict(tiny_run.path, tmp_path / "in", tmp_path / "in/out")
    shutil.copy(tmp_path / "in/below/b.png", tmp_path / "in/a.png")
    again = api.predict(tiny_run.path, tmp_path / "in", tmp_path / "in/out")
    assert first == again == [tmp_path / "in/out/a.png"]
    (alone,) = api.predict(tiny_run.path, tmp_path / "in/below/b.png", tmp_path / "b")
    assert again[0].read_bytes() == alone.read_bytes()


def test_nothing_readable_means_no_timing(tiny_run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(RunError, match="1 of 1 images"):
        api.predict(tiny_run.path, tmp_path / "a.png", tmp_path / "out")
    assert not (tmp_path / "out").exists()
