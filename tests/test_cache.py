"""The cache equals the files, or it is not there."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perpixel.data import cache as room
from perpixel.data.cache import (
    CachedSamples,
    DecodedSamples,
    StreamedSamples,
    cache_folder,
    decode_samples,
    fingerprint,
)
from perpixel.data.samples import Sample, list_samples
from perpixel.errors import DataError
from perpixel.images import write_image, write_label_map
from perpixel.tasks import build_task
from tiny import tiny_recipe, write_tiny


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERPIXEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "data", count=6)


def decode(root: Path, *settings: str, contents: bool = True, **options: Any) -> tuple[DecodedSamples, str]:
    recipe = tiny_recipe(root, *settings)
    task = build_task(recipe)
    samples = list_samples(recipe.data, root)
    key = fingerprint(samples, task.meaning, contents=contents)
    return decode_samples(samples, task.decode_target, key=key, **options), key


def streamed(root: Path) -> StreamedSamples:
    recipe = tiny_recipe(root)
    samples = list_samples(recipe.data, root)
    decoded = decode_samples(samples, build_task(recipe).decode_target, key=None)
    assert isinstance(decoded, StreamedSamples)
    return decoded


def assert_equal(left: DecodedSamples, right: DecodedSamples) -> None:
    assert len(left) == len(right)
    for index in range(len(left)):
        assert np.array_equal(left.image(index), right.image(index))
        assert np.array_equal(left.target(index), right.target(index))
        assert left.target(index).dtype == right.target(index).dtype


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_cache_equals_the_files(root: Path, folder: Path) -> None:
    # Another size, an odd one, so that offsets matter.
    write_image(root / "train/images/zz.png", np.random.default_rng(0).integers(0, 256, (7, 13, 3), dtype=np.uint8))
    write_label_map(root / "train/masks/zz.png", np.arange(91).reshape(7, 13) % 2)
    steps: list[tuple[int, int]] = []
    decoded, key = decode(root, progress=lambda done, total: steps.append((done, total)))
    assert isinstance(decoded, CachedSamples)
    assert steps == [(number, 7) for number in range(1, 8)]
    assert_equal(decoded, streamed(root))
    assert names(folder) == [f"samples-{key}"]


def test_a_second_time_nothing_is_decoded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = decode(root)
    monkeypatch.setattr(room, "read_image", None)
    second, _ = decode(root)
    assert_equal(first, second)


def test_a_changed_file_makes_another_cache(root: Path) -> None:
    path = root / "train/masks/0000000001.png"
    _, before = decode(root)
    stat = path.stat()
    content = path.read_bytes()
    write_label_map(path, np.zeros((40, 40), dtype=np.int64))
    # Even with the old time and, as far as the key sees, nothing but other contents.
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    decoded, after = decode(root)
    assert after != before
    assert not decoded.target(1).any()
    path.write_bytes(content)
    assert decode(root)[1] == before


def test_another_class_map_or_another_id_makes_another_cache(root: Path) -> None:
    _, before = decode(root)
    classes = "target.classes=[{name: a, values: [65535], color: [0,0,0]}, {name: b, values: [0], color: [1,1,1]}]"
    turned, after = decode(root, classes)
    assert after != before
    assert turned.target(0).all()  # an empty mask
    for kind in ("images", "masks"):
        (root / f"train/{kind}/0000000001.png").rename(root / f"train/{kind}/000000000f.png")
    assert decode(root)[1] not in (before, after)


def test_the_key_does_not_know_the_folder(root: Path, tmp_path: Path) -> None:
    _, here = decode(root)
    shutil.copytree(root, tmp_path / "moved")
    assert decode(tmp_path / "moved")[1] == here


def test_all_bad_files_are_listed_at_once(root: Path, folder: Path) -> None:
    (root / "train/images/0000000000.png").write_bytes(b"no image")
    write_label_map(root / "train/masks/0000000002.png", np.full((40, 40), 77))
    write_label_map(root / "train/masks/0000000003.png", np.zeros((40, 39), dtype=np.int64))
    with pytest.raises(DataError, match="3 of 6 samples") as caught:
        decode(root)
    text = caught.value.text()
    assert "images/0000000000.png: this is not an image" in text
    assert "masks/0000000002.png: 1 raw value not in the class map: 77 (1600 px)" in text
    assert "0000000003: the image is 40x40, its target 39x40" in text
    assert names(folder) == []


def refused(root: Path) -> list[str]:
    with pytest.raises(DataError, match="samples cannot be used") as caught:
        decode(root)
    return caught.value.details


def test_one_problem_of_many_files_is_one_sentence(root: Path) -> None:
    write_tiny(root, count=30)
    for index, path in enumerate(sorted((root / "train/masks").iterdir())):
        if index < 20:
            write_label_map(path, np.full((40, 40), 7 if index % 2 else 9))
        elif index < 25:
            path.write_bytes(b"")
        elif index < 27:
            write_label_map(path, np.zeros((40 + index, 40), dtype=np.int64))
    values, empty, sizes = refused(root)
    # The values of all files, with the pixels of all files.
    assert values.startswith("20 files (")
    assert "/0000000002.png and 17 more): 2 raw values not in the class map: 7 (16000 px), 9 (16000 px)" in values
    assert empty.startswith("5 files (") and "this is not an image" in empty
    assert sizes.startswith("2 files (0000000019, 000000001a): for example: the image is 40x40, its target 40x65")
    assert all("\n" not in line for line in (values, empty, sizes))


def test_a_long_list_is_cut_and_counted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_SHOWN", 1)
    (root / "train/masks/0000000000.png").write_bytes(b"")
    write_label_map(root / "train/masks/0000000001.png", np.full((40, 40), 7))
    write_label_map(root / "train/masks/0000000002.png", np.zeros((4, 4), dtype=np.int64))
    assert refused(root)[1:] == ["and 2 other problems"]


def test_swapped_images_and_targets_are_said(root: Path) -> None:
    (root / "train/masks").rename(root / "train/other")
    (root / "train/images").rename(root / "train/masks")
    (root / "train/other").rename(root / "train/images")
    swapped = refused(root)[0]
    # Every fifth mask is empty: a black image says nothing.
    assert swapped.startswith("4 files (0000000001, 0000000002, 0000000003 and 1 more): the image can be read as a")
    assert "they look swapped" in swapped and "exchange data.images and data.targets" in swapped
    assert "look swapped" in refused(root)[1]  # by the number of values


def test_labels_of_three_equal_channels_are_read_and_noted(root: Path) -> None:
    before = [decode(root)[0].target(index).copy() for index in range(6)]
    for path in (root / "train/masks").iterdir():
        mask = before[int(path.stem, 16)] * 255
        write_image(path, np.repeat(mask.astype(np.uint8)[..., None], 3, axis=2))
    decoded, _ = decode(root)
    assert decoded.notes == {"label file: three equal channels, read as one": 6}
    assert all(np.array_equal(decoded.target(index), before[index]) for index in range(6))


def test_streamed_samples_refuse_the_same_files(root: Path) -> None:
    write_label_map(root / "train/masks/0000000003.png", np.zeros((40, 39), dtype=np.int64))
    decoded = streamed(root)
    decoded.target(2)
    with pytest.raises(DataError, match="its target 39x40"):
        decoded.target(3)


def test_a_kill_while_building_leaves_nothing_half(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        """Stands for a kill: not even the clean-up runs."""

    original, calls = room.read_image, []

    def dying(path: Path, **options: Any) -> Any:
        calls.append(path)
        if len(calls) == 4:
            raise Killed
        return original(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(room, "read_image", dying)
        patch.setattr(room.shutil, "rmtree", lambda *args, **options: None)
        with pytest.raises(Killed):
            decode(root)
    (left,) = names(folder)
    assert left.startswith(".building-")
    decoded, key = decode(root)
    assert_equal(decoded, streamed(root))
    assert names(folder) == [left, f"samples-{key}"]  # it may be another process's work
    old = time.time() - 2 * 86400
    os.utime(folder / left, (old, old))
    write_label_map(root / "train/masks/0000000001.png", np.zeros((40, 40), dtype=np.int64))
    decode(root)
    assert left not in names(folder)


@pytest.mark.parametrize("broken", ["file", "full", "small"])
def test_an_unusable_cache_is_said_and_streamed(
    root: Path, folder: Path, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    if broken == "file":
        folder.write_text("in the way")
    elif broken == "full":
        monkeypatch.setattr(room.np, "save", full)
    else:
        monkeypatch.setattr(room, "_LARGEST_BYTES", 1000)
    decoded, _ = decode(root)
    assert isinstance(decoded, StreamedSamples)
    ((note, count),) = decoded.notes.items()
    assert count == 6
    assert note.startswith("decoded anew each time: ")
    assert {"file": "File exists", "full": "No space left", "small": "do not fit"}[broken] in note
    if broken != "file":
        assert names(folder) == []
        monkeypatch.undo()
    assert_equal(decoded, streamed(root))


def test_another_process_may_finish_first(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = room._write

    def slower(*args: Any) -> bool:
        monkeypatch.setattr(room, "_write", original)
        decode(root)
        return original(*args)

    monkeypatch.setattr(room, "_write", slower)
    decoded, key = decode(root)
    assert isinstance(decoded, CachedSamples)
    assert names(folder) == [f"samples-{key}"]


def test_notes_of_the_files_are_counted(root: Path) -> None:
    from PIL import Image

    with Image.open(root / "train/images/0000000000.png") as image:
        image.convert("L").save(root / "train/images/0000000000.png")
    decoded, _ = decode(root)
    assert decoded.notes == {"grey repeated into red, green and blue": 1}
    assert decode(root)[0].notes == decoded.notes


def test_sizes_alone_make_a_cheaper_key(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12")
    sample = [Sample("a", tmp_path / "a", None)]
    before = [fingerprint(sample, "m", contents=contents) for contents in (True, False)]
    (tmp_path / "a").write_bytes(b"21")
    after = [fingerprint(sample, "m", contents=contents) for contents in (True, False)]
    assert before[0] != after[0]
    assert before[1] == after[1]
    assert fingerprint([Sample("b", tmp_path / "a", None)], "m", contents=True) != after[0]


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    assert cache_folder() == folder
    monkeypatch.delenv("PERPIXEL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "elsewhere")
    assert cache_folder() == Path("elsewhere/perpixel")
