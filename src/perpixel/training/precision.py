"""Choosing fp32 or bf16 by measuring a few steps of the model at hand."""

from __future__ import annotations

import copy
import time

import torch

from perpixel.console import Console
from perpixel.models import PixelModel

_WARM, _TIMED = 1, 3


def choose_precision(model: PixelModel, image_bchw: torch.Tensor, console: Console) -> str:
    """``bf16`` where the device computes in it and three training steps are faster so, else ``fp32``."""
    if image_bchw.device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    if not _processor_has_bf16():
        console.say("precision fp32: this processor does not compute in bf16")
        return "fp32"
    seconds = {"fp32": 0.0, "bf16": 0.0}
    for _ in range(_TIMED):
        for precision in seconds:  # in turn, so that a slow moment of the machine falls on both
            seconds[precision] += _time_step(model, image_bchw, precision)
    faster = min(seconds, key=lambda name: seconds[name])
    fp32, bf16 = (f"{seconds[name] / _TIMED * 1000:.0f} ms" for name in ("fp32", "bf16"))
    console.say(f"precision {faster}: a training step takes {fp32} in fp32, {bf16} in bf16")
    return faster


def _processor_has_bf16() -> bool:
    flags = (torch.cpu._is_avx512_bf16_supported, torch.cpu._is_amx_tile_supported)
    return any(flag() for flag in flags)


def _time_step(model: PixelModel, image_bchw: torch.Tensor, precision: str) -> float:
    trial = copy.deepcopy(model).train()
    for step in range(_WARM + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            output = trial(image_bchw)
        output.float().square().mean().backward()
        if step == _WARM:
            return time.perf_counter() - start
    raise AssertionError("unreachable")
