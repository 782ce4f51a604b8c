"""Lightning's side of several processes: the strategy, where each stands, and weights that are dealt out to them."""

from __future__ import annotations

from typing import Any

import torch
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from perpixel.console import Console
from perpixel.data.dataset import batch_length, batches_per_epoch
from perpixel.errors import RequestError
from perpixel.inference.predictor import default_device
from perpixel.models import PixelModel
from perpixel.recipe import Recipe
from perpixel.training.processes import Processes

_LARGE = 1_000_000  # weights of a part that is worth dealing out by itself


class OneProcessANode(ClusterEnvironment):
    """Tells Lightning that each process is a machine with one device, and that somebody else has started them all.

    So it looks at no environment variable: not those of SLURM, whose jobs it would also requeue, and it does not matter
    which machine holds how many processes.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    creates_processes_externally = True
    main_address = "127.0.0.1"  # they have met already
    main_port = 0

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._processes.world_size

    def global_rank(self) -> int:
        return self._processes.rank

    def node_rank(self) -> int:
        return self._processes.rank

    def local_rank(self) -> int:
        return 0

    def set_world_size(self, size: int) -> None:
        pass

    def set_global_rank(self, rank: int) -> None:
        pass


def trainer_arguments(processes: Processes, recipe: Recipe, model: PixelModel) -> dict[str, Any]:
    """What Lightning's Trainer has to know of devices and processes."""
    plugins = [OneProcessANode(processes)]
    if not processes.several:
        return {"accelerator": "auto", "devices": 1, "plugins": plugins}
    cuda = default_device().type == "cuda"
    arguments: dict[str, Any] = {
        "accelerator": "cuda" if cuda else "cpu",
        "devices": [torch.cuda.current_device()] if cuda else 1,
        "num_nodes": processes.world_size,
        "plugins": plugins,
    }
    if recipe.training.strategy == "fsdp":
        return arguments | {"strategy": ModelParallelStrategy()}
    search = bool(recipe.model.unfreeze_epochs) or _leaves_some_out(model, recipe.input.size)
    return arguments | {"strategy": DDPStrategy(find_unused_parameters=search)}


def _leaves_some_out(model: PixelModel, size: tuple[int, int]) -> bool:
    """Whether there are weights that train and that the output does not depend on; DDP must search for them, then."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    was_training, device = model.training, model.normalization_mean.device
    model.eval()
    try:
        output_bkhw = model(torch.zeros(1, 3, *size, device=device))
        gradients = torch.autograd.grad(output_bkhw.sum(), trained, allow_unused=True)
    finally:
        model.train(was_training)
    return any(gradient is None for gradient in gradients)


def deal_out(model: PixelModel, processes: Processes) -> None:
    """FSDP: each process keeps a part of every weight, and with it of its derivative and of the optimiser's state."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(default_device().type, (processes.world_size,))
    for rows in [module for module in model.network.modules() if isinstance(module, nn.Sequential | nn.ModuleList)]:
        for part in rows:
            if sum(parameter.numel() for parameter in part.parameters()) >= _LARGE and _is_called(part):
                fully_shard(part, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for method in ("encode", "decode"):
        register_fsdp_forward_method(model, method)


def _is_called(module: nn.Module) -> bool:
    return not isinstance(module, nn.ModuleList | nn.ModuleDict)


def put_together(tree: Any) -> Any:
    """A tree of dictionaries and lists whose dealt-out tensors are whole again; every process must ask."""
    if isinstance(tree, dict):
        return {key: put_together(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(put_together(value) for value in tree)
    return tree.full_tensor() if is_dealt_out(tree) else tree


def is_dealt_out(tensor: Any) -> bool:
    """Whether this process has only a part of it."""
    return hasattr(tensor, "device_mesh")


def dealt_like(whole: Tensor, other: Any) -> Tensor:
    """A whole tensor, dealt out as another one is."""
    if not is_dealt_out(other):
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole.to(other.device), other.device_mesh, other.placements)


def say_shares(
    recipe: Recipe, model: PixelModel, processes: Processes, samples: int, before: int, console: Console
) -> None:
    """Who takes what of a batch, and what that means for the learning rate and for batch normalisation.

    Args:
        samples: that train.
        before: the number of processes before an interruption.

    Raises:
        RequestError: a batch has fewer images than there are processes.
    """
    count, size = processes.world_size, recipe.training.images_a_step
    if before != count:
        console.say(f"this run was trained by {before} process{'es' if before > 1 else ''} so far, now by {count}:")
        console.say("  it takes the same batches, and its weights may differ by rounding from those of either number")
    if not processes.several:
        return
    smallest = batch_length(samples, size, batches_per_epoch(samples, size) - 1)
    if smallest < count:
        raise RequestError(
            f"{count} processes cannot share a batch of {smallest}",
            where=f"training.batch_size = {size}, {samples} samples",
            cure="raise training.batch_size, or start fewer processes.",
        )
    effective = size * recipe.optimizer.accumulate
    console.say(
        f"{count} processes share each batch of {size} images, about {size / count:.3g} each, by"
        f" {recipe.training.strategy}: the effective batch is {effective}, as with one process,"
        f" so the learning rate {recipe.optimizer.learning_rate:g} stays"
    )
    normalizes = any(isinstance(module, _BatchNorm) and module.training for module in model.train().modules())
    if normalizes and not recipe.training.sync_batch_norm:
        console.say(
            "  batch normalisation sees the images of its own process alone; training.sync_batch_norm=true shows it all"
        )
