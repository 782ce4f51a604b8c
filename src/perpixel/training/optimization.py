"""Optimisers, the learning rate as a function of the step, and the moving average of weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from perpixel.models import PixelModel
from perpixel.recipe import OptimizerSection, ScheduleSection
from perpixel.training.parallel import is_dealt_out


def build_optimizer(
    model: PixelModel, section: OptimizerSection, trainable_stages: int | None = None
) -> torch.optim.Optimizer:
    """The optimiser over the parameters that train; each group knows its ``factor`` of the learning rate.

    Args:
        trainable_stages: how many stages of the encoder, from its output on, are to train at any time; None: all.
    """
    by_factor: dict[float, list[torch.nn.Parameter]] = {}
    stages = model.encoder_stages()
    for depth, stage in enumerate(stages[:trainable_stages]):
        by_factor.setdefault(section.encoder_factor * section.layer_decay**depth, []).extend(stage)
    by_factor.setdefault(1.0, []).extend(model.decoder_parameters())
    groups = [{"params": params, "factor": factor} for factor, params in by_factor.items() if factor > 0 and params]
    common: dict[str, Any] = {"lr": section.learning_rate, "weight_decay": section.weight_decay}
    if section.name == "sgd":
        fused = not any(is_dealt_out(parameter) for parameter in model.parameters())  # torch has no fused one for those
        return torch.optim.SGD(groups, momentum=section.momentum, fused=fused, **common)
    kind = torch.optim.AdamW if section.name == "adamw" else torch.optim.Adam
    return kind(groups, fused=True, **common)


def schedule_factor(section: ScheduleSection, step: int, *, steps_per_epoch: int, epochs: int) -> float:
    """Factor of the learning rate at a step counted from 0, apart from what ``plateau`` does."""
    warmup = section.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if section.name == "step":
        return float(section.factor ** (step // steps_per_epoch // section.step_epochs))
    done = min(1.0, (step - warmup) / max(1.0, epochs * steps_per_epoch - warmup))
    if section.name == "cosine":
        return section.final_factor + (1 - section.final_factor) * (1 + math.cos(math.pi * done)) / 2
    if section.name == "poly":
        return section.final_factor + (1 - section.final_factor) * float((1 - done) ** section.power)
    return 1.0


@dataclass
class Plateau:
    """Times ``factor`` when the monitored figure has not gained for more than ``patience`` epochs."""

    factor: float
    patience: int
    scale: float = 1.0
    waited: int = 0

    def update(self, gained: bool) -> None:
        """Record one epoch."""
        self.waited = 0 if gained else self.waited + 1
        if self.waited > self.patience:
            self.scale *= self.factor
            self.waited = 0


class ExponentialAverage:
    """Moving average of parameters; buffers are taken as they are. Early steps average over less.

    decay_t = min(decay, (1 + t) / (10 + t)), as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.shadow = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: torch.nn.Module) -> None:
        """Take in the weights after one optimiser step."""
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        parameters = {name for name, _ in model.named_parameters()}
        averaged, current = [], []
        for name, value in model.state_dict().items():
            if name in parameters:
                averaged.append(self.shadow[name])
                current.append(value)
            else:
                self.shadow[name].copy_(value)
        torch._foreach_lerp_(averaged, current, weight)
