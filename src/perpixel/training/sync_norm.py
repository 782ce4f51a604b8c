"""Batch normalisation over the images of all processes.

On CUDA it is torch's SyncBatchNorm, which exists nowhere else; on a processor these few lines do the same.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from perpixel.errors import RequestError


def synchronize_batch_norm(model: nn.Module, device: torch.device) -> int:
    """Make every batch normalisation of ``model`` count the images of all processes; returns how many there are.

    Weights and statistics stay the tensors that they are.

    Raises:
        RequestError: a layer of a kind that this cannot be done to.
    """
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if device.type == "cuda":
        convert_sync_batchnorm(model)
        return len(layers)
    for layer in layers:
        synchronized = _SYNCHRONIZED.get(type(layer))
        if synchronized is None:
            raise RequestError(
                f"batch normalisation of the kind {type(layer).__name__} cannot be synchronised on a processor",
                where="training.sync_batch_norm",
                cure="leave it out, or choose another encoder.",
            )
        layer.__class__ = synchronized  # the same object in its place, with its weights, that computes otherwise
    return len(layers)


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient, for every process's loss depends on it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _normalize(layer: _BatchNorm, x_bchw: Tensor) -> Tensor:
    """As torch.nn.SyncBatchNorm: in training with mean and biased variance of the whole batch (Ioffe, Szegedy 2015)."""
    if not layer.training:
        return nn.functional.batch_norm(
            x_bchw, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=layer.eps
        )
    values_bchw = x_bchw.float()
    own = values_bchw.new_tensor([values_bchw.numel() / values_bchw.shape[1]])
    sums = _total(torch.cat([values_bchw.sum((0, 2, 3)), own]))
    count = sums[-1].detach()
    mean_c = sums[:-1] / count
    centred_bchw = values_bchw - mean_c[:, None, None]
    variance_c = _total(centred_bchw.square().sum((0, 2, 3))) / count
    _track(layer, mean_c.detach(), variance_c.detach() * count / (count - 1))
    scale_c = (variance_c + layer.eps).rsqrt()
    if layer.affine:
        scale_c = scale_c * layer.weight
    result_bchw = centred_bchw * scale_c[:, None, None]
    if layer.affine:
        result_bchw = result_bchw + layer.bias[:, None, None]
    rounded_bchw: Tensor = result_bchw.to(x_bchw.dtype)
    return rounded_bchw


def _total(value: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return total


def _track(layer: _BatchNorm, mean_c: Tensor, variance_c: Tensor) -> None:
    if layer.running_mean is None or layer.running_var is None or layer.num_batches_tracked is None:
        return
    layer.num_batches_tracked.add_(1)
    momentum = layer.momentum if layer.momentum is not None else 1 / float(layer.num_batches_tracked)
    layer.running_mean.lerp_(mean_c, momentum)
    layer.running_var.lerp_(variance_c, momentum)


class _SyncBatchNorm2d(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        return _normalize(self, input)


class _SyncBatchNormAct2d(BatchNormAct2d):
    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.act(self.drop(_normalize(self, x)))
        return result


_SYNCHRONIZED: dict[type, type] = {nn.BatchNorm2d: _SyncBatchNorm2d, BatchNormAct2d: _SyncBatchNormAct2d}
