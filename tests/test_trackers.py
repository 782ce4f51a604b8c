"""Trackers hold what history.csv holds, each epoch once, also after kills; what fails there ends no training."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from perpixel.run import Run
from perpixel.training import trackers as room
from perpixel.training.trackers import Trackers
from perpixel.training.train import train
from tiny import Told, tiny_recipe

HISTORY = [{"epoch": epoch, "train_loss": 1 / epoch, "val_iou": 0.1 * epoch} for epoch in (1, 2, 3)]


def events(folder: Path) -> list[dict[str, float]]:
    """Rows by step of TensorBoard's files: records of (length, checksum, protocol buffer, checksum)."""
    from tensorboardX.proto.event_pb2 import Event

    rows: dict[int, dict[str, float]] = {}
    for path in folder.glob("events.*"):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + length])
            place += length + 16
            for value in event.summary.value:
                row = rows.setdefault(event.step, {})
                assert value.tag not in row, "told twice"
                row[value.tag] = value.simple_value
    return [rows[step] for step in sorted(rows)]


def assert_equal(rows: Sequence[Mapping[str, float]], history: Sequence[Mapping[str, float]]) -> None:
    """Up to single precision, which is TensorBoard's."""
    assert len(rows) == len(history)
    for row, own in zip(rows, history, strict=True):
        assert dict(row) == pytest.approx(dict(own), rel=1e-6, nan_ok=True)


def asked(*names: str) -> Any:
    return tiny_recipe(Path("nowhere"), f"training.trackers=[{', '.join(names)}]")


def follow(names: Sequence[str], folder: Path) -> Told:
    """Two processes: the first is killed between two epochs, having told of some; the other one goes on."""
    started = subprocess.run([sys.executable, __file__, str(folder), *names], check=False)
    assert started.returncode == -signal.SIGKILL
    console = Told()
    second = Trackers(Run(folder), asked(*names), console)
    second.update(HISTORY[:2])
    second.update(HISTORY)
    second.close()
    return console


def test_tensorboard_holds_the_history(tiny_data: Path, tmp_path: Path) -> None:
    run = train(tiny_recipe(tiny_data, "training.epochs=2"), tmp_path / "run")
    assert len(run.read_history()) == 2
    assert_equal(events(run.path / "tensorboard"), run.read_history())


def test_tensorboard_after_a_kill(tmp_path: Path) -> None:
    assert follow(["tensorboard"], tmp_path / "run").lines == []
    assert_equal(events(tmp_path / "run" / "tensorboard"), HISTORY)


def test_they_are_told_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trackers = Trackers(Run(tmp_path / "run"), asked("tensorboard"), Told())
    for count in (1, 2):
        trackers.update(HISTORY[:count])
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(room, "_SECONDS", 0.0)
    trackers.update(HISTORY)
    assert (tmp_path / "run" / "tensorboard").is_dir()
    trackers.close()
    assert_equal(events(tmp_path / "run" / "tensorboard"), HISTORY)


def test_one_that_fails_is_dropped_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing:
        epochs = 0

        def __init__(self, *args: Any) -> None:
            print("a lot")

        def write(self, row: Mapping[str, float]) -> None:
            raise OSError("no space left on device\nand more")

    monkeypatch.setitem(room._RECORDS, "mlflow", Failing)
    monkeypatch.setitem(room._PACKAGES, "mlflow", "json")
    monkeypatch.setitem(room._PACKAGES, "wandb", "no_such_package")
    monkeypatch.setattr(room, "_SECONDS", 0.0)
    console = Told()
    trackers = Trackers(Run(tmp_path / "run"), asked("mlflow", "wandb", "tensorboard"), console)
    for count in (1, 2, 3):
        trackers.update(HISTORY[:count])
    trackers.close()
    assert console.lines == [
        "tracker mlflow is left out: no space left on device",
        "tracker wandb is left out: No module named 'no_such_package'; pip install \"perpixel[trackers]\"",
    ]
    assert capsys.readouterr().out == ""
    assert_equal(events(tmp_path / "run" / "tensorboard"), HISTORY)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No network: whoever asks for an address fails."""
    import socket

    for name in ("WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    local = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in ("localhost", "127.0.0.1", "::1"):
            raise OSError("no network")
        return local(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield


def test_mlflow_after_a_kill(offline: None, tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    assert follow(["mlflow"], tmp_path / "run").lines == []
    with sqlite3.connect(tmp_path / "run" / "mlflow.db") as base:
        runs = base.execute("select name, status from runs").fetchall()
        told = base.execute("select step, key, value from metrics order by step").fetchall()
        parameters = dict(base.execute("select key, value from params"))
    assert runs == [("run", "FINISHED")]
    assert len(told) == 9
    assert_equal([{key: value for at, key, value in told if at == step} for step in (1, 2, 3)], HISTORY)
    assert parameters["training/batch_size"] == "4"


def test_trackio_after_a_kill(offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed")
    from trackio.sqlite_storage import SQLiteStorage

    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))  # of the other process
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path)
    assert follow(["trackio"], tmp_path / "run").lines == []
    name = json.loads((tmp_path / "run" / "trackers.json").read_text())["trackio"]["name"]
    rows = SQLiteStorage.get_logs("salt", name)
    assert [row.pop("step") for row in rows] == [1, 2, 3]
    assert_equal([{key: row[key] for key in HISTORY[0]} for row in rows], HISTORY)


def test_wandb_after_a_kill(offline: None, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto.wandb_internal_pb2 import Record

    assert follow(["wandb"], tmp_path / "run").lines == []
    rows = []
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert json.loads((tmp_path / "run" / "trackers.json").read_text())["wandb"]["id"] in file.name
    began = time.monotonic()
    while b"val_iou" not in file.read_bytes() and time.monotonic() - began < 10:
        time.sleep(0.1)  # W&B's own process writes it when this one has gone on already
    for record in map(Record.FromString, records(file.read_bytes())):
        if record.WhichOneof("record_type") == "history":
            items = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            rows.append({key: items[key] for key in HISTORY[0]})
    assert_equal(rows, HISTORY)


def records(content: bytes) -> Iterator[bytes]:
    """What a short file of LevelDB's log format holds, behind W&B's 7 bytes: (checksum, length, kind, bytes)."""
    place = 7
    while place < len(content):
        length, kind = struct.unpack_from("<HB", content, place + 4)
        assert kind == 1, "a record in several parts"
        yield content[place + 7 : place + 7 + length]
        place += 7 + length


if __name__ == "__main__":  # the first of two processes
    first = Trackers(Run(Path(sys.argv[1])), asked(*sys.argv[2:]), Told())
    first._told = -1e9  # long ago
    first.update(HISTORY[:2])
    time.sleep(1)  # some write in the background
    os.kill(os.getpid(), signal.SIGKILL)
