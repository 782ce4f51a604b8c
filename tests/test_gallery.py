"""The gallery shows the extremes it names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perpixel.evaluation.gallery import extremes
from perpixel.training.train import train
from tiny import tiny_recipe, write_tiny


@pytest.mark.parametrize("count", [1, 2, 3, 7, 30])
def testextremes(count: int) -> None:
    chosen = extremes(list(range(count)))
    assert chosen["worst"][0] == 0
    assert chosen["best"][0] == count - 1
    assert all(len(rows) == min(4, max(1, count // 3)) for rows in chosen.values())
    assert abs(np.mean(chosen["median"]) - (count - 1) / 2) <= 1


def test_a_training_leaves_a_gallery(tmp_path: Path) -> None:
    root = write_tiny(tmp_path / "data")
    run = train(tiny_recipe(root, "training.epochs=1"), tmp_path / "run")
    with Image.open(run.evaluation_dir("val") / "gallery.png") as picture:
        assert picture.width > picture.height
        assert len(np.unique(np.asarray(picture))) > 20
