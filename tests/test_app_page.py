"""The page in a real browser: what a person does on it, on a run of each task, and that nothing leaves this machine."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perpixel import api
from perpixel.evaluation.tables import number
from perpixel.run import Run, read_rows
from test_depth_task import depth_recipe, write_tiny_depth
from test_restoration_task import recipe_of, write_pairs

pytest.importorskip("gradio", reason="the extra perpixel[page] is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
SOFTWARE_GL = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
PATIENCE = 120_000  # milliseconds


@pytest.fixture(scope="module")
def folder(tiny_run: Run, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/ of all three tasks, and data of each."""
    root = tmp_path_factory.mktemp("page")
    shutil.copytree(tiny_run.path, root / "runs" / "salt")
    shutil.copytree(tiny_run.path, root / "runs" / "other")
    api.ensemble([root / "runs" / "salt", root / "runs" / "other"], root / "runs" / "both")
    api.export(root / "runs" / "salt", root / "runs" / "salt.safetensors", form="safetensors")
    shutil.copytree(tiny_data, root / "open" / "salt")
    for image in sorted((tiny_data / "train" / "images").iterdir())[:2]:
        shutil.copy(image, root / "open")
    write_tiny_depth(root / "depth")
    api.train(depth_recipe(root / "depth", "training.epochs=1"), run=root / "runs" / "depth")
    write_pairs(root / "clean", scale=2)
    settings = ("model.architecture=nafnet-xs", "training.epochs=1")
    recipe = recipe_of(root / "clean", *settings, name="lowlight-strong", scale=2)
    api.train(recipe, run=root / "runs" / "clean")
    return root


def start(folder: Path, *arguments: str) -> tuple[subprocess.Popen[bytes], str]:
    """A server as a person starts it; returns it when it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    log = (folder / "log.txt").open("ab")
    command = [sys.executable, "-m", "perpixel", "page", "--port", str(port), *arguments]
    (folder / "tmp").mkdir(exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp")}
    server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
    log.close()
    for _ in range(720):
        try:
            urllib.request.urlopen(f"{address}/api/health", timeout=5).close()
            return server, address
        except OSError:
            time.sleep(0.25)
            assert server.poll() is None, (folder / "log.txt").read_text()
    server.kill()
    raise AssertionError("the server does not answer")


def stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    assert server.wait(timeout=30) == 0


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    server, address = start(folder, "--images", str(folder / "open"))
    yield address
    stop(server)
    assert not list((folder / "tmp").glob("perpixel-*"))
    assert "Traceback" not in (folder / "log.txt").read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SOFTWARE_GL)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """A tab; at its end no request has left this machine and no script has failed."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE)
    foreign: list[str] = []
    broken: list[str] = []
    page.on(
        "request", lambda sent: None if sent.url.startswith((address, "data:", "blob:")) else foreign.append(sent.url)
    )
    page.on("pageerror", lambda error: broken.append(str(error)))
    yield page
    page.close()
    assert foreign == []
    assert broken == []


def visit(page: Any, address: str, run: str, tab: str = "image") -> None:
    page.goto(f"{address}/?run={run}&tab={tab}")
    page.locator("#card h2", has_text=run).wait_for()
    page.wait_for_function("window.perpixelStarted")


def give(page: Any, name: str, *files: Path) -> None:
    page.locator(f"#{name} input[type=file]").set_input_files([str(file) for file in files])


def viewer(page: Any, tab: str) -> Any:
    found = page.locator(f"#{tab}-viewer perpixel-viewer[data-ready]")
    found.wait_for()
    return found


def color(page: Any, tab: str, x: float, y: float) -> list[int]:
    """The colour that is drawn at a share of width and height."""
    values: list[int] = page.evaluate(
        """([tab, x, y]) => {
            const found = document.querySelector(`#${tab}-viewer perpixel-viewer`);
            const canvas = found.shadowRoot.querySelector("canvas"), context = canvas.getContext("2d");
            return [...context.getImageData(x * canvas.width, y * canvas.height, 1, 1).data].slice(0, 3);
        }""",
        [tab, x, y],
    )
    return values


def salt_sample(folder: Path) -> tuple[Path, Path, dict[str, str]]:
    """Image, mask and evaluated figures of a validation image."""
    row = read_rows(folder / "runs/salt/evaluation/val/per_image.csv")[0]
    name = f"{row['sample']}.png"
    return folder / "open/salt/train/images" / name, folder / "open/salt/train/masks" / name, row


def test_segmentation(page: Any, address: str, folder: Path) -> None:
    image, mask, row = salt_sample(folder)
    visit(page, address, "salt")
    give(page, "one-image", image)
    viewer(page, "one")
    give(page, "one-truth", mask)
    page.get_by_text("Figures of this image alone").wait_for()
    shown = dict(
        line.split("\t")[:2]
        for line in page.locator("#one-told table").first.inner_text().splitlines()[1:]
        if "\t" in line
    )
    assert len(shown) > 4
    assert {key: number(float(row[key])) for key in shown if key in row} == {k: v for k, v in shown.items() if k in row}

    seen = viewer(page, "one")
    seen.locator("#opacity").fill("100")
    seen.get_by_label("rock").check()
    full = color(page, "one", 0.01, 0.01)
    seen.get_by_label("rock").uncheck()
    seen.get_by_label("salt").uncheck()
    bare = color(page, "one", 0.01, 0.01)
    assert full in ([68, 68, 68], [230, 159, 0])
    assert bare != full
    assert len(set(bare)) == 1  # the grey image itself

    seen.locator("#right").select_option("error")
    seen.get_by_text("wrong pixels white").wait_for()
    seen.locator("canvas").first.focus()
    page.keyboard.press("ArrowRight")
    told = seen.locator("output").inner_text()
    assert told.startswith("x 21, y 20: prediction ")
    assert "confidence 0." in told
    assert "truth " in told
    with page.expect_download() as download:
        page.get_by_role("link", name=f"{image.stem}.npy").click()
    index_hw = np.load(download.value.path(), allow_pickle=False)
    assert index_hw.shape == (40, 40)


def test_depth(page: Any, address: str, folder: Path) -> None:
    visit(page, address, "depth")
    give(page, "one-image", folder / "depth/images/000.png")
    seen = viewer(page, "one")
    assert page.locator("perpixel-cloud").count() == 0  # the field of view is asked for first
    seen.locator("canvas").first.hover()
    assert " m" in seen.locator("output").inner_text()
    before = color(page, "one", 0.5, 0.5)
    seen.locator("#colors").select_option("turbo")
    assert color(page, "one", 0.5, 0.5) != before
    page.locator("#one-angle input").fill("60")
    page.locator("#one-angle input").press("Enter")
    page.locator("perpixel-cloud[data-ready] canvas").wait_for()
    drawn = "() => document.querySelector('perpixel-cloud').shadowRoot.querySelector('canvas').toDataURL()"
    first = page.evaluate(drawn)
    page.locator("perpixel-cloud canvas").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(f"(first) => ({drawn})() !== first", arg=first)


def test_restoration(page: Any, address: str, folder: Path) -> None:
    image = next((folder / "clean/val/val").glob("*.png"))
    visit(page, address, "clean")
    give(page, "one-image", image)
    viewer(page, "one")
    give(page, "one-truth", folder / "clean/val/gt" / image.name.replace("n_", "gt_"))
    page.get_by_text("Figures of this image alone").wait_for()
    rows = read_rows(folder / "runs/clean/evaluation/val/per_image.csv")
    row = next(row for row in rows if row["sample"].endswith(f"/{image.stem[2:]}"))
    told = page.locator("#one-told").inner_text()
    for key in ("psnr", "ssim", "brightness_matched/psnr"):
        assert f"{key}\t{number(float(row[key]))}" in told
    seen = viewer(page, "one")
    assert seen.locator("#split").input_value() == "50"
    seen.locator("#split").fill("100")
    left = color(page, "one", 0.3, 0.3)
    seen.locator("#split").fill("0")
    assert color(page, "one", 0.3, 0.3) != left
    seen.locator("#right").select_option("matched")
    seen.get_by_text("as bright on average").wait_for()
    seen.locator("#light").fill("4")
    assert "brightness(4)" in (seen.locator("canvas").first.get_attribute("style") or "")


def test_a_bad_file_is_answered_with_a_sentence(page: Any, address: str, folder: Path) -> None:
    visit(page, address, "salt")
    bad = folder / "bad.png"
    bad.write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'></svg>")
    give(page, "one-image", bad)
    page.get_by_role("alert").get_by_text("SVG").wait_for()
    assert json.load(urllib.request.urlopen(f"{address}/api/health"))["status"] == "ok"


def test_a_program_asks_the_page(address: str, folder: Path) -> None:
    code = (
        "import sys; from gradio_client import Client, handle_file\n"
        "client = Client(sys.argv[1], verbose=False)\n"
        "files, told = client.predict('salt.safetensors', handle_file(sys.argv[2]), None, api_name='/predict')\n"
        "print(len(files), told['classes'][1]['class'])"
    )
    command = [sys.executable, "-c", code, address, str(salt_sample(folder)[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "6 salt\n", done.stderr


@pytest.mark.parametrize("path", ["/etc/passwd", "{folder}/runs/salt/recipe.yaml", "{folder}/open/salt/depths.csv"])
def test_files_of_the_machine_are_not_served(address: str, folder: Path, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{address}/gradio_api/file={path.format(folder=folder)}")
    assert refused.value.code == 403
    refused.value.close()


def test_two_models(page: Any, address: str, folder: Path) -> None:
    visit(page, address, "salt", "two")
    page.locator("#two-second input").click()
    page.get_by_role("option", name="both", exact=True).click()
    give(page, "two-image", salt_sample(folder)[0])
    seen = viewer(page, "two")
    seen.locator(".tag", has_text="A: salt").wait_for()
    seen.locator(".tag", has_text="B: both").wait_for()
    page.get_by_text("different classes on 0.00%").wait_for()
    seen.locator("#right").select_option("difference")
    seen.get_by_text("white: the two name different classes").wait_for()


def test_many_images(page: Any, address: str, folder: Path) -> None:
    visit(page, address, "salt", "many")
    page.locator("#many-folder textarea, #many-folder input").first.fill("salt/train/images")
    page.locator("#many-start").click()
    page.get_by_text("20 of 20 images predicted").wait_for()
    with page.expect_download() as download:
        page.get_by_role("link", name="predictions.zip").click()
    assert download.value.path().stat().st_size > 1000
    assert page.locator("#many-gallery img").count() >= 20


def test_a_folder_is_given(page: Any, address: str, folder: Path) -> None:
    visit(page, address, "salt.safetensors", "many")
    page.locator("#card", has_text="exported file").wait_for()
    page.locator("input[webkitdirectory]").set_input_files(str(folder / "open/salt/test/images"))
    page.locator("#many-images", has_text=".png").wait_for()
    page.locator("#many-start").click()
    page.get_by_text("images predicted in").wait_for()
    page.locator("#many-gallery img").nth(1).wait_for()  # the gallery is drawn after the sentence


def test_an_example_and_a_data_set(page: Any, address: str) -> None:
    visit(page, address, "both")
    page.locator("#one-image").locator("xpath=../..").locator("xpath=..").get_by_role("button").locator(
        "img"
    ).first.click()
    viewer(page, "one")
    page.get_by_role("tab", name="Inspect").click()
    page.locator("#inspect-folder input, #inspect-folder textarea").first.fill("salt")
    page.locator("#inspect-start").click()
    page.locator("#inspect-told").get_by_role("status").wait_for()
    shown = page.frame_locator("#inspect-told iframe")
    shown.get_by_role("heading", name="Inspection of salt").wait_for()
    assert shown.locator(".pictures img").count() > 0


def test_runs_and_the_address(page: Any, address: str) -> None:
    visit(page, address, "salt", "runs")
    page.locator("#runs-plot polyline").wait_for()
    page.locator("#runs-chosen input").click()
    page.get_by_role("option", name="other", exact=True).click()
    page.get_by_text("Comparison on test").wait_for()
    assert page.locator("#runs-plot polyline").count() == 2
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Report of salt").click()
    opened.value.get_by_role("heading", name="How it was trained").wait_for()
    opened.value.close()
    page.get_by_role("tab", name="One image").click()
    page.wait_for_function("location.search.includes('tab=image')")
    assert "run=salt" in page.url


def test_a_phone_in_the_dark(browser: Any, address: str, folder: Path) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, color_scheme="dark")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    visit(page, address, "salt")
    give(page, "one-image", salt_sample(folder)[0])
    viewer(page, "one")
    give(page, "one-truth", salt_sample(folder)[1])
    page.get_by_text("Figures of this image alone").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    background, text = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector('#card dd')).color]"
    )
    assert sum(map(int, background[4:-1].split(",")[:3])) < 150 < sum(map(int, text[4:-1].split(",")[:3]))
    context.close()


def test_nothing_there_says_what_to_do(browser: Any, tmp_path: Path) -> None:
    server, address = start(tmp_path)
    try:
        page = browser.new_page()
        page.goto(address)
        page.get_by_text("perpixel train salt").wait_for(timeout=PATIENCE)
        page.close()
    finally:
        stop(server)
