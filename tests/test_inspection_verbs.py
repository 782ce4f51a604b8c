"""The verbs `inspect` and `init`, their page, and the quick look before a training."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perpixel import api, cli
from perpixel.console import Console
from perpixel.errors import DataError, RequestError
from perpixel.experiments.grid import run_grid
from perpixel.inspection import Finding
from perpixel.inspection.fixing import with_cures
from perpixel.inspection.guided import guided
from perpixel.recipe import dump_recipe, load_recipe
from perpixel.run import Run
from planted import each, shapes, with_values, write_depth, write_desert, write_lowlight
from tiny import TINY_SETTINGS, write_tiny

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def perpixel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """(status, standard output, standard error) of a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["perpixel", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return status, captured.out, captured.err

    return call


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "data", count=20)


# ---------------------------------------------------------------- the verbs


def test_a_folder_becomes_a_recipe_and_a_page(perpixel: Command, data: Path, tmp_path: Path) -> None:
    status, out, err = perpixel("inspect", data, "--report", "page.html", "--fix-recipe", "mine.yaml")
    assert status == 0
    assert "20 pairs of train/images/{id}.png" in out
    assert "written: page.html" in err
    assert load_recipe("mine.yaml").data.unlabelled == "test/images/{id}.png"
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_json_is_all_that_standard_output_holds(perpixel: Command, data: Path) -> None:
    (data / "train/masks" / "0000000003.png").write_bytes(b"")
    status, out, _ = perpixel("inspect", data, "--json")
    found = json.loads(out)
    assert status == 1
    assert [item["rule"] for item in found["findings"] if item["severity"] == "error"] == ["file-empty"]
    assert found["recipe"]["target"]["classes"][1]["values"] == [65535]


def test_mistakes_are_told(perpixel: Command, data: Path, tmp_path: Path) -> None:
    for name in ("empty", "noise/images", "noise/masks"):
        (tmp_path / name).mkdir(parents=True)
    for number in range(6):
        (tmp_path / f"noise/images/{number}.png").write_bytes(bytes([number]) * 300)
        (tmp_path / f"noise/masks/{number}.png").write_bytes(b"text")
    (tmp_path / "one").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "one" / "a.png")
    mistakes = {
        ("inspect", "dat"): "did you mean 'data'",
        ("inspect", "empty"): "no picture",
        ("inspect", "noise"): "none of the targets can be read",
        ("inspect", "one"): "belong together",
        ("inspect", "data", "--data", "data"): "--data is the data folder of a recipe",
        ("inspect", "data", "--report", "empty"): "this is a folder",
        ("inspect", "data/depths.csv"): "depths.csv",
        ("inspect", "salt"): "give --data DIR",
        ("init", "salt"): "this is no folder",
        ("init", "data", "--out", "data"): "exists already",
        ("init", "dat"): "did you mean 'data'",
    }
    for arguments, said in mistakes.items():
        status, out, err = perpixel(*arguments)
        assert (status, out) == (2, ""), arguments
        assert said in err, arguments


def test_a_recipe_is_cured(perpixel: Command, tmp_path: Path) -> None:
    recipe = with_values(write_depth(tmp_path / "depth"), target={"scale": 1.0, "maximum_m": 20_000.0})
    (tmp_path / "wrong.yaml").write_text(dump_recipe(recipe))
    status, out, err = perpixel("inspect", "wrong.yaml", "--fix-recipe", "right.yaml")
    assert status == 1
    assert "depth-unit" in out
    assert "with target: {scale: 0.001}" in err
    assert load_recipe("right.yaml").target.scale == 0.001
    assert perpixel("inspect", "right.yaml")[0] == 0


def test_only_cures_that_are_lines_of_a_recipe_are_applied() -> None:
    cures = (
        "target: {invalid: [0.0]}",
        "target: {scale: 0}",  # no recipe may hold this
        "target: {beyond: [65535]}, or invalid where they mean no reading.",
        "remove the copies.",
        "nothing: {of: this}",
        "",
    )
    recipe, done = with_cures(
        load_recipe("depth-regression"), [Finding("a", "error", "b", cure=cure) for cure in cures]
    )
    assert done == ["target: {invalid: [0.0]}"]
    assert recipe.target.invalid == (0.0,)
    assert with_cures(recipe, [Finding("a", "note", "b", cure="target: {scale: 0.5}")]) == (recipe, [])


def test_init_asks_again_until_the_answer_is_a_number(data: Path, tmp_path: Path) -> None:
    answers = iter(["mine", "ground", "salt", "many", "-1", "inf", "7"])
    asked: list[str] = []

    def ask(question: str, found: str) -> str:
        asked.append(question)
        return next(answers)

    api.init(data, tmp_path / "mine.yaml", ask=ask)
    recipe = load_recipe(tmp_path / "mine.yaml")
    assert (recipe.name, recipe.training.epochs) == ("mine", 7)
    assert [spec.name for spec in recipe.target.classes] == ["ground", "salt"]
    assert asked[-1] == "'inf' is no number from 0 on. Epochs"
    with pytest.raises(RequestError, match="exists already"):
        api.init(data, tmp_path / "mine.yaml")


def test_the_guided_form_asks_what_depth_files_do_not_tell() -> None:
    asked: list[str] = []

    def ask(question: str, found: str) -> str:
        asked.append(question)
        return found

    recipe = load_recipe("zoedepth-synthetic")
    assert guided(recipe, ask) == recipe
    assert any("white" in question for question in asked)
    assert any("field of view" in question for question in asked)


# ---------------------------------------------------------------- the page


def page_of(root: Path, tmp_path: Path) -> str:
    api.inspect(root, report=tmp_path / "page.html")
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_page_shows_each_finding_and_needs_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "<desert>"
    write_desert(root)
    each(root, "*/Segmentation/*.png", lambda values_hw: np.roll(values_hw, 6, axis=1))
    first, second = sorted((root / "train/Color_Images").iterdir())[:2]
    first.write_bytes(first.read_bytes()[:400])
    shutil.copy(second, root / "val/Color_Images/cc000000.png")
    html = page_of(root, tmp_path)
    findings = {re.search(r"</b> ([\w-]+)", part)[1]: part for part in html.split("<article")[1:]}  # type: ignore[index]
    for rule in ("file-damaged", "split-copies", "pair-shift"):
        assert "<img" in findings[rule], rule
    assert "agreement of edges" in findings["pair-shift"]
    for title in ("Random pairs", "Extreme pairs", "Suspicious pairs", "Pixels by class", "Images by size"):
        assert title in html, title
    assert "<desert>" not in html
    assert not re.findall(r"(?:src|href)=['\"](?!data:)|https?://|url\(", html)
    assert "prefers-color-scheme: dark" in html
    assert len(html) < 3_000_000


@pytest.mark.parametrize(
    ("write", "title"), [(write_depth, "Nearer than so many metres"), (write_lowlight, "at equal")]
)
def test_pages_of_other_tasks(write: Callable[[Path], object], title: str, tmp_path: Path) -> None:
    write(tmp_path / "set")
    html = page_of(tmp_path / "set", tmp_path)
    assert title in html
    assert html.count("<img") >= 12


# ---------------------------------------------------------------- before a training

SHORT = (*TINY_SETTINGS, "training.epochs=1")


def copy_masks(data: Path) -> None:
    """Images for masks: nothing that a decoder would refuse, were their values named, but nothing to learn."""
    for path in sorted((data / "train/masks").iterdir()):
        Image.fromarray(np.zeros((40, 40), dtype=np.uint8)).save(path)


def test_a_training_says_nothing_of_good_data_and_remembers_that(data: Path, tmp_path: Path) -> None:
    stream = io.StringIO()
    run = api.train("salt", data=data, overrides=SHORT, run=tmp_path / "run", console=Console(stream))
    assert "warning" not in stream.getvalue()
    assert run.manifest["inspection"] == {"forced": False, "errors": [], "warnings": [], "split": []}


def test_errors_stop_a_training_and_force_is_remembered(data: Path, tmp_path: Path) -> None:
    copy_masks(data)
    settings = {"data": data, "overrides": SHORT, "run": tmp_path / "run"}
    with pytest.raises(DataError, match=r"(?s)label-empty: .*--force") as caught:
        api.train("salt", **settings)
    assert str(data) in caught.value.text()
    assert not (tmp_path / "run").exists()
    stream = io.StringIO()
    run = api.train("salt", **settings, force=True, console=Console(stream))
    assert stream.getvalue().count("error, forced: label-empty: 20 of 20 masks are empty.") == 1
    assert run.manifest["inspection"]["forced"] is True
    assert run.manifest["inspection"]["errors"][0].startswith("label-empty")


def test_a_warning_is_one_line_and_no_stop(data: Path, tmp_path: Path) -> None:
    image_hwc = shapes(0, 2, 40, 40)[0]
    Image.fromarray(image_hwc).convert("CMYK").save(data / "train/images/0000000001.png", format="TIFF")
    stream = io.StringIO()
    run = api.train("salt", data=data, overrides=SHORT, run=tmp_path / "run", console=Console(stream))
    said = [line for line in stream.getvalue().splitlines() if line.startswith("warning: ")]
    assert [line.split(":")[1].strip() for line in said] == ["file-cmyk", "file-ending"]
    assert len(run.manifest["inspection"]["warnings"]) == 2
    assert "warning: file-cmyk" in run.log_path.read_text()


def test_a_grid_looks_once_at_the_data_that_its_cells_share(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perpixel.training import first_look

    looked: list[str] = []

    def look(recipe: object, samples: object, **_: object) -> list[Finding]:
        looked.append("look")
        return [Finding("a-rule", "warning", "something is odd.")]

    monkeypatch.setattr(first_look, "quick_inspection", look)
    stream = io.StringIO()
    run_grid(
        "salt",
        ["training.seed=1,2"],
        tmp_path / "grid",
        data=data,
        overrides=SHORT,
        resume=False,
        console=Console(stream),
    )
    assert looked == ["look"]
    assert stream.getvalue().count("something is odd") == 1
    for cell in ("seed1", "seed2"):
        assert Run(tmp_path / "grid" / cell).manifest["inspection"]["warnings"] == ["a-rule: something is odd."]
