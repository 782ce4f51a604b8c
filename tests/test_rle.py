"""The run-length code against hand-made cases, against itself, and against the competition's own table."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image

from perpixel import rle
from perpixel.errors import DataError

GOLDEN = [
    ([[0, 0], [0, 0]], ""),
    ([[1, 1], [1, 1]], "1 4"),
    ([[1, 0, 1], [0, 0, 1]], "1 1 5 2"),  # down the columns: 1 0 | 0 0 | 1 1
    ([[0, 1, 0], [1, 1, 0]], "2 3"),  # a run goes on from the bottom of a column to the top of the next
    ([[0, 0, 0], [0, 0, 1]], "6 1"),
]


@pytest.mark.parametrize(("rows", "text"), GOLDEN)
def test_golden_cases(rows: list[list[int]], text: str) -> None:
    mask_hw = np.array(rows, dtype=bool)
    assert rle.encode(mask_hw) == text
    decoded = rle.decode(text, (mask_hw.shape[0], mask_hw.shape[1]))
    assert decoded.dtype == np.bool_
    np.testing.assert_array_equal(decoded, mask_hw)


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_round_trip(mask_hw: NDArray[np.bool_]) -> None:
    text = rle.encode(mask_hw)
    np.testing.assert_array_equal(rle.decode(text, (mask_hw.shape[0], mask_hw.shape[1])), mask_hw)


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_agrees_with_a_loop(mask_hw: NDArray[np.bool_]) -> None:
    pixels = [i for i, value in enumerate(mask_hw.T.ravel(), start=1) if value]
    runs: list[list[int]] = []
    for pixel in pixels:
        if runs and sum(runs[-1]) == pixel:
            runs[-1][1] += 1
        else:
            runs.append([pixel, 1])
    assert rle.encode(mask_hw) == " ".join(f"{start} {length}" for start, length in runs)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1 2 3", "without a length"),
        ("1 x", "whole numbers"),
        ("1.0 2", "whole numbers"),
        ("-1 2", "whole numbers"),
        ("nan", "whole numbers"),
        ("1 99999999999999999999", "whole numbers"),
        ("0 2", "outside"),
        ("6 2", "outside"),
        ("7 1", "outside"),
        ("3 0", "without pixels"),
        ("1 3 3 1", "overlap"),
        ("4 1 1 1", "overlap"),
        ("2 1 2 1", "overlap"),
    ],
)
def test_decode_refuses(text: str, what: str) -> None:
    with pytest.raises(DataError, match=what):
        rle.decode(text, (2, 3))


def test_touching_runs_are_accepted() -> None:
    np.testing.assert_array_equal(rle.decode("1 2 3 4", (2, 3)), np.ones((2, 3), dtype=bool))


@given(st.text(alphabet="0123456789 -x.", max_size=20))
def test_decode_never_fails_otherwise(text: str) -> None:
    try:
        mask_hw = rle.decode(text, (3, 4))
    except DataError:
        return
    assert mask_hw.sum() == sum(map(int, text.split()[1::2]))


@pytest.mark.parametrize("values", [np.zeros((2, 2), np.uint8), np.zeros(4, bool), np.zeros((1, 2, 2), bool)])
def test_encode_refuses_what_is_no_mask(values: NDArray[np.bool_]) -> None:
    with pytest.raises(DataError, match="no mask"):
        rle.encode(values)


@pytest.mark.skipif("PERPIXEL_SALT" not in os.environ, reason="PERPIXEL_SALT does not name the competition's folder")
def test_agrees_with_the_competition() -> None:
    folder = Path(os.environ["PERPIXEL_SALT"])
    with (folder / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        with Image.open(folder / "train" / "masks" / f"{row['id']}.png") as image:
            mask_hw = np.array(image) > 0
        assert rle.encode(mask_hw) == row["rle_mask"], row["id"]
        np.testing.assert_array_equal(rle.decode(row["rle_mask"], (101, 101)), mask_hw, row["id"])
