"""Several data sets and runs in one table, data of another layout, and a training that begins with a run's weights."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from perpixel import api
from perpixel.console import Console
from perpixel.errors import DataError, RecipeError, RequestError
from perpixel.evaluation.evaluate import Evaluation, read_evaluation
from perpixel.evaluation.several import _drop
from perpixel.evaluation.tables import figures_table, text_table
from perpixel.images import read_image, read_label_map, write_image, write_label_map
from perpixel.inference.predictor import Predictor
from perpixel.metrics import MetricInfo, SegmentationMetrics
from perpixel.run import Run
from tiny import tiny_recipe, weights, write_tiny


@pytest.fixture
def run(tiny_run: Run, tmp_path: Path) -> Run:
    """A copy of the tiny run that may be written to."""
    return Run(shutil.copytree(tiny_run.path, tmp_path / "run"))


def document(run: Run) -> tuple[dict[str, Any], str]:
    folder = run.path / "evaluation"
    return json.loads((folder / "several.json").read_text()), (folder / "several.md").read_text()


def relaid(source: Path, out: Path, values: tuple[int, int] = (3, 9), subsets: tuple[str, ...] = ()) -> Path:
    """The pairs of a tiny data set under other names, with other raw values."""
    for number, path in enumerate(sorted((source / "train/images").iterdir())):
        below = out / subsets[number % len(subsets)] if subsets else out
        mask_hw = read_label_map(source / "train/masks" / path.name).values_hw
        assert mask_hw is not None
        write_image(below / "photos" / path.name, read_image(path).pixels_hwc)
        write_label_map(below / "labels" / path.name, np.where(mask_hw > 0, values[1], values[0]))
    return out


def described(file: Path, run: Run, root: Path, **target: Any) -> Path:
    """A recipe file of `relaid` data."""
    classes = [{"name": "rock", "values": [3], "color": [0, 0, 0]}, {"name": "salt", "values": [9], "color": [9, 9, 9]}]
    values = {
        "name": "real",
        "data": {"root": str(root), "images": "photos/{id}.png", "targets": "labels/{id}.png"},
        "target": {"kind": "segmentation", "classes": classes} | target,
    }
    file.write_text(yaml.safe_dump(values))
    return file


# ---------------------------------------------------------------- tables


def test_each_data_set_is_a_row_with_its_drop(run: Run, tmp_path: Path) -> None:
    others = [write_tiny(tmp_path / name, count=6, seed=seed) for name, seed in (("b", 3), ("c", 4))]
    result = api.evaluate(run.path, subset="test", data=others)
    stored, page = document(run)
    assert stored["rows"] == result["rows"]
    source, b, c = result["rows"]
    assert [row["evaluation"] for row in result["rows"]] == ["test", "data-b", "data-c"]
    assert [row["source"] for row in result["rows"]] == [True, False, False]
    for row, figures in ((source, api.evaluate(run.path, subset="test")), (b, api.evaluate(run.path, data=others[0]))):
        assert row["figures"] == {key: None if math.isnan(v) else v for key, v in figures["figures"].items()}
    assert source["drop"] == {}
    for row in (b, c):
        for key in ("iou_per_image", "mean_iou", "iou/salt"):
            assert row["drop"][key] == pytest.approx(source["figures"][key] - row["figures"][key])
        assert not any(key.startswith("mean_confidence") for key in row["drop"])
        stored_alone = read_evaluation(run, row["evaluation"])
        assert stored_alone is not None and stored_alone["figures"] == row["figures"]
    lines = result["table"].splitlines()
    assert max(map(len, lines[:6])) <= 120
    head = next(number for number, line in enumerate(lines) if line.startswith("run "))
    monitor = f"{b['figures']['iou_per_image']:.4f}", f"{b['drop']['iou_per_image']:+.4f}"
    assert lines[head + 1].split()[:5] == ["run", source["data"], "(source)", "test", "4"]
    assert lines[head + 2].split()[:6] == ["run", "b", "all", "6", *monitor]
    assert f"| run | b | all | 6 | {monitor[0]} ({monitor[1]}) |" in page
    assert "## iou of each class" in page and str(others[1]) in page
    assert "chosen on" not in page


def test_the_first_monitored_figure_leads_and_lower_is_better_where_it_is() -> None:
    infos = {
        "error": MetricInfo("", "m", "lower", "", ""),
        "score": MetricInfo("", "", "higher", "", ""),
        "share": MetricInfo("", "", "neither", "", ""),
    }
    source = Evaluation({"error": 1.0, "score": 0.75, "share": 0.5}, [], infos)
    other = Evaluation({"error": 1.5, "score": 1.0, "share": 0.1}, [], infos)
    assert _drop(source, other) == {"error": 0.5, "score": -0.25}


def test_the_runs_own_data_among_the_others_are_its_source(run: Run, tmp_path: Path) -> None:
    moved = shutil.copytree(run.recipe.data.root or "", tmp_path / "moved")
    recipe = run.recipe.model_copy(update={"data": run.recipe.data.model_copy(update={"root": str(tmp_path / "gone")})})
    run.write_recipe(recipe)
    other = write_tiny(tmp_path / "b", count=6, seed=3)
    with pytest.raises(DataError, match=r"gone.*does not exist.*\n.*--data DIR"):
        api.evaluate(run.path, data=[other, tmp_path / "b" / ".." / "b", write_tiny(tmp_path / "c", count=6)])
    result = api.evaluate(run.path, data=[other, moved, tmp_path / "b" / ".." / "b"])
    assert [(row["evaluation"], row["source"]) for row in result["rows"]] == [("val", True), ("data-b", False)]
    assert "epoch, minimum_area, temperature, threshold chosen on the source's very images" in result["table"]


def test_folders_of_one_name_do_not_replace_each_other(run: Run, tmp_path: Path) -> None:
    first, second, third = (
        write_tiny(tmp_path / name / "b", count=6, seed=number) for number, name in enumerate("xyz")
    )
    names = [row["evaluation"] for row in api.evaluate(run.path, data=[first, second])["rows"]]
    assert names == ["val", "data-b", "data-b-2"]
    assert api.evaluate(run.path, data=third)["protocol"]["subset"] == "data-b-3"
    assert api.evaluate(run.path, data=second)["protocol"]["subset"] == "data-b-2"
    stored = read_evaluation(run, "data-b-2")
    assert stored is not None and stored["protocol"]["data"] == str(second)


def test_several_runs_are_compared_row_by_row(run: Run, tmp_path: Path) -> None:
    twin = Run(shutil.copytree(run.path, tmp_path / "else" / "run"))
    result = api.evaluate([run.path, twin.path, run.path])
    assert [row["run"] for row in result["rows"]] == [str(run.path), str(twin.path)]
    assert result["rows"][0]["figures"] == result["rows"][1]["figures"]
    assert document(run) == document(twin)
    shutil.move(twin.path, tmp_path / "twin")
    other = write_tiny(tmp_path / "b", count=6, seed=3)
    rows = api.evaluate([run.path, tmp_path / "twin"], data=[other])["rows"]
    assert [(row["run"], row["evaluation"]) for row in rows] == [
        (name, data) for name in ("run", "twin") for data in ("val", "data-b")
    ]


def test_runs_without_a_common_figure_are_refused(run: Run, tmp_path: Path) -> None:
    twin = Run(shutil.copytree(run.path, tmp_path / "twin"))
    recipe = run.recipe
    classes = (recipe.target.classes[0], recipe.target.classes[1].model_copy(update={"name": "dome"}))
    training = recipe.training.model_copy(update={"monitor": "iou/dome"})
    twin.write_recipe(
        recipe.model_copy(
            update={"target": recipe.target.model_copy(update={"classes": classes}), "training": training}
        )
    )
    with pytest.raises(RequestError, match=r"twin.*no figure in common"):
        api.evaluate([twin.path, run.path])


def test_many_classes_make_a_table_of_classes() -> None:
    metrics = SegmentationMetrics(["sky", "road/path", "log"])
    target_hw = np.array([[0, 0, 1, 1]], dtype=np.uint8)
    confidence_hw = np.full((1, 4), 0.5, dtype=np.float32)
    metrics.update(np.array([[0, 0, 0, 1]], dtype=np.uint8), target_hw, np.ones((1, 4), dtype=bool), confidence_hw)
    evaluation = Evaluation(metrics.compute(), [], metrics.infos())
    protocol = {"subset": "val", "images": 1, "decision": {}, "chosen_on_this_subset": []}
    head, table = figures_table(evaluation, protocol, "iou/road/path").split("\n\n")
    assert head.splitlines()[2].split()[:2] == ["iou/road/path", "0.5000"]  # what is monitored leads
    assert sum("/" in line.split()[0] for line in head.splitlines() if line.strip()) == 1
    lines = table.splitlines()
    assert lines[0] == "in parts (sum over all valid pixels of the subset):"
    rows = {line.split()[0]: line.split()[1:] for line in lines[-3:]}
    columns = [key.removesuffix("/sky") for key in evaluation.figures if key.endswith("/sky")]
    for name, cells in rows.items():
        for column, cell in zip(columns, cells, strict=True):
            value = evaluation.figures[f"{column}/{name}"]
            assert cell == ("-" if math.isnan(value) else f"{value:.4f}"), (column, name)
    assert len({len(line) for line in lines[-3:]}) == 1
    assert [word for word in " ".join(lines[1:-3]).split() if word == "iou"] == ["iou"]


def test_long_headings_are_broken_at_their_words() -> None:
    assert text_table(["run", "mean_iou_all_classes"], [["a", "0.5"], ["long", "0.25"]]) == [
        "         mean iou",
        "run   all classes",
        "a             0.5",
        "long         0.25",
    ]


# ---------------------------------------------------------------- which pairs


def test_another_layout_is_told_by_a_recipe_file(run: Run, tmp_path: Path) -> None:
    other = write_tiny(tmp_path / "plain", count=6, seed=3)
    file = described(tmp_path / "real.yaml", run, relaid(other, tmp_path / "relaid"))
    plain, real = (row for row in api.evaluate(run.path, data=[other, file])["rows"] if not row["source"])
    assert (real["data"], real["evaluation"]) == ("real", "data-real")
    assert real["protocol"]["recipe"] == str(file)
    assert real["figures"] == plain["figures"]
    # The same recipe name for other data, later.
    (tmp_path / "second").mkdir()
    second = described(tmp_path / "second" / "real.yaml", run, relaid(other, tmp_path / "relaid-2"))
    assert api.evaluate(run.path, data=second)["protocol"]["subset"] == "data-real-2"


def test_a_run_evaluated_by_its_own_recipe_is_evaluated_on_its_subset(run: Run) -> None:
    assert api.evaluate(run.path, data=run.recipe_path)["protocol"]["subset"] == "val"


def test_of_data_with_subsets_the_one_asked_for_is_scored(run: Run, tmp_path: Path) -> None:
    other = relaid(write_tiny(tmp_path / "plain", count=9, seed=3), tmp_path / "r", subsets=("train", "valid", "test"))
    file = described(tmp_path / "real.yaml", run, other)
    values = yaml.safe_load(file.read_text())
    values["data"] |= {"images": "{subset}/photos/{id}.png", "targets": "{subset}/labels/{id}.png"}
    file.write_text(yaml.safe_dump(values))
    stream = io.StringIO()
    result = api.evaluate(run.path, data=file, console=Console(stream))
    assert (result["protocol"]["subset"], result["protocol"]["images"]) == ("data-real-val", 3)
    assert result["protocol"]["pairs"] == "val" and not stream.getvalue()
    shutil.rmtree(other / "test")
    result = api.evaluate(run.path, subset="test", data=file, console=Console(stream))
    assert (result["protocol"]["subset"], result["protocol"]["images"]) == ("data-real", 6)
    assert "all 6 pairs, for these data name no subset 'test'" in stream.getvalue()


def test_wrong_data_are_answered_with_the_cure(run: Run, tmp_path: Path) -> None:
    other = relaid(write_tiny(tmp_path / "plain", count=6, seed=3), tmp_path / "relaid")

    def refused(data: Path, error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            api.evaluate(run.path, data=data)

    classes = [{"name": name, "values": [value], "color": [value] * 3} for name, value in (("salt", 9), ("rock", 3))]
    refused(
        described(tmp_path / "a.yaml", run, other, classes=classes), RequestError, "(?s)run's: rock, salt.*: salt, rock"
    )
    classes[0]["values"] = [8]
    refused(
        described(tmp_path / "b.yaml", run, other, classes=classes[::-1]), DataError, "(?s)not in the class map: 9 "
    )
    file = described(tmp_path / "c.yaml", run, other)
    file.write_text(file.read_text().replace(f"root: {other}", "root: null"))
    refused(file, RequestError, "c.yaml: this recipe names no data folder")
    file.write_text("name: [")
    refused(file, RecipeError, "not valid YAML")
    refused(tmp_path / "no.yaml", RecipeError, "no file has this name")
    refused(tmp_path / "nowhere", DataError, "does not exist")
    refused(run.best_path, RequestError, "(?s)best.safetensors: this is a file.*recipe file")
    refused(run.path, RequestError, r"(?s)folder of a run, not of data.*--data .*run/recipe\.yaml")
    refused(other, DataError, "no image matches")
    before = sorted(path.name for path in (run.path / "evaluation").iterdir())
    with pytest.raises(RequestError, match="folder of a run"):
        api.evaluate(run.path, data=[write_tiny(tmp_path / "good", count=4), run.path])
    assert sorted(path.name for path in (run.path / "evaluation").iterdir()) == before  # told before anything is scored


# ---------------------------------------------------------------- fine-tuning


SHORT = ("training.epochs=1", "split.method=random", "split.order_column=null")


def test_a_training_begins_with_the_weights_of_a_run(run: Run, tmp_path: Path) -> None:
    real = write_tiny(tmp_path / "real", count=8, seed=5)
    source = str(run.path)
    still = "optimizer.learning_rate=1e-12"
    stream = io.StringIO()
    tuned = api.train(
        tiny_recipe(real, *SHORT, still, f"model.weights={source}"), run=tmp_path / "tuned", console=Console(stream)
    )
    facts = tuned.manifest["weights"]
    assert facts["source"] == "file, whole model" and not facts["missing"] and not facts["unexpected"]
    assert facts["run"] == {
        "path": source,
        "recipe": "salt",
        "best_epoch": run.manifest["best_epoch"],
        "data": run.manifest["data"]["root"],
        "data_fingerprint": run.manifest["data"]["fingerprint"],
        "split": "random",
    }
    assert f"weights of the run {source} (recipe salt), best epoch" in stream.getvalue()
    before, after = weights(run.best_path), weights(tuned.best_path)
    kernels = [name for name in before if name.endswith("weight")]
    assert max(float(np.abs(before[name] - after[name]).max()) for name in kernels) < 1e-6
    rows = api.evaluate([run.path, tuned.path], data=[real, run.recipe.data.root or ""])["rows"]
    assert [(row["run"], row["source"]) for row in rows] == [
        ("run", True), ("run", False), ("tuned", True), ("tuned", False)
    ]  # fmt: skip
    # Each data set's pairs are the same for both runs: those of the run whose data they are.
    assert [(row["protocol"]["pairs"], row["protocol"]["images"]) for row in rows] == [
        ("val", 4), ("val of tuned", 2), ("val", 2), ("val of run", 4)
    ]  # fmt: skip
    assert not any("trained on" in note for row in rows for note in row["notes"])
    alone = api.evaluate(tuned.path, data=run.recipe.data.root)
    assert alone["protocol"]["images"] == 20 and alone["protocol"]["pairs"] == "all"
    assert "weights of" in alone["table"] and "which were trained on part of these data" in alone["table"]
    shutil.rmtree(run.path)
    assert Predictor.from_run(tuned)


def test_classes_of_another_number_get_a_fresh_head_and_it_is_said(run: Run, tmp_path: Path) -> None:
    classes = [
        {"name": name, "values": [value], "color": [value % 251] * 3}
        for name, value in zip("abc", (0, 65535, 7), strict=True)
    ]
    real = write_tiny(tmp_path / "real", count=8, seed=5)
    stream = io.StringIO()
    tuned = api.train(
        tiny_recipe(
            real,
            *SHORT,
            f"model.weights={run.path}",
            f"target.classes={json.dumps(classes)}",
            "loss.name=cross_entropy",
        ),
        run=tmp_path / "tuned",
        console=Console(stream),
    )
    facts = tuned.manifest["weights"]
    assert sorted(facts["missing"]) == sorted(facts["unexpected"])
    assert all("head" in name for name in facts["missing"]) and len(facts["missing"]) == 2
    assert "of another shape there, so random: network.segmentation_head" in stream.getvalue()


def test_a_grid_stands_for_its_best_run(run: Run, tmp_path: Path) -> None:
    from perpixel.training.starting import starting_weights

    shutil.copytree(run.path, tmp_path / "grid" / "cell")
    (tmp_path / "grid" / "grid.json").write_text('{"best": "cell"}')
    file, source = starting_weights(str(tmp_path / "grid"))
    assert file == str(tmp_path / "grid/cell/checkpoints/best.safetensors")
    assert source is not None and source.path == str(tmp_path / "grid/cell")
    for plain in ("none", "imagenet", str(run.best_path), "nowhere"):
        assert starting_weights(plain) == (plain, None)


def test_weights_of_what_is_no_finished_run_are_refused_at_once(run: Run, tiny_data: Path, tmp_path: Path) -> None:
    def refused(match: str, source: Path) -> None:
        with pytest.raises(RequestError, match=match):
            api.train(tiny_recipe(tiny_data, *SHORT, f"model.weights={source}"), run=tmp_path / "tuned")

    run.update_manifest(status="interrupted")
    refused(r"(?s)model\.weights = .*run: this run is not finished.*--resume --run .*best\.safetensors", run.path)
    run.best_path.unlink()
    refused(r"(?s)not finished.*--resume --run \S*run\.$", run.path)
    refused("holds no run", tiny_data)
    assert not (tmp_path / "tuned").exists()
    refused("(?s)no such file of weights.*folder of a run", tmp_path / "nowhere")
