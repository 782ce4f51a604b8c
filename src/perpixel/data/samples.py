"""From a folder (or a CSV) to a list of samples: each image, its target, and what tables say of it."""

from __future__ import annotations

import csv
import glob
import re
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from perpixel.data.archives import unpack_missing
from perpixel.data.cache_folder import cache_folder
from perpixel.data.shard_cache import as_url, mirrored
from perpixel.data.shards import INDEX, Stored, open_shards
from perpixel.errors import DataError
from perpixel.recipe import DataSection

_SHOWN = 8


@dataclass(frozen=True)
class Sample:
    """One image and, if it has one, its target; ``attributes`` are the columns of the data's tables.

    Of a sample of shards ``image`` and ``target`` are only names for people: ``stored`` says where it lies.
    """

    id: str
    image: Path
    target: Path | None
    subset: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    stored: Stored | None = None


def data_root(data: DataSection, override: Path | None = None) -> Path:
    """The data folder, of shards at a URL the one that holds their index; raises DataError when there is none."""
    root = override or (Path(data.root).expanduser() if data.root else None)
    if root is None:
        raise DataError(
            "the recipe names no data folder", where="data.root", cure="give --data DIR, or --set data.root=DIR."
        )
    if (url := as_url(root)) is not None:
        return mirrored(url, cache_folder())
    if not root.is_dir():
        raise DataError("this data folder does not exist", where=root, cure="give the folder with --data DIR.")
    return root


def stated_root(data: DataSection, override: Path | None = None) -> str:
    """The data folder as a recipe states it for any process: the whole path, or the URL; raises as `data_root`."""
    return as_url(override or data.root or "") or str(data_root(data, override).resolve())


def list_samples(data: DataSection, root: Path) -> list[Sample]:
    """All labelled samples: of files sorted by id, of shards in their order.

    Raises:
        DataError: no image, an image without a target, a repeated id, or a missing table; shards that cannot be read.
    """
    if (opened := open_shards(root, data.shard_cache)) is not None:
        shards, rows = opened
        return [
            Sample(row.id, root / row.id, root / row.id, row.subset, row.attributes, Stored(shards, place, row.stratum))
            for place, row in enumerate(rows)
        ]
    unpack_missing(data.archives, root)
    samples = _from_csv(data.pairs_csv, root) if data.pairs_csv else _from_templates(data, root)
    missing = [sample for sample in samples if not _has_target(sample)]
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
    if (root / INDEX).is_file():
        raise DataError("shards hold pairs alone, no unlabelled images", where=root, cure="give --data DIR of files.")
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
            target=root / data.targets.replace("{subset}", subset or "").replace("{id}", id_),
            subset=subset,
        )
        for id_, subset, path in found
    ]
    if data.unlabelled is not None:  # data.images may find them too, as {subset} does in testing/images/{id}.png
        bare = {path for _, _, path in _match_template(data.unlabelled, root)}
        samples = [sample for sample in samples if sample.image not in bare or _has_target(sample)] or samples
    _refuse_repeated(samples)
    return samples


def _has_target(sample: Sample) -> bool:
    return sample.target is not None and sample.target.is_file()


def _match_template(template: str, root: Path) -> list[tuple[str, str | None, Path]]:
    """(id, subset, path) of every file that fits; sorted, so that nothing depends on the directory order."""
    pattern = re.escape(template).replace(r"\{id\}", "(?P<id>[^/]+)").replace(r"\{any\}", "[^/]+")
    pattern = pattern.replace(r"\{subset\}", "(?P<subset>[^/]+)", 1).replace(r"\{subset\}", "(?P=subset)")
    regex = re.compile(pattern, re.DOTALL)
    found = []
    for path in root.glob(re.sub(r"{(id|subset|any)}", "*", glob.escape(template))):
        match = regex.fullmatch(path.relative_to(root).as_posix())
        if match is None or not path.is_file():
            continue
        subset = match.groupdict().get("subset")
        # Hidden files and folders: a system's notes, and archives that are being unpacked.
        if not any(part.startswith(".") for part in (path.name, match["id"], subset or "")):
            found.append((match["id"], subset, path))
    return sorted(found, key=lambda item: (item[1] or "", item[0]))


def _from_csv(name: str, root: Path) -> list[Sample]:
    columns, rows = _read_table(root / name)
    absent = [column for column in ("image", "target") if column not in columns]
    if absent:
        raise DataError(
            f"column {' and '.join(absent)} is missing",
            where=root / name,
            details=[f"the table's columns are: {', '.join(columns)}"],
            rule="the columns are image,target and, optionally, id, subset, and others to split by.",
        )
    absent_images = [str(root / row["image"]) for row in rows if not (root / row["image"]).is_file()]
    if absent_images:
        raise DataError(
            f"{len(absent_images)} images of this table do not exist",
            where=root / name,
            details=_shorten(absent_images),
            rule="paths are relative to the data folder.",
        )
    samples = [
        Sample(
            id=row.get("id") or Path(row["image"]).with_suffix("").as_posix(),
            image=root / row["image"],
            target=root / row["target"] if row["target"] else None,
            subset=row.get("subset") or None,
            attributes={key: value for key, value in row.items() if key not in ("image", "target", "subset")},
        )
        for row in rows
    ]
    if not samples:
        raise DataError("this table has no rows", where=root / name)
    samples.sort(key=lambda sample: sample.id)
    _refuse_repeated(samples)
    return samples


def _with_tables(samples: list[Sample], tables: tuple[str, ...], root: Path) -> list[Sample]:
    for name in tables:
        columns, rows = _read_table(root / name)
        if "id" not in columns:
            raise DataError(
                "this table has no column 'id'",
                where=root / name,
                details=[f"the table's columns are: {', '.join(columns)}"],
            )
        by_id = {row["id"]: {key: value for key, value in row.items() if key != "id"} for row in rows}
        if len(by_id) < len(rows):
            ids = [row["id"] for row in rows]
            repeated = sorted({id_ for id_, following in pairwise(sorted(ids)) if id_ == following})
            raise DataError("an id stands twice in this table", where=root / name, details=_shorten(repeated))
        if not any(sample.id in by_id for sample in samples):
            raise DataError(
                "no id of this table is the id of an image",
                where=root / name,
                details=[
                    f"the table's first id is {next(iter(by_id), None)!r}, the first image's is {samples[0].id!r}"
                ],
            )
        samples = [replace(sample, attributes=sample.attributes | by_id.get(sample.id, {})) for sample in samples]
    return samples


def _read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of a CSV file; every value stays the text that it is."""
    if not path.is_file():
        raise DataError("this table does not exist", where=path, cure="add it, or take it out of the data section.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            columns = [column.strip() for column in next(reader, [])]
            lines = [(reader.line_num, line) for line in reader if line]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"this is not a readable CSV table: {error}", where=path) from None
    ragged = [f"line {number} has {len(line)}" for number, line in lines if len(line) != len(columns)]
    if not columns or len(set(columns)) < len(columns) or ragged:
        raise DataError(
            "this is not a readable CSV table",
            where=path,
            details=_shorten(ragged),
            rule=f"the first line names the columns, each once, and every line has a value for each ({len(columns)}).",
        )
    return columns, [dict(zip(columns, line, strict=True)) for _, line in lines]


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
