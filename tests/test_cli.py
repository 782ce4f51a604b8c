"""The command line: exit status 0, 1 and 2, and a sentence instead of a traceback."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from perpixel import api, cli
from perpixel.errors import RequestError, RunError
from perpixel.images import write_image, write_label_map
from perpixel.recipe import builtin_names
from perpixel.run import Run
from tiny import TINY_SETTINGS, write_tiny


@dataclass
class Result:
    """What a command left on the screen."""

    status: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def perpixel(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run a command in an empty folder, as the shell would."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["perpixel", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Result(status, captured.out, captured.err)

    return call


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A tiny data set that may be spoilt."""
    return write_tiny(tmp_path / "data", count=8)


SET = [word for setting in TINY_SETTINGS for word in ("--set", setting)]


def assert_refused(result: Result, *parts: object, status: int = 2) -> None:
    assert result.status == status, result.err
    assert result.err.splitlines()[-1 - result.err.count("\n  ")].startswith("Error: "), result.err
    for part in parts:
        assert str(part) in result.err


def test_recipes_are_one_short_line_each(perpixel: Command) -> None:
    result = perpixel("recipes")
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    width = max(map(len, builtin_names()))
    assert [line[:width].rstrip() for line in lines] == builtin_names()
    assert all(40 < len(line) <= 120 for line in lines)
    assert all(line[width : width + 2].isspace() and line[width + 2].isupper() for line in lines)


def test_version_and_help(perpixel: Command) -> None:
    result = perpixel("--version")
    assert result.status == 0
    assert result.out.startswith("perpixel 0.")
    verbs = ("recipes", "synthesize", "train", "evaluate", "predict", "grid", "submit", "pack")
    help_text = perpixel("--help").out
    for verb in verbs:
        assert verb in help_text
        assert perpixel(verb, "--help").status == 0


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["trian", "salt"],
        ["train"],
        ["train", "salt", "--epochs", "3"],
        ["predict", "run"],
        ["grid", "salt"],
        ["synthesize", "salt", "--out", "x", "--count", "many"],
    ],
)
def test_usage_errors(perpixel: Command, words: list[str]) -> None:
    result = perpixel(*words)
    assert result.status == 2
    assert "Usage:" in result.out + result.err


def test_train_evaluate_predict_submit_and_pack(perpixel: Command, data: Path, tmp_path: Path) -> None:
    split = ["--set", "split.method=random", "--set", "split.order_column=null", "--set", "training.epochs=1"]
    result = perpixel("train", "salt", "--data", data, *SET, *split)
    assert (result.status, result.out) == (0, "runs/salt\n")
    assert "8 pairs in" in result.err
    assert_refused(perpixel("train", "salt", "--data", data, *SET, *split, "--run", "runs/salt"), "--resume")
    evaluated = perpixel("evaluate", "runs/salt")
    assert evaluated.status == 0
    assert "iou_per_image" in evaluated.out
    assert_refused(perpixel("evaluate", "runs/salt", "--subset", "test"), "no subset 'test'", "['train', 'val']")
    predicted = perpixel("predict", "runs/salt", data / "test/images", "--out", "out")
    assert (predicted.status, predicted.out) == (0, "3 predictions in out\n")
    submitted = perpixel("submit", "runs/salt", "--out", "s.csv")
    if submitted.status:  # one epoch may well predict three times the same
        assert_refused(submitted, "predictions are the same", status=1)
    assert perpixel("pack", "runs/salt", "--out", "run.zip").out == "run.zip\n"
    assert (tmp_path / "run.zip").stat().st_size > 1000


def test_a_wrong_recipe(perpixel: Command, data: Path, tmp_path: Path) -> None:
    assert_refused(perpixel("train", "slat", "--data", data), "slat", "did you mean 'salt'?")
    result = perpixel("train", "salt", "--data", data, "--set", "training.epoch=3", "--set", "loss.name=x")
    assert_refused(result, "2 problems", "training.epoch: unknown key; did you mean 'epochs'?", "no loss is named 'x'")
    assert_refused(perpixel("train", tmp_path), tmp_path)
    assert_refused(perpixel("grid", "salt", "--vary", "loss.name"), "--vary loss.name", "key=value,value")
    assert_refused(perpixel("grid", "salt", "--vary", "loss.nam=a"), "did you mean 'name'?")
    assert not (tmp_path / "runs").exists()


def test_wrong_data(perpixel: Command, data: Path, tmp_path: Path) -> None:
    train = ("train", "salt", *SET)
    assert_refused(perpixel(*train), "--data DIR")
    assert_refused(perpixel(*train, "--data", "nowhere"), "nowhere", "does not exist")
    (tmp_path / "empty").mkdir()
    assert_refused(perpixel(*train, "--data", tmp_path / "empty"), "no image matches", "the folder holds: nothing")
    mask = data / "train/masks/0000000003.png"
    write_label_map(mask, np.full((40, 40), 3))
    assert_refused(perpixel(*train, "--data", data), mask, "3 (1600 px)", "name 0, 1, 255, 65535")
    mask.unlink()
    assert_refused(perpixel(*train, "--data", data), mask, "is missing", "never read as an empty one")
    # Nothing was trained, so the same command works once the data are right.
    assert not list(tmp_path.glob("runs/*/checkpoints"))


def test_a_wrong_run(perpixel: Command, data: Path, tmp_path: Path, tiny_run: Run) -> None:
    for words in (
        ["evaluate"],
        ["predict", "x.png", "--out", "o"],
        ["submit", "--out", "s.csv"],
        ["pack", "--out", "z"],
    ):
        assert_refused(perpixel(words[0], "nowhere", *words[1:]), "nowhere", "no run")
    run = Run(tmp_path / "unfinished")
    run.write_recipe(tiny_run.recipe)
    assert_refused(perpixel("evaluate", run.path), "no trained model yet", status=1)
    (tmp_path / "file").write_text("x")
    assert_refused(perpixel("train", "salt", "--data", data, *SET, "--run", "file"), "file", "not an empty folder")
    assert_refused(perpixel("grid", "salt", "--vary", "loss.name=bce", "--data", data, "--run", "file"), "file")


def test_wrong_images(perpixel: Command, tiny_run: Run, tmp_path: Path) -> None:
    predict = ("predict", tiny_run.path)
    image_hwc = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    for name in ("in/a.png", "in/a.jpg", "one/b.png"):
        write_image(tmp_path / name, image_hwc)
    (tmp_path / "empty").mkdir()
    assert_refused(perpixel(*predict, "nowhere.png", "--out", "o"), "nowhere.png", "does not exist")
    assert_refused(perpixel(*predict, "empty", "--out", "o"), "empty", "no image")
    assert_refused(perpixel(*predict, "in", "--out", "o"), "in/a.jpg and in/a.png would both be written to a.png")
    assert_refused(perpixel(*predict, "one/b.png", "--out", "in/a.png"), "in/a.png", "this is a file")
    (tmp_path / "one/c.png").write_bytes(b"")
    assert_refused(perpixel(*predict, "one", "--out", "o"), "1 of 2 images", "one/c.png", status=1)
    assert (tmp_path / "o/b.png").is_file()


def test_evaluate_on_other_data(perpixel: Command, tiny_run: Run, data: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run.path, tmp_path / "run")
    result = perpixel("evaluate", run, "--data", data)
    assert result.status == 0
    assert result.out.startswith("data-data: 8 images")
    (tmp_path / "other").mkdir()
    assert_refused(perpixel("evaluate", run, "--data", "other"), "no image matches")
    write_label_map(data / "train/masks/0000000003.png", np.zeros((40, 39), dtype=np.int64))
    assert_refused(perpixel("evaluate", run, "--data", data), "its target 39x40")


def test_evaluate_runs_on_several_data(perpixel: Command, tiny_run: Run, data: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(tiny_run.path, tmp_path / name)
    result = perpixel("evaluate", "one", "two", "--data", data, "--subset", "test")
    assert result.status == 0
    rows = [line.split() for line in result.out.splitlines() if line.startswith(("one ", "two "))]
    assert [(row[0], "(source)" in row) for row in rows] == [
        (run, own) for run in ("one", "two") for own in (True, False)
    ]
    assert "one/evaluation/several.md" in result.out
    assert_refused(perpixel("evaluate", "one", "nowhere"), "nowhere", "no run")
    assert_refused(perpixel("evaluate", "one", "--data", data, "--data", "two"), "two", "--data two/recipe.yaml")
    assert perpixel("evaluate").status == 2


@pytest.mark.parametrize("words", [["--debug", "train", "slat"], ["train", "slat", "--debug"]])
def test_debug_shows_where_an_error_came_from(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["perpixel", *words])
    with pytest.raises(RequestError, match="slat"):
        cli.main()


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (RunError("it failed", where="runs/x", cure="do better."), 1, "Error: runs/x: it failed\n  Cure: do better.\n"),
        (PermissionError(13, "Permission denied", "x/y"), 2, "Error: x/y: Permission denied\n"),
        (OSError(28, "No space left on device"), 1, "Error: a file: No space left on device\n"),
        (KeyboardInterrupt(), 1, "Interrupted.\n"),
    ],
)
def test_what_goes_wrong_inside_is_a_sentence(
    perpixel: Command, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, message: str
) -> None:
    def failing() -> None:
        raise error

    monkeypatch.setattr(api, "recipes", failing)
    result = perpixel("recipes")
    assert (result.status, result.out, result.err) == (status, "", message)


def test_a_wrong_synthesis(perpixel: Command) -> None:
    assert_refused(perpixel("synthesize", "sugar", "--out", "x", "--count", 3), "sugar", "salt")
    assert_refused(perpixel("synthesize", "salt", "--out", "x", "--count", 0), "at least 1")
    assert_refused(perpixel("synthesize", "salt", "--out", "x", "--count", 3, "--spp", 4), "salt has no --spp")
    assert_refused(perpixel("synthesize", "desert", "--out", "x", "--count", 3, "--size", "960"), "960x540")
    assert_refused(perpixel("synthesize", "night", "--out", "x", "--count", 3, "--spp", 4), "night has no --spp")
    assert_refused(perpixel("synthesize", "salt", "--out", "x", "--count", 3, "--from", "y"), "salt has no --from")


def test_every_verb_is_a_function_too() -> None:
    """Rooms must not have the names of verbs: importing such a room would put it in the function's place."""
    import perpixel
    from perpixel.cli import app

    rooms = {path.name.removesuffix(".py") for path in Path(perpixel.__file__).parent.iterdir()}
    verbs = {(command.name or command.callback.__name__).replace("-", "_") for command in app.registered_commands}
    for verb in verbs - {"page", "serve"}:
        assert callable(getattr(perpixel, verb)), verb
        assert verb in perpixel.__all__
        assert verb not in rooms - {"recipe"}
