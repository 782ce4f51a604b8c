"""Data sets of desert scenes: layout, the same bytes in every way of making them, continuation, refusals."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from perpixel import api
from perpixel.errors import RequestError, RunError
from perpixel.images import read_image, read_label_map
from perpixel.synthesis import WRITERS
from perpixel.synthesis.desert import DESERT_CLASSES
from perpixel.synthesis.desert_dataset import subset_of, synthesize_desert
from perpixel.synthesis.scene import Environment, Material, Mesh, Scene, camera_from_fov, look_at

pytest.importorskip("mitsuba")

SIZE = (32, 24)
SMALL: dict[str, Any] = {"size": SIZE, "spp": 1, "variant": "scalar"}


def make_scene(seed: int, index: int, *, place: str | None, size: tuple[int, int]) -> Scene:
    """A ground 2 m below a camera that looks at the horizon, and a board 5 m ahead that is instance 90000."""
    ground_n3 = np.array([[-50, -50, 0], [50, -50, 0], [50, 50, 0], [-50, 50, 0]], np.float32)
    board_n3 = np.array([[5, -1, 1], [5, 1, 1], [5, 1, 3], [5, -1, 3]], np.float32)
    faces_m3 = np.array([[0, 1, 2], [0, 2, 3]], np.uint32)
    shade = 0.2 + 0.05 * index
    meshes = tuple(
        Mesh(vertices_n3, faces_m3, np.full((4, 3), shade, np.float32), "any", class_id, np.full(2, number, np.uint32))
        for vertices_n3, class_id, number in ((ground_n3, 7100, 0), (board_n3, 700, 90000))
    )
    camera = camera_from_fov(*size, vertical_fov=60, pose_44=look_at((0, 0, 2), yaw=0, pitch=0))
    light = Environment(np.ones((4, 8, 3), np.float32))
    facts = {"place": place or "ABC"[index % 3], "wind": index / 2}
    return Scene(f"s{index}", (Material("any"),), meshes, light, camera, sky_class=10000, facts=facts)


def make_scene_that_fails(seed: int, index: int, *, place: str | None, size: tuple[int, int]) -> Scene:
    if index == 2:
        raise ValueError("a cactus too many")
    return make_scene(seed, index, place=place, size=size)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("desert") / "whole"
    synthesize_desert(out, count=10, seed=4, make_scene=make_scene, **SMALL)
    return out


def test_layout_of_system_1(whole: Path) -> None:
    maps = {"Color_Images": ".png", "Segmentation": ".png", "Depth": ".tiff", "Instance": ".png", "Normals": ".png"}
    subsets = {"train": range(8), "val": [8], "test": [9]}
    stems = [f"{subset}/KIND/{i:05d}" for subset, ids in subsets.items() for i in ids]
    expected = {stem.replace("KIND", kind) + ending for stem in stems for kind, ending in maps.items()}
    assert set(contents(whole)) == expected | {"scenes.csv", "synthesis.json"}


def test_every_map_holds_what_was_drawn(whole: Path) -> None:
    folder = whole / "val"
    image = read_image(folder / "Color_Images" / "00008.png")
    labels = read_label_map(folder / "Segmentation" / "00008.png")
    assert image.pixels_hwc.shape == (24, 32, 3) and image.notes == []
    assert labels.kind == "16-bit" and labels.values_hw is not None
    board = labels.values_hw == 700
    assert set(np.unique(labels.values_hw)) == {700, 7100, 10000} and board.sum() > 30
    np.testing.assert_array_equal(read_label_map(folder / "Instance" / "00008.png").values_hw, board)

    depth_hw = cv2.imread(str(folder / "Depth" / "00008.tiff"), cv2.IMREAD_UNCHANGED)
    assert depth_hw is not None and depth_hw.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "Depth" / "00008.tiff")), depth_hw)
    np.testing.assert_allclose(depth_hw[board], 5, rtol=1e-6)  # planar: all of the board is 5 m deep
    assert (np.isinf(depth_hw) == (labels.values_hw == 10000)).all()
    # A level camera sees a ground 2 m below itself at f * 2 / (y - cy).
    ground_m = 2 * (12 / np.tan(np.radians(30))) / (23.5 - 12)
    np.testing.assert_allclose(depth_hw[-1, 0], ground_m, rtol=1e-6)

    normal_hwc = cv2.imread(str(folder / "Normals" / "00008.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    decoded_hwc = normal_hwc / 65535 * 2 - 1
    np.testing.assert_allclose(decoded_hwc[board], np.tile([0, 0, -1], (board.sum(), 1)), atol=2e-5)
    np.testing.assert_allclose(decoded_hwc[-1, 0], [0, -1, 0], atol=2e-5)
    assert (normal_hwc[labels.values_hw == 10000] == 32768).all()


def test_the_table_of_scenes(whole: Path) -> None:
    with (whole / "scenes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"{i:05d}" for i in range(10)]
    assert [row["subset"] for row in rows] == ["train"] * 8 + ["val", "test"]
    assert [row["place"] for row in rows] == list("ABCABCABCA")
    row = rows[3]
    assert (row["seed"], row["wind"], row["variant"], row["width"]) == ("4", "1.5", "scalar_rgb", "32")
    np.testing.assert_allclose(float(row["fy"]), 12 / np.tan(np.radians(30)))
    pose_34 = [[float(row[f"pose_{i}{j}"]) for j in range(4)] for i in range(3)]
    np.testing.assert_allclose(pose_34, [[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 2]], atol=1e-12)


def test_subsets_are_80_10_10() -> None:
    subsets = [subset_of(i) for i in range(1000)]
    assert [subsets.count(name) for name in ("train", "val", "test")] == [800, 100, 100]


def test_several_processes_give_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    synthesize_desert(
        tmp_path / "out",
        count=10,
        seed=4,
        make_scene=make_scene,
        processes=2,
        progress=lambda *r: reports.append(r),
        **SMALL,
    )
    assert contents(tmp_path / "out") == contents(whole)
    assert reports == [(done, 10) for done in range(11)]


def test_a_killed_synthesis_is_continued(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="cactus"):
        synthesize_desert(out, count=10, seed=4, make_scene=make_scene_that_fails, **SMALL)
    assert not (out / "synthesis.json").exists()
    kept, lost = out / "train/Color_Images/00001.png", out / "train/Depth/00002.tiff"
    lost.write_bytes(b"half")  # of the scene that was being written
    (out / "train/Depth/.00002.tiff-abcd1234").write_bytes(b"half")
    before = kept.stat().st_mtime_ns
    said: list[str] = []
    synthesize_desert(out, count=10, seed=4, make_scene=make_scene, say=said.append, **SMALL)
    assert contents(out) == contents(whole)
    assert kept.stat().st_mtime_ns == before  # not drawn again
    assert len(said) == 2 and "scalar_rgb" in said[0] and "libllvm19" in said[1]


def test_a_finished_folder_is_left_and_another_refused(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    reports: list[tuple[int, int]] = []
    synthesize_desert(
        whole, count=10, seed=4, make_scene=make_scene_that_fails, progress=lambda *r: reports.append(r), **SMALL
    )
    assert reports == [(10, 10)]
    with pytest.raises(RequestError, match="another synthetic data set"):
        synthesize_desert(whole, count=10, seed=5, make_scene=make_scene, **SMALL)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_a_failure_in_a_process_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="a cactus too many"):
        synthesize_desert(tmp_path / "out", count=3, seed=0, make_scene=make_scene_that_fails, processes=2, **SMALL)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"count": 0}, "number of scenes is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"size": (960, 2)}, "960x2"),
        ({"place": "D"}, "known: A, B, C"),
        ({"spp": 0}, "rays"),
        ({"processes": 0}, "processes"),
    ],
)
def test_arguments_out_of_range(wrong: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=told):
        synthesize_desert(tmp_path / "out", **({"count": 1, "seed": 0} | wrong))
    assert not (tmp_path / "out").exists()


def test_the_api_knows_every_kind_and_refuses_foreign_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuple(WRITERS) == api.SYNTHESES
    with pytest.raises(RequestError, match="salt has no --spp and no --place"):
        api.synthesize("salt", tmp_path / "out", count=1, spp=4, place="A", size=None)
    assert not (tmp_path / "out").exists()
    calls: list[dict[str, Any]] = []

    def record(out: Path, *, count: int, seed: int, size: tuple[int, int] = (1, 1), say: Any = None) -> None:
        calls.append({"out": out, "count": count, "seed": seed, "size": size, "says": say is not None})

    monkeypatch.setitem(WRITERS, "desert", record)
    api.synthesize("desert", tmp_path, count=2, seed=3, size=(5, 6), spp=None)
    assert calls == [{"out": tmp_path, "count": 2, "seed": 3, "size": (5, 6), "says": True}]


@pytest.mark.slow
def test_real_scenes_reach_the_files(tmp_path: Path) -> None:
    """One scene of the desert itself, small; what it looks like is tested elsewhere."""
    synthesize_desert(tmp_path, count=1, seed=0, place="B", size=(64, 36), spp=1)
    assert json.loads((tmp_path / "synthesis.json").read_text())["place"] == "B"
    labels = read_label_map(tmp_path / "train" / "Segmentation" / "00000.png").values_hw
    known = {raw for raw, _, _ in DESERT_CLASSES}
    assert labels is not None and set(np.unique(labels)) <= known and 7100 in labels
