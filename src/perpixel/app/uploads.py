"""Uploaded files: looked at before anything decodes them. What a file is, its first bytes say, not its name."""

from __future__ import annotations

import mmap
import re
import shutil
import zipfile
from pathlib import Path

from perpixel.app.limits import RefusedError

__all__ = ["PICTURES", "check_upload", "safe_stem", "take_upload"]

_READ = "PNG, JPEG, TIFF, WebP, BMP or GIF of one picture."
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"II*\x00", ".tif"),
    (b"MM\x00*", ".tif"),
    (b"BM", ".bmp"),
    (b"GIF87a", ".gif"),
    (b"GIF89a", ".gif"),
    (b"\x93NUMPY", ".npy"),
)
PICTURES = frozenset({".png", ".jpg", ".tif", ".bmp", ".gif", ".webp"})
# What makes a picture something else too, for a program that looks for that.
_SECOND_NATURE = re.compile(
    rb"<script|<\?php|<html[> ]|<!doctype|<svg[> ]|Rar!\x1a\x07|7z\xbc\xaf\x27\x1c", re.IGNORECASE
)
_HEAD = 1024


def take_upload(source: Path, folder: Path, *, limit: int, arrays: bool = False, name: str | None = None) -> Path:
    """Copy an upload that may be read into ``folder``, under a name whose ending is what the file is.

    Args:
        limit: bytes.
        arrays: whether ``.npy`` may be read too.
        name: what the visitor calls the file; default: its own name.

    Raises:
        RefusedError: see `check_upload`.
    """
    ending = check_upload(source, limit=limit, arrays=arrays)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{safe_stem(name or source.name)}{ending}"
    shutil.copyfile(source, target)
    return target


def check_upload(path: Path, *, limit: int, arrays: bool = False) -> str:
    """The ending that stands for what ``path`` holds.

    Raises:
        RefusedError: too large, empty, no picture that is read here, or a picture that is a second kind of file too.
    """
    size = path.stat().st_size
    if size > limit:
        raise _refused(path, f"the file has {size / 1e6:.1f} MB", f"an upload has at most {limit / 1e6:.0f} MB.")
    if not size:
        raise _refused(path, "the file is empty", _READ)
    with path.open("rb") as file:
        head = file.read(_HEAD)
        ending = _ending(head)
        if ending is None and re.search(rb"<svg[\s>]", head, re.IGNORECASE):
            raise _refused(path, "this is SVG, a drawing and not pixels", _READ, "Export it as PNG.")
        if ending is None or (ending not in PICTURES and not arrays):
            raise _refused(path, "this is not a picture that is read here, whatever its name says", _READ)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            double = b"%PDF-" in head or _SECOND_NATURE.search(content) is not None
    if double or zipfile.is_zipfile(path):
        raise _refused(
            path,
            "the file is a picture and a second kind of file at once",
            "such files are made to deceive, and are not read.",
            "Open the picture in an image program and save it again.",
        )
    return ending


def safe_stem(name: str) -> str:
    """A file name's stem of letters, digits, dots, dashes and underscores alone."""
    return re.sub(r"[^\w.-]+", "_", Path(name.replace("\\", "/")).stem).strip("._")[:60] or "image"


def _ending(head: bytes) -> str | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    return next((ending for signature, ending in _SIGNATURES if head.startswith(signature)), None)


def _refused(path: Path, what: str, rule: str, cure: str | None = None) -> RefusedError:
    return RefusedError(what, where=path.name, rule=rule, cure=cure)
