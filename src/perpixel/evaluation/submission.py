"""The run-length submission of a competition: written, read back, compared."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perpixel import rle
from perpixel.errors import DataError, RunError
from perpixel.run import read_rows, write_atomic


def write_submission(path: Path, masks: Mapping[str, NDArray[np.bool_]]) -> None:
    """Write ``id,rle_mask``, ids sorted, empty where there is no foreground; then read it back and compare.

    Raises:
        RunError: every row would be the same, or what was read back differs.
    """
    rows = [(id_, rle.encode(masks[id_])) for id_ in sorted(masks)]
    if len(rows) > 1 and len({code for _, code in rows}) == 1:
        raise RunError(
            f"all {len(rows)} predictions are the same ({'empty' if not rows[0][1] else 'one mask'})",
            where=path,
            rule="a submission whose rows are all equal is a failed model, not a result.",
            cure="look at the predictions: perpixel predict RUN IMAGES --out DIR.",
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "rle_mask"))
    writer.writerows(rows)
    write_atomic(path, text.getvalue())
    verify_submission(path, masks)


def verify_submission(path: Path, masks: Mapping[str, NDArray[np.bool_]]) -> None:
    """Read a submission and compare it with the masks, pixel by pixel; raises RunError on any difference."""
    rows = read_rows(path)
    if [row.get("id") for row in rows] != sorted(masks):
        raise RunError(f"the {len(rows)} ids read back are not the {len(masks)} that were predicted", where=path)
    wrong = [row["id"] for row in rows if not _same(row.get("rle_mask"), masks[row["id"]])]
    if wrong:
        raise RunError(f"{len(wrong)} masks read back differ", where=path, details=wrong[:8])


def _same(code: str | None, mask_hw: NDArray[np.bool_]) -> bool:
    try:
        return code is not None and np.array_equal(rle.decode(code, mask_hw.shape), mask_hw)
    except DataError:  # not a run-length code at all
        return False
