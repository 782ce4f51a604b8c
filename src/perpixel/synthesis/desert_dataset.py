"""The writing of a data set of desert scenes in the layout of system 1, with depth, instances and normals beside it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.images import write_image, write_label_map
from perpixel.run import write_atomic
from perpixel.synthesis.desert import make_desert_scene
from perpixel.synthesis.drawing import Job, check, draw_scenes
from perpixel.synthesis.scene import Render, Scene

__all__ = ["PLACES", "SceneMaker", "subset_of", "synthesize_desert"]

SceneMaker = Callable[..., Scene]
"""``(seed, index, *, place, size)``, where ``size`` is (width, height), to a scene."""

PLACES = ("A", "B", "C")
_MOST = 100_000  # file names have five digits
_VERSION = 1  # of the generator: to be raised whenever it draws other pictures from the same seed


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
    unknown = [] if place is None or place in PLACES else [f"there is no place {place!r}; known: {', '.join(PLACES)}."]
    check(count=count, most=_MOST, seed=seed, size=size, spp=spp, processes=processes, further=unknown)
    arguments: dict[str, Any] = {"kind": "desert", "version": _VERSION, "count": count, "seed": seed}
    arguments |= {"size": list(size), "place": place, "spp": spp}
    job = Job(
        out_dir=Path(out_dir),
        count=count,
        spp=spp,
        variant=variant,
        make_scene=partial(make_scene, seed, place=place, size=size),
        write=partial(_write_scene, seed=seed, place=place),
        arguments=arguments,
    )
    draw_scenes(job, processes=processes, progress=progress, say=say)


def subset_of(index: int) -> str:
    """The subset of scene number ``index``: of ten in turn the ninth is for validation, the tenth for testing."""
    return {8: "val", 9: "test"}.get(index % 10, "train")


def _write_scene(
    out_dir: Path, index: int, scene: Scene, render: Render, *, seed: int, place: str | None
) -> dict[str, Any]:
    subset, name = subset_of(index), f"{index:05d}"
    _write(out_dir / subset, name, render)
    return {"id": name, "subset": subset, "place": scene.facts.get("place", place), "seed": seed}


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
