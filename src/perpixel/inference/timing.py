"""How long prediction takes: the network alone, and from file to file."""

from __future__ import annotations

import platform
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from perpixel.inference.base import ImagePredictor

if TYPE_CHECKING:
    import torch


class NetworkClock:
    """Counts the seconds that a network runs on a device, every test-time view of an image included.

    On a CUDA device both ends of a call wait until the device has finished what it was given.
    """

    def __init__(self, model: torch.nn.Module, device: torch.device) -> None:
        self._model, self._device, self.seconds = model, device, 0.0

    def __enter__(self) -> NetworkClock:
        self._hooks = [
            self._model.register_forward_pre_hook(lambda *_: self._begin()),
            self._model.register_forward_hook(lambda *_: self._end()),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def _begin(self) -> None:
        self._began = self._now()

    def _end(self) -> None:
        self.seconds += self._now() - self._began

    def _now(self) -> float:
        if self._device.type == "cuda":
            import torch

            torch.cuda.synchronize(self._device)
        return time.perf_counter()


@dataclass
class Timing:
    """Seconds an image, a value a batch (the batch's seconds shared by its images)."""

    network: list[float] = field(default_factory=list)
    end_to_end: list[float] = field(default_factory=list)
    megapixels: list[float] = field(default_factory=list)

    def add(self, network_seconds: float, seconds: float, pixels: list[int]) -> None:
        """Add a batch of images with these numbers of pixels."""
        self.network.append(network_seconds / len(pixels))
        self.end_to_end.append(seconds / len(pixels))
        self.megapixels += [count / 1e6 for count in pixels]

    def summary(self, predictor: ImagePredictor) -> dict[str, Any]:
        """What timing.json holds; all times are seconds an image, medians over the batches."""
        return {
            "device": predictor.device_name,
            "threads": predictor.threads,
            "precision": predictor.precision,
            "images": len(self.megapixels),
            "batches": len(self.network),
            "batch_size": predictor.inference.batch_size,
            "flip": predictor.inference.flip,
            "self_ensemble": predictor.inference.self_ensemble,
            "scales": list(predictor.inference.scales),
            "tile": predictor.inference.tile,
            "megapixels_median": round(statistics.median(self.megapixels), 4),
            "network_seconds_per_image": round(statistics.median(self.network), 6),
            "end_to_end_seconds_per_image": round(statistics.median(self.end_to_end), 6),
            "meaning": "Medians over batches of the seconds of a batch divided by its images. The first batch was"
            " predicted once before the clock ran. network: the model alone, all test-time views included; of an"
            " exported file its whole graph."
            " end_to_end: reading, fitting, network, decision, and writing all files.",
        }


def timing_line(summary: dict[str, Any]) -> str:
    """The summary in one sentence for a person."""
    threads = summary["threads"]
    return (
        f"{summary['network_seconds_per_image'] * 1000:.1f} ms an image in the network,"
        f" {summary['end_to_end_seconds_per_image'] * 1000:.1f} ms from file to files"
        f" (warm, median of {summary['batches']} {'batch' if summary['batches'] == 1 else 'batches'};"
        f" {summary['megapixels_median']:.3g} megapixels; {summary['device']},"
        f" {threads} {'thread' if threads == 1 else 'threads'}, {summary['precision']})"
    )


def device_name(device: torch.device) -> str:
    """The name of the graphics card, or of the processor."""
    if device.type == "cuda":
        import torch

        return f"cuda, {torch.cuda.get_device_name(device)}"
    return f"{device.type}, {processor_name()}"


def processor_name() -> str:
    """The name of the processor."""
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        for line in facts.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()
