"""Depth from files to figures: what is invalid stays out, predictions are metres, false figures are told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image

from perpixel import api
from perpixel.console import Console
from perpixel.data.cache import decode_samples
from perpixel.data.dataset import TrainingSet
from perpixel.data.samples import list_samples
from perpixel.depth_codec import DepthCodec
from perpixel.errors import RequestError
from perpixel.images import write_image
from perpixel.pointcloud import focal_length
from perpixel.recipe import Recipe, recipe_from_dict
from perpixel.run import read_json
from perpixel.tasks import build_task
from perpixel.tasks.depth import DepthTask

MILLIMETRES = DepthCodec(stored="uint16", scale=0.001)


def write_tiny_depth(root: Path, count: int = 16, size: int = 40) -> Path:
    """Tilted planes (in a picture their inverse depth is linear), darker where they are farther; a corner of each has
    no reading.
    """
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size] / size
    for index in range(count):
        slope = rng.uniform(-1, 1, 2)
        depth_hw = (3 / (1 - 0.2 * (slope[0] * rows + slope[1] * columns))).astype(np.float32)
        grey_hw = np.clip(255 * (1.2 - depth_hw / 5) + rng.normal(0, 2, (size, size)), 0, 255).astype(np.uint8)
        valid_hw = np.ones((size, size), dtype=bool)
        valid_hw[:8, :8] = False
        write_image(root / "images" / f"{index:03}.png", np.repeat(grey_hw[..., None], 3, axis=2))
        MILLIMETRES.write(root / "depths" / f"{index:03}.png", depth_hw, valid_hw)
    return root


def depth_recipe(root: Path | str, *settings: str, **target: Any) -> Recipe:
    values = {
        "name": "tiny-depth",
        "data": {"root": str(root), "images": "images/{id}.png", "targets": "depths/{id}.png", "cache": "off"},
        "split": {"validation": 0.25},
        "target": {"kind": "depth", "stored": "uint16", "scale": 0.001, "maximum_m": 10.0} | target,
        "input": {"size": [32, 32]},
        "model": {"encoder": "mobilenetv3_small_050", "weights": "none"},
        "loss": {"name": "silog"},
        "optimizer": {"name": "adamw", "learning_rate": 0.003},
        "training": {
            "epochs": 2,
            "batch_size": 4,
            "precision": "fp32",
            "threads": 1,
            "monitor": "abs_rel_per_image",
        },
        "inference": {"batch_size": 4},
    }
    return recipe_from_dict(values, settings)


def task_of(*settings: str, **target: Any) -> DepthTask:
    task = build_task(depth_recipe("nowhere", *settings, **target))
    assert isinstance(task, DepthTask)
    return task


@pytest.fixture(scope="module")
def depth_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("depth")
    root = write_tiny_depth(folder / "data")
    return api.train(depth_recipe(root), run=folder / "run", console=Console())


def test_a_training_leaves_figures_in_metres(depth_run: Any) -> None:
    stored = read_json(depth_run.evaluation_dir("val") / "metrics.json")
    figures = stored["figures"]
    assert 0 < figures["abs_rel"] < 2
    assert figures["median_aligned/abs_rel"] <= figures["abs_rel"] + 1e-9
    assert set(stored["baselines"]) == {"constant", "mean map"}
    assert stored["meaning"]["rmse"]["unit"] == "m"


def test_predictions_are_metres_in_files(depth_run: Any, tmp_path: Path) -> None:
    image = Path(depth_run.recipe.data.root) / "images" / "000.png"
    written = api.predict(depth_run.path, image, tmp_path / "out", console=Console())
    assert written == [tmp_path / "out" / "000.npy"]
    depth_hw = np.load(written[0])
    assert depth_hw.shape == (40, 40)
    assert depth_hw.dtype == np.float32
    coded_hw, valid_hw = MILLIMETRES.read(tmp_path / "out" / "000.png")
    assert valid_hw.all()
    np.testing.assert_allclose(coded_hw, depth_hw, atol=0.0006)
    assert (tmp_path / "out" / "000_color.png").is_file()


@pytest.mark.parametrize("kind", ["ply", "glb"])
def test_a_point_cloud_is_written_where_one_is_asked_for(depth_run: Any, tmp_path: Path, kind: str) -> None:
    image = Path(depth_run.recipe.data.root) / "images" / "000.png"
    said: list[str] = []
    console = Console()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Console, "say", lambda self, text: said.append(text))
        api.predict(depth_run.path, image, tmp_path, overrides=[f"inference.point_cloud={kind}"], console=console)
        assert any("assume a vertical field of view of 55 degrees" in line for line in said)
        size = (tmp_path / f"000.{kind}").stat().st_size
        assert size > 40 * 40 * 15
        said.clear()
        api.predict(
            depth_run.path,
            image,
            tmp_path,
            overrides=[f"inference.point_cloud={kind}", "inference.vertical_fov_deg=60.0"],
            console=console,
        )
        assert not any("assume" in line for line in said)


def test_a_trained_model_is_used_otherwise_and_not_made_another(depth_run: Any, tmp_path: Path) -> None:
    image = Path(depth_run.recipe.data.root) / "images" / "000.png"
    with pytest.raises(RequestError, match="not made another one"):
        api.predict(depth_run.path, image, tmp_path, overrides=["model.encoder=resnet50"])
    smooth = api.predict(depth_run.path, image, tmp_path / "a", overrides=["inference.smooth_sigma=4.0"])
    plain = api.predict(depth_run.path, image, tmp_path / "b")
    assert np.load(smooth[0]).std() < np.load(plain[0]).std()


def test_the_edge_aware_filter_follows_the_image() -> None:
    """Noisy depth of a step is made smooth on both sides, and stays a step where the image has one."""
    rng = np.random.default_rng(0)
    step_hw = np.where(np.arange(40) < 20, 2.0, 4.0) * np.ones((40, 1))
    image_hwc = np.repeat((step_hw[..., None] * 50).astype(np.uint8), 3, axis=2)
    noisy_hw = (step_hw + rng.normal(0, 0.1, step_hw.shape)).astype(np.float32)
    refined_hw = task_of("inference.edge_radius=4").refine(noisy_hw[None], image_hwc)[0]
    assert np.abs(refined_hw - step_hw).mean() < 0.3 * np.abs(noisy_hw - step_hw).mean()
    assert np.abs(refined_hw - step_hw)[:, 19:21].max() < 0.2
    assert task_of().refine(noisy_hw[None], image_hwc)[0] is not refined_hw
    np.testing.assert_array_equal(task_of().refine(noisy_hw[None], image_hwc)[0], noisy_hw)


def test_exif_data_tell_the_camera_of_a_point_cloud(depth_run: Any, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 20
    path = tmp_path / "wide.jpg"
    Image.open(Path(depth_run.recipe.data.root) / "images" / "000.png").save(path, exif=exif)
    assert focal_length(path, (40, 40)) == pytest.approx(20 * 40 * 2**0.5 / (36**2 + 24**2) ** 0.5)
    widths = {}
    for name, source in (("told", path), ("assumed", path.with_suffix(".png"))):
        if name == "assumed":
            Image.open(path).save(source)
        api.predict(depth_run.path, source, tmp_path / name, overrides=["inference.point_cloud=ply"])
        content = (tmp_path / name / "wide.ply").read_bytes()
        body = content[content.index(b"end_header\n") + len(b"end_header\n") :]
        count = int(content.split(b"element vertex ")[1].split()[0])
        points = np.frombuffer(body, np.uint8).reshape(count, -1)[:, :12].copy().view("<f4")
        widths[name] = np.abs(points[:, 0] / points[:, 2]).max()
    assert widths["told"] == pytest.approx(19.5 / focal_length(path, (40, 40)), rel=0.05)
    assert widths["told"] != pytest.approx(widths["assumed"], rel=0.05)
    assert focal_length(tmp_path / "gone.jpg", (40, 40)) is None


def test_pixels_without_reading_change_neither_loss_nor_figures() -> None:
    task = task_of()
    rng = np.random.default_rng(1)
    target_hw = rng.uniform(1, 5, (16, 16)).astype(np.float32)
    target_hw[:5] = np.nan
    output = torch.tensor(rng.normal(1, 0.2, (1, 1, 16, 16)), dtype=torch.float32, requires_grad=True)
    loss = task.loss({})(0, output, torch.from_numpy(target_hw)[None])
    loss.backward()  # type: ignore[no-untyped-call]
    assert output.grad is not None
    assert torch.isfinite(output.grad).all()
    assert (output.grad[0, 0, :5] == 0).all()
    prediction_hw = task.finalize(task.scores(output)[0].detach().numpy(), {})
    other_hw = prediction_hw.copy()
    other_hw[:5] = 9
    ones_hw = np.ones((16, 16), dtype=np.float32)
    figures = [
        task.metrics().update(map_hw, target_hw, task.valid(target_hw), ones_hw) for map_hw in (prediction_hw, other_hw)
    ]
    assert str(figures[0]) == str(figures[1])


def test_an_output_is_read_as_the_recipe_says() -> None:
    raw = torch.full((1, 1, 2, 2), math.log(3))
    assert task_of(output="log").scores(raw)[0, 0, 0, 0] == pytest.approx(3)
    assert task_of(output="metres").scores(raw)[0, 0, 0, 0] == pytest.approx(math.log(3))
    assert task_of(output="metres").finalize(np.full((1, 2, 2), 77, dtype=np.float32), {}).max() == 10
    relative = task_of("loss.name=ssi_trim", output="relative")
    assert relative.finalize(np.full((1, 2, 2), 77, dtype=np.float32), {}).max() == 77


def test_what_describe_says_of_the_targets(tmp_path: Path) -> None:
    near, far = np.full((30, 40), 2.0, np.float32), np.full((30, 40), 4.0, np.float32)
    far[:15] = np.nan
    facts = task_of().describe([near, far])
    assert facts["images"] == 2
    assert facts["valid_share"] == pytest.approx(0.75)
    assert facts["quantiles_m"]["1"] == pytest.approx(2, rel=0.01)
    assert facts["quantiles_m"]["99"] == pytest.approx(4, rel=0.01)
    mean_map = np.array(facts["mean_map_m"])
    assert mean_map[0, 0] == pytest.approx(2)
    assert mean_map[-1, -1] == pytest.approx(3)


def test_baselines_are_the_median_and_the_mean_map() -> None:
    task = task_of()
    facts = task.describe([np.full((24, 32), 2.0, np.float32), np.full((24, 32), 3.0, np.float32)])
    maps = {name: make(np.zeros((48, 64, 3), np.uint8)) for name, make in task.baselines(facts).items()}
    assert maps["constant"].shape == maps["mean map"].shape == (48, 64)
    assert maps["constant"][0, 0] == pytest.approx(2, rel=0.01)
    np.testing.assert_allclose(maps["mean map"], 2.5, rtol=1e-3)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda truth: 10 * truth, "times the truth"),
        (lambda truth: 6 - truth, "far is predicted near"),
        (lambda truth: np.full_like(truth, 50.0), "sit on a clamp"),
        (lambda truth: np.full_like(truth, 2.5), "is flat"),
    ],
)
def test_planted_defects_are_told(spoil: Any, sentence: str) -> None:
    """Metres times ten (the defect of system 5), inverted depth, a prediction at the limit."""
    task = task_of(maximum_m=50.0)
    rng = np.random.default_rng(2)
    metrics = task.metrics()
    for _ in range(5):
        truth_hw: NDArray[np.float32] = rng.uniform(1, 4.5, (20, 20)).astype(np.float32)
        predicted_hw = np.clip(spoil(truth_hw), 1e-3, 50).astype(np.float32)
        metrics.update(predicted_hw, truth_hw, task.valid(truth_hw), np.ones_like(truth_hw))
    found = task.guards(metrics.compute())
    assert any(sentence in line for line in found), found


def test_a_good_prediction_raises_no_alarm() -> None:
    task = task_of()
    rng = np.random.default_rng(3)
    metrics = task.metrics()
    truth_hw = rng.uniform(1, 5, (20, 20)).astype(np.float32)
    noisy_hw = truth_hw * np.exp(rng.normal(0, 0.1, (20, 20))).astype(np.float32)
    metrics.update(noisy_hw, truth_hw, task.valid(truth_hw), np.ones_like(truth_hw))
    assert task.guards(metrics.compute()) == []


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        (8, ("input.fit=crop", "augmentation.crop_scale=[2.0, 2.0]")),
        (4, ("augmentation.affine=1.0", "augmentation.scale=0.3")),  # fitting halves the picture
    ],
)
@pytest.mark.parametrize("scale_free", [False, True])
def test_zooming_in_brings_things_nearer(
    field: int, settings: tuple[str, ...], scale_free: bool, tmp_path: Path
) -> None:
    """A chessboard at 4 m, seen z times larger, stands at 4 / z metres: so in the picture, so in the target."""
    root = tmp_path / "data"
    depth_hw = np.full((128, 128), 4.0, np.float32)
    board_hw = (np.indices((128, 128)) // 8).sum(axis=0) % 2
    for index in range(2):
        write_image(root / "images" / f"{index}.png", np.repeat(255 * board_hw[..., None], 3, axis=2).astype(np.uint8))
        MILLIMETRES.write(root / "depths" / f"{index}.png", depth_hw, np.ones((128, 128), dtype=bool))
    recipe = depth_recipe(root, "input.size=[64, 64]", *settings, scale_free=scale_free)
    task = build_task(recipe)
    samples = list_samples(recipe.data, root)
    training_set = TrainingSet(
        decode_samples(samples, task.decode_target, key=None),
        ["0", "1"],
        [0],
        input_section=recipe.input,
        augmentation=recipe.augmentation,
        fill=task.fill,
        zoom_divides=task.zoom_divides,
        seed=0,
        epoch=0,
    )
    image_hwc, target_hw, _ = training_set[0]
    nearest = 4.0 if scale_free else 4.0 / _zoom(image_hwc, field)
    assert np.nanmin(target_hw) == pytest.approx(nearest, rel=0.1)
    assert np.nanmax(target_hw) == pytest.approx(nearest, rel=0.1)


def _zoom(image_hwc: NDArray[np.uint8], field: int) -> float:
    """How wide the board's fields are in the picture, over how wide they are without a zoom."""
    edges = np.flatnonzero(np.diff((image_hwc[10, :, 0] > 127).astype(int)))
    return float((edges[-1] - edges[0]) / (len(edges) - 1) / field)


def test_a_network_that_knows_its_output_is_read_as_that() -> None:
    metric, relative = torch.nn.Module(), torch.nn.Module()
    metric.output_kind, relative.output_kind = "metric", "relative"  # type: ignore[assignment]
    task_of(output="metres").require_network(metric)
    task_of("loss.name=ssi_trim", output="relative").require_network(relative)
    task_of(output="log").require_network(torch.nn.Module())
    for network, output in ((metric, "log"), (relative, "metres")):
        with pytest.raises(RequestError, match="puts out"):
            task_of(output=output).require_network(network)


def test_truth_and_prediction_share_their_colours() -> None:
    task = task_of()
    truth_hw = np.linspace(1, 5, 400, dtype=np.float32).reshape(20, 20)
    image_hwc = np.zeros((20, 20, 3), dtype=np.uint8)
    panels = task.panels(image_hwc, truth_hw, truth_hw)
    assert list(panels) == ["input", "truth", "prediction", "error"]
    np.testing.assert_array_equal(panels["truth"], panels["prediction"])
    doubled = task.panels(image_hwc, 2 * truth_hw, truth_hw)
    np.testing.assert_array_equal(doubled["truth"], panels["truth"])
    assert doubled["error"].sum() > panels["error"].sum()


def test_a_loss_of_logarithms_needs_depth_above_0() -> None:
    """An untrained network puts out metres below 0: their logarithm is no number, and is refused before it is."""
    ordinary = torch.nn.Conv2d(3, 1, 1)
    depth_task = build_task(depth_recipe("x", "loss.name=l1 + 0.5*log_gradient", output="metres"))
    with pytest.raises(RequestError, match=r"(?s)log_gradient take the logarithm .* set target.output=log"):
        depth_task.require_network(ordinary)
    warm = ("loss.name=l1", "loss.warm_start=silog", "loss.warm_start_epochs=1")
    with pytest.raises(RequestError, match="silog"):
        build_task(depth_recipe("x", *warm, output="metres")).require_network(ordinary)
    build_task(depth_recipe("x", "loss.name=l1 + berhu", output="metres")).require_network(ordinary)
    build_task(depth_recipe("x", "loss.name=silog", output="log")).require_network(ordinary)
    ordinary.output_kind = "metric"  # type: ignore[assignment]  # networks of metres put out none below 0
    depth_task.require_network(ordinary)
