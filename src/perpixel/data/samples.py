"""From a folder (or a CSV) to a list of samples: each image, its target, and what tables say of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from perpixel.data.archives import unpack_missing
from perpixel.errors import DataError
from perpixel.recipe import DataSection, did_you_mean

_SHOWN = 8


@dataclass(frozen=True)
class Sample:
    """One image and, if it has one, its target; ``attributes`` are the columns of the data's tables."""

    id: str
    image: Path
    target: Path | None
    subset: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)


def data_root(data: DataSection, override: Path | None = None) -> Path:
    """The data folder; raises DataError when none is named or it does not exist."""
    root = override or (Path(data.root) if data.root else None)
    if root is None:
        raise DataError(
            "the recipe names no data folder", where="data.root", cure="give --data DIR, or --set data.root=DIR."
        )
    if not root.is_dir():
        raise DataError("this data folder does not exist", where=root, cure="give the folder with --data DIR.")
    return root


def list_samples(data: DataSection, root: Path) -> list[Sample]:
    """All labelled samples, sorted by id.

    Raises:
        DataError: no image, an image without a target, a repeated id, or a missing table.
    """
    unpack_missing(data.archives, root)
    samples = _from_csv(data.pairs_csv, root) if data.pairs_csv else _from_templates(data, root)
    missing = [sample for sample in samples if sample.target is None or not sample.target.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(samples)} images have no target",
            where=root,
            details=_shorten([f"{sample.image} -> {sample.target} is missing" for sample in missing]),
            rule="every image needs its target; a missing one is never read as an empty one.",
            cure="add the files, move the images away, or correct data.targets.",
        )
    return _with_tables(samples, data.tables, root)


def list_unlabelled(data: DataSection, root: Path) -> list[Sample]:
    """Images without targets (a competition's test set), sorted by id."""
    if data.unlabelled is None:
        raise DataError("the recipe names no unlabelled images", where="data.unlabelled", cure="set the template.")
    unpack_missing(data.archives, root)
    found = _match_template(data.unlabelled, root)
    if not found:
        raise DataError("no image matches data.unlabelled", where=root / data.unlabelled)
    samples = [Sample(id=id_, image=path, target=None, subset=subset) for id_, subset, path in found]
    _refuse_repeated(samples)
    return samples


def _from_templates(data: DataSection, root: Path) -> list[Sample]:
    found = _match_template(data.images, root)
    if not found:
        present = sorted(path.name + ("/" if path.is_dir() else "") for path in root.iterdir())
        raise DataError(
            f"no image matches {data.images!r}",
            where=root,
            details=[f"the folder holds: {', '.join(present[:12]) or 'nothing'}"],
            cure="correct data.images (and data.targets), or give another --data folder.",
        )
    samples = [
        Sample(
            id=id_ if subset is None else f"{subset}/{id_}",
            image=path,
            target=root / data.targets.replace("{id}", id_).replace("{subset}", subset or ""),
            subset=subset,
        )
        for id_, subset, path in found
    ]
    _refuse_repeated(samples)
    return samples


def _match_template(template: str, root: Path) -> list[tuple[str, str | None, Path]]:
    """(id, subset, path) of every file that fits; sorted, so that nothing depends on the directory order."""
    pattern = re.escape(template).replace(r"\{id\}", "(?P<id>[^/]+)").replace(r"\{subset\}", "(?P<subset>[^/]+)")
    regex = re.compile(pattern)
    found = []
    for path in root.glob(template.replace("{id}", "*").replace("{subset}", "*")):
        match = regex.fullmatch(path.relative_to(root).as_posix())
        if match and path.is_file() and not path.name.startswith("."):
            found.append((match["id"], match.groupdict().get("subset"), path))
    return sorted(found, key=lambda item: (item[1] or "", item[0]))


def _from_csv(name: str, root: Path) -> list[Sample]:
    table = _read_table(root / name)
    absent = [column for column in ("image", "target") if column not in table]
    if absent:
        raise DataError(
            f"column {' and '.join(absent)} is missing",
            where=root / name,
            rule="the columns are image,target and, optionally, id, subset, and others to split by.",
        )
    samples = []
    for row in table.to_dict("records"):
        attributes = {str(key): str(value) for key, value in row.items() if key not in ("image", "target", "subset")}
        samples.append(
            Sample(
                id=str(row.get("id") or Path(row["image"]).with_suffix("").as_posix()),
                image=root / row["image"],
                target=root / row["target"] if row["target"] else None,
                subset=row.get("subset") or None,
                attributes=attributes,
            )
        )
    absent_images = [str(sample.image) for sample in samples if not sample.image.is_file()]
    if absent_images:
        raise DataError(
            f"{len(absent_images)} images of this table do not exist",
            where=root / name,
            details=_shorten(absent_images),
            rule="paths are relative to the data folder.",
        )
    samples.sort(key=lambda sample: sample.id)
    _refuse_repeated(samples)
    return samples


def _with_tables(samples: list[Sample], tables: tuple[str, ...], root: Path) -> list[Sample]:
    for name in tables:
        table = _read_table(root / name)
        if "id" not in table:
            close = did_you_mean("id", [str(column) for column in table.columns])
            raise DataError(f"this table has no column 'id'{close}", where=root / name)
        repeated = table["id"][table["id"].duplicated()]
        if len(repeated):
            raise DataError("an id stands twice in this table", where=root / name, details=_shorten(list(repeated)))
        rows = {str(row["id"]): row for row in table.to_dict("records")}
        samples = [
            replace(
                sample,
                attributes=sample.attributes
                | {str(key): str(value) for key, value in rows.get(sample.id, {}).items() if key != "id"},
            )
            for sample in samples
        ]
    return samples


def _read_table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError("this table does not exist", where=path, cure="add it, or take it out of the data section.")
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"this is not a readable CSV table: {error}", where=path) from None


def _refuse_repeated(samples: list[Sample]) -> None:
    seen: dict[str, Path] = {}
    repeated = []
    for sample in samples:
        if sample.id in seen:
            repeated.append(f"{sample.id}: {seen[sample.id]} and {sample.image}")
        seen[sample.id] = sample.image
    if repeated:
        raise DataError("an id names two images", details=_shorten(repeated), rule="ids are unique.")


def _shorten(lines: list[str]) -> list[str]:
    rest = len(lines) - _SHOWN
    return lines if rest <= 0 else [*lines[:_SHOWN], f"and {rest} more"]
