"""Behind the cache a training is the plain one: bit for bit without rounding, within it otherwise; never elsewhere."""

from __future__ import annotations

import functools
import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import perpixel.training.train as training
from perpixel.data.augment import augment, draw_orientation, orient, orientations, random_changes, sample_generator
from perpixel.data.cache import cache_folder
from perpixel.errors import RunError
from perpixel.inference.predictor import to_network
from perpixel.models import build_model
from perpixel.recipe import AugmentationSection, Recipe
from perpixel.run import Run
from perpixel.training import feature_store
from perpixel.training.feature_cache import cache_features, used_features
from perpixel.training.feature_store import Feature, Keep, build_store, open_store
from perpixel.training.loop import TrainingModule
from perpixel.training.validation_memory import EncoderMemory, RememberingModel
from test_depth_task import depth_recipe, write_tiny_depth
from tiny import assert_same_weights, tiny_recipe, write_tiny

# Of what the recipe salt changes, the horizontal flip stays.
TWO = (
    "augmentation.affine=0",
    "augmentation.photometric=0",
    "augmentation.quarter_turns=0",
    "augmentation.vertical_flip=0",
)
ROUNDING = 2e-3  # float16 rounds by 2**-11 at most
SAID = "features of 12 samples in 2 orientations"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERPIXEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"), count=15)


@pytest.fixture(scope="module")
def cached(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A training behind rounded features; for reading alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERPIXEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        return training.train(frozen(data), tmp_path_factory.mktemp("cached") / "run")


def frozen(data: Path, *settings: str) -> Recipe:
    return tiny_recipe(data, "model.freeze_encoder=true", "inference.flip=true", *TWO, *settings)


def plainly(recipe: Recipe, run: Path) -> Run:
    """Trained with neither cache nor memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "cache_features", lambda *args: None)
        patch.setattr(training, "validation_memory", lambda *args: None)
        return training.train(recipe, run)


def exactly(recipe: Recipe, run: Path) -> Run:
    """Trained with both, and nothing rounded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "cache_features", functools.partial(cache_features, half=False))
        return training.train(recipe, run)


def prepared(recipe: Recipe, run: Path) -> Run:
    """As far as the first step."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RunError, match="no epoch"):
        patch.setattr(training, "fit", lambda *args: None)
        training.train(recipe, run)
    return Run(run)


def history(run: Run) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.read_history()]


def losses(run: Run) -> list[float]:
    return [row["train_loss"] for row in run.read_history()]


def stores() -> list[Path]:
    return sorted(cache_folder().glob("features-*"))


# The plain loop and the cached one


@pytest.mark.parametrize(
    "settings",
    [
        ("training.ema_decay=0.9",),
        (
            "augmentation.horizontal_flip=0",
            "augmentation.quarter_turns=0.5",
            "training.epochs=5",
            "input.size=[40, 40]",
        ),
        ("training.precision=bf16", "input.fit=pad", "model.architecture=fpn"),
    ],
    ids=["flips", "turns, padded to 64", "bf16"],
)
def test_without_rounding_the_two_loops_are_one(data: Path, tmp_path: Path, settings: tuple[str, ...]) -> None:
    recipe = frozen(data, *settings)
    plain, cached = plainly(recipe, tmp_path / "plain"), exactly(recipe, tmp_path / "cached")
    assert "features" not in plain.manifest and cached.manifest["features"] == "cached"
    assert_same_weights(plain.last_path, cached.last_path)
    assert_same_weights(plain.best_path, cached.best_path)
    assert history(plain) == history(cached)


def test_rounding_is_all_that_differs(data: Path, tmp_path: Path) -> None:
    """Adam would magnify it (its first steps are as long for small gradients as for large ones), and so would batch
    statistics of four features that are nearly the same."""
    settings = ("optimizer.name=sgd", "optimizer.learning_rate=0.002", "model.decoder_norm=false")
    recipe = frozen(data, *settings)
    plain, rounded = plainly(recipe, tmp_path / "plain"), training.train(recipe, tmp_path / "rounded")
    assert losses(plain) != losses(rounded), "the features were not rounded"
    assert losses(plain) == pytest.approx(losses(rounded), rel=ROUNDING)
    start = training.train(frozen(data, *settings, "training.epochs=0"), tmp_path / "start")
    before, after, other = (flat_weights(run) for run in (start, plain, rounded))
    assert float((after - other).norm() / (after - before).norm()) < 2 * ROUNDING


def flat_weights(run: Run) -> torch.Tensor:
    state = load_file(run.best_path)
    return torch.cat([state[name].double().flatten() for name in sorted(state)])


def test_a_regression_head(tmp_path: Path) -> None:
    settings = ("data.cache=auto", "target.output=metres", "model.architecture=global-regression")
    frozen_head = ("model.freeze_encoder=true", "augmentation.horizontal_flip=0", "loss.name=mse")
    recipe = depth_recipe(write_tiny_depth(tmp_path / "data", count=8), *settings, *frozen_head)
    plain, cached = plainly(recipe, tmp_path / "plain"), exactly(recipe, tmp_path / "cached")
    assert_same_weights(plain.last_path, cached.last_path)
    assert history(plain) == history(cached)


def test_the_frozen_encoder_stays_as_it_was(data: Path, cached: Run, tmp_path: Path) -> None:
    """Its batch statistics too; those of the decoder move."""
    start = training.train(frozen(data, "training.epochs=0"), tmp_path / "start")
    before, after = load_file(start.best_path), load_file(cached.best_path)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in moved if ".encoder." in name]
    assert [name for name in moved if "running_mean" in name]
    assert [name for name in before if ".encoder." in name and "running_mean" in name]


@pytest.mark.parametrize("call", [2, 7])
def test_a_continuation_is_exact(
    data: Path, cached: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    class Killed(BaseException):
        """Stands for a kill: nothing handles it."""

    def dying(self: TrainingModule, *args: object) -> None:
        original(self, *args)  # type: ignore[arg-type]
        if next(calls) == call:
            raise Killed

    calls, original = iter(range(1, 100)), TrainingModule.on_train_batch_end
    recipe = frozen(data, "training.checkpoint_seconds=1e-6")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(TrainingModule, "on_train_batch_end", dying)
        training.train(recipe, tmp_path / "run")
    (store,) = stores()
    (store / "1.bin").unlink()  # it is computed anew, to the same bits
    run = training.train(recipe, tmp_path / "run", resume=True)
    assert_same_weights(cached.last_path, run.last_path)
    assert_same_weights(cached.best_path, run.best_path)
    assert history(cached) == history(run)
    assert "may differ" not in run.log_path.read_text()


def test_a_continuation_that_cannot_be_exact_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(100))
    with monkeypatch.context() as patch, pytest.raises(Exception, match="interrupted"):
        patch.setattr(training, "stop_asked", lambda: next(calls) >= 5)
        training.train(frozen(data), tmp_path / "run")
    (store,) = stores()
    for file in store.iterdir():
        file.unlink()
    monkeypatch.setattr(feature_store, "_LARGEST_BYTES", 1000)
    log = training.train(frozen(data), tmp_path / "run", resume=True).log_path.read_text()
    assert "do not fit into the cache" in log
    assert "its features were cached: the weights may differ by rounding" in log


# When, and what is said


def test_it_says_what_it_did(cached: Run) -> None:
    (line,) = [line for line in cached.log_path.read_text().splitlines() if "the encoder is frozen" in line]
    assert SAID in line and "each epoch saves about" in line


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (["augmentation.affine=0.5"], "augmentation.affine"),
        (["augmentation.photometric=0.5"], "augmentation.photometric"),
        (["input.fit=crop"], "random crops"),
        (["model.unfreeze_epochs=[2]"], "model.unfreeze_epochs"),
        (["data.cache=off"], "data.cache is off"),
        (["training.epochs=2"], "training.epochs=2 does not exceed the orientations of a sample (2)"),
    ],
)
def test_nothing_is_cached_where_it_does_not_pay(data: Path, tmp_path: Path, settings: list[str], reason: str) -> None:
    run = prepared(frozen(data, *settings), tmp_path / "run")
    assert not stores() and run.manifest["features"] == "computed anew"
    (line,) = [line for line in run.log_path.read_text().splitlines() if "yet runs in every step" in line]
    assert reason in line


def test_nothing_is_said_of_an_encoder_that_trains(data: Path, tmp_path: Path) -> None:
    run = prepared(frozen(data, "model.freeze_encoder=false"), tmp_path / "run")
    assert "features" not in run.manifest and "the encoder is frozen" not in run.log_path.read_text()


def test_other_weights_other_data_other_input_another_store(data: Path, tmp_path: Path) -> None:
    more = write_tiny(tmp_path / "more", count=15, seed=1)  # the same ids
    prepared(frozen(data), tmp_path / "first")
    known = set(stores())
    again = prepared(frozen(data, "optimizer.learning_rate=0.01"), tmp_path / "again")
    assert set(stores()) == known, "a head's learning rate is nothing to the encoder"
    assert SAID in again.log_path.read_text()
    for number, recipe in enumerate(
        (
            frozen(data, "training.seed=7"),  # without pretrained weights the encoder is drawn from the seed
            frozen(data, "input.fit=pad"),
            frozen(data, "model.architecture=fpn"),
            frozen(more),
        )
    ):
        prepared(recipe, tmp_path / f"{number}")
        assert len(stores()) == len(known) + 1
        known = set(stores())


# Orientations


SOMETIMES = st.sampled_from([0.0, 0.3, 1.0])


@given(SOMETIMES, SOMETIMES, SOMETIMES)
def test_orientations_are_those_that_augmentation_chooses(flip: float, upside_down: float, turns: float) -> None:
    spec = AugmentationSection(horizontal_flip=flip, vertical_flip=upside_down, quarter_turns=turns)
    image_hwc = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    met = set()
    for epoch in range(60):
        chosen = draw_orientation(spec, sample_generator(0, epoch, "a"))
        augmented, target = augment(image_hwc, image_hwc[..., 0], spec, sample_generator(0, epoch, "a"))
        assert np.array_equal(augmented, orient(image_hwc, chosen)) and np.array_equal(target, augmented[..., 0])
        met.add(chosen)
    assert sorted(met) == orientations(spec)


def test_every_change_but_orientations_is_known_as_one_that_does_not_repeat() -> None:
    """Whoever adds a kind of change adds it to `random_changes`."""
    of_crops = {"crop_scale", "rare_class_crops"}
    orienting = {"horizontal_flip": 0.5, "vertical_flip": 0.5, "quarter_turns": 0.5}
    rng = np.random.default_rng(0)
    image_hwc = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    everything: dict[str, Any] = {name: 0.5 for name in AugmentationSection.model_fields if name not in of_crops}
    repeating = dict.fromkeys(random_changes(AugmentationSection(**everything)), 0.0)
    assert len(repeating) == 4
    spec = AugmentationSection(**everything | orienting | repeating)
    seen = {augment(image_hwc, image_hwc[..., 0], spec, sample_generator(0, n, "a"))[0].tobytes() for n in range(80)}
    assert len(seen) == 8


# The store


def batches(count: int = 6, largest: float = 1.0) -> list[list[torch.Tensor]]:
    """Three features: channels last, a vector of bfloat16, and one that nobody needs; rows in batches of four."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(count, 3, 4, 5, generator=generator).to(memory_format=torch.channels_last)
    maps[-1, 0, 0, 0] = largest
    vectors = torch.randn(count, 7, generator=generator).bfloat16()
    parts = [torch.split(feature, 4) for feature in (maps, vectors, torch.ones(count, 2))]
    return [list(batch) for batch in zip(*parts, strict=True)]


def build(folder: Path, keep: Keep = "half", *, largest: float = 1.0) -> str | None:
    return build_store(folder, 6, lambda: iter(batches(largest=largest)), [keep, keep, "shape"])


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    assert build(tmp_path / "store", "exact") is None
    store = open_store(tmp_path / "store")
    assert store is not None and store.bytes == 6 * (3 * 4 * 5 * 4 + 7 * 2)
    maps, vectors, blank = store.read([5, 0, 4])
    written = [torch.cat(parts)[[5, 0, 4]] for parts in zip(*batches(), strict=True)]
    assert torch.equal(maps, written[0]) and maps.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(vectors, written[1]) and vectors.dtype == torch.bfloat16
    assert blank.shape == (3, 2)


@pytest.mark.parametrize(("largest", "stored"), [(1.0, "float16"), (1e6, "float32"), (float("inf"), "float16")])
def test_half_precision_where_it_holds_the_values(tmp_path: Path, largest: float, stored: str) -> None:
    assert build(tmp_path / "store", largest=largest) is None
    store = open_store(tmp_path / "store")
    assert store is not None and [kept.stored for kept in store.features] == [stored, "bfloat16", None]
    maps = store.read(range(6))[0]
    expected = torch.cat([maps for maps, _, _ in batches(largest=largest)])
    assert maps.dtype == torch.float32
    assert torch.equal(maps, expected if stored == "float32" else expected.half().float())


@pytest.mark.parametrize(
    "damage",
    [
        lambda store: (store / "index.json").unlink(),
        lambda store: (store / "index.json").write_text("{"),
        lambda store: (store / "index.json").write_text(json.dumps({"count": 6, "seconds": 1, "features": [{}]})),
        lambda store: (store / "0.bin").write_bytes(b"short"),
        lambda store: (store / "1.bin").unlink(),
    ],
)
def test_a_damaged_store_is_none_and_makes_room(tmp_path: Path, damage: object) -> None:
    assert build(tmp_path / "store") is None
    assert callable(damage)
    damage(tmp_path / "store")
    assert open_store(tmp_path / "store") is None
    assert build(tmp_path / "store") is None and open_store(tmp_path / "store") is not None


def test_a_store_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> Iterator[list[torch.Tensor]]:
        yield batches()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_store(tmp_path / "store", 6, interrupted, ["half", "half", "shape"])
    monkeypatch.setattr(feature_store, "_LARGEST_BYTES", 100)
    why_not = build(tmp_path / "store")
    assert why_not is not None and "fit" in why_not
    assert not list(tmp_path.iterdir())


def test_a_cache_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    why_not = build(tmp_path / "file" / "store")
    assert why_not is not None and "cannot be used" in why_not


# Two halves of a network


@pytest.mark.parametrize(
    ("architecture", "encoder", "side"),
    [
        ("unet", "mobilenetv3_small_050", 40),
        ("fpn", "mobilenetv3_small_050", 32),
        ("deeplabv3plus", "resnet18", 32),
        ("pspnet", "mobilenetv3_small_050", 32),
        ("upernet", "mobilenetv3_small_050", 32),
        ("segformer", "mobilenetv3_small_050", 32),
        ("dpt", "test_vit", 160),
        ("global-regression", "mobilenetv3_small_050", 32),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_halves_are_the_whole(architecture: str, encoder: str, side: int) -> None:
    model = build_model(architecture=architecture, encoder=encoder, weights="none", out_channels=1)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image_bchw = torch.rand(3, 3, side, side).contiguous(memory_format=torch.channels_last)
    used = used_features(model, (side, side))
    assert model.can_split and model.training and any(used)
    for mode in (True, False):
        model.train(mode)
        outputs = []
        for halves in (False, True):
            torch.manual_seed(0)  # of dropout
            with torch.no_grad():
                if halves:
                    features = model.encode(image_bchw)
                    kinds = [
                        Feature.of(feature, "exact" if wanted else "shape")
                        for feature, wanted in zip(features, used, strict=True)
                    ]
                    kept = [
                        kind.unpack(kind.pack(feature)) if kind.stored else kind.blank(3)
                        for kind, feature in zip(kinds, features, strict=True)
                    ]
                    outputs.append(model.decode(kept, (side, side)))
                else:
                    outputs.append(model(image_bchw))
        assert torch.equal(*outputs)


def test_not_every_network_has_two_halves() -> None:
    model = build_model(architecture="nafnet-xs", encoder="none", weights="none", out_channels=3, scale=1)
    assert not model.can_split


# Validation


def test_the_memory_gives_the_same_bits_and_asks_the_encoder_once() -> None:
    model = build_model(architecture="unet", encoder="mobilenetv3_small_050", weights="none", out_channels=1).eval()
    used = used_features(model, (32, 32))
    remembering = RememberingModel(model, EncoderMemory(used)).eval()
    calls = []
    model.encoder.register_forward_hook(lambda *args: calls.append(1))
    images = [
        to_network(torch.randint(256, (2, 3, side, 40), dtype=torch.uint8), torch.device("cpu")) for side in (32, 40)
    ]
    with torch.inference_mode():
        for _ in range(3):
            for image_bchw in (*images, images[0].flip(3)):
                first = len(calls)
                remembered = remembering(image_bchw)
                remembered_calls = len(calls) - first
                assert torch.equal(remembered, model(image_bchw))
        assert remembered_calls == 0
        assert len(calls) == 9 + 3


def test_a_memory_without_room_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_store, "_LARGEST_BYTES", 10)
    memory = EncoderMemory([True])
    for factor in (1.0, 2.0):
        (feature,) = memory.features(torch.ones(1, 3, 4, 4), lambda image_bchw, factor=factor: [factor * image_bchw])
        assert torch.equal(feature, factor * torch.ones(1, 3, 4, 4))


def test_a_memory_leaves_no_file() -> None:
    memory = EncoderMemory([True])
    memory.features(torch.ones(1, 3, 4, 4), lambda image_bchw: [image_bchw])
    assert not list(cache_folder().iterdir())
    del memory
    gc.collect()  # an open file would be a warning here
