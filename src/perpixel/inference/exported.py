"""An exported file used as a run is: ONNX Runtime, OpenVINO or PyTorch does the arithmetic.

Of the first two nothing imports torch.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import DataError, PerpixelError, RequestError, RunError
from perpixel.inference.base import Clock, ImagePredictor
from perpixel.inference.timing import processor_name
from perpixel.memory import predicting
from perpixel.recipe import recipe_from_dict
from perpixel.tasks import build_task

SUFFIXES = {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch-export"}
"""Endings of files whose graph predicts, and the format of each; the first two are also extras to install."""

WEIGHTS_SUFFIX = ".safetensors"
"""Ending of exported weights, of which perpixel builds the network itself."""

METADATA_FILE = "perpixel.json"
"""What a .pt2 file holds beside its graph."""

Outputs = tuple[NDArray[Any], NDArray[np.float32]]
"""(prediction, scores_bkhw) of a batch."""


class Session(Protocol):
    """A file made ready to run."""

    metadata: dict[str, Any]

    def __call__(self, image_bhwc: NDArray[np.uint8]) -> Outputs:
        """Run a batch of images of one size."""


def open_session(path: Path, threads: int | None = None) -> Session:
    """The runtime that a file's ending asks for.

    Args:
        threads: default: as many as the process may use, or as ``OMP_NUM_THREADS`` says.

    Raises:
        RequestError: another ending, or the runtime is not installed.
        RunError: the file is damaged, or was not written by perpixel.
    """
    if path.suffix not in SUFFIXES:
        raise RequestError("this is no exported file", where=path, rule=f"they end in {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise RequestError("this file does not exist", where=path)
    kinds: dict[str, Callable[[Path, int], Session]]
    kinds = {".onnx": OnnxSession, ".xml": OpenVinoSession, ".pt2": TorchSession}
    count = threads or int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    try:
        return kinds[path.suffix](path, count)
    except ImportError:
        raise missing(SUFFIXES[path.suffix]) from None
    except PerpixelError:
        raise
    except Exception as error:  # each runtime has exceptions of its own, told apart by their texts alone
        raise RunError(
            "this file cannot be read", where=path, details=[str(error).splitlines()[0]], cure="export it again."
        ) from None


def missing(form: str) -> RequestError:
    """The error of a runtime that is not installed."""
    if form == "torch-export":
        return RequestError("PyTorch is not installed", cure="install it, or use an .onnx file of the same run.")
    return RequestError(
        f"{form} is not installed", cure=f"install perpixel with its extra: pip install 'perpixel[{form}]'."
    )


class OnnxSession:
    """ONNX Runtime on the processor."""

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.metadata = _decoded(self._session.get_modelmeta().custom_metadata_map, path)

    def __call__(self, image_bhwc: NDArray[np.uint8]) -> Outputs:
        prediction, scores_bkhw = self._session.run(["prediction", "scores"], {"image": image_bhwc})
        return prediction, scores_bkhw


class OpenVinoSession:
    """OpenVINO on the processor.

    In bf16 where the file says so; not by itself, as OpenVINO would do on processors that have it: a file was checked
    in one arithmetic, and answers in that one everywhere.
    """

    def __init__(self, path: Path, threads: int) -> None:
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        entries = model.get_rt_info(["perpixel"]).value if model.has_rt_info(["perpixel"]) else {}
        self.metadata = _decoded(dict(entries), path)
        precision = "bf16" if self.metadata["precision"] == "bf16" else "f32"
        hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads}
        self._model = core.compile_model(model, "CPU", hints)

    def __call__(self, image_bhwc: NDArray[np.uint8]) -> Outputs:
        outputs = self._model({"image": image_bhwc})
        return outputs["prediction"], outputs["scores"]


class TorchSession:
    """PyTorch on the processor, with a graph of `torch.export`: no code of the network is needed."""

    def __init__(self, path: Path, threads: int) -> None:
        import torch

        extra = {METADATA_FILE: ""}
        self._torch, self._threads = torch, threads
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's reader warns of its own inner workings
            program = torch.export.load(path, extra_files=extra)
            # What the exporter saw to hold at one size, such as that nothing had to be padded, it asserts of all. That
            # the graph is right without it was checked at two sizes; PyTorch before 2.9 does not assert it.
            asserts = "check_guards" in signature(program.module).parameters
            self._graph = program.module(check_guards=False) if asserts else program.module()
        self.metadata = _decoded(json.loads(extra[METADATA_FILE] or "{}"), path)

    def __call__(self, image_bhwc: NDArray[np.uint8]) -> Outputs:
        torch = self._torch
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        with torch.inference_mode():
            prediction, scores_bkhw, *_ = self._graph(torch.from_numpy(image_bhwc))
        return prediction.numpy(), scores_bkhw.numpy()


def _decoded(entries: dict[str, str], path: Path) -> dict[str, Any]:
    """Metadata values are JSON."""
    if "recipe" not in entries:
        raise RunError("this file was not exported by perpixel", where=path, rule="its metadata hold the recipe.")
    return {key: json.loads(value) for key, value in entries.items()}


def weights_metadata(path: Path) -> dict[str, Any]:
    """What a ``.safetensors`` file of `perpixel export` says of itself.

    Raises:
        RequestError: there is no such file.
        RunError: the file is damaged, or was not exported by perpixel.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise RequestError("this file does not exist", where=path)
    try:
        with safe_open(path, framework="numpy") as file:
            entries = file.metadata() or {}
    except SafetensorError as error:
        raise RunError("this file cannot be read", where=path, details=[str(error)], cure="export it again.") from None
    return _decoded(entries, path)


class ExportedPredictor(ImagePredictor):
    """A file that predicts; pre- and post-processing are in its graph.

    Scores are taken from it, and the task decides, so that also what no graph holds is done: see
    `Task.left_out_of_graph`.
    """

    def __init__(self, session: Session, path: Path, overrides: Sequence[str] = (), threads: int | None = None) -> None:
        """Raises RequestError for an override of what is fixed in the file."""
        self.path, self.session, self._threads = path, session, threads
        recipe = recipe_from_dict(session.metadata["recipe"], where=str(path))
        changed = recipe_from_dict(recipe.to_dict(), overrides, where=str(path)) if overrides else recipe
        for key, old in recipe.to_dict()["inference"].items():
            if key in session.metadata["in_graph"] and old != changed.to_dict()["inference"][key]:
                raise RequestError(
                    f"inference.{key} is fixed in an exported file",
                    where=path,
                    cure="use the run itself, or train and export with this setting.",
                )
        if any(not text.strip().startswith("inference.") for text in overrides):
            raise RequestError("with an exported file, --set changes keys of the inference section alone", where=path)
        self.task, self.inference = build_task(changed), changed.inference
        self.decision = session.metadata["decision"]
        self.precision = session.metadata["precision"]
        size: list[int] | None = session.metadata["fixed_size"]
        self.size = (size[0], size[1]) if size else None
        self._seconds = 0.0

    @classmethod
    def from_file(cls, path: Path, overrides: Sequence[str] = (), threads: int | None = None) -> ExportedPredictor:
        """Raises what `open_session` raises, and RequestError for an override of what is fixed in the file."""
        return cls(open_session(path, threads), path, overrides, threads)

    @property
    def device_name(self) -> str:
        return f"cpu, {processor_name()}"

    @property
    def threads(self) -> int:
        return self._threads or int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))

    @contextmanager
    def clock(self) -> Iterator[Clock]:
        """Resizing and decision are in the graph, so they are in these seconds too."""
        clock = _Elapsed(self)
        yield clock
        clock.stop()

    def scores(self, images: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        with predicting(self.inference, images):
            return self._scores(images)

    def _scores(self, images: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        scores: dict[int, NDArray[np.float32]] = {}
        for size in dict.fromkeys(image_hwc.shape for image_hwc in images):
            places = [place for place, image_hwc in enumerate(images) if image_hwc.shape == size]
            if self.tiled(images[places[0]]):
                facts = self.session.metadata["tiles"]
                scores.update({place: self._tiled(images[place], **facts) for place in places})
                continue
            for start in range(0, len(places), self.inference.batch_size):
                chosen = places[start : start + self.inference.batch_size]
                scores.update(zip(chosen, self._batch([images[place] for place in chosen]), strict=True))
        return [self.task.refine(scores[place], image_hwc) for place, image_hwc in enumerate(images)]

    def takes(self, image_hwc: NDArray[Any]) -> bool:
        """Whether the file is made for images of this size."""
        return self.size is None or self.size == (int(image_hwc.shape[0]), int(image_hwc.shape[1]))

    def tiled(self, image_hwc: NDArray[Any]) -> bool:
        """Whether an image is larger than the run's tiles; the file then sees tile after tile."""
        side = int(max(image_hwc.shape[:2]))
        return side > (self.inference.tile or side)

    def _batch(self, images: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        return self.run(np.stack(images))[1]

    def run(self, image_bhwc: NDArray[Any]) -> Outputs:
        """What the file puts out for a batch.

        Raises:
            DataError: images of 16 bits, or of a size that the file is not made for.
        """
        if image_bhwc.dtype != np.uint8:
            raise DataError("an exported file takes images of 8 bits", where=self.path, cure="use the run itself.")
        if not self.takes(image_bhwc[0]):
            assert self.size is not None
            raise DataError(
                f"this file is made for images of {self.size[1]}x{self.size[0]} pixels, and one has"
                f" {image_bhwc.shape[2]}x{image_bhwc.shape[1]}",
                where=self.path,
                cure="use the run itself, or bring the images to this size.",
            )
        began = time.perf_counter()
        outputs = self.session(np.ascontiguousarray(image_bhwc))
        self._seconds += time.perf_counter() - began
        return outputs


class _Elapsed:
    """Seconds of a predictor's session since this was made."""

    def __init__(self, predictor: ExportedPredictor) -> None:
        self._predictor, self._began = predictor, predictor._seconds
        self._end: float | None = None

    @property
    def seconds(self) -> float:
        """Until now, or until `stop`."""
        return (self._predictor._seconds if self._end is None else self._end) - self._began

    def stop(self) -> None:
        """Stand still."""
        self._end = self._predictor._seconds
