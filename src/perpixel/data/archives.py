"""Unpacking a data set's zip files, once and safely."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from perpixel.errors import DataError
from perpixel.recipe.schema import Archive

_MOST_FILES = 1_000_000
_MOST_RATIO = 200  # PNG and JPEG hardly shrink; a zip that grows more than this is a bomb


def unpack_missing(archives: Iterable[Archive], root: Path) -> None:
    """Unpack every archive whose folder is missing; a folder appears whole or not at all.

    Raises:
        DataError: the zip is damaged, is a bomb, or holds names that leave the folder.
    """
    for archive in archives:
        source, folder = root / archive.file, root / archive.folder
        if folder.exists() or not source.is_file():
            continue
        try:
            _unpack(source, folder)
        except (zipfile.BadZipFile, zlib.error, EOFError):
            raise DataError("this zip file is damaged", where=source, cure="fetch it again.") from None
        except (OSError, RuntimeError) as error:  # RuntimeError: it wants a password, or an unknown compression.
            raise DataError(f"cannot unpack: {error}", where=source) from None


def _unpack(source: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with zipfile.ZipFile(source) as archive:
            entries = {_name(entry): entry for entry in archive.infolist()}
            entries = {name: entry for name, entry in entries.items() if not name.endswith("/") and not _is_note(name)}
            _check(entries, source)
            for name, entry in entries.items():
                destination = partial / name
                destination.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as reader, destination.open("wb") as writer:
                    shutil.copyfileobj(reader, writer)
        # A zip made of the folder itself holds `train/...`; the competition's holds what is inside.
        inner = partial / folder.name
        only = list(partial.iterdir()) == [inner] and inner.is_dir()
        partial.chmod(0o755)
        try:
            (inner if only else partial).replace(folder)
        except OSError:
            if not folder.is_dir():  # Else another process has just unpacked it.
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _name(entry: zipfile.ZipInfo) -> str:
    return entry.filename.replace("\\", "/")  # Some tools on Windows write backslashes.


def _is_note(name: str) -> bool:
    """Files that macOS adds to every archive."""
    parts = PurePosixPath(name).parts
    return parts[:1] == ("__MACOSX",) or parts[-1:] == (".DS_Store",)


def _check(entries: dict[str, zipfile.ZipInfo], source: Path) -> None:
    outside = [name for name in entries if _leaves(name)]
    if outside:
        raise DataError("this zip holds names that leave its folder", where=source, details=outside[:5])
    links = [name for name, entry in entries.items() if (entry.external_attr >> 16) & 0o170000 == 0o120000]
    if links:
        raise DataError("this zip holds symbolic links", where=source, details=links[:5])
    unpacked = sum(entry.file_size for entry in entries.values())
    packed = max(1, sum(entry.compress_size for entry in entries.values()))
    if len(entries) > _MOST_FILES or unpacked > packed * _MOST_RATIO:
        raise DataError(
            f"this zip would unpack {len(entries)} files, {unpacked / 2**30:.1f} GiB, from {packed / 2**20:.1f} MiB",
            where=source,
            cure="unpack it by hand if that is right.",
        )


def _leaves(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]
