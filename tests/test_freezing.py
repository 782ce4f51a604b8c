"""What is frozen does not move, what is unfrozen does, and a continuation ends where an uninterrupted run does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from perpixel.errors import RecipeError, RequestError
from perpixel.models import build_model
from perpixel.recipe import OptimizerSection
from perpixel.training.optimization import build_optimizer
from perpixel.training.packing import load_tree
from perpixel.training.train import train
from tiny import assert_same_weights, tiny_recipe, write_tiny


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("data"), count=10)


def moved(first: Path, second: Path) -> set[str]:
    """Names of the model's tensors that differ."""
    before, after = load_tree(first)["model"], load_tree(second)["model"]
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_stages_are_unfrozen_epoch_by_epoch(data: Path, tmp_path: Path) -> None:
    frozen = ("model.freeze_encoder=true", "inference.threshold=0.5", "training.ema_decay=null")
    ends = []
    for epochs, unfreeze in ((1, "[]"), (2, "[]"), (2, "[1]")):
        settings = (*frozen, f"training.epochs={epochs}", f"model.unfreeze_epochs={unfreeze}")
        run = train(tiny_recipe(data, *settings), tmp_path / f"run-{epochs}-{len(unfreeze)}")
        ends.append(run.last_path)
    one, two, staged = ends
    trained = moved(one, two)
    assert trained
    assert not [name for name in trained if ".encoder." in name]
    also = {name for name in moved(two, staged) if ".encoder." in name}
    assert also, "the last stage trains in the second epoch"
    everything = {name for name in load_tree(one)["model"] if ".encoder." in name}
    assert len(also) < len(everything) / 2, "the other stages stay as they were"


def test_a_continuation_across_an_unfreezing_is_exact(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(data, "model.freeze_encoder=true", "model.unfreeze_epochs=[1, 2]", "optimizer.layer_decay=0.5")
    straight = train(recipe, tmp_path / "straight")
    calls = iter(range(100))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Exception, match="interrupted"):
        patch.setattr("perpixel.training.train.stop_asked", lambda: next(calls) >= 2)
        train(recipe, tmp_path / "stopped")
    stopped = train(recipe, tmp_path / "stopped", resume=True)
    assert_same_weights(straight.last_path, stopped.last_path)


def test_layer_decay_gives_each_stage_its_rate() -> None:
    model = build_model(architecture="unet", encoder="mobilenetv3_small_050", weights="none", out_channels=1)
    section = OptimizerSection(learning_rate=0.1, encoder_factor=0.5, layer_decay=0.8)
    optimizer = build_optimizer(model, section)
    factor_of = {id(p): group["factor"] for group in optimizer.param_groups for p in group["params"]}
    stages = model.encoder_stages()
    for depth, stage in enumerate(stages):
        assert {factor_of[id(parameter)] for parameter in stage} == {0.5 * 0.8**depth}
    assert {factor_of[id(parameter)] for parameter in model.decoder_parameters()} == {1.0}
    assert len(factor_of) == len(list(model.parameters()))


def test_more_stages_than_there_are_is_told_at_once(data: Path, tmp_path: Path) -> None:
    epochs = list(range(1, 30))
    recipe = tiny_recipe(data, "model.freeze_encoder=true", f"model.unfreeze_epochs={epochs}")
    with pytest.raises(RequestError, match="stages"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    "settings", [("model.unfreeze_epochs=[1]",), ("model.freeze_encoder=true", "model.unfreeze_epochs=[3, 2]")]
)
def test_settings_that_contradict_each_other(data: Path, settings: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError, match="unfreeze_epochs"):
        tiny_recipe(data, *settings)
