"""Tars in the layout of WebDataset: the files of a sample stand together and share their name up to the first dot.

``KEY.png`` (or another ending of pictures) is the image, ``KEY.target.png`` the target, ``KEY.json``, which may be
missing, what a table says: ``{"id": ..., "subset": ..., "attributes": {...}}``. Nothing is unpacked under the name that
a tar gives it.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath

from perpixel.data.samples import Sample
from perpixel.errors import DataError

__all__ = ["pairs_in_tars", "tars_of", "write_tars"]

_LARGEST_TABLE = 1 << 20
_ENDING = 12  # characters of a file's ending at most, letters and digits and dots


def tars_of(place: Path) -> list[Path]:
    """The tars that a place stands for: one file, or those of a folder; empty where it is something else."""
    if place.is_file():
        return [place] if place.suffix == ".tar" else []
    return sorted(place.glob("*.tar"))


def pairs_in_tars(tars: Sequence[Path], batch: int) -> Iterator[list[Sample]]:
    """Pairs in the order of the tars, ``batch`` at a time; their files are gone when the next ones are asked for.

    Raises:
        DataError: a damaged tar, or a sample that is no pair.
    """
    samples = (sample for tar in tars for sample in _grouped(tar))
    while True:
        with tempfile.TemporaryDirectory() as folder:
            chosen = [_unpacked(number, sample, Path(folder)) for number, sample in enumerate(islice(samples, batch))]
            if not chosen:
                return
            yield chosen


_Members = dict[str, bytes]  # by ending, lower case


def _grouped(tar: Path) -> Iterator[tuple[Path, str, _Members]]:
    """(tar, key, content by ending) of each sample."""
    key, members = "", _Members()
    try:
        with tarfile.open(tar, "r|") as file:
            for member in file:
                path = PurePosixPath(member.name)
                stem, _, ending = path.name.partition(".")
                if not member.isfile() or not stem or not ending:
                    continue
                found = str(path.parent / stem)
                if found != key and members:
                    yield tar, key, members
                    members = _Members()
                key = found
                content = file.extractfile(member)
                members[ending.lower()] = content.read() if content else b""
            if members:
                yield tar, key, members
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"this tar is damaged or cut short: {error}", where=tar, cure="fetch it again.") from None


def _unpacked(number: int, sample: tuple[Path, str, _Members], folder: Path) -> Sample:
    tar, key, members = sample
    images = [ending for ending in members if "." not in ending and ending not in ("json", "txt", "cls")]
    targets = [ending for ending in members if ending.startswith("target.")]
    if len(images) != 1 or len(targets) != 1:
        raise DataError(
            f"sample {key} is no pair: its files end in {', '.join(sorted(members))}",
            where=tar,
            rule="a sample has one image, KEY.png, and one target, KEY.target.png; KEY.json may say its id.",
            cure="rename the files of the tar.",
        )
    paths = []
    for name, ending in (("image", images[0]), ("target", targets[0].removeprefix("target."))):
        if not ending.replace(".", "").isalnum() or len(ending) > _ENDING:
            raise DataError(f"this is no ending of a file: {ending!r}", where=f"{tar}: {key}")
        paths.append(folder / f"{number}-{name}.{ending}")
        paths[-1].write_bytes(members[images[0] if name == "image" else targets[0]])
    told = _told(members.get("json", b"{}"), f"{tar}: {key}.json")
    attributes = told.get("attributes") or {}
    return Sample(
        str(told.get("id") or key),
        paths[0],
        paths[1],
        str(told["subset"]) if told.get("subset") else None,
        {str(name): str(value) for name, value in attributes.items()} if isinstance(attributes, dict) else {},
    )


def _told(content: bytes, where: str) -> dict[str, object]:
    try:
        told = json.loads(content) if len(content) <= _LARGEST_TABLE else None
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise DataError("this is no JSON of a sample", where=where, rule='it looks like {"id": "7"}.')
    return told


def write_tars(samples: Sequence[Sample], folder: Path, most_bytes: int, progress: Callable[[int, int], None]) -> None:
    """Write the files of samples, as they are, into tars of about ``most_bytes`` in ``folder``."""
    left = list(reversed(samples))
    number = 0
    while left:
        with tarfile.open(folder / f"shard-{number:06d}.tar", "w") as tar:
            while left and (tar.offset == 0 or tar.offset < most_bytes):
                _add(tar, f"{len(samples) - len(left):09d}", left.pop())
                progress(len(samples) - len(left), len(samples))
        number += 1


def _add(tar: tarfile.TarFile, key: str, sample: Sample) -> None:
    assert sample.target is not None  # list_samples refuses samples without one
    told = {"id": sample.id, "subset": sample.subset, "attributes": sample.attributes}
    files = {
        f"{key}{sample.image.suffix.lower()}": sample.image.read_bytes(),
        f"{key}.target{sample.target.suffix.lower()}": sample.target.read_bytes(),
        f"{key}.json": json.dumps(told, ensure_ascii=False).encode(),
    }
    for name, content in files.items():
        member = tarfile.TarInfo(name)  # of no user and no time: the same files make the same tar
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
