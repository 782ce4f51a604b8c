"""One declaration reads every kind of label file, and says what it does not name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from perpixel.errors import DataError
from perpixel.images import write_image, write_label_map
from perpixel.recipe import SegmentationTarget
from perpixel.tasks.classmap import IGNORED, ClassMap

INDEX = np.array([[0, 1, 2], [2, 1, 0]], dtype=np.uint8)
RGB = [[10, 20, 30], [200, 0, 1], [0, 255, 255]]


def class_map(*values: list[Any], ignore: list[Any] | None = None) -> ClassMap:
    classes = [{"name": f"c{i}", "values": raw, "color": [i, 0, 0]} for i, raw in enumerate(values)]
    return ClassMap(SegmentationTarget.model_validate({"classes": classes, "ignore": ignore or []}))


def error_of(mapping: ClassMap, path: Path) -> str:
    with pytest.raises(DataError) as caught:
        mapping.read(path)
    return caught.value.text()


@pytest.mark.parametrize("raw", [(0, 1, 2), (0, 128, 255), (100, 5000, 10000), (0, 1, 65535)])
def test_numbers_of_any_width(tmp_path: Path, raw: tuple[int, ...]) -> None:
    path = tmp_path / "label.png"
    write_label_map(path, np.array(raw)[INDEX])
    read = class_map(*([value] for value in raw)).read(path)
    assert read.dtype == np.uint8
    assert np.array_equal(read, INDEX)


def test_the_same_class_by_several_values(tmp_path: Path) -> None:
    salt = class_map([0], [1, 255, 65535])
    mask = INDEX > 0
    for name, high in (("a.png", 1), ("b.png", 255), ("c.png", 65535)):
        write_label_map(tmp_path / name, mask.astype(np.int64) * high)
    Image.fromarray(mask).save(tmp_path / "bit.png")
    with Image.open(tmp_path / "bit.png") as image:
        assert image.mode == "1"
    for name in ("a.png", "b.png", "c.png", "bit.png"):
        assert np.array_equal(salt.read(tmp_path / name), mask)


def write_palette(path: Path) -> None:
    image = Image.fromarray(INDEX)
    image = image.convert("P")
    image.putdata(INDEX.ravel().tolist())
    image.putpalette([level for color in RGB for level in color])
    image.save(path)


def test_a_palette_is_read_by_index_or_by_colour(tmp_path: Path) -> None:
    write_palette(tmp_path / "p.png")
    assert np.array_equal(class_map([0], [1], [2]).read(tmp_path / "p.png"), INDEX)
    # By colour the order of the classes is free of the palette's.
    assert np.array_equal(class_map([RGB[2]], [RGB[1]], [RGB[0]]).read(tmp_path / "p.png"), 2 - INDEX)


def test_rgb_colours_and_ignored_ones(tmp_path: Path) -> None:
    write_image(tmp_path / "c.png", np.array(RGB, dtype=np.uint8)[INDEX])
    read = class_map([RGB[0]], [RGB[1]], ignore=[RGB[2]]).read(tmp_path / "c.png")
    assert np.array_equal(read, np.where(INDEX == 2, IGNORED, INDEX))


def test_ignored_values(tmp_path: Path) -> None:
    write_label_map(tmp_path / "l.png", np.array([[0, 7, 255]]))
    assert class_map([0], [7], ignore=[255, 254]).read(tmp_path / "l.png").tolist() == [[0, 1, IGNORED]]


def test_unknown_values_are_listed_with_counts_and_file(tmp_path: Path) -> None:
    path = tmp_path / "odd.png"
    write_label_map(path, np.array([[0, 1, 3, 3], [9, 3, 0, 300]]))
    text = error_of(class_map([0], [1], ignore=[255]), path)
    assert str(path) in text
    assert "3 raw values not in the class map: 3 (3 px), 9 (1 px), 300 (1 px)" in text
    assert "name 0, 1, 255" in text


def test_unknown_colours_are_listed(tmp_path: Path) -> None:
    write_image(tmp_path / "c.png", np.array(RGB, dtype=np.uint8)[INDEX])
    assert "1 raw value not in the class map: [0, 255, 255] (2 px)" in error_of(
        class_map([RGB[0]], [RGB[1]]), tmp_path / "c.png"
    )


def test_the_wrong_kind_of_file(tmp_path: Path) -> None:
    write_label_map(tmp_path / "numbers.png", INDEX)
    write_image(tmp_path / "colours.png", np.array(RGB, dtype=np.uint8)[INDEX])
    assert "8-bit label map, and target.classes names colours" in error_of(
        class_map([RGB[0]], [RGB[1]]), tmp_path / "numbers.png"
    )
    text = error_of(class_map([0], [1]), tmp_path / "colours.png")
    assert "holds colours" in text
    assert "Cure:" in text


levels = st.integers(0, 255)


@given(data=st.data(), by_color=st.booleans())
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, by_color: bool
) -> None:
    value: st.SearchStrategy[Any] = st.tuples(levels, levels, levels) if by_color else st.integers(0, 65535)
    raw = data.draw(st.lists(value, min_size=3, max_size=6, unique=True))
    mapping = class_map(*([item] for item in raw))
    index: NDArray[np.uint8] = np.array(
        data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=12, max_size=12)), dtype=np.uint8
    ).reshape(3, 4)
    path = tmp_path_factory.getbasetemp() / "round.png"
    mapping.write(path, index)
    assert np.array_equal(mapping.read(path), index)
