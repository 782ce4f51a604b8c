"""What is done with a finished run: evaluate data, submit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perpixel.console import Console
from perpixel.data.cache import decode_samples
from perpixel.data.samples import data_root, list_unlabelled
from perpixel.errors import RequestError
from perpixel.evaluation.choices import choices
from perpixel.evaluation.evaluate import Evaluation, evaluate_samples, protocol_of, sliced, write_evaluation
from perpixel.evaluation.guards import guarded, run_warnings
from perpixel.evaluation.pairs import Pairs, evaluation_name, open_pairs
from perpixel.evaluation.slices import worst_lines
from perpixel.evaluation.submission import Submission
from perpixel.evaluation.tables import figures_table
from perpixel.evaluation.uncertainty import score_uncertainty
from perpixel.inference.base import ImagePredictor
from perpixel.inference.opening import run_predictor
from perpixel.memory import using
from perpixel.run import Run


def evaluate_run(
    run: Run, *, subset: str, data: Path | None, console: Console, uncertainty: bool = False
) -> dict[str, Any]:
    """Score a subset of the run's own data, or other data; writes evaluation/<name>/.

    Args:
        data: a folder, or a recipe file; see `open_pairs` for which of its pairs are scored.
        uncertainty: score the spread over views too; of depth and images.

    Returns:
        ``figures``, ``table`` (the text for a person) and ``protocol``.

    Raises:
        RequestError: the run has no such subset, or the data cannot be held against its predictions.
    """
    predictor = run_predictor(run)
    pairs = open_pairs(run, predictor.task, subset=subset, data=data, console=console)
    if pairs.subset is None:
        console.say(f"{pairs.root}: all {len(pairs.samples)} pairs, for these data name no subset {subset!r}")
    name = evaluation_name(run, pairs)
    unsure = score_uncertainty(predictor, pairs, run.evaluation_dir(name), console) if uncertainty else []
    evaluation, protocol = score_pairs(run, predictor, pairs, name, console)
    table = figures_table(evaluation, protocol, run.recipe.training.monitor)
    return {
        "figures": evaluation.figures,
        "table": "\n".join([table, *unsure, *worst_lines(evaluation.slices), *cautions(run, pairs, evaluation)]),
        "protocol": protocol,
    }


def score_pairs(
    run: Run, predictor: ImagePredictor, pairs: Pairs, name: str, console: Console
) -> tuple[Evaluation, dict[str, Any]]:
    """Score and write one evaluation; returns it with its protocol."""
    with using(predictor.inference, run.path):
        decoded = decode_samples(pairs.samples, pairs.task.decode_target, key=None, image_scale=pairs.task.image_scale)
        evaluation = evaluate_samples(
            predictor,
            decoded,
            [sample.id for sample in pairs.samples],
            range(len(pairs.samples)),
            facts=run.manifest.get("data", {}).get("training_targets"),
            progress=lambda done, total: console.progress(f"evaluating {name}", done, total),
        )
    protocol = protocol_of(
        predictor,
        name,
        data=pairs.root,
        recipe=pairs.recipe,
        pairs=pairs.part,
        fingerprint=pairs.fingerprint,
        images=len(pairs.samples),
        chosen=choices(run, predictor),
        own=pairs.own,
    )
    evaluation = sliced(evaluation, pairs.samples, pairs.groups, run.recipe.training.monitor)
    evaluation = guarded(evaluation, predictor, decoded, range(len(pairs.samples)), run.recipe.training.monitor)
    write_evaluation(run, name, evaluation, protocol)
    return evaluation, protocol


def cautions(run: Run, pairs: Pairs, evaluation: Evaluation) -> list[str]:
    """What a reader of these figures must know."""
    said = [*evaluation.warnings, *run_warnings(run)]
    source = run.manifest.get("weights", {}).get("run")
    if source and pairs.fingerprint == source["data_fingerprint"] and not _held_out(pairs, source):
        said.append(
            f"WARNING: this run began with the weights of {source['path']}, which were trained on part of these data"
        )
    return said


def _held_out(pairs: Pairs, source: Mapping[str, Any]) -> bool:
    """Whether the run that ``source`` tells of did not train on these pairs of its data."""
    if pairs.subset in (None, "train"):
        return False
    return str(pairs.split_of) == source["path"] or (pairs.split_of is None and source["split"] == "given")


def submit_run(run: Run, out: Path, *, data: Path | None, console: Console) -> None:
    """Predict the unlabelled images; write the submission, read it back and compare."""
    if out.is_dir():
        raise RequestError("this is a folder, and a submission is one file", where=out, cure="name a .csv file.")
    predictor = run_predictor(run)
    recipe = run.recipe
    samples = list_unlabelled(recipe.data, data_root(recipe.data, data))
    submission = Submission(recipe.submission)
    size = predictor.inference.batch_size
    with using(predictor.inference, run.path):
        for start in range(0, len(samples), size):
            chosen = samples[start : start + size]
            predictions = predictor.predict([predictor.read(sample.image) for sample in chosen])
            for sample, prediction_hw in zip(chosen, predictions, strict=True):
                submission.add(sample.id, predictor.task.submission_map(prediction_hw))
            console.progress("predicting", start + len(chosen), len(samples))
    submission.write(out)
    console.say(f"{submission.summary}; read back and compared")
