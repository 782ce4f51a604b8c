"""Pictures of strangers are decoded in a process of their own, bounded in memory and time.

Run as a module it is that process: a JSON line comes in for each picture, a JSON line goes out; pixels travel as NPY.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import DataError
from perpixel.images import image_size, read_image
from perpixel.pointcloud import focal_length

__all__ = ["Decoded", "Decoder"]

_MEMORY = 3 * 2**30  # bytes of address space
_MODULE = "perpixel.app.decoder"


@dataclass(frozen=True)
class Decoded:
    """A picture.

    Attributes:
        image_hwc: as `perpixel.images.read_image` gives it.
        notes: what had to be done to get there.
        focal_px: the focal length in pixels that its EXIF data tell, if they do.
    """

    image_hwc: NDArray[Any]
    notes: list[str]
    focal_px: float | None


class Decoder:
    """Decodes one picture at a time; a picture that kills or stalls the process costs that picture alone."""

    def __init__(self, folder: Path, *, pixels: int, seconds: float) -> None:
        """``folder``: where pixels pass through; ``pixels``: of one picture; ``seconds``: for one picture."""
        self.folder, self.pixels, self.seconds = folder, pixels, seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def read(self, path: Path, *, keep_16_bits: bool = False) -> Decoded:
        """Decode a picture.

        Raises:
            DataError: what `read_image` says, too many pixels, or more memory or time than a picture may take.
        """
        out = self.folder / f"{uuid.uuid4().hex}.npy"
        task = {"path": str(path), "keep_16_bits": keep_16_bits, "pixels": self.pixels, "out": str(out)}
        try:
            with self._lock:
                answer = self._ask(task)
            if answer is None:
                raise DataError(
                    "decoding this picture takes more time or memory than is given to one",
                    where=path.name,
                    cure="Open it in an image program and save it again as PNG.",
                )
            if "what" in answer:
                raise DataError(answer["what"], where=path.name, rule=answer["rule"], cure=answer["cure"])
            return Decoded(np.load(out, allow_pickle=False), answer["notes"], answer["focal_px"])
        finally:
            out.unlink(missing_ok=True)

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _ask(self, task: dict[str, Any]) -> dict[str, Any] | None:
        if self._process is None or self._process.poll() is not None:
            self._end()
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            self._process = subprocess.Popen(
                [sys.executable, "-m", _MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        process = self._process
        clock = threading.Timer(self.seconds, process.kill)
        clock.start()
        try:
            stdin, stdout = cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)
            stdin.write(json.dumps(task).encode() + b"\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            clock.cancel()
        if not line.endswith(b"\n"):
            self._end()
            return None
        return cast(dict[str, Any], json.loads(line))

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()


def _decode(task: dict[str, Any]) -> dict[str, Any]:
    path = Path(task["path"])
    try:
        height, width = image_size(path)
        if height * width > task["pixels"]:
            raise DataError(
                f"the picture has {height * width / 1e6:.1f} million pixels",
                rule=f"a picture has at most {task['pixels'] / 1e6:.0f} million pixels here.",
                cure="Make it smaller, or cut it into tiles.",
            )
        loaded = read_image(path, keep_16_bits=task["keep_16_bits"])
        np.save(task["out"], loaded.pixels_hwc, allow_pickle=False)
    except DataError as error:
        return {"what": error.what, "rule": error.rule, "cure": error.cure}
    except MemoryError:
        return {"what": "the picture takes more memory than is given to one", "rule": None, "cure": None}
    return {"notes": loaded.notes, "focal_px": focal_length(path, (height, width))}


def main() -> None:
    """Answer requests until there are no more."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(json.dumps(_decode(json.loads(line))).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
