"""Unpacking: once, whole or not at all, and never outside the folder."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from perpixel.data import archives
from perpixel.data.archives import unpack_missing
from perpixel.errors import DataError
from perpixel.recipe.schema import Archive

TRAIN = Archive(file="train.zip", folder="train")


def zipped(root: Path, entries: dict[str, bytes], name: str = "train.zip", method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(root / name, "w", method) as archive:
        for entry, data in entries.items():
            archive.writestr(zipfile.ZipInfo(entry), data, compress_type=method)
    return root / name


def tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def refused(root: Path) -> str:
    """Nothing but the zip is left after a refusal."""
    before = {path: path.stat().st_mtime_ns for path in root.parent.rglob("*") if path != root}
    with pytest.raises(DataError) as caught:
        unpack_missing([TRAIN], root)
    assert str(root / "train.zip") in caught.value.text()
    assert before == {path: path.stat().st_mtime_ns for path in root.parent.rglob("*") if path != root}
    return caught.value.text()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The data folder, in a folder of its own: what leaves it lands in ``tmp_path`` and is seen."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def test_the_competitions_zip_holds_what_is_inside(root: Path) -> None:
    files = {"images/a.png": b"1", "masks/a.png": b"2", "images/": b""}
    zipped(root, files)
    unpack_missing([TRAIN], root)
    assert tree(root / "train") == {"images/a.png": b"1", "masks/a.png": b"2"}
    assert names(root) == ["train", "train.zip"]
    mode = stat.S_IMODE((root / "train").stat().st_mode)
    assert mode & 0o555 == 0o555, "others may read it"


def test_a_zip_of_the_folder_itself(root: Path) -> None:
    zipped(root, {"train/images/a.png": b"1", "train/masks/a.png": b"2"})
    unpack_missing([TRAIN], root)
    assert tree(root / "train") == {"images/a.png": b"1", "masks/a.png": b"2"}
    assert names(root) == ["train", "train.zip"]


def test_a_zip_from_a_mac(root: Path) -> None:
    zipped(root, {"train/images/a.png": b"1", "__MACOSX/train/images/._a.png": b"x", "train/.DS_Store": b"x"})
    unpack_missing([TRAIN], root)
    assert tree(root / "train") == {"images/a.png": b"1"}


def test_a_folder_and_a_neighbour_are_what_is_inside(root: Path) -> None:
    zipped(root, {"train/a.png": b"1", "read.me": b"2"})
    unpack_missing([TRAIN], root)
    assert tree(root / "train") == {"train/a.png": b"1", "read.me": b"2"}


def test_backslashes_are_slashes(root: Path) -> None:
    source = zipped(root, {"images/a.png": b"1", "masks/": b""})
    source.write_bytes(source.read_bytes().replace(b"images/", b"images\\").replace(b"masks/", b"masks\\"))
    unpack_missing([TRAIN], root)
    assert tree(root / "train") == {"images/a.png": b"1"}


def test_unpacked_once(root: Path) -> None:
    zipped(root, {"a.png": b"1"})
    unpack_missing([TRAIN], root)
    (root / "train/a.png").write_bytes(b"changed by hand")
    zipped(root, {"a.png": b"2"})
    unpack_missing([TRAIN], root)
    assert (root / "train/a.png").read_bytes() == b"changed by hand"


def test_no_zip_is_no_error_and_folders_may_be_deep(root: Path) -> None:
    unpack_missing([TRAIN], root)
    assert not list(root.iterdir())
    zipped(root, {"a.png": b"1"}, "x.zip")
    unpack_missing([TRAIN, Archive(file="x.zip", folder="raw/x")], root)
    assert tree(root / "raw") == {"x/a.png": b"1"}


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "\\evil", "C:\\evil", "C:evil", "."]
)
def test_names_that_leave_the_folder(name: str, root: Path) -> None:
    zipped(root, {"fine.png": b"1", name: b"2"})
    assert "names that leave its folder" in refused(root)


def test_links(root: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(root / "train.zip", "w") as archive:
        archive.writestr(info, "/etc")
        archive.writestr("link/passwd", b"1")
    assert "symbolic links\n  - link" in refused(root)


def test_a_bomb(root: Path) -> None:
    zipped(root, {"a.png": bytes(10_000_000)})
    assert "would unpack 1 files" in refused(root)


def test_too_many_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_MOST_FILES", 3)
    zipped(root, {f"{number}.png": b"1" for number in range(4)})
    assert "would unpack 4 files" in refused(root)


@pytest.mark.parametrize("cut", [0, 10, 500, -30])
def test_a_zip_that_is_cut(cut: int, root: Path) -> None:
    source = zipped(root, {"a.png": os.urandom(1000)})
    source.write_bytes(source.read_bytes()[:cut])
    assert "damaged" in refused(root)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_with_a_wrong_byte(method: int, root: Path) -> None:
    source = zipped(root, {"a.png": bytes(range(256)) * 8}, method=method)
    data = bytearray(source.read_bytes())
    data[30 + len("a.png")] = 0xFF  # the first byte of the content; for deflate, an unknown kind of block
    source.write_bytes(data)
    assert "damaged" in refused(root)


def test_a_zip_with_a_password(root: Path) -> None:
    source = zipped(root, {"a.png": b"1"}, method=zipfile.ZIP_STORED)
    data = bytearray(source.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    source.write_bytes(data)
    assert "cannot unpack" in refused(root) and "password" in refused(root)


def test_a_file_that_is_also_a_folder(root: Path) -> None:
    zipped(root, {"a": b"1", "a/b": b"2"})
    assert "cannot unpack" in refused(root)


def test_stopped_half_way_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zipped(root, {f"{number}.png": b"1" for number in range(4)})
    copied = 0
    real = archives.shutil.copyfileobj

    def stop_at_the_third(reader: object, writer: object) -> None:
        nonlocal copied
        copied += 1
        if copied == 3:
            raise KeyboardInterrupt
        real(reader, writer)

    monkeypatch.setattr(archives.shutil, "copyfileobj", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        unpack_missing([TRAIN], root)
    assert names(root) == ["train.zip"]
    monkeypatch.undo()
    unpack_missing([TRAIN], root)
    assert len(tree(root / "train")) == 4


def test_killed_half_way_leaves_no_folder(root: Path) -> None:
    """A kill runs no clean-up: what is left is hidden, and the next call starts afresh."""
    zipped(root, {f"{number}.png": b"1" for number in range(4)})
    code = (
        "import time\nfrom pathlib import Path\nfrom perpixel.data import archives\n"
        "from perpixel.recipe.schema import Archive\n"
        "archives.shutil.copyfileobj = lambda *_: (print('copying', flush=True), time.sleep(60))\n"
        f"archives.unpack_missing([Archive(file='train.zip', folder='train')], Path({str(root)!r}))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "copying\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert not (root / "train").exists()
    assert all(name.startswith(".train-") for name in names(root) if name != "train.zip")
    unpack_missing([TRAIN], root)
    assert len(tree(root / "train")) == 4


def test_two_processes_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zipped(root, {"a.png": b"1"})
    real = archives.shutil.copyfileobj

    def another_is_faster(reader: object, writer: object) -> None:
        monkeypatch.setattr(archives.shutil, "copyfileobj", real)
        unpack_missing([TRAIN], root)
        real(reader, writer)

    monkeypatch.setattr(archives.shutil, "copyfileobj", another_is_faster)
    unpack_missing([TRAIN], root)
    assert tree(root / "train") == {"a.png": b"1"}
    assert names(root) == ["train", "train.zip"]
