"""One training of one case by one way, in a process of its own; prints one line of JSON.

    python benchmarks/worker.py CASE WAY DATA [--quality SEED]

Timed are the batches of the epochs that count: loading, augmentation, forward, backward, optimiser. Not timed: imports,
the first look at the data, decoding into the cache, features of frozen encoders, validation, checkpoints.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from cases import CASES, LAYOUT, Case


class Watch:
    """Notes wall and processor time where epochs begin and batches end."""

    def __init__(self) -> None:
        self.epochs: list[list[tuple[float, float]]] = []

    def epoch_began(self, *_: Any) -> None:
        self.epochs.append([(time.perf_counter(), time.process_time())])

    def batch_ended(self, *_: Any) -> None:
        self.epochs[-1].append((time.perf_counter(), time.process_time()))

    def seconds(self, case: Case) -> dict[str, float]:
        """Wall and processor seconds a batch: of one epoch without its first batches, of several without the first."""
        spans = [self.epochs[0][case.warm :]] if case.epochs == 1 else self.epochs[case.warm :]
        batches = sum(len(marks) - 1 for marks in spans)
        wall, processor = (sum(marks[-1][kind] - marks[0][kind] for marks in spans) / batches for kind in (0, 1))
        return {"wall": wall, "processor": processor}


def by_perpixel(case: Case, root: Path, watch: Watch, precision: str, seed: int = 0) -> Any:
    """Train with `perpixel.api.train`; returns the run."""
    from perpixel import api
    from perpixel.training.loop import TrainingModule

    for name, note in (("on_train_epoch_start", watch.epoch_began), ("on_train_batch_end", watch.batch_ended)):
        setattr(TrainingModule, name, _then(getattr(TrainingModule, name), note))
    start = root / "start.safetensors"
    settings = (
        *LAYOUT,
        *case.settings,
        f"model.weights={start if start.is_file() else 'none'}",
        f"optimizer.learning_rate={case.learning_rate}",
        "optimizer.weight_decay=0",
        "schedule.name=constant",
        f"training.epochs={case.epochs}",
        f"training.batch_size={case.batch}",
        f"training.seed={seed}",
        "training.threads=1",
        f"training.precision={precision}",
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PERPIXEL_CACHE"] = f"{root}-cache"
        run = api.train(case.recipe, data=root, overrides=settings, run=f"{folder}/run", force=True)
        return {"precision": run.recipe.training.precision, "history": run.read_history()}


def _then(first: Any, note: Any) -> Any:
    def both(*given: Any, **named: Any) -> Any:
        result = first(*given, **named)
        note()
        return result

    return both


def quality_of(case: Case, root: Path, network: Any) -> float:
    """IoU of a plain loop's network on the validation images, by the code that scores perpixel's own."""
    import torch

    from perpixel.data.cache import decode_samples
    from perpixel.data.samples import list_samples
    from perpixel.evaluation.evaluate import evaluate_samples
    from perpixel.inference.predictor import Predictor
    from perpixel.models import build_model
    from perpixel.recipe import load_recipe
    from perpixel.tasks import build_task

    recipe = load_recipe(case.recipe, [f"data.root={root}", *LAYOUT, *case.settings, "model.weights=none"])
    task = build_task(recipe)
    model = build_model(architecture="unet", encoder="resnet34", weights="none", out_channels=1)
    model.network.load_state_dict(network.state_dict())
    predictor = Predictor(
        model,
        task,
        input_section=recipe.input,
        inference=recipe.inference,
        decision=task.first_decision(),
        precision="fp32",
        device=torch.device("cpu"),
    )
    samples = [sample for sample in list_samples(recipe.data, root) if "val" in sample.image.parts]
    decoded = decode_samples(samples, task.decode_target, key=None)
    ids = [sample.id for sample in samples]
    return evaluate_samples(predictor, decoded, ids, range(len(samples))).figures["iou_per_image"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=CASES)
    parser.add_argument("way")
    parser.add_argument("data", type=Path)
    parser.add_argument("--quality", type=int, metavar="SEED", help="train for long and say how good it became")
    asked = parser.parse_args()
    import torch

    from perpixel._torchvision import ensure_torchvision

    ensure_torchvision()  # the rivals too would fail beside a CPU build of torch
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    case = CASES[asked.case]
    seed = asked.quality or 0
    if asked.quality is not None:
        settings = (*case.settings, "input.size=[64, 64]", "inference.flip=false")
        case = replace(case, settings=settings, size=(64, 64), epochs=24, learning_rate=5e-4)
    watch, facts = Watch(), {}
    if asked.way.startswith("perpixel"):
        from perpixel.training.precision import _processor_has_bf16

        # What `auto` finds by measuring, outside of what is timed.
        own = "bf16" if _processor_has_bf16() and not asked.way.endswith("fp32") else "fp32"
        facts = by_perpixel(case, asked.data, watch, own, seed)
        quality = facts.pop("history")[-1].get("val_iou_per_image")
    elif asked.way == "Hugging Face Trainer":
        from rivals import train_trainer

        train_trainer(case, asked.data, watch.epoch_began, watch.batch_ended)
        facts, quality = {"precision": "fp32"}, None
    elif asked.way == "Keras on PyTorch":
        from rivals import train_keras

        train_keras(case, asked.data, watch.epoch_began, watch.batch_ended)
        facts, quality = {"precision": "fp32"}, None
    else:
        from plain import train_plain

        network = train_plain(case, asked.data, watch.epoch_began, watch.batch_ended, seed)
        facts["precision"] = "fp32"
        quality = quality_of(case, asked.data, network) if asked.quality is not None else None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(watch.seconds(case) | facts | {"peak_mib": peak, "quality": quality}))


if __name__ == "__main__":
    main()
