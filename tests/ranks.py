"""One of several processes, for tests: ``ranks.py`` is a worker as `perpixel.training.launch` starts it, ``ranks.py
train ...`` one of those that torchrun starts. PERPIXEL_TEST says what is special: it watches itself, or it dies."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perpixel.console import Console
from perpixel.tasks import build_task
from perpixel.training.loop import TrainingModule
from perpixel.training.material import prepare
from perpixel.training.processes import Place, Processes, meet, shares
from perpixel.training.sync_norm import BatchNormAct2d, synchronize_batch_norm
from perpixel.training.train import _build, _validation
from tiny import tiny_recipe

SHARED = ("split.method=random", "split.order_column=null", "split.validation=0.35", "inference.batch_size=2")


def record_steps(out: Path) -> None:
    """Write the loss and all weights after every step of the next training: (steps, 1 + weights)."""
    steps: list[np.ndarray] = []
    after, end = TrainingModule.on_train_batch_end, TrainingModule.on_train_epoch_end

    def on_train_batch_end(self: TrainingModule, outputs: Any, batch: Any, index: int) -> None:
        weights = torch.cat([parameter.detach().flatten() for parameter in self.model.parameters()]).numpy()
        loss = self.progress.loss_sum / self.progress.loss_count
        steps.append(np.concatenate([[loss], weights]))
        after(self, outputs, batch, index)

    def on_train_epoch_end(self: TrainingModule) -> None:
        if self.processes.first:
            np.save(out, np.stack(steps))
        end(self)

    TrainingModule.on_train_batch_end = on_train_batch_end  # type: ignore[method-assign]
    TrainingModule.on_train_epoch_end = on_train_epoch_end  # type: ignore[method-assign]


def fail(how: str, rank: int, epoch: int, batch: int) -> None:
    """Let one process fail at a step: ``raise`` an error, or be killed (``kill``)."""
    step = TrainingModule.training_step

    def training_step(self: TrainingModule, *args: Any) -> Any:
        if (self.processes.rank, self.progress.epoch, self.progress.batch) == (rank, epoch, batch):
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("a process of its own mind")
        return step(self, *args)

    TrainingModule.training_step = training_step  # type: ignore[method-assign]


def strike(phase: str, rank: int, count: int) -> None:
    """Kill this process, if it is that one, at the ``count``-th time that it comes to a place of ``phase``."""
    import perpixel.data.cache
    from perpixel.data.dataset import TrainingSet
    from perpixel.data.shards import Shards
    from perpixel.inference.predictor import Predictor

    who: list[int] = []
    places: dict[str, tuple[Any, str]] = {
        "step": (TrainingModule, "training_step"),
        "loading": (TrainingSet, "__getitem__"),  # with workers, what dies is a child of the process
        "validation": (Predictor, "scores"),
        "writing": (os, "fsync"),  # a file is half made: there under another name
        "written": (os, "replace"),
        "cache": (perpixel.data.cache, "read_pair"),
        "shards": (Shards, "read"),
    }
    owner, name = places[phase]
    act, enter, seen = getattr(owner, name), Processes.__init__, [0]

    def struck(*args: Any, **kwargs: Any) -> Any:
        done = act(*args, **kwargs)
        if who == [rank]:
            seen[0] += 1
            if seen[0] == count:
                os.kill(os.getpid(), signal.SIGKILL)
        return done

    def entered(self: Processes, *args: Any) -> None:
        enter(self, *args)
        who[:] = [self.rank]

    setattr(owner, name, struck)
    Processes.__init__ = entered  # type: ignore[method-assign]


def poison(batch: int) -> None:
    """Make the loss of a batch of every epoch no number."""
    judge = TrainingModule._loss_of_all

    def judged(self: TrainingModule, *args: Any) -> torch.Tensor:
        return judge(self, *args) * (float("nan") if self.progress.batch == batch else 1.0)

    TrainingModule._loss_of_all = judged  # type: ignore[method-assign]


def exercise(place: Place, data: Path, out: Path) -> None:
    """What processes tell each other, the loss of a shared batch, batch normalisation and figures; written by each."""
    with meet(place) as processes:
        recipe, found = tiny_recipe(data, *SHARED), exercised(data, processes)
        order = processes.in_turn(lambda: len(list(out.parent.glob("turn-*"))))
        (out.parent / f"turn-{processes.rank}").touch()
        processes.wait()
        found["told"] = np.array(
            [
                processes.from_first(lambda: 7 + processes.rank),
                *processes.gather(processes.rank),
                *processes.any(processes.rank == 1, False),
                order == 0 and recipe.training.batch_size == 4,
            ]
        )
        np.savez(out, **found)


def exercised(data: Path, processes: Processes) -> dict[str, np.ndarray]:
    """The same of any number of processes: each has its share of a batch of 5."""
    generator = torch.Generator().manual_seed(3)
    batch_bchw = torch.randn(5, 4, 6, 6, generator=generator) * 3 + 1
    weight_bchw = torch.randn(5, 4, 6, 6, generator=generator)
    own_bchw = torch.stack(shares(list(batch_bchw), processes.world_size)[processes.rank]).requires_grad_()
    whole_bchw = processes.whole_batch(own_bchw, 5)
    (whole_bchw.std() / whole_bchw.abs().mean()).backward()  # no mean of what the processes have by themselves
    found = {"whole": whole_bchw.detach().numpy(), "gradient": own_bchw.grad.numpy().copy()}  # type: ignore[union-attr]

    own_bchw.grad = None
    layers = torch.nn.ModuleList([torch.nn.BatchNorm2d(4), BatchNormAct2d(4)])
    if processes.several:
        assert synchronize_batch_norm(layers, torch.device("cpu")) == 2
    normalized_bchw = layers[1]((layers[0](own_bchw) + 0.7).relu())
    (processes.whole_batch(normalized_bchw, 5) * weight_bchw).square().sum().backward()
    for name, parameter in layers.named_parameters():
        (total,) = [sum(gradients) for gradients in [processes.gather(parameter.grad)]]
        found[name] = total.numpy()  # type: ignore[union-attr]
    found |= {name: buffer.numpy() for name, buffer in layers.named_buffers()}
    found |= {"normalized": normalized_bchw.detach().numpy(), "through": own_bchw.grad.numpy()}  # type: ignore[union-attr]
    layers.eval()
    found["used"] = layers[1]((layers[0](batch_bchw) + 0.7).relu()).detach().numpy()

    recipe = tiny_recipe(data, *SHARED)
    task = build_task(recipe)
    material = processes.in_turn(lambda: prepare(recipe, task, Console(), None, None))
    model = _build(recipe, task, "none")
    figures = _validation(recipe, task, model, material, Console(), processes)(model).figures
    return found | {"figures": np.array(list(figures.values()))}


def obey(order: str) -> None:
    """``record FILE``, ``poison BATCH``, ``strike PHASE RANK COUNT``, or ``raise|kill RANK EPOCH BATCH``."""
    match order.split():
        case ["record", file]:
            record_steps(Path(file))
        case ["poison", batch]:
            poison(int(batch))
        case ["strike", phase, rank, count]:
            strike(phase, int(rank), int(count))
        case [how, rank, epoch, batch]:
            fail(how, int(rank), int(epoch), int(batch))


if __name__ == "__main__":
    obey(os.environ.get("PERPIXEL_TEST", ""))
    if sys.argv[1:2] == ["exercise"]:
        _, _, rank, meeting, data, out = sys.argv
        exercise(Place(int(rank), 2, int(rank), 2, meeting), Path(data), Path(out))
        sys.exit()
    if len(sys.argv) > 1:  # the command line, or one of those that torchrun would start
        from perpixel.training import launch

        launch.WORKER = (sys.executable, __file__)
        sys.argv = ["perpixel", *sys.argv[1:]]
        from perpixel.cli import main
    else:
        from perpixel.training.worker import main
    main()
