"""Reports: self-contained, the answer first, the figures those of the evaluation, honest about what is missing."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from perpixel import api
from perpixel.console import Console
from perpixel.errors import RequestError
from perpixel.evaluation.evaluate import read_evaluation
from perpixel.evaluation.slices import Slice, write_slices
from perpixel.reporting.curves import curves_png
from perpixel.reporting.document import Document, Folded, Section, Table, Text
from perpixel.reporting.html import to_html
from perpixel.reporting.markdown import write_markdown
from perpixel.reporting.plots import curve_png, matrix_png, name_points, points_png
from perpixel.reports.run_report import decided_afterwards
from perpixel.reports.words import recipe_words
from perpixel.run import Run
from perpixel.training.train import train
from test_depth_task import depth_recipe, write_tiny_depth
from test_grid import grid
from tiny import tiny_recipe

VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Checks that tags close in order; collects text, sources and headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []
        self.unnamed = 0
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.sources += [value for key in ("src", "href") if (value := named.get(key))]
        self.unnamed += tag == "img" and "alt" not in named
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.words.append(data)


def page_of(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return page_of(api.report(tiny_run.path, tmp_path_factory.mktemp("report") / "r.html"))


def test_a_page_holds_everything(page: Page) -> None:
    assert page.sources
    assert all(source.startswith(("data:image/", "#part-")) for source in page.sources)
    assert page.unnamed == 0


def test_the_figures_are_those_of_the_evaluation(page: Page, tiny_run: Run) -> None:
    stored = read_evaluation(tiny_run, "test")
    assert stored is not None
    text = " ".join(page.words)
    assert "on the 4 images of test" in text
    for key, value in stored["figures"].items():
        if value is not None:
            assert f"{value:.4f}" in text, key
    matrix = stored["details"][0]
    assert matrix["kind"] == "Matrix"
    assert sum(map(sum, matrix["counts"])) == 4 * 40 * 40


def test_each_picture_is_there(page: Page) -> None:
    text = " ".join(page.words)
    assert [word for word in ("worst: ", "middle: ", "best: ") if word not in text] == []
    assert "error" in text


def test_data_out_of_reach_are_named(tiny_run: Run, tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(tiny_run.path, tmp_path / "run")))
    text = run.recipe_path.read_text()
    assert str(tiny_run.recipe.data.root) in text
    run.recipe_path.write_text(text.replace(str(tiny_run.recipe.data.root), str(tmp_path / "gone")))
    page = page_of(api.report(run.path, tmp_path / "r.html"))
    assert "No pictures: the data are not where this run was scored on them" in " ".join(page.words)


def test_a_failed_guard_stands_above_the_answer(tiny_run: Run, tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(tiny_run.path, tmp_path / "run")))
    path = run.evaluation_dir("test") / "metrics.json"
    stored = json.loads(path.read_text())
    stored["warnings"] = ["WARNING: the model is no better than a trivial prediction: by far"]
    path.write_text(json.dumps(stored))
    html = api.report(run.path, tmp_path / "r.html").read_text()
    assert "no better than a trivial prediction" in html
    assert html.index("no better than a trivial prediction") < html.index('class="answer"')


def test_a_run_without_figures_says_what_makes_them(tiny_run: Run, tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(tiny_run.path, tmp_path / "run")))
    shutil.rmtree(run.path / "evaluation")
    assert "perpixel evaluate" in api.report(run.path, tmp_path / "r.html").read_text()


def test_names_from_outside_are_escaped(tiny_run: Run, tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(tiny_run.path, tmp_path / "run")))
    run.update_manifest(weights={"source": "<script>alert(1)</script>"})
    html = api.report(run.path, tmp_path / "r.html").read_text()
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html


def test_markdown_has_its_pictures_beside_it(tiny_run: Run, tmp_path: Path) -> None:
    text = api.report(tiny_run.path, tmp_path / "r.md").read_text()
    linked = re.findall(r"\]\((r/[^)]+)\)", text)
    assert len(linked) >= 5
    for name in linked:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == sorted(name[2:] for name in linked)


def test_depth_has_its_error_by_distance(tmp_path: Path) -> None:
    run = train(depth_recipe(write_tiny_depth(tmp_path / "data")), tmp_path / "run")
    text = " ".join(page_of(api.report(run.path, tmp_path / "r.html")).words)
    assert "Error by distance on val" in text
    assert "were chosen on these very images" in text or "was chosen on these very images" in text


def test_a_grid_names_its_best_and_a_comparison_its_verdict(tiny_data: Path, tmp_path: Path) -> None:
    grid(tmp_path / "grid", tiny_data)
    cells = [tmp_path / "grid" / name for name in ("bce_dice", "lovasz")]
    text = " ".join(page_of(api.report(tmp_path / "grid", tmp_path / "grid.html")).words)
    best = json.loads((tmp_path / "grid" / "grid.json").read_text())["best"]
    assert f"loss.name={best} has the best iou_per_image" in " ".join(text.split())
    assert "--vary loss.name=bce_dice,lovasz" in text
    text = " ".join(page_of(api.report(cells, tmp_path / "two.html")).words)
    assert "lovasz" in text
    assert "cannot be told apart" in text or "is better than" in text or "is worse than" in text


def test_figures_alone_are_those_of_the_markdown(tiny_run: Run, tmp_path: Path) -> None:
    api.report(tiny_run.path, tmp_path / "page.md")
    api.report(tiny_run.path, tmp_path / "figures", figures=True)
    written = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert written == {path.name: path.read_bytes() for path in (tmp_path / "page").iterdir()}
    assert written
    with pytest.raises(RequestError, match="writes into a folder"):
        api.report(tiny_run.path, tmp_path / "figures.html", figures=True)


@pytest.mark.parametrize("out", ["r.pdf", "r"])
def test_other_endings_are_refused(tiny_run: Run, tmp_path: Path, out: str) -> None:
    with pytest.raises(RequestError, match=r"report is \.html or \.md"):
        api.report(tiny_run.path, tmp_path / out, console=Console())


def test_every_builtin_recipe_has_words(tmp_path: Path) -> None:
    from perpixel.recipe import load_recipe

    for line in api.recipes():
        words = dict(recipe_words(load_recipe(line.name)))
        assert words["Network"].startswith(load_recipe(line.name).model.architecture)
        assert all(words.values())
    recipe = tiny_recipe(tmp_path, "model.freeze_encoder=true", "model.unfreeze_epochs=[1,2]")
    assert "1, 2" in dict(recipe_words(recipe))["Network"]


def test_plots_bear_what_is_rare() -> None:
    assert matrix_png(["a", "b"], [[0, 0], [1, 3]])  # a class that is nowhere
    assert curve_png("x", "y", [1.0], [0.5], [10])
    assert points_png("x", "y", [float(value) for value in range(40)], [0.5] * 40)


def test_many_names_take_no_room_from_a_plot() -> None:
    def inside(names: list[str]) -> float:
        """The share of the picture that the axes' grid and frame span, by its dark frame at the left."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 3.8), dpi=50, layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1, 2], [0, 1, 2], "o")
        name_points(figure, axes, names, [0, 1, 2], [0, 1, 2])
        figure.canvas.draw()
        return float(axes.get_position().width)

    assert inside(["a" * 90, "b" * 90, "c"]) == pytest.approx(inside(["a", "b", "c"]), abs=0.02)
    assert curves_png(
        {f"trial-{number}": [{"epoch": 1.0, "f": 0.5, "train_loss": 1.0}] for number in range(40)}, "f", "f"
    )


def test_why_a_curve_is_not_the_table(tiny_run: Run, tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(tiny_run.path, tmp_path / "run")))
    path = run.evaluation_dir("val") / "metrics.json"
    stored = json.loads(path.read_text())
    best = run.manifest["best_epoch"]
    then = next(row["val_iou_per_image"] for row in run.read_history() if row["epoch"] == best)
    stored["figures"]["iou_per_image"] = then
    path.write_text(json.dumps(stored))
    assert decided_afterwards(run, "iou_per_image") == ""
    stored["figures"]["iou_per_image"] = then + 0.25
    stored["protocol"]["decision"] |= {"threshold": 0.35, "minimum_area": 0}
    path.write_text(json.dumps(stored))
    assert "predictions with threshold 0.5; after training threshold 0.35 was chosen" in decided_afterwards(
        run, "iou_per_image"
    )
    assert f"of {then:.4f} the {then + 0.25:.4f} of the tables" in api.report(run.path, tmp_path / "r.md").read_text()


def test_what_is_folded_is_in_both_forms(tmp_path: Path) -> None:
    table = Table(["figure", "value"], [["aligned", "0.5"]])
    document = Document("title", ["answer"], (), [Section("part", [Text("first"), Folded("2 further", [table])])])
    html = to_html(document)
    assert "<details><summary>2 further</summary>" in html
    Page(html)
    write_markdown(tmp_path / "r.md", document)
    lines = (tmp_path / "r.md").read_text().splitlines()
    assert lines.index("first") < lines.index("**2 further**") < lines.index("| aligned | 0.5 |")


def test_worst_slices_are_told(tiny_run: Run, tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(tiny_run.path, tmp_path / "run")))
    slices = [
        Slice("brightness", f"{part}", "iou_per_image", 5, 0.1 * part, 0.0, 0.2, -0.5, part == 1)
        for part in range(1, 9)
    ]
    write_slices(run.evaluation_dir("test"), slices)
    text = api.report(run.path, tmp_path / "r.md").read_text()
    assert "Clearly worse than the whole: brightness 1." in text
    assert "| brightness | 1 | 5 | 0.1000 | 0.0000 to 0.2000 | -0.5000 |" in text
    assert "**2 further slices**" in text
