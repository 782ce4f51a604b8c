"""Train: from a recipe and a folder to a run. Reads top to bottom."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from perpixel.console import Console
from perpixel.data.dataset import EpochOrder, TrainingSet, training_loader
from perpixel.data.samples import data_root
from perpixel.errors import RequestError
from perpixel.evaluation.evaluate import Evaluation, evaluate_samples
from perpixel.inference.predictor import Predictor, default_device, to_network
from perpixel.models import PixelModel, build_model
from perpixel.recipe import Recipe
from perpixel.run import Run, write_atomic
from perpixel.tasks import Metrics, Task, build_task, check_monitor
from perpixel.training.feature_cache import cache_features
from perpixel.training.finish import finish
from perpixel.training.first_look import FirstLook
from perpixel.training.fit import fit, stop_asked
from perpixel.training.loop import TrainingModule, model_bytes, seed_everything
from perpixel.training.material import Material, prepare
from perpixel.training.parallel import say_shares
from perpixel.training.precision import choose_precision
from perpixel.training.processes import Onlooker, Processes, shares
from perpixel.training.starting import StartingRun, say_weights, starting_weights, weights_facts
from perpixel.training.sync_norm import synchronize_batch_norm
from perpixel.training.validation_memory import RememberingModel, validation_memory


def train(
    recipe: Recipe,
    run_dir: Path,
    *,
    data: Path | None = None,
    resume: bool = False,
    look: FirstLook | None = None,
    console: Console | None = None,
    processes: Processes | None = None,
    stop: Callable[[], bool] | None = None,
) -> Run:
    """Train a recipe into a run folder, or continue it there.

    Args:
        recipe: what is asked; with ``resume`` it must agree with what the run holds.
        data: the data folder, instead of the recipe's ``data.root``.
        resume: continue from the last checkpoint; the weights end as those of an uninterrupted run.
        look: what looks at the data first; trainings that share data share it, to look once.
        processes: all that train it together, each of which calls this with the same arguments; None: this one.
        stop: asked after every batch; true ends the training as Ctrl-C does, saved and to be continued.

    Raises:
        RequestError: the folder holds a run and ``resume`` is not asked, or nothing to resume.
        DataError, RecipeError, WeightsError: before anything is trained.
        RunError: the training failed, or was interrupted.
    """
    processes = processes or Processes()
    run = Run(run_dir) if processes.first else Onlooker(run_dir)
    recipe = processes.from_first(lambda: (_continued if resume else _fresh)(recipe, run, data))
    console = (console or Console()).with_log(run.log_path) if processes.first else Console()
    if processes.from_first(lambda: run.finished):
        console.say(f"{run.path} is finished already; its figures are in {run.evaluation_dir('val')}")
        return run
    task = build_task(recipe)
    check_monitor(task, recipe.training.monitor)
    weights, source = starting_weights(recipe.model.weights)
    material = processes.in_turn(lambda: _prepare(recipe, task, console, run, look, resume, processes))
    model = processes.in_turn(lambda: _build(recipe, task, weights))
    _say_model(recipe, model, source, console)
    before = run.manifest.get("processes", processes.world_size)
    say_shares(recipe, model, processes, len(material.positions("train")), before, console)
    recipe = processes.from_first(lambda: _settle(recipe, model, console, processes))
    torch.set_num_threads(recipe.training.threads or 1)
    run.write_recipe(recipe)
    run.write_split(material.subsets, material.groups)
    run.update_manifest(**_facts(recipe, run, model, source, material))
    if material.inspection is not None:
        run.update_manifest(inspection=material.inspection)
    run.update_manifest(processes=processes.world_size)
    module = _module(recipe, run, task, model, material, console, processes)
    if stop is not None:
        module.stop_asked = lambda: stop_asked() or stop()
    module.restore()
    if not module.done:  # restored first: the features are of the weights that train
        cached = processes.in_turn(lambda: cache_features(recipe, task, model, material, run, console))
        share = (processes.rank, processes.world_size)
        module.make_loader = partial(cached, share=share) if cached else module.make_loader
    if recipe.training.epochs == 0 and processes.first:
        write_atomic(run.best_path, model_bytes(model))
        run.write_history([])
    fit(module, recipe, run, console)
    if processes.first:
        finish(recipe, run, material, module.progress, console)
    processes.wait()
    return run


def _prepare(
    recipe: Recipe,
    task: Task,
    console: Console,
    run: Run,
    look: FirstLook | None,
    resume: bool,
    processes: Processes,
) -> Material:
    """The first process splits the data; the others take what it has written, as a continuation does."""
    if processes.first:
        material = prepare(recipe, task, console, run if resume and run.split_path.is_file() else None, look)
        if processes.several:
            run.write_split(material.subsets, material.groups)
        return material
    return prepare(recipe, task, console, run, look)


def _fresh(recipe: Recipe, run: Run, data: Path | None) -> Recipe:
    if run.recipe_path.exists():
        raise RequestError(
            "this folder holds a run already", where=run.path, cure="continue it with --resume, or name another --run."
        )
    if run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
        raise RequestError("this is not an empty folder", where=run.path, cure="name another --run.")
    return _with_root(recipe, data)


def _with_root(recipe: Recipe, data: Path | None) -> Recipe:
    root = data_root(recipe.data, data).resolve()
    return recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"root": str(root), "also": _resolved(recipe)})}
    )


def _resolved(recipe: Recipe) -> tuple[str, ...]:
    return tuple(str(Path(file).resolve()) for file in recipe.data.also)


def _continued(recipe: Recipe, run: Run, data: Path | None) -> Recipe:
    """The run's own recipe, after a check that it is the one that is asked for."""
    if not run.recipe_path.exists():
        return _fresh(recipe, run, data)
    stored = run.recipe
    if data is not None:
        stored = _with_root(stored, data)
    settled = {"precision": stored.training.precision, "threads": stored.training.threads}
    asked = recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"root": stored.data.root, "also": _resolved(recipe)}),
            "training": recipe.training.model_copy(update=settled),
        }
    )
    different = [name for name in Recipe.model_fields if getattr(asked, name) != getattr(stored, name)]
    if different:
        raise RequestError(
            f"the recipe differs from this run's in {', '.join(different)}",
            where=run.recipe_path,
            rule="a continuation changes nothing.",
            cure="leave out the --set values, or start another --run.",
        )
    return stored


def _build(recipe: Recipe, task: Task, weights: str) -> PixelModel:
    seed_everything([recipe.training.seed & 0xFFFFFFFF])
    section = recipe.model
    model = build_model(
        architecture=section.architecture,
        encoder=section.encoder,
        weights=weights,
        out_channels=task.out_channels,
        decoder_norm=section.decoder_norm,
        decoder_attention=section.decoder_attention,
        scale=task.image_scale,
    )
    task.require_network(model.network)
    if section.freeze_encoder:
        model.set_trainable_stages(len(section.unfreeze_epochs))  # too many of them are told before anything is trained
        model.freeze_encoder()
    return model


def _say_model(recipe: Recipe, model: PixelModel, source: StartingRun | None, console: Console) -> None:
    section, counts = recipe.model, model.parameter_counts()
    encoder = "" if section.encoder == "none" else f" on {section.encoder}"
    console.say(
        f"model {section.architecture}{encoder}: {counts['trained']:,} parameters train,"
        f" {counts['frozen']:,} are frozen"
    )
    say_weights(model.weights_report, source, console)


def _settle(recipe: Recipe, model: PixelModel, console: Console, processes: Processes) -> Recipe:
    """Fix what the machine decides, so that the stored recipe is complete."""
    section = recipe.training
    threads = section.threads or max(1, torch.get_num_threads() // processes.local_size)
    torch.set_num_threads(threads)
    precision: str = section.precision
    if precision == "auto":
        device = default_device()
        images = len(shares(range(section.batch_size), processes.world_size)[0])
        image_bchw = torch.zeros(images, 3, *recipe.input.size, dtype=torch.uint8)
        precision = choose_precision(model.to(device), to_network(image_bchw, device), console)
    settled = section.model_copy(update={"threads": threads, "precision": precision})
    return recipe.model_copy(update={"training": settled})


def _facts(
    recipe: Recipe, run: Run, model: PixelModel, source: StartingRun | None, material: Material
) -> dict[str, Any]:
    packages = ("perpixel", "torch", "torchvision", "lightning", "timm", "segmentation-models-pytorch", "numpy")
    return {
        "status": "running",
        "versions": {name: metadata.version(name) for name in packages} | {"python": platform.python_version()},
        "machine": {"system": platform.platform(), "processors": os.cpu_count(), "device": str(default_device())},
        "git": _git_revision(),
        "data": {
            "root": recipe.data.root,
            "samples": len(material.samples),
            "fingerprint": material.fingerprint,
            "training_targets": material.facts,
            "also": material.also,
        },
        "weights": weights_facts(model.weights_report, source),
        "parameters": model.parameter_counts(),
        "resumed": int(run.manifest.get("resumed", -1)) + 1,
    }


def _git_revision() -> str | None:
    """Revision of perpixel's own source, when it runs from a checkout."""
    source = Path(__file__).parent
    result = subprocess.run(
        ["git", "-C", str(source), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or None


def _module(
    recipe: Recipe,
    run: Run,
    task: Task,
    model: PixelModel,
    material: Material,
    console: Console,
    processes: Processes,
) -> TrainingModule:
    module = TrainingModule(
        model,
        task.loss(material.facts),
        recipe,
        run,
        make_loader=_loaders(recipe, task, material, processes),
        samples=len(material.positions("train")),
        validate=_validation(recipe, task, model, material, console, processes),
        console=console,
        stop_asked=stop_asked,
        processes=processes,
    )
    if recipe.training.sync_batch_norm and processes.several:  # the model that trains, not the copy that is scored
        synchronize_batch_norm(model, default_device())
    return module


def _loaders(
    recipe: Recipe, task: Task, material: Material, processes: Processes
) -> Callable[[int, int], DataLoader[Any]]:
    """The loader of the rest of an epoch, as a function of the epoch and its first batch."""
    positions, seed = material.positions("train"), recipe.training.seed
    share = (processes.rank, processes.world_size)

    def make_loader(epoch: int, first_batch: int) -> DataLoader[Any]:
        dataset = TrainingSet(
            material.decoded,
            material.ids,
            positions,
            input_section=recipe.input,
            augmentation=recipe.augmentation,
            augmentations=material.augmentations,
            fill=task.fill,
            zoom_divides=task.zoom_divides,
            image_scale=task.image_scale,
            seed=seed,
            epoch=epoch,
        )
        size = recipe.training.batch_size
        order = EpochOrder(len(dataset), size, seed=seed, epoch=epoch, first_batch=first_batch, share=share)
        return training_loader(dataset, order, workers=recipe.training.workers)

    return make_loader


def _validation(
    recipe: Recipe, task: Task, model: PixelModel, material: Material, console: Console, processes: Processes
) -> Callable[[PixelModel], Evaluation]:
    """Each process scores whole batches of those that one would score, so that no figure depends on their number."""
    memory = validation_memory(recipe, model)
    positions, size = material.positions("val"), recipe.inference.batch_size
    batches = [positions[start : start + size] for start in range(0, len(positions), size)]
    own = [position for batch in batches[processes.rank :: processes.world_size] for position in batch]

    def merged(metrics: Metrics) -> Metrics:
        first, *others = processes.gather(metrics)
        for other in others:
            first.merge(other)
        return first

    def validate(scored: PixelModel) -> Evaluation:
        predictor = _predictor(recipe, task, RememberingModel(scored, memory) if memory else scored)
        return evaluate_samples(
            predictor,
            material.decoded,
            material.ids,
            own,
            progress=lambda done, total: console.progress("validation", done, total),
            merged=merged,
        )

    return validate


def _predictor(recipe: Recipe, task: Task, model: PixelModel) -> Predictor:
    return Predictor(
        model,
        task,
        input_section=recipe.input,
        inference=recipe.inference,
        decision=task.first_decision(),
        precision=recipe.training.precision,
    )
