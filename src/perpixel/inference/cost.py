"""What a prediction costs: operations, seconds, memory."""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from perpixel.inference.predictor import Predictor

_REPEATS = 9
_SECONDS = 6.0  # after which no further repeat begins


def measure_cost(predictor: Predictor) -> dict[str, Any]:
    """Cost of one image of the size that the recipe trains at, alone in its batch, all test-time views included.

    Returns:
        ``operations_per_image``: of convolutions, matrix products and attention (the only ones that
        `torch.utils.flop_counter` knows); a multiplication and an addition are two. ``latency_ms_per_image``: median
        of warm repeats, fitting included. ``peak_memory_mib``: on a CUDA device what the predictions held at most,
        weights included; elsewhere what this process held at most since it began, which is more.
    """
    height, width = predictor.input_section.size
    image_hwc = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    # Fused attention is one operation that the counter does not know; taken apart, it is matrix products.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        predictor.scores([image_hwc])
    cuda = predictor.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(predictor.device)
    seconds: list[float] = []
    predictor.scores([image_hwc])
    while len(seconds) < _REPEATS and sum(seconds) < _SECONDS:
        began = time.perf_counter()
        predictor.scores([image_hwc])  # comes back as an array: the device has finished
        seconds.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated(predictor.device) if cuda else _resident_bytes()
    return {
        "image_height": height,
        "image_width": width,
        "operations_per_image": counter.get_total_flops(),
        "latency_ms_per_image": round(1000 * statistics.median(seconds), 3),
        "peak_memory_mib": round(peak / 2**20, 1),
        "device": predictor.device_name,
        "threads": predictor.threads,
        "precision": predictor.precision,
    }


def _resident_bytes() -> int:
    if sys.platform == "win32":  # which has no such count
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, Linux KiB
