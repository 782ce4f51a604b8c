"""The end of a training: best weights, the decision on validation data, figures of val and test."""

from __future__ import annotations

from perpixel.console import Console
from perpixel.data.samples import data_root
from perpixel.errors import RunError
from perpixel.evaluation.choices import choices
from perpixel.evaluation.evaluate import evaluate_samples, protocol_of, scored_samples, sliced, write_evaluation
from perpixel.evaluation.gallery import write_close_ups, write_gallery
from perpixel.evaluation.guards import guarded, run_warnings
from perpixel.inference.cost import measure_cost
from perpixel.inference.predictor import Predictor
from perpixel.recipe import Recipe
from perpixel.run import Run, write_json
from perpixel.training.loop import Progress
from perpixel.training.material import Material


def finish(recipe: Recipe, run: Run, material: Material, progress: Progress, console: Console) -> None:
    """Choose, evaluate and record; a run that was killed here does it again when it continues.

    Raises:
        RunError: no epoch gave a finite figure, so there is no best model.
    """
    if not run.best_path.is_file():
        raise RunError(f"no epoch gave a finite {recipe.training.monitor}", where=run.path)
    predictor = Predictor.from_run(run)
    task = predictor.task
    predictor.decision = task.first_decision()
    if task.chosen_on_validation:
        scored = scored_samples(
            predictor,
            material.decoded,
            material.positions("val"),
            lambda done, total: console.progress("choosing", done, total),
        )
        predictor.decision = task.choose(scored, recipe.training.monitor)
        console.say(f"chosen on validation data: {predictor.decision}")
    write_json(run.decision_path, predictor.decision)
    for subset in ("val", "test"):
        if material.positions(subset):
            _evaluate(recipe, run, predictor, material, subset, console)
    run.update_manifest(
        status="finished",
        best_epoch=progress.best_epoch + 1,
        bad_steps=progress.bad_steps,
        training_seconds=round(progress.seconds, 1),
        cost=measure_cost(predictor),
    )
    for warning in run_warnings(run):
        console.say(warning)


def _evaluate(
    recipe: Recipe,
    run: Run,
    predictor: Predictor,
    material: Material,
    subset: str,
    console: Console,
) -> None:
    positions, monitor = material.positions(subset), recipe.training.monitor
    evaluation = evaluate_samples(predictor, material.decoded, material.ids, positions, facts=material.facts)
    evaluation = sliced(evaluation, [material.samples[place] for place in positions], material.groups, monitor)
    protocol = protocol_of(
        predictor,
        subset,
        data=data_root(recipe.data).resolve(),
        pairs=subset,
        fingerprint=material.fingerprint,
        images=len(positions),
        chosen=choices(run, predictor),
    )
    evaluation = guarded(evaluation, predictor, material.decoded, positions, monitor)
    write_evaluation(run, subset, evaluation, protocol)
    gallery = run.evaluation_dir(subset) / "gallery.png"
    write_gallery(gallery, predictor, material.decoded, positions, evaluation, monitor)
    close_ups = run.evaluation_dir(subset) / "close_ups.png"
    write_close_ups(close_ups, predictor, material.decoded, positions, evaluation, monitor)
    console.say(f"{subset}: {monitor} {evaluation.figures[monitor]:.4f} on {len(positions)} images")
    for warning in evaluation.warnings:
        console.say(f"{subset}: {warning}")
