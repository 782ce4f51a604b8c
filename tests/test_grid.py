"""A grid: its cells, its table, its plot, its best, and its failures."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perpixel.console import Console
from perpixel.errors import DataError, RequestError, RunError
from perpixel.evaluation.evaluate import read_evaluation
from perpixel.experiments import grid as room
from perpixel.experiments.cells import grid_cells
from perpixel.experiments.grid import run_grid
from perpixel.images import read_image
from perpixel.run import Run, read_rows, write_rows
from tiny import TINY_SETTINGS

VARY = ("loss.name=bce_dice,lovasz",)
SETTINGS = (
    *TINY_SETTINGS,
    "training.epochs=2",
    "split.method=random",
    "split.order_column=null",
    "split.test=0.2",
)


def grid(folder: Path, data: Path, *vary: str, resume: bool = False, settings: tuple[str, ...] = ()) -> None:
    run_grid(
        "salt",
        vary or VARY,
        folder,
        data=data,
        overrides=[*SETTINGS, *settings],
        resume=resume,
        console=Console(),
    )


@pytest.fixture(scope="module")
def finished(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grid") / "grid"
    grid(folder, tiny_data)
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "grid"))


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_results_of_a_grid(finished: Path) -> None:
    rows = table(finished)
    assert sorted(row["cell"] for row in rows) == ["bce_dice", "lovasz"]
    figures = [float(row["val iou_per_image"]) for row in rows]
    assert figures == sorted(figures, reverse=True)
    for row in rows:
        assert row["loss.name"] == row["cell"]
        for subset in ("val", "test"):
            stored = read_evaluation(Run(finished / row["cell"]), subset)
            assert stored is not None
            assert float(row[f"{subset} iou_per_image"]) == round(stored["figures"]["iou_per_image"], 4)
            assert float(row[f"{subset} competition_score"]) == round(stored["figures"]["competition_score"], 4)
        assert 1 <= int(row["best epoch"]) <= 2
        assert int(row["parameters"]) > 1000
    described = json.loads((finished / "grid.json").read_text())
    assert described["best"] == rows[0]["cell"]
    assert described["cells"] == {"bce_dice": ["loss.name=bce_dice"], "lovasz": ["loss.name=lovasz"]}
    assert [row["state"] for row in rows] == ["finished", "finished"]
    assert float(rows[0]["operations"]) > 1e6
    assert float(rows[0]["latency_ms"]) > 0
    markdown = (finished / "table.md").read_text()
    assert f"Of 2 configurations `loss.name={rows[0]['cell']}` has the best iou_per_image" in markdown
    assert f"| 1 | {rows[0]['cell']} | {figures[0]:.4f} |" in markdown
    assert "Figures of test, where there are any, are the honest ones" in markdown
    assert "what another seed alone would change is not known" in markdown
    page = (finished / "table.html").read_text()
    assert all(f"<td>{row['parameters'][0]}," in page for row in rows)
    assert read_image(finished / "curves.png").pixels_hwc.std() > 5


def test_the_grid_stands_for_its_best_run(finished: Path, copied: Path) -> None:
    described = json.loads((finished / "grid.json").read_text())
    assert Run.open(finished).path == finished / described["best"]
    (copied / "grid.json").write_text(json.dumps(described | {"best": "lovasz"}))
    assert Run.open(copied).recipe.loss.name == "lovasz"


def test_resume_trains_what_is_missing_and_nothing_else(copied: Path, tiny_data: Path) -> None:
    shutil.rmtree(copied / "lovasz")
    (copied / "table.csv").unlink()
    before = {path: path.stat().st_mtime_ns for path in (copied / "bce_dice" / "checkpoints").iterdir()}
    with pytest.raises(RequestError, match="not empty"):
        grid(copied, tiny_data)
    grid(copied, tiny_data, resume=True)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(table(copied)) == 2


def test_a_cell_that_fails_is_reported_and_the_others_are_trained(
    finished: Path, copied: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("table.csv", "grid.json"):
        (copied / name).unlink()
    original = room.train

    def failing(recipe: Any, folder: Path, **options: Any) -> Run:
        if folder.name == "bce_dice":
            raise RunError("the loss was not finite", where=folder)
        return original(recipe, folder, **options)

    shutil.rmtree(copied / "bce_dice")
    monkeypatch.setattr(room, "train", failing)
    with pytest.raises(RunError, match="1 of 2 cells failed") as caught:
        grid(copied, tiny_data, resume=True)
    assert caught.value.details == [f"bce_dice: {copied / 'bce_dice'}: the loss was not finite"]
    assert [(row["cell"], row["state"]) for row in table(copied)] == [
        ("lovasz", "finished"),
        ("bce_dice", f"failed: {copied / 'bce_dice'}: the loss was not finite"),
    ]
    assert "**Beware:** 1 run is not finished" in (copied / "table.md").read_text()
    assert Run.open(copied).path.name == "lovasz"


def test_an_unknown_encoder_does_not_take_the_others_down(tmp_path: Path, tiny_data: Path) -> None:
    with pytest.raises(RunError, match="1 of 2 cells failed") as caught:
        grid(
            tmp_path / "grid",
            tiny_data,
            "model.encoder=nonsense,mobilenetv3_small_050",
            settings=("training.epochs=1", "split.test=0.0"),
        )
    assert "no such encoder" in caught.value.details[0]
    row, failed = table(tmp_path / "grid")
    assert (row["cell"], row["state"]) == ("mobilenetv3_small_050", "finished")
    assert failed["state"].startswith("failed: ")
    assert not any(column.startswith("test") for column in row)


def test_an_interruption_ends_the_grid(tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def interrupted(recipe: Any, folder: Path, **options: Any) -> Run:
        begun.append(folder.name)
        Run(folder).update_manifest(status="interrupted")
        raise RunError("interrupted after 1 of 2 epochs")

    monkeypatch.setattr(room, "train", interrupted)
    with pytest.raises(RunError, match="interrupted after"):
        grid(tmp_path / "grid", tiny_data)
    assert begun == ["bce_dice"]


def test_data_that_are_wrong_end_the_grid_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        grid(tmp_path / "grid", tmp_path / "nowhere")


def test_figures_that_are_undefined_come_last(copied: Path) -> None:
    """The figure of a class that is nowhere is null."""
    recipes = {name: Run(copied / name).recipe for name in ("bce_dice", "lovasz")}
    path = Run(copied / "bce_dice").evaluation_dir("val") / "metrics.json"
    stored = json.loads(path.read_text())
    stored["figures"]["iou_per_image"] = None
    path.write_text(json.dumps(stored))
    shutil.rmtree(Run(copied / "lovasz").evaluation_dir("test"))
    room.write_results(copied, {name: [f"loss.name={name}"] for name in recipes}, recipes, ["perpixel", "grid", "salt"])
    rows = table(copied)
    assert [row["cell"] for row in rows] == ["lovasz", "bce_dice"]
    assert rows[1]["val iou_per_image"] == ""
    assert rows[0]["test iou_per_image"] == ""
    assert rows[1]["test iou_per_image"] != ""
    assert "None" not in (copied / "table.md").read_text()


@pytest.fixture(scope="module")
def seeded(finished: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished grid, to which another seed was added; its runs are the first ones with other figures."""
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("seeded") / "grid"))

    def trained(recipe: Any, path: Path, **options: Any) -> Run:
        if path.exists():
            assert recipe.training.seed == 42, "what is trained stays"
            return Run(path)
        shutil.copytree(folder / recipe.loss.name, path)
        Run(path).write_recipe(recipe)
        for subset in ("val", "test"):
            table_path = Run(path).evaluation_dir(subset) / "per_image.csv"
            rows = read_rows(table_path)
            changed = [row | {"iou_per_image": str(0.9 * float(row["iou_per_image"]))} for row in rows]
            write_rows(table_path, changed)
            stored = json.loads((table_path.parent / "metrics.json").read_text())
            stored["figures"]["iou_per_image"] *= 0.9
            (table_path.parent / "metrics.json").write_text(json.dumps(stored))
        return Run(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "train", trained)
        grid(folder, tiny_data, *VARY, "training.seed=42,43", resume=True)
    return folder


def test_seeds_are_added_and_nothing_is_trained_again(seeded: Path) -> None:
    rows = table(seeded)
    assert sorted(row["cell"] for row in rows) == ["bce_dice", "bce_dice-seed43", "lovasz", "lovasz-seed43"]
    means = {
        name: np.mean([float(row["val iou_per_image"]) for row in rows if row["loss.name"] == name])
        for name in ("bce_dice", "lovasz")
    }
    best = max(means, key=lambda name: means[name])
    assert [row["loss.name"] for row in rows[:2]] == [best, best], "the best mean leads, not the best run"
    own = [float(row["val iou_per_image"]) for row in rows[:2]]
    assert own == sorted(own, reverse=True)
    assert json.loads((seeded / "grid.json").read_text())["best"] == rows[0]["cell"]
    text = (seeded / "table.md").read_text()
    assert f"{means[best]:.4f}, the mean of 2 seeds, which spread by {np.std(own, ddof=1):.4f}" in text
    assert "images of test and over seeds it" in text


def test_the_commands_of_a_grid_are_those_that_were_typed(seeded: Path, finished: Path) -> None:
    commands = [line for line in (seeded / "table.md").read_text().splitlines() if line.startswith("perpixel ")]
    again, more, use = map(shlex.split, commands)
    assert again[:4] == ["perpixel", "grid", "salt", "--vary"]
    assert again[-1] == "--resume"
    assert [word for word in again if word.startswith("training.seed=")] == ["training.seed=42,43"]
    assert [word for word in more if word.startswith("training.seed=")] == ["training.seed=42,43,44,45"]
    assert more.count("--vary") == 2
    assert use[:3] == ["perpixel", "predict", str(seeded)]
    assert "--vary training.seed=42,43,44 --resume" in (finished / "table.md").read_text()


def test_a_search_ranks_what_is_finished_and_tells_the_rest(copied: Path) -> None:
    cells = {name: [f"loss.name={name}"] for name in ("bce_dice", "lovasz")}
    recipes = {name: Run(copied / name).recipe for name in cells}
    Run(copied / "trial-7").write_recipe(recipes["lovasz"])
    more = {"trial-7": ["loss.name=dice"], "trial-8": ["loss.name=focal"]}
    ended = {"trial-7": "failed", "trial-8": "pruned"}
    room.write_results(copied, cells | more, recipes, ["perpixel", "search", "salt"], ended)
    assert [row["state"] for row in table(copied)] == ["finished", "finished", "failed", "pruned"]
    text = (copied / "table.md").read_text()
    assert text.startswith("# Search of 4 trials: salt")
    assert "Of 2 configurations `loss.name=" in text
    assert "1 run is not finished, and is in no ranking: trial-7 (failed). A search does not try again" in text
    assert f"perpixel train {copied}/trial-7/recipe.yaml --run {copied}/trial-7 --resume" in text


def test_a_grid_of_cells_on_other_images_is_still_told(copied: Path) -> None:
    recipes = {name: Run(copied / name).recipe for name in ("bce_dice", "lovasz")}
    path = Run(copied / "lovasz").evaluation_dir("test") / "metrics.json"
    stored = json.loads(path.read_text())
    stored["protocol"]["fingerprint"] = "other files"
    path.write_text(json.dumps(stored))
    room.write_results(copied, {name: [f"loss.name={name}"] for name in recipes}, recipes, ["perpixel", "grid", "salt"])
    assert "They are not compared image by image: " in (copied / "table.md").read_text()


def test_the_recipes_own_seed_is_in_no_name() -> None:
    vary = ["loss.name=a,b", "training.seed=0,1"]
    assert list(grid_cells(vary, 0)) == ["a", "a-seed1", "b", "b-seed1"]
    assert list(grid_cells(vary, 7)) == ["a-seed0", "a-seed1", "b-seed0", "b-seed1"]
    assert list(grid_cells(["training.seed=0,1"], 0)) == ["seed0", "seed1"]


def test_cells_of_two_axes() -> None:
    assert grid_cells(["model.encoder=a,b", "loss.name= x , y"]) == {
        "a-x": ["model.encoder=a", "loss.name=x"],
        "a-y": ["model.encoder=a", "loss.name=y"],
        "b-x": ["model.encoder=b", "loss.name=x"],
        "b-y": ["model.encoder=b", "loss.name=y"],
    }


def test_a_list_is_one_value_and_names_are_file_names() -> None:
    assert grid_cells(["input.size=[64, 64],[96,96]"]) == {
        "_64__64_": ["input.size=[64, 64]"],
        "_96_96_": ["input.size=[96,96]"],
    }
    assert list(grid_cells(["loss.name=0.5*bce + lovasz,bce", "model.weights=a/b.pth"])) == [
        "0.5_bce___lovasz-a_b.pth",
        "bce-a_b.pth",
    ]


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        (["loss.name"], "key=value,value"),
        (["loss.name="], "key=value,value"),
        (["=a,b"], "key=value,value"),
        (["loss.name=a,a"], "two cells"),
        (["loss.name=a,b", "loss.name=c"], "each key once"),
        ([], "one axis or more"),
    ],
)
def test_a_bad_axis(vary: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        grid_cells(vary)


def test_every_recipe_is_checked_before_the_first_is_trained(tmp_path: Path, tiny_data: Path) -> None:
    with pytest.raises(RequestError, match="lovas") as caught:
        grid(tmp_path / "grid", tiny_data, "loss.name=bce,lovas")
    assert "no loss is named" in caught.value.text()
    assert not (tmp_path / "grid").exists()
