"""Shards that are elsewhere: their index here, and at most so many of their chunks at once, shared by all processes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from perpixel.errors import DataError, RequestError
from perpixel.run import locked, write_atomic

__all__ = ["ChunkCache", "as_url", "digest_of", "mirrored"]

_URL = re.compile(r"(s3|gs|azure|hf|r2|local):/+(.+)")
_REMOTE = "remote.json"
_ARRIVING = "arriving"
_LOCK = "lock"
_FILES = ("perpixel-shards.json", "index.json", "samples.csv")


def as_url(place: str | Path) -> str | None:
    """The URL that litdata knows a place by, also of a path that was one (``s3:/bucket``); None for folders."""
    found = _URL.fullmatch(str(place).rstrip("/"))
    if found is None:
        return None
    scheme, rest = found.groups()
    return f"local:/{rest}" if scheme == "local" else f"{scheme}://{rest}"


def digest_of(path: Path) -> str:
    """A digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


@cache  # a process sees one state of the shards, from its start to its end
def mirrored(url: str, caches: Path) -> Path:
    """A folder below ``caches`` that holds the index of the shards at a URL, fetched now; chunks come when asked for.

    Raises:
        DataError: there are no shards, or they cannot be reached.
        RequestError: the extra ``shards`` is not installed.
    """
    folder = caches / f"shards-{hashlib.blake2b(url.encode(), digest_size=12).hexdigest()}"
    with locked(folder / _LOCK):
        _clear(folder)
        fetched = {name: _fetch(url, name, folder) for name in _FILES}
        index = folder / _FILES[0]
        if not index.is_file() or index.read_bytes() != fetched[_FILES[0]].read_bytes():
            for chunk in folder.glob("chunk-*.bin"):  # of other shards that were there before
                chunk.unlink()
        for name, path in fetched.items():
            os.replace(path, folder / name)
        write_atomic(folder / _REMOTE, json.dumps({"url": url}))
    return folder


@dataclass(frozen=True)
class ChunkCache:
    """Chunks of shards at ``url``, at most ``most`` at once in ``folder``: a further one replaces the oldest.

    A chunk is asked for in an order that all processes share, so that they need the same few at a time. Whoever
    needs one that is not there fetches it, one at a time; what it replaces may be read to its end by others.
    """

    folder: Path
    url: str
    most: int

    @classmethod
    def of(cls, root: Path, most: int) -> ChunkCache | None:
        """The cache of a folder that `mirrored` made; None for others."""
        remote = root / _REMOTE
        return cls(root, json.loads(remote.read_text(encoding="utf-8"))["url"], most) if remote.is_file() else None

    def path(self, name: str, digest: str) -> Path:
        """The file of a chunk, whose content has this digest; it may be gone when it is opened.

        Raises:
            DataError: it cannot be fetched, or is damaged where it comes from.
        """
        path = self.folder / name
        if not path.is_file():
            with locked(self.folder / _LOCK):
                if not path.is_file():
                    _clear(self.folder)
                    self._make_room()
                    fetched = _fetch(self.url, name, self.folder)
                    if digest_of(fetched) != digest:
                        fetched.unlink()
                        raise DataError(
                            "this chunk is damaged: it is not what was written",
                            where=f"{self.url}/{name}",
                            cure="upload it again, or write the shards anew with perpixel shard.",
                        )
                    os.utime(fetched)
                    os.replace(fetched, path)
        return path

    def _make_room(self) -> None:
        """For one more; a larger cache of an earlier training shrinks."""
        chunks = sorted(self.folder.glob("chunk-*.bin"), key=lambda chunk: chunk.stat().st_mtime_ns)
        for chunk in chunks[: max(0, len(chunks) + 1 - self.most)]:
            chunk.unlink()


def _clear(folder: Path) -> None:
    """Remove what a killed process left half fetched."""
    shutil.rmtree(folder / _ARRIVING, ignore_errors=True)


def _fetch(url: str, name: str, folder: Path) -> Path:
    """A file of the shards, not yet at its place; the caller is alone."""
    path = folder / _ARRIVING / name
    path.parent.mkdir(exist_ok=True)
    try:
        _downloader(url, os.getpid()).download_file(f"{url}/{name}", str(path))
    except RequestError:
        raise
    except Exception as error:  # each kind of storage has its own
        raise _unreachable(url, name, error) from None
    if not path.is_file():
        raise _unreachable(url, name, None)
    return path


def _unreachable(url: str, name: str, error: Exception | None) -> DataError:
    return DataError(
        "this file of the shards cannot be fetched",
        where=f"{url}/{name}",
        details=[f"{type(error).__name__}: {error}"[:300]] if error else [],
        cure="check the URL, the network and the credentials (those of the cloud's own tools are used).",
    )


@cache
def _downloader(url: str, process: int) -> Any:
    """litdata's own, one a process: its connections do not survive a fork."""
    try:
        from litdata.streaming.downloader import get_downloader
    except ImportError:
        raise RequestError(
            "shards that are elsewhere are fetched by litdata, which is not installed",
            cure="pip install 'perpixel[shards]'.",
        ) from None
    return get_downloader(url, "", [])
