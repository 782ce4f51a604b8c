"""Each guard catches the defect planted for it, and is silent without."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from perpixel.app.cards import run_card
from perpixel.console import Console, in_red
from perpixel.errors import RequestError
from perpixel.evaluation.evaluate import Evaluation
from perpixel.evaluation.guards import figure_that_repeats, no_better_than_baseline, run_warnings
from perpixel.evaluation.session import evaluate_run
from perpixel.metrics import MetricInfo
from perpixel.models import PixelModel, build_model
from perpixel.models.input_check import encoder_input_doubt
from perpixel.recipe import load_recipe
from perpixel.reports.run_report import run_document
from perpixel.run import Run, read_rows
from perpixel.tasks.depth import DepthTask
from perpixel.training.train import train
from tiny import write_scenes


def evaluation(model: float, baselines: dict[str, float], direction: str = "higher") -> Evaluation:
    info = MetricInfo("iou", "", direction, "mean over images", "")  # type: ignore[arg-type]
    return Evaluation({"iou": model}, [], {"iou": info}, {name: {"iou": value} for name, value in baselines.items()})


@pytest.mark.parametrize(
    ("model", "baselines", "direction", "caught"),
    [
        (0.4, {"all rock": 0.5, "all salt": 0.2}, "higher", "'all rock' 0.5000"),
        (0.5, {"all rock": 0.5}, "higher", "'all rock' 0.5000"),
        (0.6, {"all rock": 0.5}, "higher", None),
        (0.6, {"all rock": 0.5}, "lower", "'all rock' 0.5000"),
        (float("nan"), {"all rock": 0.5}, "higher", "'all rock' 0.5000"),
        (0.1, {"all rock": float("nan")}, "higher", None),
        (0.1, {}, "higher", None),
    ],
)
def test_no_better_than_baseline(model: float, baselines: dict[str, float], direction: str, caught: str | None) -> None:
    warning = no_better_than_baseline(evaluation(model, baselines, direction), "iou")
    assert (warning is None) == (caught is None)
    assert caught is None or caught in str(warning)


# ---------------------------------------------------------------- the encoder's input


def small_unet() -> PixelModel:
    torch.manual_seed(0)
    return build_model(architecture="unet", encoder="mobilenetv3_small_050", weights="none", out_channels=1).eval()


class NormalisesToo(torch.nn.Module):
    """What ZoeDepth's own repository did behind the normalisation of system 5's data set."""

    def __init__(self, inner: torch.nn.Module, model: PixelModel) -> None:
        super().__init__()
        self.inner, self.encoder = inner, inner.encoder
        self.mean, self.std = model.normalization_mean, model.normalization_std

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        output_bkhw: torch.Tensor = self.inner((x_bchw - self.mean) / self.std)
        return output_bkhw


def normalised_twice(model: PixelModel) -> None:
    model.network = NormalisesToo(model.network, model)


def not_normalised(model: PixelModel) -> None:
    model.normalization_mean.zero_()
    model.normalization_std.fill_(1)


def scaled_twice(model: PixelModel) -> None:
    """System 4: levels divided by 255 before a network that divides by itself."""
    model.register_forward_pre_hook(lambda _, inputs: (inputs[0] / 255,))


def not_scaled(model: PixelModel) -> None:
    model.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 255,))


@pytest.mark.parametrize("level", [(0.0, 1.0), (0.4, 0.2), (0.0, 0.2)])
@pytest.mark.parametrize(
    ("plant", "sentence"),
    [
        (lambda model: None, None),
        (normalised_twice, "is normalised twice"),
        (not_normalised, "is not normalised at all"),
        (scaled_twice, "is divided by 255 once too often"),
        (not_scaled, "is not divided by 255"),
    ],
)
def test_the_encoders_input(plant: Any, sentence: str | None, level: tuple[float, float]) -> None:
    """Of bright, grey and dark images, at a size that has to be padded."""
    model = small_unet()
    plant(model)
    image_bchw = level[0] + level[1] * torch.rand(3, 3, 40, 56, generator=torch.Generator().manual_seed(1))
    doubt = encoder_input_doubt(model, image_bchw)
    assert (doubt is None) == (sentence is None), doubt
    assert sentence is None or sentence in str(doubt)


def test_what_cannot_be_told_of_an_encoders_input() -> None:
    assert encoder_input_doubt(small_unet(), torch.full((2, 3, 32, 32), 0.5)) is None


# ---------------------------------------------------------------- of a whole training


def history(figures: list[float], losses: list[float], rates: list[float] | None = None) -> list[dict[str, float]]:
    rates = rates or [1e-4] * len(figures)
    rows = zip(figures, losses, rates, strict=True)
    return [{"val_d1": figure, "train_loss": loss, "learning_rate": rate} for figure, loss, rate in rows]


FALLING = [3.0, 2.0, 1.5, 1.2, 1.1]


@pytest.mark.parametrize(
    ("rows", "caught"),
    [
        (history([0.016241, 0.01624, 0.01624, 0.01624, 0.01624], FALLING), "in 4 epochs in a row"),
        (history([0.1, 0.2, 0.3, 0.3000001, 0.3], FALLING), "d1 is 0.3 in 3 epochs"),
        (history([0.3, 0.3, 0.3, 0.4, 0.5], FALLING), None),  # it began to learn
        (history([0.3, 0.3, 0.3, 0.3, 0.3], [1.0, 1.001, 1.0, 1.002, 1.0]), None),  # nothing moves
        (history([0.1, 0.2, 0.3, 0.3, 0.3], FALLING, [1e-4, 1e-4, 1e-6, 1e-6, 1e-6]), None),  # the end of a schedule
        (history([0.3, 0.3], [3.0, 2.0]), None),
        ([], None),
    ],
)
def test_a_validation_figure_that_stands_still(rows: list[dict[str, float]], caught: str | None) -> None:
    sentence = figure_that_repeats(rows, "d1")
    assert (sentence is None) == (caught is None), sentence
    assert caught is None or caught in str(sentence)


def spoil_steps(run: Run) -> None:
    run.update_manifest(bad_steps=7)


def spoil_history(run: Run) -> None:
    rows = [dict(run.read_history()[-1], epoch=epoch, train_loss=1 / epoch, learning_rate=0.1) for epoch in (1, 2, 3)]
    run.write_history(rows)


def spoil_look(run: Run) -> None:
    run.update_manifest(inspection={"forced": True, "errors": ["depth-unit: too far."], "warnings": []})


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (spoil_steps, "7 steps of the training were skipped"),
        (spoil_history, "in 3 epochs in a row while the training loss moved"),
        (spoil_look, "not fit for training, and --force trained all the same: depth-unit: too far."),
    ],
)
def test_report_page_and_evaluation_tell_of_a_spoilt_training(
    tiny_run: Run, tmp_path: Path, spoil: Any, sentence: str
) -> None:
    shutil.copytree(tiny_run.path, tmp_path / "run")
    run = Run(tmp_path / "run")
    everywhere = [run_warnings, in_report, on_page, in_evaluation]
    assert not any(sentence in str(look(run)) for look in everywhere)
    spoil(run)
    for look in everywhere:
        assert sentence in str(look(run)), look.__name__


def in_report(run: Run) -> str:
    return str(run_document(run, Console(), pictures=False).warnings)


def on_page(run: Run) -> str:
    return str(run_card("run", run, run.recipe, ready=True, megabytes=1.0).warnings)


def in_evaluation(run: Run) -> str:
    return str(evaluate_run(run, subset="val", data=None, console=Console())["table"])


def test_a_warning_is_red_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert in_red("a\nval: WARNING: b\nc") == "a\n\x1b[1;31mval: WARNING: b\x1b[0m\nc"
    assert in_red("a warning that is none") == "a warning that is none"
    monkeypatch.setenv("NO_COLOR", "1")
    assert in_red("WARNING: b") == "WARNING: b"


# ---------------------------------------------------------------- the four defects of system 5, in whole trainings


def trained_on(root: Path, run: Path, *settings: str) -> Run:
    """System 5's recipe with a small network."""
    small = ["model.architecture=unet", "model.encoder=mobilenetv3_small_050", "model.weights=none"]
    small += [
        "target.output=log",
        "model.freeze_encoder=false",
        "input.size=[32, 32]",
        "training.epochs=1",
        "training.batch_size=8",
    ]
    small += [f"data.root={root}", "training.precision=fp32", "training.threads=1", "data.cache=off"]
    return train(load_recipe("zoedepth-synthetic", [*small, *settings]), run)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"))


def test_a_split_by_scene_does_not_leak(scenes: Path, tmp_path: Path) -> None:
    run = trained_on(scenes, tmp_path / "run")
    assert run.manifest["inspection"]["split"] == []
    assert not any("leaks" in line for line in run_warnings(run))


@pytest.mark.parametrize("table", ["data.tables=[scenes.csv]", "data.tables=[]"])
def test_a_leak_across_scenes(scenes: Path, tmp_path: Path, table: str) -> None:
    """Views of one scene on both sides, whether a table tells of scenes or the pictures alone do."""
    run = trained_on(scenes, tmp_path / "run", "split.method=random", "split.group_column=null", table)
    told = " ".join(run_warnings(run))
    rule = "split-groups" if "scenes.csv" in table else "split-"
    assert f"the split leaks: {rule}" in told, told
    assert "leaks" in run.log_path.read_text().splitlines()[-1]  # the last word of the training
    assert "leaks" in in_report(run) and "leaks" in on_page(run)


def test_scenes_of_other_data_are_those_of_their_own_table(scenes: Path, tmp_path: Path) -> None:
    """Both number their pictures from 0: what is scene 0 here says nothing of scene 0 there."""
    other = write_scenes(tmp_path / "other", scenes=3, captures=8)
    run = trained_on(scenes, tmp_path / "run")
    evaluate_run(run, subset="test", data=other, console=Console())
    rows = read_rows(run.evaluation_dir("data-other") / "per_image.csv")
    assert {row["sample"]: row["group"] for row in rows} == {f"{n:04d}": str(n // 8) for n in range(24)}
    assert all(row["group"] for row in read_rows(run.evaluation_dir("val") / "per_image.csv"))


def test_metres_times_ten_and_clamped(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = DepthTask.scores
    monkeypatch.setattr(DepthTask, "scores", lambda self, output: 10 * original(self, output))
    monkeypatch.setattr(DepthTask, "loss", lambda self, facts: lambda epoch, output, target: output.mean() * 0 + 1)
    run = trained_on(scenes, tmp_path / "run", "optimizer.learning_rate=1e-9")
    log = run.log_path.read_text()
    assert "WARNING" in log and "sit on a clamp" in log
    assert "sit on a clamp" in in_report(run) and "sit on a clamp" in on_page(run)


def test_images_normalised_twice(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = PixelModel._fitted

    def twice(self: PixelModel, image_bchw: torch.Tensor) -> torch.Tensor:
        return (original(self, image_bchw) - self.normalization_mean) / self.normalization_std

    monkeypatch.setattr(PixelModel, "_fitted", twice)
    run = trained_on(scenes, tmp_path / "run")
    assert "WARNING: The encoder's input is normalised twice" in run.log_path.read_text()
    assert "normalised twice" in in_report(run) and "normalised twice" in on_page(run)


def test_a_freeze_that_matches_nothing(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perpixel.models.network.encoder_stages", lambda encoder: [])
    with pytest.raises(RequestError, match="nothing can be frozen"):
        trained_on(scenes, tmp_path / "run", "model.freeze_encoder=true")
