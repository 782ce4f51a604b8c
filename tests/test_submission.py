"""The submission is what was predicted, or it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from perpixel.errors import RequestError, RunError
from perpixel.evaluation.submission import Submission
from perpixel.recipe import SubmissionSection


def mask(*rows: str) -> NDArray[np.bool_]:
    return np.array([[char == "#" for char in row] for row in rows])


MASKS = {
    "b": mask("#..", "##."),
    "a": mask("...", "..."),
    "c10": mask("..#", "#.."),
    "c9": mask("###", "###"),
}
# By hand: pixels count from 1 down the columns, so of 2x3 the columns are 1 2 | 3 4 | 5 6.
GOLDEN = "id,rle_mask\na,\nb,1 2 4 1\nc10,2 1 5 1\nc9,1 6\n"


def submission(maps: Mapping[str, NDArray[Any]], **settings: Any) -> Submission:
    made = Submission(SubmissionSection(**settings))
    for name, map_hw in maps.items():
        made.add(name, map_hw)
    return made


def test_the_golden_file(tmp_path: Path) -> None:
    submission(MASKS).write(tmp_path / "deep" / "s.csv")
    assert (tmp_path / "deep" / "s.csv").read_bytes() == GOLDEN.encode()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["s.csv"]


@pytest.mark.parametrize("one", [mask("..", ".."), mask("#.", "..")])
def test_equal_rows_are_refused_and_the_old_file_stays(tmp_path: Path, one: NDArray[np.bool_]) -> None:
    path = tmp_path / "s.csv"
    path.write_text("old")
    with pytest.raises(RunError, match="all 2 predictions are the same") as caught:
        submission({"a": one, "b": one}).write(path)
    assert ("empty" in caught.value.what) is not one.any()
    assert path.read_text() == "old"
    submission({"a": one}).write(path)  # a single image proves nothing


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("b,1 2 4 1", "b,1 2", "1 rows read back differ"),
        ("a,\n", "a,1 1\n", "1 rows read back differ"),
        ("c9,1 6", "c9,1 600", "1 rows read back differ"),
        ("c9,1 6", "c9,x", "1 rows read back differ"),
        ("c9,1 6\n", "", "the 3 ids read back"),
        ("c9,1 6\n", "c9,1 6\nc9,1 6\n", "the 5 ids read back"),
        ("c9", "c8", "ids read back"),
        ("id,rle_mask", "id,mask", "4 rows read back differ"),
    ],
)
def test_an_altered_file_is_seen(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "s.csv"
    path.write_text(GOLDEN)
    submission(MASKS).verify(path)
    assert GOLDEN.count(old) == 1
    path.write_text(GOLDEN.replace(old, new))
    with pytest.raises(RunError, match=message):
        submission(MASKS).verify(path)


LUMA = np.arange(12, dtype=np.uint8).reshape(3, 4)


def test_low_light_tells_every_eighth_pixel(tmp_path: Path) -> None:
    """System 3: `ID,pixel_0,...`, the stem's test_ replaced by gt_, whole numbers."""
    maps = {"test_2": LUMA, "test_10": 2 * LUMA}
    settings = {"format": "wide", "id_column": "ID", "id_replace": ("test_", "gt_"), "stride": 8}
    submission(maps, **settings).write(tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text() == "ID,pixel_0,pixel_1\ngt_10,0,16\ngt_2,0,8\n"


def test_other_editions_tell_evenly_spaced_pixels(tmp_path: Path) -> None:
    """System 4: `id,ImageID,0..`, of a map resized before."""
    maps = {"b": np.full((8, 8), 1.23456, np.float32), "a": np.full((8, 8), 2.0, np.float32)}
    settings = {"format": "wide", "number_column": "id", "id_column": "ImageID", "value_column": "", "count": 3}
    submission(maps, **settings, size=(2, 2)).write(tmp_path / "s.csv")
    expected = "id,ImageID,0,1,2\n0,a,2.0000,2.0000,2.0000\n1,b,1.2346,1.2346,1.2346\n"
    assert (tmp_path / "s.csv").read_text() == expected


def test_a_row_a_pixel(tmp_path: Path) -> None:
    maps = {"x": np.array([[1.5, 2.25]], dtype=np.float32)}
    submission(maps, format="long", value_column="Predicted", digits=2).write(tmp_path / "s.csv")
    assert (tmp_path / "s.csv").read_text() == "id,Predicted\nx_0,1.50\nx_1,2.25\n"


def test_evenly_spaced_means_from_the_first_to_the_last() -> None:
    made = submission({"x": LUMA}, format="wide", count=4)
    assert made._values["x"].tolist() == [0, 4, 7, 11]


def test_an_altered_value_is_seen(tmp_path: Path) -> None:
    made = submission({"x": LUMA, "y": LUMA + 1}, format="wide", stride=4)
    made.write(tmp_path / "s.csv")
    (tmp_path / "s.csv").write_text((tmp_path / "s.csv").read_text().replace("y,1,5", "y,1,6"))
    with pytest.raises(RunError, match="1 rows read back differ"):
        made.verify(tmp_path / "s.csv")


def test_a_format_tells_one_kind_of_map() -> None:
    with pytest.raises(RequestError, match="does not tell"):
        submission({"x": LUMA})
    with pytest.raises(RequestError, match="does not tell"):
        submission({"x": MASKS["b"]}, format="wide")
    with pytest.raises(RequestError, match="two images have the id 'a'"):
        submission({"a": LUMA, "xa": LUMA}, format="wide", id_replace=("x", ""))
