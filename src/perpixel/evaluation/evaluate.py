"""Evaluation: the figures of a subset, image by image and in all, beside trivial baselines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from perpixel.data.cache import DecodedSamples
from perpixel.data.samples import Sample
from perpixel.data.split import SUBSETS
from perpixel.evaluation.calibration import CalibrationBeside, reliability_plot
from perpixel.evaluation.slices import Slice, brightness, slices_of, write_slices
from perpixel.inference.base import ImagePredictor
from perpixel.metrics import Detail
from perpixel.run import Run, read_json, write_atomic, write_json, write_rows
from perpixel.tasks import Metrics, Scored

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Evaluation:
    """Figures of one subset; ``per_image`` has a row a sample, ``baselines`` the figures of trivial predictions,
    ``details`` what lies behind the figures; ``properties`` what is known of each image, by which `sliced` slices;
    ``warnings`` why it should not be believed."""

    figures: dict[str, float]
    per_image: list[dict[str, Any]]
    infos: Mapping[str, Any]
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    details: Sequence[Detail] = ()
    properties: list[dict[str, float]] = field(default_factory=list)
    slices: Sequence[Slice] = ()
    warnings: Sequence[str] = ()


def scored_samples(
    predictor: ImagePredictor, decoded: DecodedSamples, positions: Sequence[int], progress: Progress | None = None
) -> Iterator[Scored]:
    """(scores, target) of each sample at its original size, in order, a batch at a time."""
    size = predictor.inference.batch_size
    for start in range(0, len(positions), size):
        chosen = positions[start : start + size]
        batch_scores = predictor.scores([decoded.image(position) for position in chosen])
        for position, scores_khw in zip(chosen, batch_scores, strict=True):
            yield scores_khw, decoded.target(position)
        if progress:
            progress(start + len(chosen), len(positions))


def evaluate_samples(
    predictor: ImagePredictor,
    decoded: DecodedSamples,
    ids: Sequence[str],
    positions: Sequence[int],
    *,
    facts: Mapping[str, Any] | None = None,
    scored: Iterable[Scored] | None = None,
    progress: Progress | None = None,
    merged: Callable[[Metrics], Metrics] | None = None,
) -> Evaluation:
    """Score the samples at ``positions`` at their original sizes.

    Args:
        ids: id of every position of ``decoded``.
        facts: what the task said of the training targets; given, baselines, calibration and properties are told too.
        scored: scores and targets at ``positions``, where they are not the predictor's own.
        merged: makes of what these samples add up to that of all processes; ``figures`` are of that.
    """
    task = predictor.task
    metrics = task.metrics()
    trivial = task.baselines(facts) if facts is not None else {}
    baselines = {name: task.metrics() for name in trivial}
    calibration = CalibrationBeside(predictor)
    rows, properties = [], []
    for position, (scores_khw, target_hw) in zip(
        positions, scored or scored_samples(predictor, decoded, positions, progress), strict=True
    ):
        valid_hw = task.valid(target_hw)
        predicted_hw = predictor.finalize(scores_khw)
        confidence_hw = predictor.confidence(scores_khw, predicted_hw)
        row = metrics.update(predicted_hw, target_hw, valid_hw, confidence_hw)
        rows.append({"sample": ids[position], **row})
        if facts is None:
            continue
        calibration.add(scores_khw, confidence_hw, predicted_hw, target_hw, valid_hw)
        properties.append({"brightness": brightness(decoded.image(position)), **task.properties(target_hw)})
        image_hwc, certain_hw = decoded.image(position), np.ones(target_hw.shape[:2], dtype=np.float32)
        for name, predict in trivial.items():
            baselines[name].update(predict(image_hwc), target_hw, valid_hw, certain_hw)
    return Evaluation(
        figures=(merged(metrics) if merged else metrics).compute(),
        per_image=rows,
        infos=metrics.infos(),
        baselines={name: accumulator.compute() for name, accumulator in baselines.items()},
        details=[*metrics.details(), *calibration.details()],
        properties=properties,
    )


def sliced(evaluation: Evaluation, samples: Sequence[Sample], groups: Mapping[str, str], figure: str) -> Evaluation:
    """The evaluation with each image's group, and its slices by each image's own value of a figure.

    Args:
        samples: in the order of ``evaluation.per_image``; their tables' columns are properties too.
        groups: by id.
    """
    rows = [{"sample": row["sample"], "group": groups.get(row["sample"], ""), **row} for row in evaluation.per_image]
    evaluation = replace(evaluation, per_image=rows)
    if not evaluation.properties:
        return evaluation
    columns = [sample.attributes | known for sample, known in zip(samples, evaluation.properties, strict=True)]
    names = dict.fromkeys(name for column in columns for name in column)
    found = slices_of(
        [row[figure] for row in evaluation.per_image],
        {name: [column.get(name, "") for column in columns] for name in names},
        [groups.get(sample.id, "") for sample in samples],
        figure=figure,
        higher=evaluation.infos[figure].direction == "higher",
    )
    return replace(evaluation, slices=found)


def protocol_of(
    predictor: ImagePredictor,
    name: str,
    *,
    data: Path,
    recipe: Path | None = None,
    pairs: str,
    fingerprint: str,
    images: int,
    chosen: Mapping[str, str],
    own: bool = True,
) -> dict[str, Any]:
    """How figures come about.

    Args:
        name: of the evaluation.
        data: the folder of the pairs.
        recipe: the file that describes them, where it is not the run's.
        pairs: which of the data's pairs are scored.
        chosen: what `choices` says.
        own: whether they are of the data that the run was trained on.
    """
    inference = predictor.inference
    return {
        "subset": name,
        "data": str(data),
        "recipe": str(recipe) if recipe else None,
        "pairs": pairs,
        "fingerprint": fingerprint,
        "images": images,
        "size": "original",
        "chosen": dict(chosen),
        "chosen_on_this_subset": [what for what, subset in chosen.items() if own and subset == name],
        "decision": predictor.decision,
        "flip": inference.flip,
        "self_ensemble": inference.self_ensemble,
        "scales": list(inference.scales),
        "tile": inference.tile,
    }


def write_evaluation(run: Run, name: str, evaluation: Evaluation, protocol: Mapping[str, Any]) -> None:
    """Write metrics.json and per_image.csv; ``protocol`` says how the figures came about."""
    folder = run.evaluation_dir(name)
    infos = {key: vars(info) for key, info in evaluation.infos.items()}
    write_rows(folder / "per_image.csv", evaluation.per_image)
    write_slices(folder, evaluation.slices)
    if (picture := reliability_plot(evaluation.details)) is not None:
        write_atomic(folder / "reliability.png", picture)
    write_json(
        folder / "metrics.json",
        {
            "protocol": dict(protocol),
            "figures": finite(evaluation.figures),
            "baselines": {key: finite(figures) for key, figures in evaluation.baselines.items()},
            "meaning": infos,
            "warnings": list(evaluation.warnings),
            "details": [{"kind": type(detail).__name__} | vars(detail) for detail in evaluation.details],
        },
    )


def read_evaluation(run: Run, name: str) -> dict[str, Any] | None:
    """metrics.json of a subset, or None."""
    path = run.evaluation_dir(name) / "metrics.json"
    return read_json(path) if path.is_file() else None


def read_groups(run: Run, name: str, rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The group of each row of per_image.csv; of a run's own subset the split's, where the table is an older one."""
    split = run.read_split()[1] if name in SUBSETS and run.split_path.is_file() else {}
    return [row.get("group", split.get(row["sample"], "")) for row in rows]


def finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Figures for JSON, which knows no NaN: the figure of a class that is nowhere is null."""
    return {key: value if math.isfinite(value) else None for key, value in figures.items()}
