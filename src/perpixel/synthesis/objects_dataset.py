"""The writing of a data set of things with depth, in the layout of system 5."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.depth_codec import DepthCodec
from perpixel.depth_maps import linear_to_srgb, srgb_to_linear
from perpixel.images import write_image
from perpixel.pointcloud import planar_to_radial
from perpixel.synthesis.drawing import Job, check, draw_scenes
from perpixel.synthesis.objects import STYLES, VERTICAL_FOV, make_objects_scene
from perpixel.synthesis.scene import Render, Scene

__all__ = ["ENCODINGS", "SceneMaker", "synthesize_objects"]

SceneMaker = Callable[..., Scene]
"""``(seed, index, *, style, size, captures)``, where ``size`` is (width, height), to a scene."""

FARTHEST = 10.0  # metres; what is farther counts as background

ENCODINGS: dict[str, DepthCodec] = {
    "metric": DepthCodec("uint16", scale=0.001, maximum_m=FARTHEST),
    "srgb-radial": DepthCodec(
        "uint8",
        metres_at_zero=0.0,
        metres_at_full=FARTHEST,
        encoding="srgb",
        geometry="radial",
        vertical_fov_deg=VERTICAL_FOV,
        invalid=(0.0,),
        beyond=(255.0,),
        maximum_m=FARTHEST,
    ),
}
"""What the numbers in the depth files mean. ``srgb-radial`` is that of system 5's generator."""

_MOST = 100_000
_VERSION = 1  # of the generator: to be raised whenever it draws other pictures from the same seed


def synthesize_objects(
    out_dir: Path,
    *,
    count: int,
    seed: int,
    size: tuple[int, int] = (256, 256),
    style: str = "sky",
    encoding: str = "metric",
    captures: int = 15,
    spp: int = 16,
    processes: int = 1,
    variant: str = "auto",
    make_scene: SceneMaker = make_objects_scene,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Draw ``count`` pictures of things. Equal arguments give equal bytes on one machine with one variant of Mitsuba.

    Picture number 7 for example, the eighth capture of scene 0, is:

    - ``rgb/rgb_0007.png``: 8-bit RGB.
    - ``depth/depth_0007.png``: ``metric``: planar depth in millimetres, 16-bit, 0 where nothing is nearer than 10 m;
      ``srgb-radial``: distance from the camera's centre over 10 m as an sRGB value, 8-bit, 255 where nothing is.

    Glass has the depth of its surface. A lens blurs the picture alone: depth is that of each pixel's middle.

    ``scenes.csv`` has a row a picture: ``id`` (``0007``), ``image`` and ``target`` (their files), ``scene``,
    ``capture``, ``style``, ``seed``, the intrinsics ``width, height, fx, fy, cx, cy``, the camera-to-world matrix
    ``pose_00`` to ``pose_23``, the ``variant`` that drew it, background, light, lens and noise. Pictures of one scene
    are near-identical: split by the column ``scene``.

    A folder that a killed call left behind is continued; a finished one of the same arguments is left as it is.

    Args:
        out_dir: the folder to write, new, empty, or of an earlier call with the same arguments.
        count: number of pictures, 1 to 100000; 3000 are the 200 scenes of system 5. The last scene may be cut short.
        seed: at least 0; picture number i depends on ``(seed, i)``, ``size``, ``style`` and ``captures`` alone.
        size: width and height in pixels.
        style: ``sky`` (system 5: things before a sky or a plain colour) or ``room`` (lamps, a moving camera with a
            lens, shot noise).
        encoding: a key of `ENCODINGS`.
        captures: pictures of one scene.
        spp: rays a pixel.
        processes: so many pictures are drawn at once; the files are the same.
        variant: of the renderer, see `perpixel.synthesis.render.Renderer`.
        make_scene: makes the scenes; a function of a module, where ``processes`` is above 1.
        progress: called with (pictures done, pictures in all) after each.
        say: called with sentences that say what draws, and how to train on the pictures.

    Raises:
        RequestError: arguments out of range, Mitsuba is missing, or ``out_dir`` holds something else.
        RunError: a process of its own died.
    """
    further = [
        f"there is no {kind} {name!r}; known: {', '.join(known)}."
        for kind, name, known in (("style", style, STYLES), ("encoding", encoding, ENCODINGS))
        if name not in known
    ]
    further += [] if captures >= 1 else [f"a scene has {captures} captures; it has at least 1."]
    check(count=count, most=_MOST, seed=seed, size=size, spp=spp, processes=processes, further=further)
    arguments: dict[str, Any] = {"kind": "objects", "version": _VERSION, "count": count, "seed": seed}
    arguments |= {"size": list(size), "style": style, "encoding": encoding, "captures": captures, "spp": spp}
    job = Job(
        out_dir=Path(out_dir),
        count=count,
        spp=spp,
        variant=variant,
        make_scene=partial(make_scene, seed, style=style, size=size, captures=captures),
        write=partial(_write, seed=seed, encoding=encoding),
        arguments=arguments,
    )
    draw_scenes(job, processes=processes, progress=progress, say=say)
    if say:
        say(f"Train on it, split by scene: {_training(Path(out_dir), encoding, size)}")


def _training(out_dir: Path, encoding: str, size: tuple[int, int]) -> str:
    """The command that trains the recipe which these files are made for."""
    if encoding == "srgb-radial":
        return f"perpixel before-after zoedepth-synthetic --data {out_dir}"
    height, width = (max(side // 32, 1) * 32 for side in reversed(size))  # networks halve the sides five times
    settings = ["data.pairs_csv=scenes.csv", "split.method=grouped", "split.group_column=scene"]
    settings += ["split.validation=0.1", "split.test=0.1", f"'input.size=[{height}, {width}]'"]
    return " --set ".join([f"perpixel train depth-strong --data {out_dir}", *settings])


def _write(out_dir: Path, index: int, scene: Scene, render: Render, *, seed: int, encoding: str) -> dict[str, Any]:
    name, codec = f"{index:04d}", ENCODINGS[encoding]
    image_hwc = render.image_hwc
    if photons := scene.facts["photons"]:
        image_hwc = with_shot_noise(np.random.default_rng([seed, index]), image_hwc, photons)
    files = {"image": f"rgb/rgb_{name}.png", "target": f"depth/depth_{name}.png"}
    write_image(out_dir / files["image"], image_hwc)
    near_hw = np.isfinite(render.depth_hw) & (_stored_distance(codec, render.depth_hw) <= FARTHEST)
    codec.write(out_dir / files["target"], render.depth_hw, near_hw, ~near_hw if codec.beyond else None)
    return {"id": name} | files | {key: scene.facts[key] for key in ("scene", "capture", "style")} | {"seed": seed}


def _stored_distance(codec: DepthCodec, depth_hw: NDArray[np.float32]) -> NDArray[np.float64]:
    """What the codec counts in metres: depth, or the distance from the camera's centre."""
    camera = codec.camera(*depth_hw.shape)
    return depth_hw.astype(np.float64) if camera is None else planar_to_radial(depth_hw, camera)


def with_shot_noise(rng: np.random.Generator, image_hwc: NDArray[np.uint8], photons: float) -> NDArray[np.uint8]:
    """An sRGB picture as a sensor counts it whose white pixels collect ``photons``: Poisson noise in linear light."""
    counted_hwc = rng.poisson(srgb_to_linear(image_hwc / 255) * photons) / photons
    return np.round(linear_to_srgb(counted_hwc.clip(0, 1)) * 255).astype(np.uint8)
