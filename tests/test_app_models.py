"""What can be chosen on the page: runs, ensembles, exported files; their cards, their reports, and data sets."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra perpixel[page] is not installed")
pytest.importorskip("onnxruntime", reason="the extra perpixel[onnx] is not installed")

from PIL import ExifTags, Image
from starlette.testclient import TestClient

from perpixel import api
from perpixel.app import html
from perpixel.app.http import add_files, build_api
from perpixel.app.library import Library
from perpixel.app.limits import RefusedError
from perpixel.app.service import Service
from perpixel.console import Console
from perpixel.evaluation.tables import number
from perpixel.run import Run, read_json, read_rows, write_json, write_rows
from test_depth_task import depth_recipe, write_tiny_depth
from test_ensemble import member


@pytest.fixture(scope="module")
def root(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/: two runs, their ensemble, an exported file of one, and a run of depth. data/: what that reads."""
    root = tmp_path_factory.mktemp("models")
    runs = root / "runs"
    shutil.copytree(tiny_run.path, runs / "salt")
    member(tiny_run, runs / "other", seed=1)
    api.ensemble([runs / "salt", runs / "other"], runs / "both")
    api.export(runs / "salt", runs / "files" / "salt.onnx")
    write_tiny_depth(root / "data" / "depth")
    api.train(depth_recipe(root / "data" / "depth", "training.epochs=1"), run=runs / "depth")
    return root


@pytest.fixture(scope="module")
def service(root: Path) -> Iterator[Service]:
    service = Service(root / "runs", images=root / "data")
    yield service
    service.close()


@pytest.fixture(scope="module")
def client(service: Service) -> TestClient:
    application = build_api(service)
    add_files(application, service)
    return TestClient(application, base_url="http://127.0.0.1")


@pytest.fixture(scope="module")
def image(tiny_data: Path, tiny_run: Run) -> Path:
    row = next(row for row in read_rows(tiny_run.split_path) if row["subset"] == "test")
    return tiny_data / "train" / "images" / f"{row['sample']}.png"


def test_all_that_predicts_is_listed(service: Service) -> None:
    library = service.library
    assert library.names() == library.ready() == ["both", "depth", "files/salt.onnx", "other", "salt"]
    assert library.runs() == ["both", "depth", "other", "salt"]
    with pytest.raises(RefusedError, match="no history"):
        library.run("files/salt.onnx")


@pytest.mark.parametrize("name", ["both", "files/salt.onnx"])
def test_they_predict_what_the_command_line_predicts(service: Service, name: str, image: Path, tmp_path: Path) -> None:
    written = api.predict(service.library.root / name, image, tmp_path)[0]
    prediction = service.predict(name, image)
    np.testing.assert_array_equal(np.asarray(Image.open(written)) > 0, prediction.prediction_hw > 0)
    assert prediction.seconds["network"] > 0
    assert service.compare("salt", name, image).difference <= 1


def test_cards_tell_what_is_known(service: Service) -> None:
    run, both, file = (service.library.card(name) for name in ("salt", "both", "files/salt.onnx"))
    assert (run.form, both.form, file.form) == ("run", "ensemble of 2 runs", "exported file, float32")
    assert both.parameters == 2 * run.parameters > 0
    assert both.megabytes == pytest.approx(2 * run.megabytes, rel=0.01)
    for told in (run, both, file):
        assert " ms an image" in told.speed
        assert "20" in told.trained  # a date
        assert told.ready
    assert set(run.figures) == {"val", "test"}
    stored = read_json(service.library.open("files/salt.onnx").with_name("salt.onnx.json"))["parity"]
    assert next(iter(file.figures.values()))[file.monitor] == stored["figures"][file.monitor]["file"]


def test_intervals_and_guards_that_failed_stand_on_the_card(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "runs" / "salt", tmp_path / "salt")
    folder = tmp_path / "salt" / "evaluation" / "test"
    stored = read_json(folder / "metrics.json")
    write_json(folder / "metrics.json", stored | {"warnings": ["WARNING: no better than <nothing>"]})
    monitor = Library(tmp_path).recipe("salt").training.monitor
    values = [0.1, 0.5, 0.6, 0.7, 0.8, 0.9]
    write_rows(folder / "per_image.csv", [{"sample": f"{value}", "group": "", monitor: value} for value in values])
    told = Library(tmp_path).card("salt")
    mean, low, high = told.intervals["test"]
    assert mean == pytest.approx(0.6)
    assert low < mean < high
    shown = html.card(told)
    assert f"mean over images 0.6000, 95 % interval {number(low)} to {number(high)}" in shown
    assert '<p class="pp-warning">Beware: no better than &lt;nothing&gt;</p>' in shown


def test_an_ensemble_of_runs_from_elsewhere_is_not_used(root: Path, tmp_path: Path, image: Path) -> None:
    shutil.copytree(root / "runs" / "both", tmp_path / "both")
    service = Service(tmp_path)
    try:
        assert service.library.ready() == []
        with pytest.raises(RefusedError, match="from elsewhere"):
            service.predict("both", image)
    finally:
        service.close()


def test_files_without_their_facts_are_not_listed(root: Path, tmp_path: Path) -> None:
    shutil.copyfile(root / "runs/files/salt.onnx", tmp_path / "bare.onnx")
    (tmp_path / "page.xml").write_text("<html/>")
    (tmp_path / "linked.onnx").symlink_to(root / "runs/files/salt.onnx")
    shutil.copyfile(root / "runs/files/salt.onnx.json", tmp_path / "linked.onnx.json")
    assert Library(tmp_path).names() == []


def test_figures_are_those_of_evaluate(client: TestClient, root: Path) -> None:
    row = read_rows(root / "runs/depth/evaluation/val/per_image.csv")[0]
    places = {"image": "images", "truth": "depths"}
    files = {key: ("x.png", (root / f"data/depth/{at}/{row['sample']}.png").read_bytes()) for key, at in places.items()}
    told = client.post("/api/predict", data={"run": "depth"}, files=files).json()["figures"]
    expected = {key: number(float(value)) for key, value in row.items() if key not in ("sample", "group")}
    assert {key: number(value) for key, value in told.items()} == expected
    assert len(expected) > 20


def test_the_camera_is_that_of_the_visitor_of_the_photograph_or_of_the_data(
    service: Service, root: Path, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 50
    Image.open(root / "data/depth/images/000.png").save(photo, exif=exif)
    prediction = service.predict("depth", photo)
    # A square image, whose diagonal is that of 36 x 24 mm: its side is 30.6 mm, seen from 50 mm.
    told = service.publish(prediction)
    assert told.cloud is not None
    assert "34.0 degrees, as the photograph's EXIF data say" in told.camera
    assert "60.0 degrees, as you say" in service.publish(prediction, horizontal_deg=60).camera
    nobody = service.publish(service.predict("depth", root / "data/depth/images/000.png"))
    assert (nobody.cloud, nobody.camera) == (None, "")


def test_reports_open_and_can_reach_nothing(client: TestClient, root: Path) -> None:
    one = client.get("/report", params={"run": "salt"})
    assert one.status_code == 200
    assert "How it was trained" in one.text
    assert "sandbox" in one.headers["content-security-policy"]
    assert "Worst, middle and best" not in one.text  # that would read data which are not open to visitors
    both = client.get("/report", params={"run": ["salt", "other"]})
    assert "salt" in both.text
    assert "other" in both.text
    (root / "runs" / "salt" / "report.html").write_text("<p>with pictures</p>")
    assert client.get("/report", params={"run": "salt"}).text == "<p>with pictures</p>"
    (root / "runs" / "salt" / "report.html").unlink()
    for name in ("../salt", "files/salt.onnx", "<b>"):
        refused = client.get("/report", params={"run": name})
        assert refused.status_code == 422
        assert "<b>&lt;b" in refused.text or name != "<b>"


def test_a_data_set_is_inspected_below_the_open_folder_alone(service: Service, client: TestClient) -> None:
    found, page = service.inspect("depth", Console())
    assert "fit for training" in found.verdict()
    answer = client.get(html.address(page))
    assert "Inspection of depth" in answer.text
    assert "sandbox" in answer.headers["content-security-policy"]
    for place in ("..", "/etc", "../runs/salt"):
        with pytest.raises(RefusedError, match="not opened"):
            service.inspect(place, Console())
