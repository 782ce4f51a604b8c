"""An ensemble: several runs, or the folds of one, averaged; a folder that predicts and is scored as a run is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perpixel.console import Console
from perpixel.data.cache import DecodedSamples, decode_samples
from perpixel.data.samples import Sample
from perpixel.errors import RequestError
from perpixel.evaluation.choices import choices
from perpixel.evaluation.evaluate import evaluate_samples, protocol_of, read_evaluation, sliced, write_evaluation
from perpixel.evaluation.pairs import Pairs, open_pairs
from perpixel.evaluation.session import evaluate_run
from perpixel.evaluation.tables import number, text_table
from perpixel.inference.ensemble import Ensemble, mean_scores
from perpixel.inference.predictor import Predictor
from perpixel.run import Run, write_json
from perpixel.tasks import Scored

OUT_OF_FOLD = "out-of-fold"
_SHOWN = 8


def run_ensemble(runs: Sequence[Run], folder: Path, *, console: Console) -> str:
    """Write an ensemble into ``folder``: choose its decision, score it on what no member trained on.

    Where all members have one validation subset, it is scored on that; where they are folds, every image is scored by
    the members that did not train on it, as ``out-of-fold``. The test subset, if there is one, is scored by all.

    Returns:
        A table for a person, of the ensemble beside its members.

    Raises:
        RequestError: fewer than two runs, other data, other classes, another test subset, or a folder that holds
            something already.
    """
    ensemble = _checked(runs, folder)
    subsets, held_out = _subsets(runs)
    folds = "val" not in subsets.values()
    chosen_on = OUT_OF_FOLD if folds else "val"
    run = _write_run(runs, folder, subsets, chosen_on)
    pairs = open_pairs(runs[0], ensemble.task, subset="val", data=None, console=console)
    samples = _all_samples(runs, pairs, held_out, console)
    decoded = decode_samples(samples, ensemble.task.decode_target, key=None, image_scale=ensemble.task.image_scale)
    members = [[ensemble.members[place] for place in held_out[sample.id]] for sample in samples]
    monitor = run.recipe.training.monitor
    if ensemble.task.chosen_on_validation:
        ensemble.decision = ensemble.task.choose(_scored(members, decoded), monitor)
        console.say(f"chosen on {chosen_on}: {ensemble.decision}")
    write_json(run.decision_path, ensemble.decision)
    ids = [sample.id for sample in samples]
    evaluation = evaluate_samples(
        ensemble,
        decoded,
        ids,
        range(len(ids)),
        facts=run.manifest.get("data", {}).get("training_targets"),
        scored=_scored(members, decoded),
    )
    protocol = protocol_of(
        ensemble,
        chosen_on,
        data=pairs.root,
        pairs=chosen_on,
        fingerprint=pairs.fingerprint,
        images=len(ids),
        chosen=choices(run, ensemble),
    )
    write_evaluation(run, chosen_on, sliced(evaluation, samples, run.read_split()[1], monitor), protocol)
    if "test" in subsets.values():
        evaluate_run(run, subset="test", data=None, console=console)
    return _table(runs, run, chosen_on, monitor)


def _checked(runs: Sequence[Run], folder: Path) -> Ensemble:
    if len({run.path.resolve() for run in runs}) < 2:
        raise RequestError("one run is no ensemble", rule="an ensemble holds two different runs or more.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError("this is not an empty folder", where=folder, cure="name another --out.")
    prints = {str(run.path): run.manifest.get("data", {}).get("fingerprint") for run in runs}
    if len(set(prints.values())) > 1:
        raise RequestError(
            "these runs were trained on different data",
            details=[f"{path}: data {key}" for path, key in prints.items()],
            rule="an ensemble is scored on images that no member trained on; of other data nobody knows.",
        )
    ensemble = Ensemble([Predictor.from_run(run) for run in runs])
    for run, member in zip(runs[1:], ensemble.members[1:], strict=True):
        ensemble.task.require_same_maps(member.task, run.path)
    ensemble.decision = ensemble.task.first_decision()
    return ensemble


def _subsets(runs: Sequence[Run]) -> tuple[dict[str, str], dict[str, list[int]]]:
    """(subset of each sample for the ensemble, the places of the members that hold a validation sample out).

    A sample that some members validate on and others train on is ``train``: only out-of-fold scores are told of it.
    """
    splits = [run.read_split()[0] for run in runs]
    subsets: dict[str, str] = {}
    held_out: dict[str, list[int]] = {}
    mixed = []
    for id_ in sorted(set().union(*splits)):
        own = [split.get(id_) for split in splits]
        if "test" in own and set(own) != {"test"}:
            mixed.append(id_)
        validating = [place for place, subset in enumerate(own) if subset == "val"]
        if validating:
            held_out[id_] = validating
        subsets[id_] = "test" if "test" in own else "val" if len(validating) == len(runs) else "train"
    if mixed or not held_out:
        raise RequestError(
            "what one of these runs is tested on, another one trained on",
            details=mixed[:_SHOWN],
            rule="members share their test subset; they share the validation subset too, or are folds of one split.",
            cure="train them with one split.seed, or as folds: --set split.folds=5 --set split.fold=0 and so on.",
        )
    if "val" in subsets.values() and any(len(members) < len(runs) for members in held_out.values()):
        subsets = {id_: "train" if subset == "val" else subset for id_, subset in subsets.items()}
    return subsets, held_out


def _write_run(runs: Sequence[Run], folder: Path, subsets: Mapping[str, str], chosen_on: str) -> Run:
    """A run folder without weights of its own: it names those of its members."""
    run, manifests = Run(folder), [member.manifest for member in runs]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(runs[0].recipe_path, run.recipe_path)
    counts = [manifest.get("parameters", {}) for manifest in manifests]
    run.update_manifest(
        status="finished",
        ensemble=[str(member.path.resolve()) for member in runs],
        chosen_on=chosen_on,
        data=manifests[0].get("data", {}),
        versions=manifests[0].get("versions", {}),
        parameters={
            key: sum(count.get(key, 0) for count in counts) for key in dict.fromkeys(k for c in counts for k in c)
        },
        training_seconds=sum(manifest.get("training_seconds", 0.0) for manifest in manifests),
        cost=_cost([manifest.get("cost") or {} for manifest in manifests]),
    )
    run.write_split(subsets, runs[0].read_split()[1])
    return run


def _cost(costs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    keys = ("operations_per_image", "latency_ms_per_image")
    if not all(key in cost for cost in costs for key in keys):
        return None
    return {key: sum(cost[key] for cost in costs) for key in keys}


def _all_samples(
    runs: Sequence[Run], first: Pairs, held_out: Mapping[str, Sequence[int]], console: Console
) -> list[Sample]:
    """The samples that a member holds out, sorted by id."""
    found = {sample.id: sample for sample in first.samples}
    for run in runs[1:]:
        if held_out.keys() - found.keys():
            others = open_pairs(run, first.task, subset="val", data=None, console=console).samples
            found |= {sample.id: sample for sample in others}
    return [found[id_] for id_ in sorted(held_out)]


def _scored(members: Sequence[Sequence[Predictor]], decoded: DecodedSamples) -> Iterator[Scored]:
    """(scores, target) of each sample, by the members that did not train on it."""
    for position, own in enumerate(members):
        yield mean_scores(own, [decoded.image(position)])[0], decoded.target(position)


def _table(runs: Sequence[Run], ensemble: Run, chosen_on: str, monitor: str) -> str:
    """The monitored figure of the members and of the ensemble, on each subset."""
    rows = []
    for name, run, first in [*((run.path.name, run, "val") for run in runs), (ensemble.path.name, ensemble, chosen_on)]:
        stored = [read_evaluation(run, subset) for subset in (first, "test")]
        rows.append([name, *(number(item["figures"].get(monitor)) if item else "" for item in stored)])
    mean = [_mean(row[column] for row in rows[:-1]) for column in (1, 2)]
    rows.insert(-1, ["mean of the members", *mean])
    note = (
        f"the ensemble's first column: {OUT_OF_FOLD}, each image by the members that did not train on it"
        if chosen_on == OUT_OF_FOLD
        else "val chose epochs and decisions: expect less on others"
    )
    return "\n".join([*text_table([monitor, "val", "test"], rows), note, f"written: {ensemble.path}"])


def _mean(cells: Iterator[str]) -> str:
    values = [float(cell) for cell in cells if cell not in ("", "-")]
    return number(float(np.mean(values))) if values else ""
