"""Ensembles: the mean of the members' scores, scored on nothing that a member trained on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from perpixel import api
from perpixel.data.samples import list_samples
from perpixel.errors import RequestError
from perpixel.evaluation.evaluate import read_evaluation
from perpixel.images import read_image, read_label_map
from perpixel.inference.ensemble import Ensemble
from perpixel.inference.opening import run_predictor
from perpixel.inference.predictor import Predictor
from perpixel.run import Run, read_rows, write_json


def member(source: Run, folder: Path, *, seed: int = 0, subsets: dict[str, str] | None = None) -> Run:
    """A copy of a run whose weights were shaken, and whose split is another one."""
    shutil.copytree(source.path, folder)
    run = Run(folder)
    rng = np.random.default_rng(seed)
    tensors = load_file(run.best_path)
    for name, tensor in tensors.items():
        if seed and tensor.ndim == 4:
            tensors[name] = (tensor + rng.normal(0, 0.3 * tensor.std(), tensor.shape)).astype(tensor.dtype)
    save_file(tensors, run.best_path)
    if subsets is not None:
        run.write_split(subsets, {})
    return run


def test_scores_are_the_mean_of_the_members(tiny_run: Run, tmp_path: Path) -> None:
    members = [Predictor.from_run(tiny_run), Predictor.from_run(member(tiny_run, tmp_path / "b", seed=1))]
    ensemble = Ensemble(members)
    images = [np.random.default_rng(size).integers(0, 256, (size, 50, 3), dtype=np.uint8) for size in (40, 33)]
    with ensemble.clock() as clock:
        found = ensemble.scores(images)
    first, second = (one.scores(images) for one in members)
    for place in range(2):
        assert found[place] == pytest.approx((first[place] + second[place]) / 2, abs=1e-6)
        assert np.abs(first[place] - second[place]).max() > 0.01  # else the mean would show nothing
    assert clock.seconds > 0


def test_an_ensemble_is_used_as_a_run_is(tiny_run: Run, tmp_path: Path) -> None:
    runs = [member(tiny_run, tmp_path / "a"), member(tiny_run, tmp_path / "b", seed=1)]
    result = api.ensemble([run.path for run in runs], tmp_path / "both")
    both = result["run"]
    test, val = read_evaluation(both, "test"), read_evaluation(both, "val")
    assert test is not None
    assert val is not None
    assert val["protocol"]["chosen_on_this_subset"] == ["epoch", "minimum_area", "temperature", "threshold"]
    assert test["protocol"]["chosen_on_this_subset"] == []
    assert [line.split()[0] for line in result["table"].splitlines()[-6:-2]] == ["a", "b", "mean", "both"]

    # The figures are those of masks that are made by hand from the members' probabilities.
    subsets, _ = both.read_split()
    samples = list_samples(both.recipe.data, Path(both.recipe.data.root or ""))
    members = [Predictor.from_run(run) for run in runs]
    ensemble = run_predictor(both)
    assert isinstance(ensemble, Ensemble)
    rights = total = 0
    for sample in (sample for sample in samples if subsets[sample.id] == "test"):
        image_hwc = read_image(sample.image).pixels_hwc
        mean_khw = np.mean([one.scores([image_hwc])[0] for one in members], axis=0)
        mask_hw = members[0].task.finalize(mean_khw, ensemble.decision)
        target_hw = np.asarray(read_label_map(sample.target or Path()).values_hw) > 0
        rights, total = rights + int((mask_hw == target_hw).sum()), total + target_hw.size
    assert test["figures"]["pixel_accuracy"] == pytest.approx(rights / total, abs=1e-3)

    again = api.evaluate(both.path, subset="test")
    assert again["figures"] == pytest.approx(test["figures"], abs=1e-3)
    (written,) = api.predict(both.path, samples[0].image, tmp_path / "out")
    assert np.array_equal(
        np.asarray(read_label_map(written).values_hw) > 0,
        ensemble.predict([read_image(samples[0].image).pixels_hwc])[0] == 1,
    )
    assert both.manifest["cost"]["operations_per_image"] == 2 * tiny_run.manifest["cost"]["operations_per_image"]
    compared = api.compare([runs[0].path, both.path], subset="test")
    assert {item.second for items in compared.values() for item in items} == {"both"}


def test_folds_score_each_image_by_who_did_not_train_on_it(tiny_run: Run, tmp_path: Path) -> None:
    ids = sorted(tiny_run.read_split()[0])
    tested, rest = ids[:4], ids[4:]
    folds = []
    for number in range(2):
        subsets = dict.fromkeys(tested, "test") | {
            id_: "val" if place % 2 == number else "train" for place, id_ in enumerate(rest)
        }
        folds.append(member(tiny_run, tmp_path / f"fold{number}", seed=number, subsets=subsets))
    both = api.ensemble([run.path for run in folds], tmp_path / "both")["run"]
    stored = read_evaluation(both, "out-of-fold")
    assert stored is not None
    assert "threshold" in stored["protocol"]["chosen_on_this_subset"]
    rows = {row["sample"]: row for row in read_rows(both.evaluation_dir("out-of-fold") / "per_image.csv")}
    assert sorted(rows) == rest
    for run in folds:
        shutil.copyfile(both.decision_path, run.decision_path)
        api.evaluate(run.path)
        own = {row["sample"]: row for row in read_rows(run.evaluation_dir("val") / "per_image.csv")}
        assert {row["sample"] for row in own.values()} <= set(rows)
        for id_, row in own.items():
            assert float(rows[id_]["pixel_accuracy"]) == pytest.approx(float(row["pixel_accuracy"]), abs=2e-3)
    assert (read_evaluation(both, "test") or {})["protocol"]["chosen"]["epoch"] == "out-of-fold"
    with pytest.raises(RequestError, match="no subset 'val'"):  # all members together trained on these images
        api.evaluate(both.path)


def test_what_cannot_be_averaged_is_refused(tiny_run: Run, tmp_path: Path) -> None:
    first = member(tiny_run, tmp_path / "a")
    with pytest.raises(RequestError, match="no ensemble"):
        api.ensemble([first.path, tmp_path / "a" / ".." / "a"], tmp_path / "out")
    with pytest.raises(RequestError, match="no run is named"):
        api.ensemble([])
    swapped = {id_: {"test": "train", "train": "test"}.get(own, own) for id_, own in first.read_split()[0].items()}
    other = member(tiny_run, tmp_path / "b", subsets=swapped)
    with pytest.raises(RequestError, match="tested on, another one trained on"):
        api.ensemble([first.path, other.path], tmp_path / "out")
    write_json(other.manifest_path, other.manifest | {"data": {"fingerprint": "other"}})
    with pytest.raises(RequestError, match="different data"):
        api.ensemble([first.path, other.path], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(RequestError, match="not an empty folder"):
        api.ensemble([first.path, tiny_run.path], other.path)
