"""Train with several processes: start them on this machine, or take the place that torchrun or srun gave this one."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from perpixel import errors
from perpixel.console import Console
from perpixel.errors import PerpixelError, RequestError, RunError
from perpixel.recipe import Recipe
from perpixel.run import Run
from perpixel.training.first_look import FirstLook
from perpixel.training.processes import Place, meet, place_in
from perpixel.training.train import train

WORKER = (sys.executable, "-m", "perpixel.training.worker")
_GRACE_SECONDS = 15.0  # for the error of the process that died first, where another one has noticed its end before us


def train_with(
    recipe: Recipe,
    choose_folder: Callable[[], Path],
    *,
    devices: int | None = None,
    nodes: int | None = None,
    data: Path | None = None,
    resume: bool = False,
    force: bool = False,
    budget: float | None = None,
    console: Console | None = None,
) -> Run:
    """Train a recipe with ``devices`` processes on each of ``nodes`` machines; arguments else as those of `train`.

    One process trains here. Several on one machine are started here, a GPU each where there are GPUs. Under torchrun or
    srun this process is one of those that they have started.

    Args:
        choose_folder: names the run folder; asked once, of the first process.

    Raises:
        RequestError: more machines than one without torchrun or srun, or another number than they have started.
    """
    place = place_in(os.environ)
    count = (devices or 1) * (nodes or 1)
    _check(place, devices, nodes, count)
    if place is not None:
        with meet(place) as processes:
            folder = processes.from_first(choose_folder)
            look = FirstLook(force=force)
            return train(
                recipe,
                folder,
                data=data,
                resume=resume,
                look=look,
                console=console,
                processes=processes,
                budget=budget,
            )
    if count == 1:
        look = FirstLook(force=force)
        return train(recipe, choose_folder(), data=data, resume=resume, look=look, console=console, budget=budget)
    folder = choose_folder()
    job = {
        "recipe": recipe.to_dict(),
        "run": str(folder),
        "data": str(data) if data else None,
        "resume": resume,
        "force": force,
        "budget": budget,
    }
    _run_workers(job, count, console or Console(), folder)
    return Run(folder)


def _check(place: Place | None, devices: int | None, nodes: int | None, count: int) -> None:
    for name, value in (("devices", devices), ("nodes", nodes)):
        if value is not None and value < 1:
            raise RequestError(f"--{name} is {value}", rule="it counts from 1.")
    if place is not None:
        if (devices or nodes) and count != place.world_size:
            raise RequestError(
                f"{place.world_size} processes were started, and --devices {devices or 1} --nodes {nodes or 1} asks for"
                f" {count}",
                cure="leave --devices and --nodes out: what started the processes knows their number.",
            )
        return
    if (nodes or 1) > 1:
        started = f"torchrun --nnodes {nodes} --nproc-per-node {devices or 1} --rdzv-backend c10d"
        raise RequestError(
            f"this process cannot start others on {nodes} machines",
            where=f"--nodes {nodes}",
            cure=f"start it on each of them: {started} --rdzv-endpoint FIRST_MACHINE:29500 -m perpixel train ...;"
            " or let SLURM do it: srun perpixel train ...",
        )
    if torch.cuda.is_available() and count > torch.cuda.device_count():
        raise RequestError(
            f"this machine has {torch.cuda.device_count()} GPUs", where=f"--devices {devices}", rule="a process a GPU."
        )


def _run_workers(job: dict[str, Any], count: int, console: Console, folder: Path) -> None:
    """Start the processes, pass on what the first one says, and wait for all; what ends badly ends all of them.

    Raises:
        PerpixelError: that of the process which failed first.
    """
    events: queue.Queue[tuple[int, dict[str, Any]]] = queue.Queue()
    workers: list[subprocess.Popen[str]] = []
    listeners: list[threading.Thread] = []
    with tempfile.TemporaryDirectory(prefix="perpixel-") as meeting:
        try:
            for rank in range(count):
                place = Place(rank, count, rank, count, (Path(meeting) / "processes").as_uri())
                workers.append(_start(job | {"place": asdict(place)}))
                listener = threading.Thread(target=_listen, args=(rank, workers[rank], events), daemon=True)
                listener.start()
                listeners.append(listener)
            with _signals_to(workers[0]):
                _follow(events, count, console, folder)
        finally:
            for worker in workers:  # and those that load its data; the state that counts is on disk, whole, at any time
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(worker.pid, signal.SIGKILL)
            for worker, listener in zip(workers, listeners, strict=True):
                listener.join()
                assert worker.stdin is not None
                worker.stdin.close()


def _start(job: dict[str, Any]) -> subprocess.Popen[str]:
    worker = subprocess.Popen(
        WORKER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C comes to this process, which tells one of them
    )
    assert worker.stdin is not None
    worker.stdin.write(json.dumps(job) + "\n")
    worker.stdin.flush()  # and stays open: its end tells the worker that this process is gone
    return worker


def _listen(rank: int, worker: subprocess.Popen[str], events: queue.Queue[tuple[int, dict[str, Any]]]) -> None:
    assert worker.stdout is not None
    with worker.stdout:
        for line in worker.stdout:
            with contextlib.suppress(ValueError):  # a line cut off by a kill
                events.put((rank, json.loads(line)))
    events.put((rank, {"exit": worker.wait()}))


def _follow(events: queue.Queue[tuple[int, dict[str, Any]]], count: int, console: Console, folder: Path) -> None:
    """Until all have ended well, or the first has failed."""
    lost: dict[str, Any] | None = None
    until, ended = float("inf"), dict[int, int]()
    while sum(status == 0 for status in ended.values()) < count:
        try:
            rank, event = events.get(timeout=max(0.0, min(until - time.monotonic(), 3600.0)))
        except queue.Empty:
            if lost is not None and time.monotonic() >= until:
                states = [_state(rank, ended.get(rank)) for rank in range(count)]
                raise _error(lost | {"details": lost["details"] + states}) from None
            continue
        match event:
            case {"say": text}:
                console.say(text)
            case {"progress": [label, done, total, note]}:
                console.progress(label, done, total, note)
            case {"error": {"lost": True} as told}:
                # It only noticed: the one that it misses says why.
                lost, until = lost or told, min(until, time.monotonic() + _GRACE_SECONDS)
            case {"error": told}:
                raise _error(told | {"rank": rank})
            case {"exit": status} if status < 0:
                raise RunError(
                    f"process {rank} of {count} was ended by {signal.Signals(-status).name}",
                    where=folder,
                    cure="SIGKILL is often too little memory. The same command with --resume continues.",
                )
            case {"exit": status} if status > 0 and lost is None:
                raise RunError(f"process {rank} of {count} ended with status {status}", where=folder)
            case {"exit": status}:
                ended[rank] = status


def _state(rank: int, status: int | None) -> str:
    return f"process {rank} {'still ran' if status is None else f'had ended with status {status}'}"


def _error(told: dict[str, Any]) -> Exception:
    """The error that a process has told, as it was raised there."""
    if told["kind"] == "KeyboardInterrupt":
        return RunError("interrupted", cure="the same command with --resume continues it.")
    kind = getattr(errors, told["kind"], RunError if told["lost"] else None)
    if kind is None or not issubclass(kind, PerpixelError):
        return RuntimeError(f"process {told['rank']} failed:\n{told['traceback']}")
    error: PerpixelError = kind(
        told["what"], where=told["where"], rule=told["rule"], cure=told["cure"], details=told["details"]
    )
    return error


@contextlib.contextmanager
def _signals_to(worker: subprocess.Popen[str]) -> Iterator[None]:
    """Ctrl-C and SIGTERM go to the first process, which tells the others and saves."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, frame: worker.send_signal(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
