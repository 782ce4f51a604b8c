"""Training pairs of other recipes beside a recipe's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perpixel.console import Console
from perpixel.data.dataset import TrainingSet
from perpixel.errors import DataError, RequestError, RunError
from perpixel.evaluation.pairs import open_pairs
from perpixel.recipe import Recipe, dump_recipe, load_recipe
from perpixel.run import Run, read_rows
from perpixel.tasks import build_task
from perpixel.training.loop import TrainingModule
from perpixel.training.material import Material, prepare
from perpixel.training.train import train
from test_depth_task import depth_recipe, write_tiny_depth
from tiny import assert_same_weights

REAL = ("split.test=0.25", "augmentation.vertical_flip=1.0", "augmentation.horizontal_flip=0.0")
RENDERED = ("augmentation.horizontal_flip=0.0", "augmentation.degrade=1.0", "augmentation.blur=2.0")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """Eight rendered pairs, and sixteen others of a codec of their own beside them."""
    write_tiny_depth(tmp_path / "rendered", count=8)
    write_tiny_depth(tmp_path / "real", count=16)
    real = depth_recipe(tmp_path / "real", "name=real", *REAL, scale=0.0005)
    (tmp_path / "real.yaml").write_text(dump_recipe(real))
    return depth_recipe(tmp_path / "rendered", *RENDERED, f"data.also=[{tmp_path / 'real.yaml'}]")


def prepared(recipe: Recipe) -> Material:
    return prepare(recipe, build_task(recipe), Console())


def test_they_train_and_choose_nothing(recipe: Recipe) -> None:
    material = prepared(recipe)
    own = [id_ for id_ in material.ids if ":" not in id_]
    assert len(own) == 8 and len(material.ids) == 16  # half of the sixteen are held out
    assert {material.subsets[id_] for id_ in material.ids if ":" in id_} == {"train"}
    assert [len(material.positions(subset)) for subset in ("train", "val")] == [14, 2]
    assert material.facts["images"] == 14
    assert material.also[0]["training_samples"] == 8


def test_each_is_read_as_its_own_recipe_says(recipe: Recipe) -> None:
    """The other recipe's numbers are half millimetres."""
    material = prepared(recipe)
    task = build_task(recipe)
    for position, sample in enumerate(material.samples):
        assert sample.target is not None
        plain_hw = task.decode_target(sample.target)
        factor = 0.5 if ":" in sample.id else 1.0
        np.testing.assert_allclose(material.decoded.target(position), factor * plain_hw, rtol=1e-6)


def test_each_is_changed_as_its_own_recipe_says(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put on rendered images is not put on photographs, nor the other way round."""
    material, changed = prepared(recipe), {}

    def noted(image_hwc: Any, target_hw: Any, spec: Any, generator: Any, **_: Any) -> tuple[Any, Any]:
        changed[len(changed)] = spec
        return image_hwc, target_hw

    monkeypatch.setattr("perpixel.data.dataset.augment", noted)
    training_set = TrainingSet(
        material.decoded,
        material.ids,
        material.positions("train"),
        input_section=recipe.input,
        augmentation=recipe.augmentation,
        augmentations=material.augmentations,
        fill=np.nan,
        seed=0,
        epoch=0,
    )
    for index, position in enumerate(material.positions("train")):
        assert training_set[index][2] == material.ids[position]
        assert changed[index].degrade == (0.0 if ":" in material.ids[position] else 1.0)
        assert changed[index].vertical_flip == (1.0 if ":" in material.ids[position] else 0.0)


def test_a_training_with_them_goes_on_as_if_never_stopped(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = train(recipe, tmp_path / "straight")
    original = TrainingModule.training_step

    def interrupting(self: TrainingModule, batch: Any, index: int) -> Any:
        if self.progress.epoch == 1:
            raise KeyboardInterrupt
        return original(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", interrupting)
        with pytest.raises(RunError, match="--resume continues"):
            train(recipe, tmp_path / "run")
    run = train(recipe, tmp_path / "run", resume=True)
    assert_same_weights(straight.best_path, run.best_path)
    assert sum(":" in row["sample"] for row in read_rows(run.split_path)) == 8
    held_out = open_pairs(run, build_task(recipe), subset="test", data=tmp_path / "real.yaml", console=Console())
    trained = {id_.removeprefix("real:") for id_ in run.read_split()[0] if id_.startswith("real:")}
    assert held_out.part == "held-out" and len(held_out.samples) == 8
    assert not trained & {sample.id for sample in held_out.samples}
    assert Run(run.path).manifest["data"]["also"][0]["training_samples"] == 8


def test_what_cannot_train_too(recipe: Recipe, tmp_path: Path) -> None:
    def with_also(content: str) -> Recipe:
        (tmp_path / "other.yaml").write_text(content)
        section = recipe.data.model_copy(update={"also": (str(tmp_path / "other.yaml"),)})
        return recipe.model_copy(update={"data": section})

    real = (tmp_path / "real.yaml").read_text()
    with pytest.raises(RequestError, match="names no data folder"):
        prepared(with_also(real.replace(str(tmp_path / "real"), "null")))
    with pytest.raises(DataError, match="does not exist"):
        prepared(with_also(real.replace(str(tmp_path / "real"), str(tmp_path / "nowhere"))))
    with pytest.raises(RequestError, match="no depth"):
        prepared(with_also(dump_recipe(load_recipe("salt", [f"data.root={tmp_path / 'real'}"]))))
