"""The service behind the page: figures are those of evaluate, hostile files and names are refused, and it lives on."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra perpixel[page] is not installed")

from PIL import Image
from starlette.testclient import TestClient

from perpixel import api
from perpixel.app.curves import curves
from perpixel.app.files import INBOX
from perpixel.app.guard import read_passwords
from perpixel.app.http import add_files, build_api
from perpixel.app.library import Library
from perpixel.app.limits import BusyError, Limits, RefusedError, SlowError
from perpixel.app.prediction import Prediction
from perpixel.app.scene import write_scene
from perpixel.app.service import Service
from perpixel.app.uploads import safe_stem
from perpixel.errors import DataError, RequestError
from perpixel.evaluation.tables import number
from perpixel.images import read_image
from perpixel.inference.base import ImagePredictor
from perpixel.run import Run, read_json, read_rows
from test_depth_task import depth_recipe, write_tiny_depth
from tiny import write_tiny

HOME = "http://127.0.0.1"


@pytest.fixture(scope="module")
def runs(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: one of segmentation, one of depth."""
    root = tmp_path_factory.mktemp("runs")
    shutil.copytree(tiny_run.path, root / "salt")
    depth = write_tiny_depth(tmp_path_factory.mktemp("depth"))
    api.train(depth_recipe(depth, "training.epochs=1", horizontal_fov_deg=60.0), run=root / "nested" / "depth")
    return root


@pytest.fixture(scope="module")
def service(runs: Path) -> Iterator[Service]:
    service = Service(runs)
    yield service
    service.close()


@pytest.fixture(scope="module")
def client(service: Service) -> TestClient:
    application = build_api(service)
    add_files(application, service)
    return TestClient(application, base_url=HOME)


@pytest.fixture(scope="module")
def sample(tiny_data: Path, tiny_run: Run) -> tuple[Path, Path]:
    """Image and mask of a validation sample that shows both classes."""
    for row in read_rows(tiny_run.split_path):
        mask = tiny_data / "train" / "masks" / f"{row['sample']}.png"
        if row["subset"] == "val" and np.ptp(np.asarray(Image.open(mask))):
            return tiny_data / "train" / "images" / mask.name, mask
    raise AssertionError("no sample")


def png(pixels: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(content, format="PNG")
    return content.getvalue()


GREY = png(np.full((24, 30, 3), 90))


def send(client: TestClient, image: bytes, truth: bytes | None = None, **form: str) -> Any:
    files = {"image": ("photo.png", image)} | ({"truth": ("truth.png", truth)} if truth else {})
    return client.post("/api/predict", data={"run": "salt"} | form, files=files)


# What it tells


def test_figures_are_those_of_evaluate(client: TestClient, tiny_run: Run, sample: tuple[Path, Path]) -> None:
    told = send(client, sample[0].read_bytes(), sample[1].read_bytes()).json()
    rows = read_rows(tiny_run.evaluation_dir("val") / "per_image.csv")
    expected = {
        key: float(value)
        for key, value in next(r for r in rows if r["sample"] == sample[0].stem).items()
        if key not in ("sample", "group")
    }
    assert set(told["figures"]) == set(expected)
    shown = {key: number(value) for key, value in told["figures"].items()}
    assert shown == {key: number(value) for key, value in expected.items()}
    assert len([value for value in shown.values() if value != "-"]) > 5


def test_png_and_npy_are_what_predict_writes(
    client: TestClient, runs: Path, sample: tuple[Path, Path], tmp_path: Path
) -> None:
    written = api.predict(runs / "salt", sample[0], tmp_path)[0]
    answer = send(client, sample[0].read_bytes(), format="png")
    assert answer.headers["content-type"] == "image/png"
    expected = np.asarray(Image.open(written))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), expected)
    index_hw = np.load(io.BytesIO(send(client, sample[0].read_bytes(), format="npy").content), allow_pickle=False)
    np.testing.assert_array_equal(index_hw > 0, expected > 0)


def test_classes_shares_and_times_are_told(client: TestClient, sample: tuple[Path, Path]) -> None:
    told = send(client, sample[0].read_bytes()).json()
    assert [row["class"] for row in told["classes"]] == ["rock", "salt"]
    assert sum(row["share"] for row in told["classes"]) == pytest.approx(1)
    assert 0 < told["seconds"]["network"] <= told["seconds"]["all"]
    assert told["device"].startswith(("cpu", "cuda"))
    assert told["figures"] == {}
    assert told["meaning"] == {}


def test_runs_and_health(client: TestClient) -> None:
    told = {run["name"]: run for run in client.get("/api/runs").json()}
    assert set(told) == {"salt", "nested/depth"}
    assert told["salt"]["view"]["names"] == ["rock", "salt"]
    assert told["salt"]["ready"]
    assert "val" in told["salt"]["figures"]
    assert client.get("/api/health").json() == {"status": "ok", "runs": 2}


def test_an_empty_folder_predicts_nothing(tmp_path: Path) -> None:
    service = Service(tmp_path)
    try:
        assert service.health() == {"status": "no trained run", "runs": 0}
        assert send(TestClient(build_api(service), base_url=HOME), GREY).status_code == 422
    finally:
        service.close()


def test_openapi_is_there_and_pages_with_foreign_scripts_are_not(client: TestClient) -> None:
    paths = client.get("/api/openapi.json").json()["paths"]
    assert {"/api/health", "/api/runs", "/api/predict"} <= set(paths)
    responses = paths["/api/predict"]["post"]["responses"]
    assert {"200", "413", "422", "429", "503"} <= set(responses)
    assert {"image/png", "application/json", "application/octet-stream"} == set(responses["200"]["content"])
    assert client.get("/docs").status_code == 404
    assert client.get("/redoc").status_code == 404


def test_ignored_pixels_are_told_and_not_counted(service: Service, runs: Path, tmp_path: Path) -> None:
    data = write_tiny_depth(tmp_path, count=1)
    prediction = service.predict("nested/depth", data / "images/000.png", data / "depths/000.png")
    assert prediction.ignored() == pytest.approx(8 * 8 / 40**2)
    assert prediction.as_dict()["ignored_share"] == prediction.ignored()


# What the page shows


def test_the_scene_holds_the_prediction_exactly(service: Service, sample: tuple[Path, Path], tmp_path: Path) -> None:
    prediction = service.predict("salt", *sample)
    write_scene(tmp_path, prediction)
    scene = read_json(tmp_path / "scene.json")
    assert [layer["key"] for layer in scene["layers"]] == ["input", "prediction", "confidence", "truth", "error"]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "prediction.png")), prediction.prediction_hw)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "input.png")), prediction.image_hwc)
    assert [entry["shown"] for entry in scene["classes"]] == [False, True]


def test_metres_pass_through_sixteen_bits(service: Service, tmp_path: Path) -> None:
    data = write_tiny_depth(tmp_path / "data", count=1)
    prediction = service.predict("nested/depth", data / "images/000.png", data / "depths/000.png")
    write_scene(tmp_path, prediction)
    layer = next(layer for layer in read_json(tmp_path / "scene.json")["layers"] if layer["key"] == "truth")
    packed = np.asarray(Image.open(tmp_path / "truth.png")).astype(int)
    metres_hw = layer["low"] + layer["step"] * (packed[..., 0] * 256 + packed[..., 1])
    known_hw = packed[..., 2] == 0
    np.testing.assert_array_equal(known_hw, prediction.valid_hw)
    assert prediction.target_hw is not None
    np.testing.assert_allclose(metres_hw[known_hw], prediction.target_hw[known_hw], atol=layer["step"])


def test_published_files_can_be_fetched(service: Service, client: TestClient, tmp_path: Path) -> None:
    data = write_tiny_depth(tmp_path, count=1)
    published = service.publish(service.predict("nested/depth", data / "images/000.png"))
    assert published.cloud is not None
    names = {file.name for file in published.files}
    assert {"000.npy", "000.png", "000.json", "000.ply", "000.glb"} <= names
    for name in [*names, published.cloud.name, "scene.json"]:
        assert client.get(f"/results/{published.token}/{name}").status_code == 200
    assert client.get(f"/results/{published.token}/{published.cloud.name}").content[:4] == b"ply\n"


def test_two_runs_of_different_kinds_are_not_compared(service: Service, sample: tuple[Path, Path]) -> None:
    with pytest.raises(RefusedError, match="different things"):
        service.compare("salt", "nested/depth", sample[0])
    same = service.compare("salt", "salt", sample[0])
    assert same.difference == 0
    assert read_json(same.folder / "scene.json")["right"] == "second"


def test_many_images_go_on_after_a_bad_one(service: Service, sample: tuple[Path, Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    found = dict(service.predict_many("salt", [bad, sample[0]], [sample[1]]))
    assert isinstance(found[bad], RefusedError)
    good = found[sample[0]]
    assert isinstance(good, Prediction)
    assert good.figures


def test_curves_name_runs_and_escape_them() -> None:
    drawn = curves({"<b>": [(1, 0.5), (2, 0.75)], "two": [(1, 0.1)]}, "val_iou")
    assert drawn.count("<polyline") == 2
    assert drawn.count("<circle") == 3
    assert "<b>" not in drawn
    assert curves({"nothing": []}, "val_iou") == ""


# Hostile files


def gif(frames: int) -> bytes:
    content = io.BytesIO()
    pictures = [Image.fromarray(np.full((8, 8), 40 * index, dtype=np.uint8)) for index in range(frames)]
    pictures[0].save(content, format="GIF", save_all=True, append_images=pictures[1:])
    return content.getvalue()


def apng(frames: int) -> bytes:
    content = io.BytesIO()
    pictures = [Image.fromarray(np.full((8, 8), 40 * index, dtype=np.uint8)) for index in range(frames)]
    pictures[0].save(content, format="PNG", save_all=True, append_images=pictures[1:])
    return content.getvalue()


def bomb(side: int) -> bytes:
    """A valid PNG of side x side black pixels, in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(side // 8 + 1)) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def with_zip(picture: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("evil.txt", "hello")
    return picture + content.getvalue()


def numpy_bytes(array: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


HOSTILE = {
    "svg": (lambda: b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    "animated": (lambda: gif(3), "holds 3 pictures"),
    "bomb": (lambda: bomb(6000), "million pixels"),
    "larger bomb": (lambda: bomb(20000), "pixels"),
    "truncated": (lambda: png(np.random.default_rng(0).integers(0, 255, (64, 64, 3)))[:3000], "damaged or cut short"),
    "empty": (lambda: b"", "empty"),
    "text": (lambda: b"hello", "not a picture"),
    "pickle": (lambda: pickle.dumps({"a": 1}), "not a picture"),
    "array": (lambda: numpy_bytes(np.zeros((4, 4))), "not a picture"),
    "picture and archive": (lambda: with_zip(GREY), "second kind"),
    "picture and script": (lambda: GREY + b"<ScRiPt>alert(1)</script>", "second kind"),
    "picture and document": (lambda: GREY[:60] + b"%PDF-1.7" + GREY[60:], "second kind"),
    "animated PNG": (lambda: apng(2), "holds 2 pictures"),
    "html": (lambda: b"<!doctype html><html></html>", "not a picture"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_uploads_are_refused_with_a_sentence(client: TestClient, kind: str) -> None:
    make, sentence = HOSTILE[kind]
    answer = send(client, make())
    assert answer.status_code == 422
    assert sentence in answer.json()["error"]
    assert "/tmp" not in answer.text
    assert send(client, GREY).status_code == 200


def test_names_of_uploads_lead_nowhere(client: TestClient, service: Service) -> None:
    before = sorted(service.results.root.parent.iterdir())
    files = {"image": ("../../evil/../photo.png", GREY)}
    answer = client.post("/api/predict", data={"run": "salt"}, files=files)
    assert answer.json()["image"] == "photo"
    assert sorted(service.results.root.parent.iterdir()) == before


def test_a_truth_is_looked_at_too(client: TestClient) -> None:
    assert "second kind" in send(client, GREY, with_zip(GREY)).json()["error"]
    assert "40 x 40" in send(client, GREY, png(np.zeros((40, 40)))).json()["error"]
    pickled = numpy_bytes(np.array([{}], dtype=object))
    answer = send(client, GREY, pickled)
    assert answer.status_code == 422


def test_uploads_and_scores_have_limits(runs: Path) -> None:
    service = Service(runs, limits=Limits(upload_bytes=2000, scores=1000))
    client = TestClient(build_api(service), base_url=HOME)
    try:
        noise = png(np.random.default_rng(0).integers(0, 255, (30, 30, 3)))
        assert "has at most 0 MB" in send(client, noise).json()["rule"]
        assert "too much for" in send(client, png(np.zeros((40, 40, 3)))).json()["error"]
        assert send(client, bytes(1_100_000)).status_code == 413
        assert send(client, png(np.zeros((20, 20, 3)))).status_code == 200
    finally:
        service.close()


def test_a_body_without_a_length_is_counted(runs: Path) -> None:
    service = Service(runs, limits=Limits(upload_bytes=2000))
    try:
        client = TestClient(build_api(service), base_url=HOME)
        pieces = (bytes(100_000) for _ in range(20))
        headers = {"content-type": "multipart/form-data; boundary=x"}
        assert client.post("/api/predict", content=pieces, headers=headers).status_code in (400, 413)
    finally:
        service.close()


def test_decoding_is_bounded_in_time_and_goes_on_afterwards(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(GREY)
    service.decoder.close()
    patience, service.decoder.seconds = service.decoder.seconds, 0.001
    with pytest.raises(DataError, match="more time or memory"):
        service.decoder.read(path)
    service.decoder.seconds = patience
    decoded = service.decoder.read(path)
    np.testing.assert_array_equal(decoded.image_hwc, read_image(path).pixels_hwc)
    assert decoded.focal_px is None


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..\\..\\x.png", "a/b.png", "\0.png", "....", "<b>.png", "ä ö.jpg"]
)
def test_names_of_uploads_become_harmless(name: str) -> None:
    stem = safe_stem(name)
    assert stem
    assert not set(stem) & set('/\\<>\0" ')
    assert not stem.startswith(".")


# Hostile names and paths


@pytest.mark.parametrize("name", ["../salt", "/etc", "salt/../salt", "salt/", "", ".", "nested", "salt\0", "x" * 5000])
def test_only_listed_runs_are_used(service: Service, name: str) -> None:
    with pytest.raises(RefusedError, match="no run of this name"):
        service.library.open(name)


def test_links_do_not_lead_out(runs: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    root.mkdir()
    (root / "linked").symlink_to(runs / "salt")
    shutil.copytree(runs / "salt", root / "own")
    assert Library(root).names() == ["own"]
    weights = root / "own" / "checkpoints" / "best.safetensors"
    weights.unlink()
    weights.symlink_to(runs / "salt" / "checkpoints" / "best.safetensors")
    with pytest.raises(RefusedError, match="from elsewhere"):
        Library(root).open("own")


@pytest.mark.parametrize("path", ["..%2f..%2fetc/passwd", "x/scene.json", "inbox/..%2fx", "%2e%2e/x"])
def test_results_are_not_paths(client: TestClient, path: str) -> None:
    assert client.get(f"/results/{path}").status_code == 404
    assert client.get(f"/perpixel/{path.partition('/')[0]}").status_code == 404


def test_folders_of_images_lie_below_the_allowed_one(runs: Path, tmp_path: Path) -> None:
    write_tiny(tmp_path / "open", count=2)
    (tmp_path / "open" / "out").symlink_to("/etc")
    images = tmp_path / "open" / "train" / "images"
    (images / "link.png").symlink_to(next(images.glob("*.png")).resolve())
    service, closed = Service(runs, images=tmp_path / "open"), Service(runs)
    try:
        assert len(service.folder_images("train/images")) == 2
        for path in ("..", "/etc", "out", "train/../.."):
            with pytest.raises(RefusedError, match="not opened"):
                service.folder_images(path)
        with pytest.raises(RefusedError, match="no folder"):
            closed.folder_images("train")
    finally:
        service.close()
        closed.close()


# Who may ask, and how much


def test_other_sites_and_other_names_are_turned_away(client: TestClient) -> None:
    assert client.get("/api/health", headers={"origin": "http://evil.example"}).status_code == 403
    assert client.get("/api/health", headers={"host": "evil.example"}).status_code == 421
    answer = client.get("/api/health", headers={"origin": HOME})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers
    assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_passwords(service: Service, tmp_path: Path) -> None:
    file = tmp_path / "who"
    file.write_text("# visitors\nann:secret:word\n")
    client = TestClient(build_api(service, passwords=read_passwords(file)), base_url=HOME)
    assert client.get("/api/health").status_code == 401
    assert client.get("/api/health", auth=("ann", "wrong")).status_code == 401
    assert client.get("/api/health", auth=("bob", "")).status_code == 401
    assert client.get("/api/health", headers={"authorization": "Basic ?"}).status_code == 401
    assert client.get("/api/health", auth=("ann", "secret:word")).status_code == 200


@pytest.mark.parametrize("content", ["", "ann secret", ":x", "ann:"])
def test_files_of_passwords_are_checked_and_not_repeated(tmp_path: Path, content: str) -> None:
    file = tmp_path / "who"
    file.write_text(content)
    with pytest.raises(RequestError) as caught:
        read_passwords(file)
    assert "secret" not in str(caught.value)


@contextmanager
def busy(service: Service, name: str) -> Iterator[None]:
    """Another visitor is being served."""
    begun, end = threading.Event(), threading.Event()

    def work(_: ImagePredictor) -> None:
        begun.set()
        end.wait(30)

    visitor = threading.Thread(target=service.models.call, args=(name, work))
    visitor.start()
    assert begun.wait(30)
    yield
    end.set()
    visitor.join()


def test_a_full_queue_says_when_to_come_again(runs: Path) -> None:
    service = Service(runs, limits=Limits(waiting=0))
    client = TestClient(build_api(service), base_url=HOME)
    try:
        with busy(service, "salt"):
            began = time.monotonic()
            answer = send(client, GREY)
        assert answer.status_code == 429
        assert time.monotonic() - began < service.limits.seconds / 2  # at once, not when patience ends
        assert int(answer.headers["retry-after"]) >= 1
        assert "try again" in answer.json()["cure"]
        assert send(client, GREY).status_code == 200
    finally:
        service.close()


def test_requests_take_turns_and_idle_models_leave(runs: Path) -> None:
    service = Service(runs, limits=Limits(models=1))
    try:
        first = service.models.call("salt", lambda predictor: predictor)
        service.models.call("nested/depth", lambda predictor: predictor)
        assert service.models.call("salt", lambda predictor: predictor) is not first
        service.models.limits = Limits(seconds=0.1)
        with busy_for_long(service), pytest.raises(BusyError, match="already wait"):
            service.models.call("salt", lambda _: None)
        service.models.limits = Limits()
        assert service.models.call("salt", lambda _: "again") == "again"
    finally:
        service.close()


@contextmanager
def busy_for_long(service: Service) -> Iterator[None]:
    """Another visitor is being served, and has given up waiting."""
    end = threading.Event()
    with pytest.raises(SlowError):
        service.models.call("salt", lambda _: end.wait(30))
    yield
    end.set()


def test_a_request_ends_after_its_time(client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()
    send(client, GREY)
    monkeypatch.setattr(service.models, "limits", Limits(seconds=0.1))
    monkeypatch.setattr(service, "_predict", lambda *_: end.wait(30))
    answer = send(client, GREY)
    end.set()
    assert answer.status_code == 503
    assert "smaller" in answer.json()["cure"]
    monkeypatch.undo()
    assert send(client, GREY).status_code == 200


def test_results_are_removed_after_an_hour_and_when_there_are_too_many(runs: Path) -> None:
    service = Service(runs, limits=Limits(results=2))
    folders = [service.results.new() for _ in range(4)]
    upload = service.results.root / INBOX / "gradio" / "hash" / "photo.png"
    upload.parent.mkdir(parents=True)
    upload.write_bytes(GREY)
    service.results.remove_old()
    assert upload.exists()
    assert sum(folder.exists() for folder in folders) == 2
    newest = folders[-1].stat().st_mtime
    service.results.remove_old(now=newest + 3601)
    assert not any(folder.exists() for folder in folders)
    assert not upload.exists()
    assert service.results.new().is_dir()
    service.close()
    assert not service.results.root.exists()


def test_many_threads_get_the_same_answer(client: TestClient) -> None:
    answers: list[Any] = []

    def ask() -> None:
        answers.append(json.dumps(send(client, GREY).json()["classes"]))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 6
    assert len(set(answers)) == 1
