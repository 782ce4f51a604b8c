"""The synthetic salt data set: its layout, its promises, and whether salt can be told from sediments at all."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perpixel import rle
from perpixel.errors import RequestError
from perpixel.images import read_label_map
from perpixel.synthesis import synthesize_salt
from perpixel.synthesis.salt_dataset import Tile, _groups, cut_tiles
from perpixel.synthesis.seismic import make_mosaic

COUNT, TEST_COUNT, SEED = 40, 12, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("salt") / "set"
    synthesize_salt(path, count=COUNT, test_count=TEST_COUNT, seed=SEED)
    return path


@pytest.fixture(scope="module")
def tiles() -> list[Tile]:
    found = []
    for index in range(40):
        rng = np.random.default_rng([0, index])
        found += cut_tiles(rng, make_mosaic(rng), 8)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_layout(folder: Path) -> None:
    names = {kind: {path.name for path in (folder / kind).iterdir()} for kind in ("train/images", "test/images")}
    assert len(names["train/images"]) == COUNT and len(names["test/images"]) == TEST_COUNT
    assert not names["train/images"] & names["test/images"]
    assert {path.name for path in (folder / "train/masks").iterdir()} == names["train/images"]
    assert not (folder / "test/masks").exists()
    top = {path.name for path in folder.iterdir()}
    assert top == {"train", "test", "train.csv", "depths.csv", "groups.csv", "synthesis.json"}
    ids = [row["id"] for row in table(folder / "depths.csv")]
    assert ids == sorted(ids) == [row["id"] for row in table(folder / "groups.csv")]
    assert {f"{id_}.png" for id_ in ids} == names["train/images"] | names["test/images"]
    assert all(len(id_) == 10 and set(id_) <= set("0123456789abcdef") for id_ in ids)


def test_bit_depths(folder: Path) -> None:
    empty = 0
    for path in (folder / "train/masks").iterdir():
        mask = read_label_map(path)
        assert mask.values_hw is not None and mask.values_hw.shape == (101, 101)
        if mask.values_hw.any():
            assert mask.kind == "16-bit" and set(np.unique(mask.values_hw)) <= {0, 65535}
        else:
            assert mask.kind == "8-bit"
            empty += 1
    assert 0 < empty < COUNT
    for path in [*(folder / "train/images").iterdir(), *(folder / "test/images").iterdir()]:
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("L", (101, 101))


def test_train_csv_equals_the_masks(folder: Path) -> None:
    rows = table(folder / "train.csv")
    assert len(rows) == COUNT
    for row in rows:
        mask = read_label_map(folder / "train/masks" / f"{row['id']}.png")
        assert mask.values_hw is not None
        np.testing.assert_array_equal(rle.decode(row["rle_mask"], (101, 101)), mask.values_hw > 0)


def test_groups_and_depths(folder: Path) -> None:
    groups = {row["id"]: row["mosaic"] for row in table(folder / "groups.csv")}
    assert min(Counter(groups.values()).values()) >= 4
    train = {path.stem for path in (folder / "train/images").iterdir()}
    assert not {groups[id_] for id_ in train} & {group for id_, group in groups.items() if id_ not in train}
    depths = {row["id"]: int(row["z"]) for row in table(folder / "depths.csv")}
    assert all(51 <= z <= 959 for z in depths.values())
    for group in set(groups.values()):
        inside = [depths[id_] for id_ in groups if groups[id_] == group]
        assert max(inside) - min(inside) <= 50


@pytest.mark.parametrize("count", [1, 3, 4, 7, 8, 11, 12, 20, 33, 100, 3001])
def test_every_group_has_several_tiles(count: int) -> None:
    groups = list(_groups(count, count // 4, seed=1))
    ids = [id_ for group in groups for id_ in group.ids]
    assert len(ids) == len(set(ids)) == count + count // 4
    assert [group.mosaic for group in groups] == list(range(len(groups)))
    for subset, total in (("train", count), ("test", count // 4)):
        sizes = [len(group.ids) for group in groups if group.subset == subset]
        assert sum(sizes) == total
        assert all(min(4, total) <= size <= 12 for size in sizes)


def test_same_arguments_give_same_bytes(folder: Path, tmp_path: Path) -> None:
    synthesize_salt(tmp_path / "again", count=COUNT, test_count=TEST_COUNT, seed=SEED)
    assert contents(tmp_path / "again") == contents(folder)


def test_other_seed_gives_other_tiles(tmp_path: Path) -> None:
    synthesize_salt(tmp_path / "a", count=2, test_count=0, seed=1)
    synthesize_salt(tmp_path / "b", count=2, test_count=0, seed=2)
    assert not set(contents(tmp_path / "a")) & {name for name in contents(tmp_path / "b") if name.endswith("png")}
    assert json.loads((tmp_path / "a/synthesis.json").read_text())["test_count"] == 0


def test_interrupted_call_is_continued(tmp_path: Path) -> None:
    synthesize_salt(tmp_path / "whole", count=10, test_count=5, seed=SEED)
    part = tmp_path / "part"

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize_salt(part, count=10, test_count=5, seed=SEED, progress=interrupt)
    assert not (part / "synthesis.json").exists() and not (part / "train.csv").exists()
    next((part / "train/masks").iterdir()).unlink()
    (part / "train/images/.0123456789.png.abc.tmp").write_bytes(b"half")
    with pytest.raises(RequestError, match="another synthetic"):
        synthesize_salt(part, count=11, test_count=5, seed=SEED)
    synthesize_salt(part, count=10, test_count=5, seed=SEED)
    assert contents(part) == contents(tmp_path / "whole")


def test_finished_set_is_kept(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    seen: list[tuple[int, int]] = []
    synthesize_salt(
        folder, count=COUNT, test_count=TEST_COUNT, seed=SEED, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(COUNT + TEST_COUNT, COUNT + TEST_COUNT)]
    with pytest.raises(RequestError, match="another synthetic data set") as refused:
        synthesize_salt(folder, count=COUNT, test_count=TEST_COUNT, seed=SEED + 1)
    assert refused.value.cure
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("id,rle_mask\n")
    with pytest.raises(RequestError, match="other files"):
        synthesize_salt(tmp_path, count=1, seed=0)
    with pytest.raises(RequestError, match="not a folder"):
        synthesize_salt(tmp_path / "train.csv", count=1, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["train.csv"]


@pytest.mark.parametrize(("count", "seed", "test_count"), [(0, 0, None), (1, -1, None), (1, 0, -1)])
def test_impossible_numbers(tmp_path: Path, count: int, seed: int, test_count: int | None) -> None:
    with pytest.raises(RequestError, match="no data set has"):
        synthesize_salt(tmp_path / "new", count=count, seed=seed, test_count=test_count)
    assert not (tmp_path / "new").exists()


def test_progress_and_default_test_count(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    synthesize_salt(tmp_path / "set", count=16, seed=0, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(8, 20), (16, 20), (20, 20)]


def test_coverage_is_like_the_competitions(tiles: list[Tile]) -> None:
    coverage = np.array([tile.mask_hw.mean() for tile in tiles])
    assert 0.30 < (coverage == 0).mean() < 0.48  # 0.39 there
    assert (coverage == 1).mean() < 0.02  # none there
    assert 0.02 < (coverage > 0.95).mean() < 0.10  # 0.044 there
    assert 0.25 < np.median(coverage[coverage > 0]) < 0.50  # 0.36 there


def test_grey_values_are_like_the_competitions(tiles: list[Tile]) -> None:
    images_bhw = np.stack([tile.image_hw for tile in tiles]).astype(np.float64)
    means, spreads = images_bhw.mean(axis=(1, 2)), images_bhw.std(axis=(1, 2))
    assert abs(np.median(means) - 122.6) < 8
    assert abs(np.median(spreads) - 28.0) < 5
    pictured = images_bhw[spreads > 0]
    assert 0.9 < len(pictured) / len(tiles) <= 1  # the others are black: water
    assert (pictured.min(axis=(1, 2)) == 0).all() and (pictured.max(axis=(1, 2)) == 255).all()


def test_salt_can_be_told_from_sediments(tiles: list[Tile]) -> None:
    """Layers repeat sideways; salt does not, and it is quieter: most tiles show it away from the boundary."""
    quieter, tried = 0, 0
    for tile in tiles:
        if 0.2 < tile.mask_hw.mean() < 0.8:
            image_hw = tile.image_hw.astype(np.float64)
            vertical_hw = np.abs(np.diff(image_hw, axis=0))
            salt_hw = tile.mask_hw[1:]
            quieter += np.median(vertical_hw[salt_hw]) < np.median(vertical_hw[~salt_hw])
            tried += 1
    assert tried > 40
    assert quieter / tried > 0.75
