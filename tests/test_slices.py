"""Slices find the kind of image that was made bad, and none by chance; and which subset chose what."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from perpixel import api
from perpixel.evaluation.choices import choices
from perpixel.evaluation.slices import Slice, brightness, slices_of, worst_lines, write_slices
from perpixel.inference.predictor import Predictor
from perpixel.recipe import DepthTarget, InferenceSection, LossSection
from perpixel.run import Run, read_rows, write_json
from perpixel.tasks.depth import DepthTask


def found(values: list[float], *, higher: bool = True, groups: list[str] | None = None, **columns: list) -> list[Slice]:
    return slices_of(values, columns, groups or [""] * len(values), figure="iou", higher=higher)


def by_name(slices: list[Slice], name: str) -> dict[str, Slice]:
    return {item.values: item for item in slices if item.property == name}


@pytest.mark.parametrize("higher", [True, False])
def test_a_planted_slice_comes_first_and_is_told(higher: bool) -> None:
    rng = np.random.default_rng(0)
    weather = ["rain" if index % 5 == 0 else "sun" for index in range(200)]
    good = rng.normal(0.8, 0.05, 200)
    values = [value - 0.2 if sky == "rain" else value for value, sky in zip(good, weather, strict=True)]
    if not higher:
        values = [1 - value for value in values]
    slices = found(values, higher=higher, weather=weather, noise=list(rng.random(200)))
    worst = slices[0]
    assert (worst.property, worst.values, worst.images, worst.clearly_worse) == ("weather", "rain", 40, True)
    rain = np.array(values)[np.array(weather) == "rain"]
    assert worst.mean == pytest.approx(rain.mean())
    assert worst.difference == pytest.approx(rain.mean() - np.mean(values))
    half = 1.96 * rain.std(ddof=1) / np.sqrt(40)
    assert (worst.low, worst.high) == pytest.approx((worst.mean - half, worst.mean + half), abs=0.004)
    assert not by_name(slices, "weather")["sun"].clearly_worse
    assert len(by_name(slices, "noise")) == 4
    order = [item.mean for item in slices]
    assert order == sorted(order, reverse=not higher)
    lines = worst_lines(slices)
    assert lines[0] == f"worst slices, by iou (an image; mean of all {np.mean(values):.4f}):"
    assert lines[1].startswith("  weather rain: ")
    assert len(lines) == 3
    assert "Bonferroni" in lines[2]


def test_chance_alone_is_rarely_told() -> None:
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(20):
        slices = found(list(rng.random(120)), a=list(rng.random(120)), b=list(rng.random(120)))
        assert len(slices) == 8
        alarms += any(item.clearly_worse for item in slices)
    assert alarms <= 2
    assert worst_lines(slices) == ["slices: none of 8 is clearly worse than the whole (slices.md)"]


def test_numbers_are_cut_into_parts_of_equally_many_images() -> None:
    values = list(np.linspace(0, 1, 40))
    shares = [0.0] * 16 + [0.01 * (index + 1) for index in range(24)]
    slices = by_name(found(values, share=shares), "share")
    # Quarters end at 0, 0.04 and 0.14; the second is left with four images, which are too few.
    assert {name: item.images for name, item in slices.items()} == {"0": 16, "0.05 to 0.14": 10, "0.15 to 0.24": 10}
    assert slices["0"].mean == pytest.approx(np.mean(values[:16]))
    text = [str(share) for share in shares]  # a CSV's numbers are texts
    assert by_name(found(values, share=text), "share") == slices
    near = by_name(found(values, near=[1000 + 1e-3 * index for index in range(40)]), "near")
    assert sorted(near) == [f"1e+03 (part {part})" for part in (1, 2, 3, 4)]
    assert [item.images for item in near.values()] == [10] * 4


def test_what_cannot_be_a_slice_is_left_out() -> None:
    values = [0.5, 0.7] * 10
    assert found(values, constant=["x"] * 20, id=[f"img{index}" for index in range(20)]) == []
    many = [f"word{index // 5}" for index in range(200)]
    assert found([0.5, 0.7] * 100, words=many) == []
    # Images without the figure, without a value, and parts of fewer than five images.
    kinds = ["a"] * 8 + ["b"] * 8 + ["c"] * 2 + [""] * 2
    slices = by_name(found([np.nan, np.nan, *values[2:]], kind=kinds), "kind")
    assert {name: item.images for name, item in slices.items()} == {"a": 6, "b": 8}
    assert slices["a"].difference == pytest.approx(0)
    assert found([np.nan] * 20, kind=kinds) == []
    assert worst_lines([]) == []


def test_groups_are_slices_and_are_drawn_together() -> None:
    rng = np.random.default_rng(2)
    groups = [f"drive{index // 20}" for index in range(240)]
    values = list(np.repeat(rng.normal(0.7, 0.1, 12), 20) + rng.normal(0, 0.01, 240))
    values[100:120] = [value - 0.5 for value in values[100:120]]
    side = ["left" if index % 20 < 10 else "right" for index in range(240)]
    slices = found(values, groups=groups, side=side)
    assert (slices[0].property, slices[0].values, slices[0].clearly_worse) == ("group", "drive5", True)
    alone = found(values, side=side)
    width = {name: item.high - item.low for name, item in by_name(slices, "side").items()}
    narrow = {name: item.high - item.low for name, item in by_name(alone, "side").items()}
    assert width["left"] > 1.8 * narrow["left"]  # twelve drives, not 120 images


def test_files_of_slices(tmp_path: Path) -> None:
    slices = found([0.1, 0.12] * 10 + [0.9, 0.95] * 10, kind=["dark"] * 20 + ["bright"] * 20)
    write_slices(tmp_path, slices)
    rows = read_rows(tmp_path / "slices.csv")
    assert [(row["values"], row["clearly_worse"]) for row in rows] == [("dark", "True"), ("bright", "False")]
    page = (tmp_path / "slices.md").read_text()
    assert "| kind | dark | 20 | 0.1100 |" in page
    write_slices(tmp_path, [])
    assert not list(tmp_path.iterdir())


def test_properties_of_images_and_depth() -> None:
    assert brightness(np.full((2, 2, 3), 51, dtype=np.uint8)) == pytest.approx(0.2)
    assert brightness(np.full((2, 2, 3), 65535, dtype=np.uint16)) == pytest.approx(1)
    target = DepthTarget.model_validate({"kind": "depth", "stored": "uint16", "scale": 0.001, "maximum_m": 10.0})
    task = DepthTask(target, LossSection(name="silog"), InferenceSection())
    depth_hw = np.linspace(1, 9, 101, dtype=np.float32)[None]
    depth_hw = np.concatenate([depth_hw, np.full_like(depth_hw, np.nan)])
    told = task.properties(depth_hw)
    assert list(told.values()) == pytest.approx([5, 7.2], abs=1e-4)
    assert all(np.isnan(value) for value in task.properties(np.full((2, 2), np.nan, dtype=np.float32)).values())


def test_an_evaluation_writes_slices_and_says_who_chose(tiny_run: Run, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.path, tmp_path / "grid" / "run")
    run = Run(tmp_path / "grid" / "run")
    predictor = Predictor.from_run(run)
    asked = dict.fromkeys(["epoch", "minimum_area", "temperature", "threshold"], "val")
    assert choices(run, predictor) == asked
    result = api.evaluate(run.path, subset="train")  # 12 images; the others have too few for slices
    assert result["protocol"]["chosen"] == asked
    assert "chosen on val, not on these images: epoch, minimum_area, temperature, threshold" in result["table"]
    properties = {row["property"] for row in read_rows(run.evaluation_dir("train") / "slices.csv")}
    assert properties <= {"brightness", "share of salt", "z"}
    write_json(tmp_path / "grid" / "grid.json", {"best": "run"})
    assert list(choices(run, predictor)) == ["model", *asked]
    write_json(tmp_path / "grid" / "grid.json", {"best": "other"})
    assert list(choices(run, predictor)) == list(asked)
