"""Night from day: the noise is the planted one, nothing else is changed, and the folder keeps its promises."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data as skimage_data

import perpixel.synthesis.night_dataset as night_dataset
from perpixel import api
from perpixel.console import Console
from perpixel.data.samples import list_samples
from perpixel.errors import DataError, RequestError
from perpixel.images import read_image, write_image
from perpixel.recipe import load_recipe
from perpixel.synthesis import night_sources
from perpixel.synthesis.night import (
    NightScene,
    NightSettings,
    darken,
    develop_raw,
    draw_scene,
    expose_raw,
    to_linear,
    to_picture,
)
from perpixel.synthesis.night_dataset import synthesize_night
from perpixel.synthesis.scene import Environment, Material, Mesh, Scene, camera_from_fov, look_at

SCENE = NightScene(stops=2.0, shot=0.004, read=1e-5, row=0.002, bits=12, red_gain=2.1, blue_gain=1.7)


def smooth(height: int = 64, width: int = 96) -> NDArray[np.float64]:
    """A picture that a mosaic can hold: each channel a slow wave."""
    rows, columns = np.mgrid[:height, :width]
    return 0.5 + 0.3 * np.stack([np.sin(rows / 25 + k) * np.cos(columns / 30 - k) for k in range(3)], axis=2)


def test_tone_curve_and_its_inverse() -> None:
    levels = np.linspace(0, 1, 4097)
    np.testing.assert_allclose(to_picture(to_linear(levels)), levels, atol=1e-9)
    assert (np.diff(to_linear(levels)) > 0).all()
    np.testing.assert_allclose(to_linear(np.array([0, 1])), [0, 1], atol=1e-12)
    # sRGB of 0.5 is 0.7354; 3 x^2 - 2 x^3 of that is 0.8270
    assert to_picture(np.array([0.5]))[0] == pytest.approx(0.8270, abs=1e-4)


def test_without_noise_and_exposure_the_picture_comes_back() -> None:
    image = smooth()
    noisy, clean = darken(image, np.random.default_rng(0), NightScene(red_gain=2.1, blue_gain=1.7))
    np.testing.assert_array_equal(clean, np.round(image * 255))
    assert np.abs(noisy.astype(int) - clean)[2:-2, 2:-2].max() <= 1


@pytest.mark.parametrize("level", [[0.2, 0.6, 0.4], [0.9, 0.1, 0.5]])
def test_a_flat_picture_comes_back_with_its_borders(level: list[float]) -> None:
    image = np.full((8, 10, 3), level)
    noisy, clean = darken(image, np.random.default_rng(0), NightScene(red_gain=2.4, blue_gain=1.5, bits=14))
    assert np.abs(noisy.astype(int) - clean).max() <= 1


def test_interpolation_of_the_mosaic_is_exact_for_ramps() -> None:
    rows, columns = np.mgrid[:20, :24]
    ramp = 0.2 + np.stack([rows + columns, rows + columns + 5, rows + columns + 9], axis=2) / 100
    raw = expose_raw(ramp, np.random.default_rng(0), NightScene())
    np.testing.assert_array_equal(raw[0::2, 0::2], ramp[0::2, 0::2, 0])
    np.testing.assert_array_equal(raw[0::2, 1::2], ramp[0::2, 1::2, 1])
    np.testing.assert_array_equal(raw[1::2, 1::2], ramp[1::2, 1::2, 2])
    np.testing.assert_allclose(develop_raw(raw, NightScene())[2:-2, 2:-2], ramp[2:-2, 2:-2], atol=1e-12)


def test_noise_follows_the_planted_line() -> None:
    scene = replace(SCENE, row=0.0, bits=None, red_gain=1.0, blue_gain=1.0)
    rng = np.random.default_rng(3)
    levels = np.array([0.02, 0.1, 0.2, 0.4, 0.6])
    raws = [expose_raw(np.full((300, 300, 3), level), rng, scene) for level in levels]
    for level, raw in zip(levels, raws, strict=True):
        deviation = math.sqrt(scene.shot * level + scene.read)
        assert raw.mean() == pytest.approx(level, abs=4 * deviation / 300)
    slope, offset = np.polyfit(levels, [raw.var() for raw in raws], 1)
    assert slope == pytest.approx(scene.shot, rel=0.03)
    assert offset == pytest.approx(scene.read, abs=1.5e-5)
    dark = expose_raw(np.zeros((300, 300, 3)), rng, scene)
    assert dark.var() == pytest.approx(scene.read, rel=0.03)
    assert dark.min() < 0  # nothing is cut at black


def test_noise_of_few_photons_is_poissons() -> None:
    scene = NightScene(shot=0.01)
    raw = expose_raw(np.full((200, 200, 3), 0.02), np.random.default_rng(4), scene)
    shares = [np.mean(raw == photons * scene.shot) for photons in range(4)]
    expected = [math.exp(-2) * 2**photons / math.factorial(photons) for photons in range(4)]
    np.testing.assert_allclose(shares, expected, atol=0.01)


def test_rows_share_an_offset() -> None:
    scene = NightScene(read=1e-6, row=0.01)
    raw = expose_raw(np.full((2000, 40, 3), 0.3), np.random.default_rng(5), scene)
    assert raw.mean(axis=1).std() == pytest.approx(0.01, rel=0.06)
    assert raw.std(axis=1).mean() == pytest.approx(0.001, rel=0.05)


def test_quantisation_and_white() -> None:
    raw = expose_raw(
        np.linspace(0, 2, 6000).reshape(20, 100, 3), np.random.default_rng(6), NightScene(bits=4, read=1e-4)
    )
    np.testing.assert_allclose(raw * 15, np.round(raw * 15), atol=1e-9)
    assert raw.max() == 1 and len(np.unique(raw)) >= 16


def test_stops_halve_the_light() -> None:
    image = smooth()
    _, clean = darken(image, np.random.default_rng(0), NightScene(stops=3.0))
    np.testing.assert_array_equal(clean, np.round(to_picture(to_linear(image) / 8) * 255))
    _, day = darken(image, np.random.default_rng(0), NightScene(stops=3.0), truth="day")
    np.testing.assert_array_equal(day, np.round(image * 255))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_types_say_what_white_is(dtype: str) -> None:
    top = np.iinfo(dtype).max
    image = np.round(smooth() * top).astype(dtype)
    _, clean = darken(image, np.random.default_rng(0), NightScene())
    assert np.abs(clean - smooth() * 255).max() <= 0.51


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_sizes_and_same_seed_same_bytes(scale: int) -> None:
    image = smooth(50, 77)
    noisy, clean = darken(image, np.random.default_rng(7), SCENE, scale=scale)
    step = math.lcm(2, scale)
    assert clean.shape == (50 - 50 % step, 77 - 77 % step, 3)
    assert noisy.shape == (clean.shape[0] // scale, clean.shape[1] // scale, 3)
    again = darken(image, np.random.default_rng(7), SCENE, scale=scale)
    np.testing.assert_array_equal(noisy, again[0])
    assert (darken(image, np.random.default_rng(8), SCENE, scale=scale)[0] != noisy).any()


def test_a_smaller_picture_has_no_aliasing() -> None:
    stripes = np.broadcast_to((np.arange(96) % 3 == 0) * 0.5 + 0.2, (96, 96))  # three pixels: a fourth of them alias
    noisy, clean = darken(np.repeat(stripes[..., None], 3, axis=2), np.random.default_rng(0), NightScene(), scale=4)
    assert np.ptp(clean[::4, ::4].astype(int)) > 100
    # Green alone: red and blue, of which a mosaic has every second column, alias on the sensor, as they do in life.
    assert np.ptp(noisy[2:-2, 2:-2, 1].astype(int)) <= 2


def test_jpeg_loses_a_little() -> None:
    image = skimage_data.astronaut()[:128, :128]
    plain, _ = darken(image, np.random.default_rng(9), SCENE)
    poor, _ = darken(image, np.random.default_rng(9), replace(SCENE, jpeg=60))
    fine, _ = darken(image, np.random.default_rng(9), replace(SCENE, jpeg=95))
    losses = [np.abs(other.astype(int) - plain).mean() for other in (fine, poor)]
    assert 0 < losses[0] < losses[1] < 8


def test_scenes_are_drawn_from_the_ranges() -> None:
    rng, settings = np.random.default_rng(10), NightSettings(jpeg=(70, 90), bits=(10, 12))
    scenes = [draw_scene(rng, settings) for _ in range(400)]
    for name in ("stops", "shot", "red_gain", "blue_gain", "bits", "jpeg"):
        values, (low, high) = [getattr(scene, name) for scene in scenes], getattr(settings, name)
        assert low <= min(values) < low + 0.1 * (high - low) + 1e-9 and high - 0.1 * (high - low) < max(values) <= high
    logs = np.log([(scene.shot, scene.read) for scene in scenes])
    slope, offset = np.polyfit(logs[:, 0], logs[:, 1], 1)
    assert slope == pytest.approx(2.18, abs=0.05) and offset == pytest.approx(1.20, abs=0.4)
    assert (logs[:, 1] - slope * logs[:, 0] - offset).std() == pytest.approx(0.26, abs=0.03)
    assert all(0 <= scene.row <= 0.3 * math.sqrt(scene.read) for scene in scenes)


def test_wrong_ranges_and_images_are_refused() -> None:
    with pytest.raises(RequestError, match=r"stops = 4.0\.\.1.0"):
        NightSettings(stops=(4.0, 1.0))
    with pytest.raises(RequestError, match="jpeg"):
        NightSettings(jpeg=(0, 90))
    for wrong in (np.zeros((5, 5)), np.zeros((1, 9, 3))):
        with pytest.raises(ValueError, match="RGB"):
            darken(wrong, np.random.default_rng(0), SCENE)


# ---------------------------------------------------------------- the folder

COUNT, SIZE = 20, (36, 24)
TABLE = {"pairs_csv": "scenes.csv"}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    pictures = [skimage_data.astronaut(), skimage_data.coffee(), skimage_data.chelsea(), skimage_data.rocket()]
    for number, picture in enumerate([*pictures, *(picture[::-1] for picture in pictures)]):
        write_image(folder / f"{number % 2}" / f"{number}.png", picture[100:180, 120:220])
    return folder


@pytest.fixture(scope="module")
def folder(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("night") / "set"
    synthesize_night(path, source=photographs, count=COUNT, seed=3, scale=4, size=SIZE)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def scenes(folder: Path) -> list[dict[str, str]]:
    with (folder / "scenes.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_layout(folder: Path) -> None:
    rows = scenes(folder)
    numbers = [row["id"].rpartition("/")[2] for row in rows]
    assert numbers == [str(number) for number in range(COUNT)]
    names = {
        "train": ("train/train/night", "train/gt"),
        "val": ("val/val/night", "val/gt"),
        "test": ("test/test", "test_gt"),
    }
    expected = {"scenes.csv", "synthesis.json"}
    for number, row in zip(numbers, rows, strict=True):
        noisy, clean = names[row["subset"]]
        assert (row["image"], row["target"]) == (f"{noisy}_{number}.png", f"{clean}/gt_{number}.png")
        assert row["id"] == f"{row['subset']}/{number}"
        expected |= {row["image"], row["target"]}
        assert read_image(folder / row["image"]).pixels_hwc.shape == (6, 9, 3)
        assert read_image(folder / row["target"]).pixels_hwc.shape == (24, 36, 3)
        assert 1 <= float(row["stops"]) <= 4 and 10 <= int(row["bits"]) <= 14
    assert set(contents(folder)) == expected
    subsets = [row["subset"] for row in rows]
    assert (subsets.count("val"), subsets.count("test")) == (4, 2)


def test_a_recipe_finds_the_pairs_by_layout_and_by_table(folder: Path) -> None:
    layout = load_recipe("lowlight", []).data
    by_layout = {sample.id: sample for sample in list_samples(layout, folder)}
    by_table = {sample.id: sample for sample in list_samples(layout.model_copy(update=TABLE), folder)}
    assert len(by_table) == COUNT and len(by_layout) == COUNT - 2  # only the table tells of the test's clean pictures
    for id_, sample in by_layout.items():
        assert (by_table[id_].image, by_table[id_].target, by_table[id_].subset) == (
            sample.image,
            sample.target,
            sample.subset,
        )
    assert {sample.subset for sample in by_table.values()} == {"train", "val", "test"}
    assert 1 <= float(by_table["train/0"].attributes["stops"]) <= 4


def test_a_photograph_gives_to_one_subset_alone(folder: Path, photographs: Path) -> None:
    subsets: dict[str, set[str]] = {}
    for row in scenes(folder):
        subsets.setdefault(row["photograph"], set()).add(row["subset"])
        assert (photographs / row["photograph"]).is_file()
    assert len(subsets) == 8 and all(len(found) == 1 for found in subsets.values())


def test_continued_after_a_kill(
    folder: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"source": photographs, "count": COUNT, "seed": 3, "scale": 4, "size": SIZE}
    written = []

    def dying(path: Path, pixels: NDArray[np.uint8]) -> None:
        if len(written) == 13:  # between the two files of a pair
            raise KeyboardInterrupt
        written.append(path)
        write_image(path, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(night_dataset, "write_image", dying)
        with pytest.raises(KeyboardInterrupt):
            synthesize_night(tmp_path / "set", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "set" / "synthesis.json").exists()
    old = {path: path.stat().st_mtime_ns for path in written[:12]}
    with pytest.raises(RequestError, match="another"):
        synthesize_night(tmp_path / "set", **(options | {"seed": 4}))  # type: ignore[arg-type]
    done: list[tuple[int, int]] = []
    synthesize_night(tmp_path / "set", **options, progress=lambda *numbers: done.append(numbers))  # type: ignore[arg-type]
    assert contents(tmp_path / "set") == contents(folder)
    assert all(path.stat().st_mtime_ns == time for path, time in old.items())
    assert done == [(number, COUNT) for number in range(1, COUNT + 1)]


def test_a_finished_folder_is_left_and_another_refused(folder: Path, photographs: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    synthesize_night(folder, source=photographs, count=COUNT, seed=3, scale=4, size=SIZE)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    for other in ({"scale": 2}, {"truth": "day"}, {"settings": NightSettings(stops=(1, 2))}, {"size": (24, 24)}):
        options = {"scale": 4, "size": SIZE} | other
        with pytest.raises(RequestError, match="another synthetic data set"):
            synthesize_night(folder, source=photographs, count=COUNT, seed=3, **options)  # type: ignore[arg-type]
    assert json.loads((folder / "synthesis.json").read_text())["kind"] == "night"


def test_what_cannot_be_made_is_said(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="scale 5"):
        synthesize_night(tmp_path / "a", source=photographs, count=9, seed=0, scale=5)
    with pytest.raises(DataError, match="no such folder"):
        synthesize_night(tmp_path / "a", source=tmp_path / "missing", count=9, seed=0)
    (tmp_path / "few").mkdir()
    with pytest.raises(DataError, match="0 photographs"):
        synthesize_night(tmp_path / "a", source=tmp_path / "few", count=9, seed=0)
    with pytest.raises(DataError, match=r"\.png: the photograph is 100x80 pixels"):
        synthesize_night(tmp_path / "a", source=photographs, count=9, seed=0, size=(90, 90))


# ---------------------------------------------------------------- without photographs


def test_scikit_images_photographs_serve_where_none_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api.synthesize("night", tmp_path / "set", count=6, size=SIZE, console=Console())
    assert {row["photograph"] for row in scenes(tmp_path / "set")} <= set(night_sources._SKIMAGE)
    with pytest.raises(DataError, match=r"1 of scikit-image's \d photographs have 900x800"):
        api.synthesize("night", tmp_path / "large", count=6, size=(900, 800), console=Console())
    monkeypatch.setattr(night_sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match="--from desert"):
        api.synthesize("night", tmp_path / "missing", count=6, console=Console())
    assert not (tmp_path / "large").exists() and not (tmp_path / "missing").exists()


def board(seed: int, index: int, *, size: tuple[int, int], **_: object) -> Scene:
    """A board before a camera, another grey in every scene."""
    corners = np.array([[5, -1, 1], [5, 1, 1], [5, 1, 3], [5, -1, 3]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.uint32)
    shade = np.full((4, 3), 0.2 + 0.05 * index, np.float32)
    mesh = Mesh(corners, faces, shade, "any", 1, np.zeros(2, np.uint32))
    camera = camera_from_fov(*size, vertical_fov=60, pose_44=look_at((0, 0, 2), yaw=0, pitch=0))
    light = Environment(np.ones((4, 8, 3), np.float32))
    return Scene(f"s{index}", (Material("any"),), (mesh,), light, camera)


@pytest.mark.parametrize("source", ["desert", "objects"])
def test_scenes_are_rendered(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mitsuba")
    drawn: list[int] = []

    def make(seed: int, index: int, **options: Any) -> Scene:
        drawn.append(index)
        if len(drawn) == 4:
            raise KeyboardInterrupt
        return board(seed, index, **options)

    monkeypatch.setattr(night_sources, f"make_{source}_scene", make)
    options: dict[str, Any] = {"count": 12, "seed": 2, "size": SIZE, "source": source, "scale": 4}
    with pytest.raises(KeyboardInterrupt):
        api.synthesize("night", tmp_path / "set", **options)
    said: list[str] = []
    synthesize_night(tmp_path / "set", **options, say=said.append)
    assert drawn == [0, 1, 2, 3, *range(3, 10)]  # ten scenes; those that were drawn are not drawn again
    assert read_image(tmp_path / "set" / "day" / "00000.png").pixels_hwc.shape == (36, 54, 3)
    rows = scenes(tmp_path / "set")
    assert [row["subset"] for row in rows].count("test") == 1 and len({row["photograph"] for row in rows}) == 10
    assert f"--data {tmp_path / 'set'} --set target.scale=4" in said[-1]
