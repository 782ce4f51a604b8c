"""The submission of a competition: written, read back, compared."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perpixel import rle
from perpixel.errors import DataError, RequestError, RunError
from perpixel.recipe import SubmissionSection
from perpixel.run import read_rows, write_atomic


class Submission:
    """Collects what a submission tells of each image; writes it, with ids sorted, and reads it back.

    Only the told pixels are kept, so that 18,000 images fit.
    """

    def __init__(self, section: SubmissionSection) -> None:
        self.section = section
        self._values: dict[str, NDArray[Any]] = {}

    def add(self, id_: str, map_hw: NDArray[Any]) -> None:
        """Take up an image's prediction.

        Raises:
            RequestError: the format tells masks and this is none, or the other way about; a map of colours; two
                images of one id.
        """
        name = self._renamed(id_)
        if name in self._values:
            raise RequestError(f"two images have the id {name!r}", where="submission.id_replace")
        if map_hw.ndim != 2 or (self.section.format == "rle") != (map_hw.dtype == np.bool_):
            raise RequestError(
                "this format does not tell what this run predicts",
                where=f"submission.format = {self.section.format}",
                rule="'rle' tells one mask an image; 'wide' and 'long' tell a number a pixel.",
                cure="set submission.format in the run's recipe.yaml.",
            )
        self._values[name] = map_hw if self.section.format == "rle" else self._told(map_hw)

    @property
    def summary(self) -> str:
        """What is in it, for a person."""
        if self.section.format == "rle":
            return f"{len(self._values)} rows, {sum(bool(mask.any()) for mask in self._values.values())} with a mask"
        told = {len(values) for values in self._values.values()}
        return f"{len(self._values)} images, {' or '.join(map(str, sorted(told)))} values each"

    def write(self, path: Path) -> None:
        """Write the CSV, read it back and compare.

        Raises:
            RunError: all images would tell the same, or what was read back differs.
        """
        images = [self._values[name].tobytes() for name in sorted(self._values)]
        if len(images) > 1 and len(set(images)) == 1:
            empty = self.section.format == "rle" and not next(iter(self._values.values())).any()
            raise RunError(
                f"all {len(images)} predictions are the same{' (empty)' if empty else ''}",
                where=path,
                rule="a submission whose rows are all equal is a failed model, not a result.",
                cure="look at the predictions: perpixel predict RUN IMAGES --out DIR.",
            )
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self._heading())
        for number, row in enumerate(self._rows()):
            writer.writerow(row if self.section.number_column is None else (number, *row))
        write_atomic(path, text.getvalue())
        self.verify(path)

    def verify(self, path: Path) -> None:
        """Read a submission and compare it with what was predicted; raises RunError on any difference."""
        rows = read_rows(path)
        wanted = [[str(cell) for cell in row] for row in self._rows()]
        columns = self._heading()[self.section.number_column is not None :]
        ids = [row.get(self.section.id_column) for row in rows]
        if ids != [row[0] for row in wanted]:
            raise RunError(f"the {len(rows)} ids read back are not the {len(wanted)} that were predicted", where=path)
        wrong = [row[0] for row, found in zip(wanted, rows, strict=True) if not self._agrees(row, found, columns)]
        if wrong:
            raise RunError(f"{len(wrong)} rows read back differ", where=path, details=wrong[:8])

    def _agrees(self, wanted: list[str], found: Mapping[str, str], columns: list[str]) -> bool:
        if self.section.format == "rle":  # compared as masks: the code itself is under test
            return _same(found.get("rle_mask"), self._values[wanted[0]])
        return [found.get(column) for column in columns] == wanted

    def _renamed(self, id_: str) -> str:
        return id_.replace(*self.section.id_replace) if self.section.id_replace is not None else id_

    def _told(self, map_hw: NDArray[Any]) -> NDArray[Any]:
        section = self.section
        if section.size is not None and map_hw.shape != section.size:
            smaller = section.size[0] * section.size[1] < map_hw.size
            how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
            map_hw = cv2.resize(map_hw, section.size[::-1], interpolation=how)
        flat_n = map_hw.reshape(-1)
        if section.count is not None:
            flat_n = flat_n[np.linspace(0, len(flat_n) - 1, section.count).round().astype(int)]
        return np.array(flat_n[:: section.stride])

    def _heading(self) -> list[str]:
        section = self.section
        first = [] if section.number_column is None else [section.number_column]
        if section.format == "rle":
            return [*first, section.id_column, "rle_mask"]
        if section.format == "long":
            return [*first, section.id_column, section.value_column]
        count = max((len(values) for values in self._values.values()), default=0)
        return [*first, section.id_column, *(f"{section.value_column}{number}" for number in range(count))]

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        for name in sorted(self._values):
            values = self._values[name]
            if self.section.format == "rle":
                yield name, rle.encode(values)
            elif self.section.format == "wide":
                yield name, *self._written(values)
            else:
                yield from ((f"{name}_{number}", value) for number, value in enumerate(self._written(values)))

    def _written(self, values: NDArray[Any]) -> list[Any]:
        """Whole numbers as they are, fractions with the section's digits."""
        if values.dtype.kind in "iub":
            return list(values.tolist())
        return [f"{value:.{self.section.digits}f}" for value in values.tolist()]


def _same(code: str | None, mask_hw: NDArray[np.bool_]) -> bool:
    try:
        return code is not None and np.array_equal(rle.decode(code, mask_hw.shape), mask_hw)
    except DataError:  # not a run-length code at all
        return False
