"""The writing of a data set of desert scenes in the layout of system 1, with depth, instances and normals beside it."""

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

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import RequestError, RunError
from perpixel.images import write_image, write_label_map
from perpixel.run import read_json, write_atomic, write_json, write_rows
from perpixel.synthesis.desert import make_desert_scene
from perpixel.synthesis.folder import begin, finish
from perpixel.synthesis.render import VARIANTS, Renderer
from perpixel.synthesis.scene import Render, Scene

__all__ = ["PLACES", "SceneMaker", "subset_of", "synthesize_desert"]

SceneMaker = Callable[..., Scene]
"""``(seed, index, *, place, size)``, where ``size`` is (width, height), to a scene."""

PLACES = ("A", "B", "C")
_MOST = 100_000  # file names have five digits
_SMALLEST = 16  # pixels of a picture's side
_VERSION = 1  # of the generator: to be raised whenever it draws other pictures from the same seed
_DONE = "scenes.partial"  # one small file a finished scene; becomes scenes.csv


@dataclass(frozen=True)
class _Job:
    """What is drawn. Plain data, for it is sent to other processes."""

    out_dir: Path
    count: int
    seed: int
    size: tuple[int, int]
    place: str | None
    spp: int
    variant: str
    make_scene: SceneMaker


def synthesize_desert(
    out_dir: Path,
    *,
    count: int,
    seed: int,
    size: tuple[int, int] = (960, 540),
    place: str | None = None,
    spp: int = 16,
    processes: int = 1,
    variant: str = "auto",
    make_scene: SceneMaker = make_desert_scene,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Draw ``count`` desert scenes. Equal arguments give equal bytes on one machine with one variant of Mitsuba.

    Each of ``train/``, ``val/`` and ``test/`` holds, for scene number 7 for example:

    - ``Color_Images/00007.png``: 8-bit RGB.
    - ``Segmentation/00007.png``: raw class values, 100 to 10000, 16-bit.
    - ``Depth/00007.tiff``: planar depth in metres, 32-bit floats, inf where there is only sky. TIFF, for it keeps
      floats as they are, compressed, and is read by OpenCV, Pillow and geographic tools alike.
    - ``Instance/00007.png``: objects numbered from 1 in the order of the scene, those alone that are seen; 0 is none.
    - ``Normals/00007.png``: 16-bit RGB, (n + 1) / 2 * 65535 of x right, y down, z forward; 32768 where there is none.

    ``scenes.csv`` has a row a scene: ``id, subset, place, seed, width, height, fx, fy, cx, cy``, the camera-to-world
    matrix ``pose_00`` to ``pose_23``, the ``variant`` that drew it, and what the scene was made of. Of ten scenes in
    turn eight are for training, one for validation, one for testing.

    A folder that a killed call left behind is continued; a finished one of the same arguments is left as it is.

    Args:
        out_dir: the folder to write, new, empty, or of an earlier call with the same arguments.
        count: number of scenes, 1 to 100000.
        seed: at least 0; scene number i depends on ``(seed, i)``, ``size`` and ``place`` alone.
        size: width and height in pixels.
        place: ``A``, ``B`` or ``C``; None: drawn for each scene.
        spp: rays a pixel.
        processes: so many scenes are drawn at once; the files are the same.
        variant: of the renderer, see `Renderer`.
        make_scene: makes the scenes; a function of a module, where ``processes`` is above 1.
        progress: called with (scenes done, scenes in all) after each scene.
        say: called with a sentence that says what draws.

    Raises:
        RequestError: arguments out of range, Mitsuba is missing, or ``out_dir`` holds something else.
        RunError: a process of its own died.
    """
    out_dir = Path(out_dir)
    _check(count, seed, size, place, spp, processes)
    arguments: dict[str, Any] = {"kind": "desert", "version": _VERSION, "count": count, "seed": seed}
    arguments |= {"size": list(size), "place": place, "spp": spp}
    renderer = Renderer(variant)  # before the folder is touched: it may be missing
    progress = progress or (lambda done, total: None)
    if begin(out_dir, arguments):
        progress(count, count)
        return
    if say:
        noise = "denoised by Open Image Denoise" if renderer.denoised else "not denoised: mitsuba-oidn is not installed"
        say(f"Mitsuba draws with its variant {renderer.variant}, {spp} rays a pixel, {noise}.")
        if renderer.variant == VARIANTS["scalar"]:
            say("With libLLVM 17 or newer installed (Debian: libllvm19) it would draw about three times as fast.")
    job = _Job(out_dir, count, seed, size, place, spp, variant, make_scene)
    todo = [index for index in range(count) if not _done_file(out_dir, index).exists()]
    done = count - len(todo)
    progress(done, count)
    for _ in _draw_all(job, renderer, todo) if processes == 1 else _draw_in_processes(job, todo, processes):
        done += 1
        progress(done, count)
    write_rows(out_dir / "scenes.csv", _rows([read_json(_done_file(out_dir, index)) for index in range(count)]))
    finish(out_dir)
    shutil.rmtree(out_dir / _DONE)


def subset_of(index: int) -> str:
    """The subset of scene number ``index``: of ten in turn the ninth is for validation, the tenth for testing."""
    return {8: "val", 9: "test"}.get(index % 10, "train")


def _check(count: int, seed: int, size: tuple[int, int], place: str | None, spp: int, processes: int) -> None:
    problems = []
    if not 1 <= count <= _MOST:
        problems.append(f"the number of scenes is {count}; it is 1 to {_MOST}.")
    if seed < 0:
        problems.append(f"the seed is {seed}; it is at least 0.")
    if min(size) < _SMALLEST:
        problems.append(f"the size is {size[0]}x{size[1]}; both sides have at least {_SMALLEST} pixels.")
    if place is not None and place not in PLACES:
        problems.append(f"there is no place {place!r}; known: {', '.join(PLACES)}.")
    if spp < 1:
        problems.append(f"{spp} rays a pixel draw nothing; at least 1.")
    if processes < 1:
        problems.append(f"{processes} processes draw nothing; at least 1.")
    if problems:
        raise RequestError("no such scenes can be drawn", details=problems, cure="Correct the values.")


# ---------------------------------------------------------------- drawing


def _draw_all(job: _Job, renderer: Renderer, indices: list[int]) -> Iterator[int]:
    for index in indices:
        _draw(job, renderer, index)
        yield index


def _draw_in_processes(job: _Job, indices: list[int], processes: int) -> Iterator[int]:
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


def _work(job: _Job, indices: list[int], threads: int, finished: Any) -> None:
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


def _draw(job: _Job, renderer: Renderer, index: int) -> None:
    """Draw a scene and write its files; the last one says that the others are whole."""
    scene = job.make_scene(job.seed, index, place=job.place, size=job.size)
    render = renderer.render(scene, spp=job.spp, seed=index)
    subset, name = subset_of(index), _name(index)
    _write(job.out_dir / subset, name, render)
    camera = scene.camera
    row: dict[str, Any] = {"id": name, "subset": subset, "place": scene.facts.get("place", job.place), "seed": job.seed}
    row |= {key: getattr(camera, key) for key in ("width", "height", "fx", "fy", "cx", "cy")}
    row |= {f"pose_{i}{j}": float(camera.pose_44[i, j]) for i in range(3) for j in range(4)}
    row |= {"variant": renderer.variant, "denoised": renderer.denoised}
    write_json(_done_file(job.out_dir, index), row | {key: scene.facts[key] for key in scene.facts if key not in row})


def _write(folder: Path, name: str, render: Render) -> None:
    import cv2

    write_image(folder / "Color_Images" / f"{name}.png", render.image_hwc)
    write_label_map(folder / "Segmentation" / f"{name}.png", render.class_hw)
    write_label_map(folder / "Instance" / f"{name}.png", _renumbered(render.instance_hw))
    deflate = [cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_ADOBE_DEFLATE]
    write_atomic(folder / "Depth" / f"{name}.tiff", cv2.imencode(".tiff", render.depth_hw, deflate)[1].tobytes())
    normal_hwc = np.round((render.normal_hwc.astype(np.float64) + 1) / 2 * 65535).astype(np.uint16)
    png = cv2.imencode(".png", normal_hwc[..., ::-1])[1]  # OpenCV takes blue first
    write_atomic(folder / "Normals" / f"{name}.png", png.tobytes())


def _renumbered(instance_hw: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Those instances that are seen, from 1 on: a scene may have more than 16 bits can tell apart."""
    _, place_hw = np.unique(np.append(instance_hw.ravel(), 0), return_inverse=True)
    numbered_hw: NDArray[np.int64] = place_hw[:-1].reshape(instance_hw.shape)
    return numbered_hw


def _rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of equal columns: scenes may be made of different things."""
    columns = {key: "" for row in rows for key in row}
    return [columns | row for row in rows]


def _name(index: int) -> str:
    return f"{index:05d}"


def _done_file(out_dir: Path, index: int) -> Path:
    return out_dir / _DONE / f"{_name(index)}.json"
