"""Train: from a recipe and a folder to a run. Reads top to bottom."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Container
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from perpixel.console import Console
from perpixel.data.dataset import EpochOrder, TrainingSet, training_loader
from perpixel.data.samples import stated_root
from perpixel.errors import RequestError
from perpixel.evaluation.evaluate import Evaluation, evaluate_samples
from perpixel.inference.predictor import Predictor, default_device
from perpixel.memory import of_training, out_of_memory_told
from perpixel.models import PixelModel, build_model
from perpixel.recipe import Recipe
from perpixel.run import Run, write_atomic
from perpixel.tasks import Metrics, Task, build_task, check_monitor
from perpixel.training.budget import fit_to_budget, say_budget
from perpixel.training.feature_cache import cache_features
from perpixel.training.finish import finish
from perpixel.training.first_look import FirstLook
from perpixel.training.fit import fit, stop_asked
from perpixel.training.loop import TrainingModule, model_bytes, seed_everything
from perpixel.training.material import Material, prepare
from perpixel.training.parallel import say_shares
from perpixel.training.processes import Onlooker, Processes
from perpixel.training.settle import settle
from perpixel.training.starting import StartingRun, say_weights, starting_weights, weights_facts
from perpixel.training.sync_norm import synchronize_batch_norm
from perpixel.training.trackers import Trackers
from perpixel.training.validation_memory import RememberingModel, validation_memory

# What a run writes until its recipe is there, which comes when all is settled; also half made, as .NAME-abc.
_WRITTEN_FIRST = ("log.txt", "split.csv", "manifest.json", "recipe.yaml")


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
    budget: float | None = None,
) -> Run:
    """Train a recipe into a run folder, or continue it there.

    Args:
        recipe: what is asked; with ``resume`` it must agree with what the run holds.
        data: the data folder, instead of the recipe's ``data.root``.
        resume: continue from the last checkpoint; the weights end as those of an uninterrupted run.
        look: what looks at the data first; trainings that share data share it, to look once.
        processes: all that train it together, each of which calls this with the same arguments; None: this one.
        stop: asked after every batch; true ends the training as Ctrl-C does, saved and to be continued.
        budget: seconds from this call to the end, evaluation included; the number of epochs is chosen by it, in place
            of ``training.epochs``. A continuation keeps what was chosen.

    Raises:
        RequestError: the folder holds a run and ``resume`` is not asked, or nothing to resume; a budget is too short.
        DataError, RecipeError, WeightsError: before anything is trained.
        RunError: the training failed, or was interrupted; of too little memory it names what to lower.
    """
    processes = processes or Processes()
    run = Run(run_dir) if processes.first else Onlooker(run_dir)

    def what_to_lower() -> list[str]:
        return of_training(run.recipe if run.recipe_path.is_file() else recipe)

    with out_of_memory_told(what_to_lower, run.path, "a continuation changes nothing: lower them in another run."):
        _train(recipe, run, data, resume, look, console or Console(), processes, stop, budget)
    return run


def _train(
    recipe: Recipe,
    run: Run,
    data: Path | None,
    resume: bool,
    look: FirstLook | None,
    console: Console,
    processes: Processes,
    stop: Callable[[], bool] | None,
    budget: float | None,
) -> None:
    started, begun = time.monotonic(), processes.from_first(run.recipe_path.is_file)
    recipe = processes.from_first(
        lambda: _continued(recipe, run, data, keep_epochs=budget is not None) if resume else _fresh(recipe, run, data)
    )
    console = console.with_log(run.log_path) if processes.first else Console()
    if processes.from_first(lambda: run.finished):
        console.say(f"{run.path} is finished already; its figures are in {run.evaluation_dir('val')}")
        return
    task = build_task(recipe)
    check_monitor(task, recipe.training.monitor)
    weights, source = starting_weights(recipe.model.weights)
    material = processes.in_turn(lambda: _prepare(recipe, task, console, run, look, resume, processes))
    model = processes.in_turn(lambda: _build(recipe, task, weights))
    _say_model(recipe, model, source, console)
    samples, loss = len(material.positions("train")), task.loss(material.facts)
    loader_of = partial(_loaders, task=task, material=material, processes=processes)
    recipe = settle(recipe, model, loss, loader_of, samples, console, processes)
    before = run.manifest.get("processes", processes.world_size)
    say_shares(recipe, model, processes, samples, before, console)
    if budget is not None and not begun:
        make = partial(_module, task=task, material=material, console=Console(), processes=processes)
        scored = _scored_images(task, material)
        recipe, facts = fit_to_budget(recipe, budget, started, model, make, scored, console, processes)
        run.update_manifest(budget=facts)
    run.write_recipe(recipe)
    run.write_split(material.subsets, material.groups)
    run.update_manifest(**_facts(recipe, run, model, source, material))
    if material.inspection is not None:
        run.update_manifest(inspection=material.inspection)
    run.update_manifest(processes=processes.world_size)
    module = _module(recipe, run, model, task, material, console, processes)
    if stop is not None:
        module.stop_asked = lambda: stop_asked() or stop()
    module.restore()
    trained_before = module.progress.seconds
    if not module.done:  # restored first: the features are of the weights that train
        cached = processes.in_turn(lambda: cache_features(recipe, task, model, material, run, console))
        share = (processes.rank, processes.world_size)
        module.make_loader = partial(cached, share=share) if cached else module.make_loader
    if recipe.training.epochs == 0 and processes.first:
        write_atomic(run.best_path, model_bytes(model))
        run.write_history([])
    trackers = Trackers(run, recipe if processes.first else recipe.with_training(trackers=()), console)
    module.tell_history = trackers.update
    trackers.update(module.progress.history)
    try:
        fit(module, recipe, run, console)
    finally:
        trackers.close()
    if processes.first:
        finish(recipe, run, material, module.progress, console)
        say_budget(run, time.monotonic() - started + trained_before, console)
    processes.wait()


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


def _fresh(recipe: Recipe, run: Run, data: Path | None, besides: Container[str] = ("log.txt",)) -> Recipe:
    """The recipe of a new run.

    Args:
        besides: what the folder may hold; by default the log of a start that was refused.
    """
    if run.recipe_path.exists():
        raise RequestError(
            "this folder holds a run already", where=run.path, cure="continue it with --resume, or name another --run."
        )
    if run.path.exists() and (not run.path.is_dir() or any(_made(path) not in besides for path in run.path.iterdir())):
        raise RequestError("this is not an empty folder", where=run.path, cure="name another --run.")
    return _with_root(recipe, data)


def _made(path: Path) -> str:
    """The name of the file that this one is, or was to become."""
    return path.name[1:].rpartition("-")[0] if path.name.startswith(".") else path.name


def _with_root(recipe: Recipe, data: Path | None) -> Recipe:
    root = stated_root(recipe.data, data)
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": root, "also": _resolved(recipe)})})


def _resolved(recipe: Recipe) -> tuple[str, ...]:
    return tuple(str(Path(file).resolve()) for file in recipe.data.also)


def _continued(recipe: Recipe, run: Run, data: Path | None, keep_epochs: bool) -> Recipe:
    """The run's own recipe, after a check that it is the one that is asked for.

    Args:
        keep_epochs: their number was chosen when the run began.
    """
    if not run.recipe_path.exists():
        return _fresh(recipe, run, data, besides=_WRITTEN_FIRST)  # it ended before it had settled anything
    stored = run.recipe
    if data is not None:
        stored = _with_root(stored, data)
    settled: dict[str, Any] = {"precision": stored.training.precision, "threads": stored.training.threads}
    if recipe.training.batch_size == "auto":
        settled["batch_size"] = stored.training.batch_size
    if keep_epochs or "budget" in run.manifest:
        settled["epochs"] = stored.training.epochs
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
    model: PixelModel,
    task: Task,
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


def _scored_images(task: Task, material: Material) -> tuple[int, int]:
    """How many images a validation scores, and the end of a training."""
    val, test = (len(material.positions(subset)) for subset in ("val", "test"))
    return val, val * (1 + bool(task.chosen_on_validation)) + test


def _loaders(
    recipe: Recipe, task: Task, material: Material, processes: Processes
) -> Callable[[int, int], DataLoader[Any]]:
    """The loader of the rest of an epoch, as a function of the epoch and its first batch."""
    positions, chunks, seed = material.positions("train"), material.chunks("train"), recipe.training.seed
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
        size = recipe.training.images_a_step
        order = EpochOrder(
            len(dataset), size, seed=seed, epoch=epoch, first_batch=first_batch, share=share, chunks=chunks
        )
        return training_loader(dataset, order, workers=recipe.training.workers)

    return make_loader


def _validation(
    recipe: Recipe, task: Task, model: PixelModel, material: Material, console: Console, processes: Processes
) -> Callable[[PixelModel], Evaluation]:
    """Each process scores whole batches of those that one would score, so that no figure depends on their number."""
    memory = validation_memory(recipe, model) if material.chunks("val") is None else None  # shards may be too many
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
