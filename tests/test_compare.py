"""Comparisons say better, worse, or not to be told apart; a fine-tuning is compared with what it began from."""

from __future__ import annotations

import json
import math
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perpixel import api
from perpixel.console import Console
from perpixel.errors import RequestError
from perpixel.evaluation.compare import compare_scored
from perpixel.evaluation.configurations import Configuration, Scored, configurations, shared_title
from perpixel.images import read_image
from perpixel.run import Run, read_json
from test_depth_task import depth_recipe, write_tiny_depth
from tiny import tiny_recipe, write_tiny


def scored(
    title: str, values: Any, *, images: int | None = None, groups: dict[str, str] | None = None
) -> Configuration:
    rows = {f"{number:03}": {"score": str(value), "error": str(1 - value)} for number, value in enumerate(values)}
    meaning = {
        "error": {"averaging": "mean over images", "direction": "lower"},
        "score": {"averaging": "mean over images", "direction": "higher"},
        "pixels": {"averaging": "sum over all valid pixels of the subset", "direction": "higher"},
        "scale": {"averaging": "mean over images", "direction": "neither"},
    }
    protocol = {"pairs": "test", "images": images or len(rows), "size": "original", "fingerprint": "x"}
    figures = {"score": float(np.mean(values)), "error": 1 - float(np.mean(values))}
    return Configuration(title, [Scored(title, protocol, figures, meaning, rows, groups or {})])


def test_a_clear_gain_is_better_by_either_direction() -> None:
    rng = np.random.default_rng(0)
    first = rng.uniform(0.3, 0.8, 60)
    found = compare_scored([scored("old", first), scored("new", first + rng.normal(0.05, 0.03, 60))], "score")
    assert [item.figure for item in found] == ["score", "error"], (
        "the monitored leads; no pixels, nothing without an end"
    )
    assert [item.verdict for item in found] == ["better", "better"]
    assert found[0].sentence().startswith("new is better than old: score")
    assert found[0].difference.mean > 0 > found[1].difference.mean


def test_a_small_sample_is_not_told_apart_and_says_how_many_would() -> None:
    rng = np.random.default_rng(1)
    first = rng.uniform(0.3, 0.8, 12)
    item = compare_scored([scored("a", first), scored("b", first + rng.normal(0.005, 0.05, 12))], "score")[0]
    assert item.verdict == "not to be told apart"
    assert "cannot be told apart on this much data" in item.sentence()
    json.dumps(item.as_dict(), allow_nan=False)


def test_many_comparisons_are_corrected() -> None:
    rng = np.random.default_rng(2)
    first = rng.uniform(0.3, 0.8, 40)
    runs = [scored(name, first + rng.normal(shift, 0.05, 40)) for name, shift in (("a", 0), ("b", 0.02), ("c", 0.0))]
    items = [item for item in compare_scored(runs, "score") if item.figure == "score"]
    assert len(items) == 3
    assert all(item.corrected_p >= item.difference.p_value for item in items)
    assert any(item.corrected_p > item.difference.p_value for item in items)


def test_groups_count_as_one_witness() -> None:
    first = np.full(40, 0.5)
    second = first + np.repeat([0.1, -0.05, 0.08, 0.02], 10)
    groups = {f"{number:03}": f"scene{number // 10}" for number in range(40)}
    alone = compare_scored([scored("a", first), scored("b", second)], "score")[0]
    together = compare_scored([scored("a", first, groups=groups), scored("b", second, groups=groups)], "score")[0]
    assert alone.verdict == "better"
    assert together.verdict == "not to be told apart"
    assert "40 images in 4 groups); fewer than six groups never can" in together.sentence()


def seeds_of(title: str, *runs: Any) -> Configuration:
    return Configuration(title, [run.runs[0] for run in (scored(title, values) for values in runs)])


def test_the_spread_of_seeds_stands_beside_that_of_images() -> None:
    rng = np.random.default_rng(5)
    image = rng.uniform(0.3, 0.8, 60)
    noise = rng.normal(0, 0.01, (4, 60))
    first = seeds_of("old (2 seeds)", image - 0.05 + noise[0], image + 0.05 + noise[1])
    second = seeds_of("new (2 seeds)", image - 0.03 + noise[2], image + 0.07 + noise[3])
    item = compare_scored([first, second], "score")[0]
    assert item.first_value == pytest.approx(np.mean([image - 0.05 + noise[0], image + 0.05 + noise[1]]))
    assert item.difference.decided, "by these very trainings it is clear"
    assert item.verdict == "not to be told apart", "but other seeds could give anything"
    assert item.trained is not None
    spread = f"{item.trained.first_spread:.4f} and {item.trained.second_spread:.4f}"
    assert f"trainings that differ by seed spread by {spread}" in item.sentence()
    assert "more images alone never" in item.sentence()
    assert item.interval[0] < item.difference.low < item.difference.high < item.interval[1]
    json.dumps(item.as_dict(), allow_nan=False)


def test_pairs_that_are_asked_for() -> None:
    each = [scored(name, np.random.default_rng(number).uniform(0, 1, 20)) for number, name in enumerate("abc")]
    found = compare_scored(each, "score", pairs=[(0, 1), (0, 2)])
    assert [(item.figure, item.first, item.second) for item in found] == [("score", "a", "b"), ("score", "a", "c")]


def stored_run(folder: Path, *settings: str, fingerprint: str = "x") -> Run:
    run = Run(folder)
    run.write_recipe(tiny_recipe(folder, *settings))
    run.update_manifest(data={"fingerprint": fingerprint})
    return run


def test_runs_that_differ_by_their_seed_alone_are_one_configuration(tmp_path: Path) -> None:
    def run(name: str, *settings: str, **facts: str) -> Run:
        return stored_run(tmp_path / name, "data.root=data", *settings, **facts)

    bce = [run(f"bce-{seed}", f"training.seed={seed}", f"training.threads={seed + 1}") for seed in (0, 1)]
    dice = [run(f"dice-{seed}", f"training.seed={seed}", "loss.name=dice") for seed in (0, 1)]
    assert configurations([bce[0], dice[0], bce[1], dice[1]]) == [[0, 2], [1, 3]]
    assert configurations([*bce, dice[0]]) == [[0, 1], [2]]
    assert configurations(bce) == [[0], [1]], "one configuration could be compared with nothing"
    again = run("bce-again", "training.seed=0")
    assert configurations([*bce, again, dice[0]]) == [[0], [1], [2], [3]], "a seed occurs twice: not seeds alone"
    other = run("bce-other", "training.seed=2", fingerprint="y")
    assert configurations([*bce, other]) == [[0, 1], [2]]


def test_titles_of_configurations() -> None:
    assert shared_title(["salt"]) == "salt"
    assert shared_title(["bce-seed0", "bce-seed1"]) == "bce (2 seeds)"
    assert shared_title(["bce", "bce-seed43"]) == "bce (2 seeds)"
    assert shared_title(["a", "b"]) == "a and 1 more seeds"


def test_other_images_are_refused() -> None:
    with pytest.raises(RequestError, match="not scored on the same images") as caught:
        compare_scored([scored("a", [0.5, 0.6]), scored("b", [0.5, 0.6, 0.7])], "score")
    assert "only one of them has 002" in caught.value.text()


def test_two_runs_by_the_command(tmp_path: Path) -> None:
    root = write_tiny(tmp_path / "data", count=12)
    runs = [
        api.train(
            tiny_recipe(root, f"training.epochs={epochs}", f"training.seed={epochs}"), run=tmp_path / f"e{epochs}"
        )
        for epochs in (1, 2)
    ]
    result = api.compare([run.path for run in runs], subset="val", console=Console())
    items = result["val"]
    assert items[0].figure == runs[0].recipe.training.monitor
    assert {(item.first, item.second) for item in items} == {("e1", "e2")}
    values = [read_json(run.evaluation_dir("val") / "metrics.json")["figures"][items[0].figure] for run in runs]
    assert items[0].difference.mean == pytest.approx(values[1] - values[0])
    assert items[0].sentence() in result.table()
    assert escape(items[0].sentence()) in result._repr_html_()
    assert f"{values[0]:.4f}" in runs[0]._repr_html_()
    with pytest.raises(RequestError, match="one run cannot be compared"):
        api.compare([runs[0].path], console=Console())


def test_no_epoch_is_the_starting_weights_scored(tmp_path: Path) -> None:
    root = write_tiny_depth(tmp_path / "data")
    first = api.train(depth_recipe(root), run=tmp_path / "first")
    again = depth_recipe(root, f"model.weights={first.path}", "training.epochs=0")
    second = api.train(again, run=tmp_path / "second")
    figures = [read_json(run.evaluation_dir("val") / "metrics.json")["figures"] for run in (first, second)]
    assert figures[0] == figures[1]
    assert second.read_history() == []


def test_before_and_after_a_fine_tuning(tmp_path: Path) -> None:
    root = write_tiny_depth(tmp_path / "data", count=20)
    recipe = tmp_path / "recipe.yaml"
    from perpixel.recipe import dump_recipe

    recipe.write_text(dump_recipe(depth_recipe(root, "split.test=0.3", "training.epochs=15")))
    folder = api.before_after(recipe, run=tmp_path / "run", console=Console())
    stored = read_json(folder / "before_after.json")["test"]
    leading = stored[0]
    assert leading["figure"] == "abs_rel_per_image"
    assert (leading["first"], leading["second"]) == ("before", "after")
    assert math.isclose(leading["second_value"] - leading["first_value"], leading["difference"]["mean"], abs_tol=1e-9)
    assert leading["verdict"] == "better", leading["sentence"]
    assert read_image(folder / "panels.png").pixels_hwc.shape[1] > 600
    assert (folder / "curves.png").is_file()
    assert Run(folder / "before").read_history() == []
    with pytest.raises(RequestError, match="not empty"):
        api.before_after(recipe, run=tmp_path / "run", console=Console())
    with pytest.raises(RequestError, match="leaves no test images"):
        api.before_after(recipe, overrides=["split.test=0.0"], run=tmp_path / "other", console=Console())
