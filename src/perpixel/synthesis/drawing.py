"""The drawing of many scenes into one folder: one after the other or several at once, and continued after a kill."""

from __future__ import annotations

import multiprocessing
import os
import queue
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perpixel.errors import RequestError, RunError
from perpixel.run import read_json, write_json, write_rows
from perpixel.synthesis.folder import begin, finish
from perpixel.synthesis.render import VARIANTS, Renderer
from perpixel.synthesis.scene import Render, Scene

__all__ = ["Job", "check", "draw_scenes"]

_SMALLEST = 16  # pixels of a picture's side
_DONE = "scenes.partial"  # one small file a finished scene; becomes scenes.csv


@dataclass(frozen=True)
class Job:
    """What is drawn. Plain data and functions of modules, for it is sent to other processes.

    Attributes:
        make_scene: number of a scene, from 0, to the scene.
        write: ``(out_dir, number, scene, render)``; writes a scene's files and returns the first columns of its row
            in ``scenes.csv``, ``id`` before all.
        arguments: what describes the data set, as JSON: equal ones mean equal bytes.
    """

    out_dir: Path
    count: int
    spp: int
    variant: str
    make_scene: Callable[[int], Scene]
    write: Callable[[Path, int, Scene, Render], dict[str, Any]]
    arguments: dict[str, Any]


def check(
    *, count: int, most: int, seed: int, size: tuple[int, int], spp: int, processes: int, further: list[str]
) -> None:
    """What every drawing asks of its arguments; ``further``: problems that the caller has found.

    Raises:
        RequestError: there is a problem.
    """
    problems = []
    if not 1 <= count <= most:
        problems.append(f"the number of scenes is {count}; it is 1 to {most}.")
    if seed < 0:
        problems.append(f"the seed is {seed}; it is at least 0.")
    if min(size) < _SMALLEST:
        problems.append(f"the size is {size[0]}x{size[1]}; both sides have at least {_SMALLEST} pixels.")
    problems += further
    if spp < 1:
        problems.append(f"{spp} rays a pixel draw nothing; at least 1.")
    if processes < 1:
        problems.append(f"{processes} processes draw nothing; at least 1.")
    if problems:
        raise RequestError("no such scenes can be drawn", details=problems, cure="Correct the values.")


def draw_scenes(
    job: Job,
    *,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Draw all scenes that are not yet drawn, and write ``scenes.csv``: the columns of ``job.write``, the camera
    (``width, height, fx, fy, cx, cy``, camera to world ``pose_00`` to ``pose_23``), ``variant`` and ``denoised``, and
    the facts of the scenes.

    Raises:
        RequestError: Mitsuba is missing, or the folder holds something else.
        RunError: a process of its own died.
    """
    renderer = Renderer(job.variant)  # before the folder is touched: it may be missing
    progress = progress or (lambda done, total: None)
    if begin(job.out_dir, job.arguments):
        progress(job.count, job.count)
        return
    if say:
        noise = "denoised by Open Image Denoise" if renderer.denoised else "not denoised: mitsuba-oidn is not installed"
        say(f"Mitsuba draws with its variant {renderer.variant}, {job.spp} rays a pixel, {noise}.")
        if renderer.variant == VARIANTS["scalar"]:
            say("With libLLVM 17 or newer installed (Debian: libllvm19) it would draw about three times as fast.")
    todo = [index for index in range(job.count) if not _done_file(job.out_dir, index).exists()]
    done = job.count - len(todo)
    progress(done, job.count)
    for _ in _draw_all(job, renderer, todo) if processes == 1 else _draw_in_processes(job, todo, processes):
        done += 1
        progress(done, job.count)
    rows = [read_json(_done_file(job.out_dir, index)) for index in range(job.count)]
    write_rows(job.out_dir / "scenes.csv", _rows(rows))
    finish(job.out_dir)
    shutil.rmtree(job.out_dir / _DONE)


def _draw_all(job: Job, renderer: Renderer, indices: list[int]) -> Iterator[int]:
    for index in indices:
        _draw(job, renderer, index)
        yield index


def _draw_in_processes(job: Job, indices: list[int], processes: int) -> Iterator[int]:
    """The same, several at once: process k of n draws every n-th scene from the k-th on.

    Processes are spawned, not forked: the renderer's threads do not survive a fork.
    """
    context = multiprocessing.get_context("spawn")
    finished: Any = context.Queue()
    stripes = [indices[k::processes] for k in range(processes) if indices[k::processes]]
    threads = max(1, (os.cpu_count() or 1) // max(1, len(stripes)))
    workers = [context.Process(target=_work, args=(job, stripe, threads, finished), daemon=True) for stripe in stripes]
    try:
        for worker in workers:
            worker.start()
        for _ in indices:
            yield _next_finished(finished, workers)
    finally:
        for worker in workers:
            worker.terminate()  # files appear whole or not at all: this does no harm
            worker.join()


def _next_finished(finished: Any, workers: list[Any]) -> int:
    while True:
        try:
            message = finished.get(timeout=1)
        except queue.Empty:
            if any(worker.exitcode for worker in workers):
                raise RunError(
                    "a drawing process died without a word",
                    rule="A process that is killed had too little memory, as a rule.",
                    cure="Run the same command again with fewer --processes: it continues.",
                ) from None
            continue
        if isinstance(message, str):
            raise RunError("a drawing process failed", details=message.splitlines())
        return int(message)


def _work(job: Job, indices: list[int], threads: int, finished: Any) -> None:
    """What a process of its own does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    parent = multiprocessing.parent_process()
    try:
        for index in _draw_all(job, Renderer(job.variant, threads=threads), indices):
            finished.put(index)
            if parent is not None and not parent.is_alive():
                return  # killed: a call that continues its work may have begun
    except Exception:
        finished.put(traceback.format_exc())


def _draw(job: Job, renderer: Renderer, index: int) -> None:
    """Draw a scene and write its files; the last one says that the others are whole."""
    scene = job.make_scene(index)
    row = job.write(job.out_dir, index, scene, renderer.render(scene, spp=job.spp, seed=index))
    camera = scene.camera
    row |= {key: getattr(camera, key) for key in ("width", "height", "fx", "fy", "cx", "cy")}
    row |= {f"pose_{i}{j}": float(camera.pose_44[i, j]) for i in range(3) for j in range(4)}
    row |= {"variant": renderer.variant, "denoised": renderer.denoised}
    write_json(_done_file(job.out_dir, index), row | {key: scene.facts[key] for key in scene.facts if key not in row})


def _rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of equal columns: scenes may be made of different things."""
    columns = {key: "" for row in rows for key in row}
    return [columns | row for row in rows]


def _done_file(out_dir: Path, index: int) -> Path:
    return out_dir / _DONE / f"{index:05d}.json"
