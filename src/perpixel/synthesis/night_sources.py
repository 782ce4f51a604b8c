"""Pictures of the day for `synthesize_night` where nobody gives photographs: rendered, or from scikit-image."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from perpixel.errors import DataError, RequestError
from perpixel.images import image_size, write_image
from perpixel.synthesis.desert import make_desert_scene
from perpixel.synthesis.drawing import Job, draw_scenes
from perpixel.synthesis.objects import make_objects_scene
from perpixel.synthesis.render import Renderer
from perpixel.synthesis.scene import Render, Scene

__all__ = ["NAMED_SOURCES", "draw_days", "packaged_photographs", "require_source"]

NAMED_SOURCES = ("desert", "objects", "skimage")
"""Words that stand for pictures instead of a folder; a folder of such a name is called ./desert."""

_LARGER = 1.5  # a rendered picture over a clean one: pairs show different parts of it
_PAIRS = 4  # of one rendered picture
_FEWEST = 10  # rendered pictures: seven to train, two to validate, one to test
_RAYS = 16  # a pixel
# Photographs of everyday scenes that scikit-image's own package holds, so that nothing is fetched.
_SKIMAGE = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
    "rocket.jpg",
)


def require_source(source: str) -> None:
    """Raise RequestError where ``desert`` or ``objects`` cannot be rendered here."""
    Renderer()


def draw_days(
    out_dir: Path,
    source: str,
    *,
    pairs: int,
    seed: int,
    size: tuple[int, int],
    processes: int,
    progress: Callable[[int, int], None] | None,
    say: Callable[[str], None] | None,
) -> None:
    """Render ``desert`` or ``objects`` into ``<number>.png``, every picture another scene; a killed call is continued.

    Args:
        pairs: how many pairs are to be cut from the pictures, of ``size`` (width, height) each.
    """
    width, height = (math.ceil(_LARGER * side) for side in size)
    count = max(_FEWEST, math.ceil(pairs / _PAIRS))
    makers: dict[str, Callable[[int], Scene]] = {
        "desert": partial(make_desert_scene, seed, place=None, size=(width, height)),
        "objects": partial(make_objects_scene, seed, style="room", size=(width, height), captures=1),
    }
    arguments = {"kind": f"day of {source}", "version": 1, "count": count, "seed": seed, "size": [width, height]}
    job = Job(
        out_dir=out_dir,
        count=count,
        spp=_RAYS,
        variant="auto",
        make_scene=makers[source],
        write=_write_day,
        arguments=arguments,
    )
    draw_scenes(job, processes=processes, progress=progress, say=say)


def _write_day(out_dir: Path, index: int, scene: Scene, render: Render) -> dict[str, Any]:
    name = f"{index:05d}"
    write_image(out_dir / f"{name}.png", render.image_hwc)
    return {"id": name}


def packaged_photographs(size: tuple[int, int]) -> tuple[Path, list[Path]]:
    """The folder of scikit-image's pictures, and those of its photographs that are at least ``size`` (width, height).

    Raises:
        RequestError: scikit-image is not installed.
        DataError: fewer than three are so large.
    """
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise RequestError(
            "night is made from photographs, and none are given",
            rule="Without --from, those that come with scikit-image are taken, which is not installed.",
            cure="Name a folder, --from DIR; or --from desert or --from objects, which are rendered; or pip install"
            " scikit-image.",
        )
    folder = Path(found.origin).parent / "data"
    paths = [folder / name for name in _SKIMAGE if (folder / name).is_file()]
    large = [path for path in paths if all(a >= b for a, b in zip(image_size(path), size[::-1], strict=True))]
    if len(large) < 3:
        raise DataError(
            f"{len(large)} of scikit-image's {len(paths)} photographs have {size[0]}x{size[1]} pixels or more",
            where=folder,
            rule="Training, validation and test pictures come from different photographs, so that 3 are needed.",
            cure="Ask for a smaller --size, or give photographs of your own: --from DIR.",
        )
    return folder, large
