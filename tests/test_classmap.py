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


DESERT = [0, 100, 200, 300, 500, 550, 600, 700, 800, 7100, 10000]


@pytest.mark.parametrize(
    ("named", "ignored", "values", "hint"),
    [
        (DESERT, [], [0, 1, 2, 9], "these look like class indices, counted from 0"),
        (DESERT[1:], [0], [3, 7, 255], "these look like class indices, counted from 0"),
        (range(11), [], DESERT, "names the indices 0 to 10, and these look like raw values"),
        (range(1, 4), [], [0, 1, 2], "every value is one less than one that is named"),
        (range(3), [255], [1, 2, 3, 255], "every value is one more than one that is named"),
        (DESERT, [], [101, 201, 10001], "every value is one more than one that is named"),
        (range(3), [], [0, 1, 2, 3], "3 is one more than the last class: the files may count their classes from 1"),
        (range(3), [], [0, 1, 2, 255], "255 often stands for 'no label': then write it in target.ignore."),
        ([0, 1], [], [0, 255], "or for the foreground: then add it to the values of c1"),
        ([0, 255], [], [0, 65535], "65535 often stands for 'no label'"),
        ([10, 20, 30], [0], [10, 20, 31, 77], "name these values in target.classes, or in target.ignore"),
        ([10, 20, 30], [0], range(100), "data.images and data.targets look swapped"),
    ],
)
def test_the_likeliest_cure_of_unknown_values(
    tmp_path: Path, named: list[int], ignored: list[int], values: list[int], hint: str
) -> None:
    write_label_map(tmp_path / "l.png", np.array([list(values)] * 2))
    text = error_of(class_map(*([value] for value in named), ignore=ignored), tmp_path / "l.png")
    assert hint in text.partition("Cure: ")[2]
    assert "not in the class map: " in text


def test_the_likeliest_cure_of_unknown_colours(tmp_path: Path) -> None:
    mapping = class_map([RGB[0]], [RGB[1]], ignore=[RGB[2]])
    write_image(tmp_path / "bgr.png", np.array(RGB[:2], dtype=np.uint8)[INDEX % 2][..., ::-1])
    assert "red and blue are exchanged" in error_of(mapping, tmp_path / "bgr.png")
    photograph = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    write_image(tmp_path / "photo.png", photograph)
    text = error_of(mapping, tmp_path / "photo.png")
    assert "more than 64 raw values not in the class map: " in text and "look swapped" in text
    assert len(text) < 1000
    assert "look swapped" in error_of(class_map([0], [1]), tmp_path / "photo.png")


def test_colours_for_single_values_are_listed_to_be_declared(tmp_path: Path) -> None:
    write_image(tmp_path / "c.png", np.array(RGB, dtype=np.uint8)[INDEX])
    text = error_of(class_map([0], [1]), tmp_path / "c.png")
    assert "[0, 255, 255] (2 px), [10, 20, 30] (2 px), [200, 0, 1] (2 px)" in text


def test_three_equal_channels_are_one(tmp_path: Path) -> None:
    write_image(tmp_path / "grey.png", np.repeat(INDEX[..., None], 3, axis=2))
    notes: list[str] = []
    assert np.array_equal(class_map([0], [1], [2]).read(tmp_path / "grey.png", notes), INDEX)
    assert notes == ["label file: three equal channels, read as one"]
    write_label_map(tmp_path / "plain.png", INDEX)
    notes.clear()
    class_map([0], [1], [2]).read(tmp_path / "plain.png", notes)
    assert notes == []


def discs(high: Any) -> NDArray[Any]:
    rows, columns = np.mgrid[:64, :64]
    return np.where(((rows - 30) ** 2 + (columns - 30) ** 2 < 400)[..., None], high, 0).astype(np.uint8)


def test_labels_saved_as_jpeg_are_refused(tmp_path: Path) -> None:
    mask_hw = discs(255)[..., 0]
    Image.fromarray(mask_hw).save(tmp_path / "mask.png", format="JPEG")  # the content tells, not the name
    text = error_of(class_map([0], [255]), tmp_path / "mask.png")
    assert "saved as JPEG, which smears its values along every edge" in text
    # How much could be recovered, checked against the decoded file.
    with Image.open(tmp_path / "mask.png") as image:
        levels = np.array(image).astype(int)
    share = np.mean((levels <= 8) | (levels >= 247))
    assert share > 0.9 and f"{share:.1%} of the pixels lie within 8 levels of a named value" in text
    Image.fromarray(discs([200, 30, 90])).save(tmp_path / "colour.jpg", quality=95, subsampling=0)
    assert "of the pixels lie within 8 levels" in error_of(
        class_map([[0, 0, 0]], [[200, 30, 90]]), tmp_path / "colour.jpg"
    )
    photograph = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(photograph).save(tmp_path / "photo.jpg")
    assert "If these are the photographs, data.images and data.targets look swapped" in error_of(
        class_map([0], [255]), tmp_path / "photo.jpg"
    )


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
