"""The submission is what was predicted, or it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from perpixel.errors import RunError
from perpixel.evaluation.submission import verify_submission, write_submission


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


def test_the_golden_file(tmp_path: Path) -> None:
    write_submission(tmp_path / "deep" / "s.csv", MASKS)
    assert (tmp_path / "deep" / "s.csv").read_bytes() == GOLDEN.encode()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["s.csv"]


@pytest.mark.parametrize("one", [mask("..", ".."), mask("#.", "..")])
def test_equal_rows_are_refused_and_the_old_file_stays(tmp_path: Path, one: NDArray[np.bool_]) -> None:
    path = tmp_path / "s.csv"
    path.write_text("old")
    with pytest.raises(RunError, match="all 2 predictions are the same") as caught:
        write_submission(path, {"a": one, "b": one})
    assert ("empty" in caught.value.what) is not one.any()
    assert path.read_text() == "old"
    write_submission(path, {"a": one})  # a single image proves nothing


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("b,1 2 4 1", "b,1 2", "1 masks read back differ"),
        ("a,\n", "a,1 1\n", "1 masks read back differ"),
        ("c9,1 6", "c9,1 600", "1 masks read back differ"),
        ("c9,1 6", "c9,x", "1 masks read back differ"),
        ("c9,1 6\n", "", "the 3 ids read back"),
        ("c9,1 6\n", "c9,1 6\nc9,1 6\n", "the 5 ids read back"),
        ("c9", "c8", "ids read back"),
        ("id,rle_mask", "id,mask", "4 masks read back differ"),
    ],
)
def test_an_altered_file_is_seen(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "s.csv"
    path.write_text(GOLDEN)
    verify_submission(path, MASKS)
    assert GOLDEN.count(old) == 1
    path.write_text(GOLDEN.replace(old, new))
    with pytest.raises(RunError, match=message):
        verify_submission(path, MASKS)
