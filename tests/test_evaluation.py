"""The reported figures are those of the written predictions, whatever the batches were."""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perpixel import api
from perpixel.data.cache import StreamedSamples
from perpixel.data.samples import list_samples, list_unlabelled
from perpixel.errors import RequestError, RunError
from perpixel.evaluation.evaluate import Evaluation, evaluate_samples, read_evaluation, scored_samples, write_evaluation
from perpixel.evaluation.tables import figures_table
from perpixel.images import read_image, read_label_map, write_image, write_label_map
from perpixel.inference.predictor import Predictor
from perpixel.run import Run, read_rows
from tiny import write_tiny


@pytest.fixture
def run(tiny_run: Run, tmp_path: Path) -> Run:
    """A copy of the tiny run that may be written to."""
    shutil.copytree(tiny_run.path, tmp_path / "run")
    return Run(tmp_path / "run")


def streamed(predictor: Predictor, run: Run, subset: str) -> tuple[StreamedSamples, list[str]]:
    subsets, _ = run.read_split()
    data = run.recipe.data
    samples = [sample for sample in list_samples(data, Path(data.root or "")) if subsets[sample.id] == subset]
    return StreamedSamples(samples, predictor.task.decode_target), [sample.id for sample in samples]


def brute_force(pairs: list[tuple[Any, Any]]) -> dict[str, float]:
    """Figures of (predicted, true) boolean masks, pixel by pixel."""
    rights = total = true = positive = both = 0
    ious, scores = [], []
    for predicted_hw, target_hw in pairs:
        own_both = own_union = 0
        for predicted, target in zip(predicted_hw.ravel().tolist(), target_hw.ravel().tolist(), strict=True):
            rights += predicted == target
            total += 1
            true += target
            positive += predicted
            own_both += predicted and target
            own_union += predicted or target
        both += own_both
        iou = own_both / own_union if own_union else 1.0
        ious.append(iou)
        scores.append(sum(iou > 0.5 + 0.05 * step for step in range(10)) / 10)
    return {
        "pixel_accuracy": rights / total,
        "precision/salt": both / positive if positive else 0.0,
        "recall/salt": both / true,
        "iou/salt": both / (true + positive - both),
        "iou_per_image": sum(ious) / len(ious),
        "competition_score": sum(scores) / len(scores),
    }


@pytest.mark.parametrize("subset", ["val", "test"])
def test_figures_are_those_of_the_written_predictions(run: Run, tmp_path: Path, subset: str) -> None:
    result = api.evaluate(run.path, subset=subset)
    subsets, _ = run.read_split()
    ids = sorted(id_ for id_, own in subsets.items() if own == subset)
    root = Path(run.recipe.data.root or "")
    api.predict(run.path, [root / f"train/images/{id_}.png" for id_ in ids], tmp_path / "out")
    pairs = [
        tuple(
            read_label_map(folder / f"{id_}.png").values_hw > 0 for folder in (tmp_path / "out", root / "train/masks")
        )  # type: ignore[operator]
        for id_ in ids
    ]
    figures = result["figures"]
    assert 0.05 < figures["iou/salt"] < 1  # else the comparison would show nothing
    for key, value in brute_force(pairs).items():
        assert figures[key] == pytest.approx(value, abs=1e-12), key
    stored = read_evaluation(run, subset)
    assert stored is not None
    assert stored["figures"] == figures
    rows = read_rows(run.evaluation_dir(subset) / "per_image.csv")
    assert [row["sample"] for row in rows] == ids
    assert np.mean([float(row["iou_per_image"]) for row in rows]) == pytest.approx(figures["iou_per_image"])
    assert set(rows[0]) == {"sample", "group", *figures}


def test_evaluation_repeats_what_training_reported(run: Run) -> None:
    for subset in ("val", "test"):
        reported = read_evaluation(run, subset)
        again = api.evaluate(run.path, subset=subset)
        assert reported is not None
        assert again["figures"] == pytest.approx(reported["figures"])
        assert again["protocol"]["chosen_on_this_subset"] == reported["protocol"]["chosen_on_this_subset"]
        stored = read_evaluation(run, subset)
        assert stored is not None
        assert stored["baselines"] == reported["baselines"]


def test_the_batch_size_changes_no_figure(run: Run) -> None:
    predictor = Predictor.from_run(run)
    decoded, ids = streamed(predictor, run, "val")
    figures = []
    steps: list[tuple[int, int]] = []
    for size in (1, 3, 100):
        predictor.inference = predictor.inference.model_copy(update={"batch_size": size})
        evaluation = evaluate_samples(
            predictor, decoded, ids, range(len(ids)), progress=lambda done, total: steps.append((done, total))
        )
        figures.append(evaluation.figures)
    assert steps[len(ids) - 1] == steps[-1] == (len(ids), len(ids))
    assert figures[1] == pytest.approx(figures[0], abs=1e-3)
    assert figures[2] == pytest.approx(figures[0], abs=1e-3)


def test_ignored_pixels_change_nothing(run: Run) -> None:
    predictor = Predictor.from_run(run)
    decoded, ids = streamed(predictor, run, "val")
    filled = next(index for index in range(len(ids)) if (decoded.target(index)[10:] == 1).any())
    scores_khw, target_hw = next(iter(scored_samples(predictor, decoded, [filled])))
    predicted_hw = predictor.finalize(scores_khw)
    with_void_hw = target_hw.copy()
    with_void_hw[:10] = predictor.task.fill

    class Void(StreamedSamples):
        def target(self, index: int) -> Any:
            return with_void_hw

    evaluation = evaluate_samples(predictor, Void(decoded.samples, decoded.decode_target), ids, [filled])
    expected = brute_force([(predicted_hw[10:] > 0, target_hw[10:] > 0)])
    for key in ("pixel_accuracy", "iou_per_image"):
        assert evaluation.figures[key] == pytest.approx(expected[key])


def test_undefined_figures_are_null_in_json(run: Run) -> None:
    evaluation = Evaluation({"a": math.nan, "b": 0.5}, [{"sample": "x", "a": math.nan}], {}, {"all": {"a": math.nan}})
    write_evaluation(run, "odd", evaluation, {"subset": "odd"})
    text = (run.evaluation_dir("odd") / "metrics.json").read_text()
    assert "NaN" not in text
    stored = json.loads(text)
    assert stored["figures"] == {"a": None, "b": 0.5}
    assert stored["baselines"] == {"all": {"a": None}}
    assert read_evaluation(run, "nowhere") is None


def test_the_table_says_what_was_chosen_on_these_images(run: Run) -> None:
    val, test = (api.evaluate(run.path, subset=subset)["table"] for subset in ("val", "test"))
    assert "WARNING: epoch, minimum_area, temperature, threshold chosen on these very images" in val
    assert "chosen on these" not in test
    assert "chosen on val, not on these images: epoch, minimum_area, temperature, threshold" in test
    assert "all rock" in test.splitlines()[2]
    assert "mean over images" in test
    # Not even when the old record is gone.
    shutil.rmtree(run.evaluation_dir("val"))
    assert api.evaluate(run.path)["table"] == val


def test_a_table_without_baselines() -> None:
    from perpixel.metrics import MetricInfo

    evaluation = Evaluation({"a": math.nan}, [], {"a": MetricInfo("A", "", "higher", "mean over images", "")})
    protocol = {"subset": "s", "images": 1, "decision": {}, "chosen_on_this_subset": []}
    assert figures_table(evaluation, protocol).splitlines()[-1].split() == ["a", "nan", "mean", "over", "images"]


def test_another_folder_is_scored_whole_beside_the_runs_own(run: Run, tmp_path: Path) -> None:
    before = read_evaluation(run, "val")
    other = write_tiny(tmp_path / "val", count=7, size=50, seed=9)
    result = api.evaluate(run.path, data=other)
    assert result["protocol"]["images"] == 7
    assert result["protocol"]["chosen_on_this_subset"] == []
    assert read_evaluation(run, "val") == before  # a folder of this name does not replace it
    stored = read_evaluation(run, "data-val")
    assert stored is not None
    assert stored["protocol"]["data"] == str(other)


def test_the_runs_own_data_stay_split_wherever_they_lie(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.recipe.data.root or "", tmp_path / "moved")
    moved = api.evaluate(run.path, subset="test", data=tmp_path / "moved")
    assert moved["protocol"]["subset"] == "test"
    assert moved["figures"] == api.evaluate(run.path, subset="test")["figures"]


def test_a_subset_that_is_not_there(run: Run) -> None:
    with pytest.raises(RequestError, match="no subset 'validation'") as caught:
        api.evaluate(run.path, subset="validation")
    assert "['test', 'train', 'val']" in caught.value.text()


def test_a_submission_holds_every_unlabelled_image(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from perpixel import rle

    root = Path(run.recipe.data.root or "")
    out = api.submit(run.path, tmp_path / "s.csv")
    rows = read_rows(out)
    samples = list_unlabelled(run.recipe.data, root)
    assert [row["id"] for row in rows] == [sample.id for sample in samples]
    predictor = Predictor.from_run(run)
    for row, sample in zip(rows, samples, strict=True):
        (mask_hw,) = predictor.predict([read_image(sample.image).pixels_hwc])
        assert np.array_equal(rle.decode(row["rle_mask"], mask_hw.shape), mask_hw == 1)  # type: ignore[arg-type]
    monkeypatch.setattr(Predictor, "finalize", lambda self, scores_khw: np.zeros((40, 40), dtype=np.uint8))
    with pytest.raises(RunError, match="all 3 predictions are the same"):
        api.submit(run.path, tmp_path / "t.csv")
    assert not (tmp_path / "t.csv").exists()
    with pytest.raises(RequestError, match="folder"):
        api.submit(run.path, tmp_path)


# Prediction of files


def tiles(folder: Path, *names: str) -> Path:
    rng = np.random.default_rng(1)
    for number, name in enumerate(names):
        write_image(folder / name, rng.integers(0, 256, (30 + number, 41, 3), dtype=np.uint8))
    return folder


def test_predictions_have_the_size_and_the_values_of_the_data(run: Run, tmp_path: Path) -> None:
    folder = tiles(tmp_path / "in", "b.png", "a.jpg", ".hidden.png")
    (folder / "notes.txt").write_text("x")
    (folder / "folder.png").mkdir()
    written = api.predict(run.path, folder, tmp_path / "out")
    assert [path.name for path in written] == ["a.png", "b.png"]
    endings = (".png", "_color.png", "_confidence.png", "_overlay.png")
    names = [f"{stem}{ending}" for stem in "ab" for ending in endings]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [*names, "timing.json"]
    values_hw = read_label_map(tmp_path / "out/b.png").values_hw
    assert values_hw is not None
    assert values_hw.shape == (30, 41)
    assert read_image(tmp_path / "out/a_overlay.png").pixels_hwc.shape == (31, 41, 3)
    assert api.predict(run.path, str(folder / "b.png"), tmp_path / "one") == [tmp_path / "one/b.png"]
    assert len(api.predict(run.path, [folder / "b.png"] * 2, tmp_path / "one")) == 1


def test_a_corrupt_image_is_named_and_the_others_are_predicted(run: Run, tmp_path: Path) -> None:
    folder = tiles(tmp_path / "in", *(f"{name}.png" for name in "abcdefgh"))
    for name in "cg":
        (folder / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(RunError, match="2 of 8 images cannot be read; the others are predicted") as caught:
        api.predict(run.path, folder, tmp_path / "out")
    assert [detail.split(":")[0] for detail in caught.value.details] == [str(folder / f"{name}.png") for name in "cg"]
    assert sorted(path.stem for path in (tmp_path / "out").glob("?.png")) == list("abdefh")
    for path in folder.glob("[a-f].png"):
        path.write_bytes(b"a whole batch of them")
    with pytest.raises(RunError, match="7 of 8"):
        api.predict(run.path, folder, tmp_path / "again")
    assert [path.name for path in (tmp_path / "again").glob("?.png")] == ["h.png"]


def test_nothing_is_overwritten_that_is_needed(run: Run, tmp_path: Path) -> None:
    folder = tiles(tmp_path / "in", "a.png", "b.jpg")
    before = (folder / "a.png").read_bytes()
    with pytest.raises(RequestError, match="lost") as caught:
        api.predict(run.path, folder, folder)
    assert caught.value.details == [f"the prediction of {folder / 'a.png'} would replace the image {folder / 'a.png'}"]
    assert (folder / "a.png").read_bytes() == before
    tiles(tmp_path / "other", "a.png", "b_overlay.png")
    with pytest.raises(RequestError) as caught:
        api.predict(run.path, [folder, tmp_path / "other"], tmp_path / "out")
    assert {detail.split()[-1] for detail in caught.value.details} == {"a.png", "b_overlay.png"}
    assert not (tmp_path / "out").exists()
    with pytest.raises(RequestError, match="this is a file"):
        api.predict(run.path, folder / "a.png", folder / "b.jpg")


def test_a_pack_holds_models_and_results_and_no_state(run: Run, tmp_path: Path) -> None:
    write_label_map(run.path / "predictions" / "x.png", np.zeros((2, 2), dtype=np.uint8))
    out = api.pack(run.path, run.path / "all.zip")
    with zipfile.ZipFile(out) as archive:
        names = set(archive.namelist())
        assert archive.testzip() is None
        assert archive.read("run/recipe.yaml") == run.recipe_path.read_bytes()
    assert {"run/manifest.json", "run/checkpoints/best.safetensors", "run/predictions/x.png"} <= names
    assert not {"run/checkpoints/last.safetensors", "run/all.zip"} & names
    assert api.pack(run.path, run.path / "all.zip") == out
    with zipfile.ZipFile(out) as archive:
        assert set(archive.namelist()) == names
    with pytest.raises(RequestError, match="holds no run"):
        api.pack(tmp_path, tmp_path / "x.zip")
    with pytest.raises(OSError, match="directory"):
        api.pack(run.path, tmp_path / "run" / "evaluation")
    assert not list(run.path.rglob(".*"))
