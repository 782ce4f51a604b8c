"""An exported file gives what its run gives, at any size and batch, or there is none."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from perpixel import api
from perpixel.depth_files import write_numbers
from perpixel.errors import DataError, PerpixelError, RequestError, RunError
from perpixel.exporting import export as export_module
from perpixel.exporting import exporter as exporter_module
from perpixel.exporting import graph as graph_module
from perpixel.exporting.exporter import Way
from perpixel.exporting.graph import ExportGraph
from perpixel.exporting.int8 import costliest, layers_of, outside_the_network, quantize
from perpixel.exporting.onnx_file import openvino_has_bf16
from perpixel.exporting.parity import Check, tolerated
from perpixel.images import write_image
from perpixel.inference import predictor as predictor_module
from perpixel.inference.exported import ExportedPredictor
from perpixel.inference.opening import open_predictor
from perpixel.inference.predictor import Predictor
from perpixel.models import PixelModel
from perpixel.models.restoration import RestorationNetwork
from perpixel.recipe import Recipe, load_recipe
from perpixel.run import Run
from perpixel.tasks import build_task
from tiny import tiny_recipe, write_tiny


class Maps(nn.Module):
    """Two convolutions, the second at half the size; sides must be even."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 4, 3, padding=1)
        self.deeper = nn.Conv2d(4, channels, 3, stride=2, padding=1)

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(self.deeper(self.encoder(x_bchw).relu()), scale_factor=2, mode="bilinear")


class OneSize(Maps):
    """It asks which size it sees: what is traced at one size says nothing of others."""

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        return super().forward(x_bchw) * (1.5 if x_bchw.shape[2] == 40 else 1.0)


class Pictures(RestorationNetwork):
    """An enlargement by two."""

    def __init__(self) -> None:
        super().__init__(scale=2, divisor=4, context=1)
        self.layer = nn.Conv2d(3, 12, 3, padding=1)

    def restore(self, image_bchw: torch.Tensor) -> torch.Tensor:
        return nn.functional.pixel_shuffle(self.layer(image_bchw), 2)


def network(recipe: Recipe, kind: type[Maps] = Maps) -> PixelModel:
    """The tiny network of a recipe's task, the same at each call."""
    torch.manual_seed(3)
    task = build_task(recipe)
    if task.image_scale:
        return PixelModel(Pictures(), mean=(0, 0, 0), std=(1, 1, 1), divisor=1, minimum_size=1)
    return PixelModel(kind(task.out_channels), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3), divisor=4, minimum_size=8)


def predictor_of(recipe: Recipe) -> Predictor:
    task = build_task(recipe)
    return Predictor(
        network(recipe),
        task,
        input_section=recipe.input,
        inference=recipe.inference,
        decision=task.first_decision(),
        precision="fp32",
        device=torch.device("cpu"),
    )


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 256, (height // 3 + 1, width // 3 + 1, 3)), np.ones((3, 3, 1)))[
        :height, :width
    ].astype(np.uint8)


def run_of(recipe: Recipe, folder: Path, ids: list[str], patch: pytest.MonkeyPatch, kind: type[Maps] = Maps) -> Run:
    """A run folder whose model is `network`; every pair is of val."""
    patch.setattr(predictor_module, "build_model", lambda **_: network(recipe, kind))
    run = Run(folder)
    run.write_recipe(recipe)
    run.write_split(dict.fromkeys(ids, "val"), {})
    run.best_path.parent.mkdir(parents=True)
    run.best_path.touch()
    return run


@pytest.fixture
def salt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Makes a run of salt on five pairs of 40x40."""

    def make(*overrides: str, kind: type[Maps] = Maps) -> Run:
        root = write_tiny(tmp_path / "data", 5, unlabelled=1)
        recipe = tiny_recipe(root, "augmentation.quarter_turns=0", *overrides)
        ids = [path.stem for path in (root / "train/images").iterdir()]
        return run_of(recipe, tmp_path / "run", ids, monkeypatch, kind)

    return make


FITS = {
    "resize": ("salt", "input.size=[32, 24]"),
    "pad": ("salt-strong", "input.size=[32, 24]"),
    "own size": ("salt", "input.fit=crop", "inference.flip=true"),
    "long side": ("desert-strong", "input.size=[16, 16]", "input.long_side=32", "inference.scales=[1.0]"),
    "metres": ("depth-regression", "input.size=[16, 32]", "inference.smooth_sigma=0"),
    "pictures": ("lowlight", "target.scale=2"),
    "turned": ("lowlight", "target.scale=2", "inference.self_ensemble=true"),
}


@pytest.mark.parametrize("name", FITS)
@settings(max_examples=12)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_the_graph_does_what_the_predictor_does(name: str, height: int, width: int) -> None:
    base, *overrides = FITS[name]
    predictor = predictor_of(load_recipe(base, ["model.weights=none", "augmentation.quarter_turns=0", *overrides]))
    images = [picture(height, width, seed) for seed in range(2)]
    wanted = np.stack(predictor.scores(images))
    with torch.no_grad():
        prediction, scores, *sure = ExportGraph(predictor, any_size=True).eval()(torch.from_numpy(np.stack(images)))
    # Resizing in OpenCV rounds in 11 bits: at ties a level of 255 apart, which this network takes over as it is.
    assert np.abs(scores.numpy() - wanted).max() <= 0.03 * np.abs(wanted).max()
    assert np.abs(scores.numpy() - wanted).mean() <= 0.003 * np.abs(wanted).max()
    decided = np.stack([predictor.finalize(scores_khw) for scores_khw in scores.numpy()])
    assert prediction.numpy().dtype == decided.dtype
    assert np.array_equal(prediction.numpy(), decided)
    assert len(sure) == predictor.task.right_or_wrong


@pytest.mark.parametrize(("dividend", "divisor"), [(5, 2), (7, 2), (1, 2), (3, 2), (10, 3), (11, 3), (0, 7), (14, 7)])
def test_quotients_are_rounded_as_python_does(dividend: int, divisor: int) -> None:
    assert graph_module._rounded(dividend, divisor) == round(dividend / divisor)


HEAVY = (
    "huggingface_hub",
    "lightning",
    "matplotlib",
    "onnx",
    "onnxscript",
    "pandas",
    "safetensors",
    "scipy",
    "segmentation_models_pytorch",
    "timm",
    "torch",
    "torchvision",
)


def test_onnx_gives_the_maps_of_its_run(salt: Callable[..., Run], tmp_path: Path) -> None:
    run = salt("input.fit=pad", "input.size=[32, 24]")
    out, images = tmp_path / "out" / "salt.onnx", tmp_path / "images"
    sidecar = api.export(run.path, out)
    assert {path.name for path in out.parent.iterdir()} == {"salt.onnx", "salt.onnx.json", "salt.onnx.md"}
    assert json.loads((out.parent / "salt.onnx.json").read_text()) == sidecar
    checks = sidecar["parity"]["checks"]
    assert [(row["height"], row["batch"]) for row in checks] == [(40, 1), (40, 2), (31, 1), (31, 2)]
    assert all(row["largest"] < 0.02 and row["different"] <= 0.001 for row in checks)
    assert sidecar["metadata"]["view"]["names"] == ["rock", "salt"]
    assert str(tmp_path) not in out.read_bytes().decode("latin-1")  # where the data lie is nobody's business
    card = (out.parent / "salt.onnx.md").read_text()
    assert "rock, salt" in card
    assert "iou_per_image on 5 validation images" in card

    images.mkdir()
    for number, size in enumerate([(17, 33), (40, 40), (17, 33)]):
        write_image(images / f"{number}.png", picture(*size, number))
    api.predict(run.path, images, tmp_path / "of-run")
    code = (
        # What a module of None stands for cannot be imported: all that the extra [onnx] alone does not bring.
        f"import sys; sys.modules |= dict.fromkeys({HEAVY!r}); from perpixel import api;"
        f" api.predict({str(out)!r}, {str(images)!r}, {str(tmp_path / 'of-file')!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for number in range(3):
        assert_same_file(tmp_path, f"{number}.png", 0)
        assert_same_file(tmp_path, f"{number}_confidence.png", 2)
    for overrides in (["inference.flip=true"], ["training.epochs=3"]):
        with pytest.raises(RequestError, match=r"fixed|alone"):
            open_predictor(out, overrides)
    with pytest.raises(DataError, match="8 bits"):
        ExportedPredictor.from_file(out).scores([picture(20, 20).astype(np.uint16)])


def assert_same_file(folder: Path, name: str, tolerance: int) -> None:
    from perpixel.images import read_image

    first, second = (read_image(folder / side / name).pixels_hwc.astype(int) for side in ("of-run", "of-file"))
    assert first.shape == second.shape
    assert np.abs(first - second).max() <= tolerance


def layers_in_int8(file: Path) -> list[bool]:
    """Whether the weights of each convolution are whole numbers, in the order of the arithmetic."""
    import onnx

    graph = onnx.load(file).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    return [made_by.get(node.input[1]) == "DequantizeLinear" for node in graph.node if node.op_type == "Conv"]


def test_int8_says_what_it_costs(salt: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = salt("input.fit=crop")
    photos = tmp_path / "data/train/images"
    asked: list[str] = []
    answers = [False, True]  # the first int8 file costs too much
    monkeypatch.setattr(
        "perpixel.exporting.exporter.tolerated", lambda *given: asked.append(given[-1]) or answers.pop(0)
    )
    sidecar = api.export(run.path, tmp_path / "a.onnx", int8=True, calibrate=photos)
    assert asked == ["int8", "int8"]
    assert sidecar["metadata"]["fixed_size"] is None
    assert set(sidecar["parity"]["seconds_per_image"]) == {"run", "float file", "file"}
    assert sidecar["metadata"]["precision"] == "int8"
    assert sorted(layers_in_int8(tmp_path / "a.onnx")) == [False, True]  # the one that cost more stays in float
    assert ExportedPredictor.from_file(tmp_path / "a.onnx").precision == "int8"
    answers += [True]
    api.export(run.path, tmp_path / "b.onnx", int8=True, calibrate=photos)
    assert layers_in_int8(tmp_path / "b.onnx") == [True, True]
    answers += [False, False]  # with more than half of the layers in float it is no int8 any more
    with pytest.raises(RunError, match="changes iou_per_image"):
        api.export(run.path, tmp_path / "c.onnx", int8=True, calibrate=photos)
    assert not answers
    assert not (tmp_path / "c.onnx").exists()
    assert sidecar["parity"]["in_float"] == (1, 2)
    assert "In float stay 1 of 2 layers" in (tmp_path / "a.onnx.md").read_text()


class Single(Maps):
    """One layer."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        del self.deeper
        self.encoder = nn.Conv2d(3, channels, 3, padding=1)

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        return self.encoder(x_bchw)


class Uneven(Maps):
    """Between its first two layers one channel is ten thousand times as large as the others."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.between = nn.Conv2d(4, 4, 1)
        with torch.no_grad():
            self.encoder.weight[0] *= 1e4
            self.encoder.bias[0] *= 1e4  # type: ignore[index]
            self.between.weight[:, 0] /= 1e4

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        x_bchw = self.between(self.encoder(x_bchw).relu()).relu()
        return nn.functional.interpolate(self.deeper(x_bchw), scale_factor=2, mode="bilinear")


@pytest.mark.parametrize(("kind", "tries"), [(Single, 1), (Uneven, 2)])
def test_at_most_half_of_the_layers_stay_in_float(
    salt: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Maps], tries: int
) -> None:
    run, asked = salt("input.fit=crop", kind=kind), []

    def refuse(*given: Any) -> bool:
        asked.append(given[-1])
        return False

    monkeypatch.setattr(exporter_module, "tolerated", refuse)
    with pytest.raises(RunError, match="changes iou_per_image"):
        api.export(run.path, tmp_path / "a.onnx", int8=True, calibrate=tmp_path / "data/train/images")
    assert len(asked) == tries
    assert not (tmp_path / "a.onnx").exists()


def test_an_exported_nafnet_has_weights_and_no_products_of_them(tmp_path: Path) -> None:
    import onnx

    from perpixel.exporting.onnx_file import write_onnx
    from perpixel.models.nafnet import NAFNet

    recipe = load_recipe("lowlight", ["model.architecture=nafnet-xs", "target.scale=1", "input.size=[16, 16]"])
    predictor = predictor_of(recipe)
    predictor.model = PixelModel(
        NAFNet(32, (1, 1), 1, (1, 1)).eval(), mean=(0, 0, 0), std=(1, 1, 1), divisor=1, minimum_size=1
    )
    write_onnx(predictor, tmp_path / "a.onnx", {}, size=(16, 16), any_size=False)
    graph = onnx.load(tmp_path / "a.onnx").graph
    stored = {item.name for item in graph.initializer}
    weights = [node.input[1] for node in graph.node if node.op_type == "Conv"]
    assert len(weights) > 20
    assert not set(weights) - stored


def test_the_layers_whose_int8_costs_the_most_are_found(
    salt: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    run = salt("input.fit=crop", "inference.flip=true", kind=Uneven)
    api.export(run.path, tmp_path / "float.onnx")
    images = [picture(40, 40, seed) for seed in range(9)]
    metadata = json.loads((tmp_path / "float.onnx.json").read_text())["metadata"]
    layers = layers_of(tmp_path / "float.onnx")
    assert len(layers) == 3  # though the flipped view computes each once more
    monkeypatch.setattr("perpixel.exporting.int8._GROUPS", 2)
    told: list[int] = []
    found_first = costliest(
        tmp_path / "float.onnx",
        images,
        metadata,
        ranges=tmp_path / "ranges.json",
        progress=lambda done, total: told.append(done),
    )
    assert found_first == [layers[1:], layers[:1]]
    assert told == [0, 1, 2]
    gaps = []
    for number, in_float in enumerate(([], layers[1:], layers[:2])):
        file = tmp_path / f"{number}.onnx"
        quantize(tmp_path / "float.onnx", file, images, metadata, in_float=in_float)
        assert sum(layers_in_int8(file)) == 2 * (len(layers) - len(in_float))
        graph = onnx.load(file).graph
        assert {item.name for item in graph.initializer} <= {name for node in graph.node for name in node.input}
        wanted = ExportedPredictor.from_file(tmp_path / "float.onnx").scores(images[:3])
        found = ExportedPredictor.from_file(file).scores(images[:3])
        gaps.append(float(np.abs(np.stack(found) - np.stack(wanted)).mean()))
    assert gaps[2] < gaps[0] / 10
    assert gaps[2] < gaps[1] / 10
    assert not list(tmp_path.glob("*.trial.onnx"))


def test_a_run_in_bf16_is_held_against_itself_in_float32(
    salt: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = salt("input.fit=crop", "training.precision=bf16")
    told = {"bf16": 0.78, "fp32": 0.76}
    monkeypatch.setattr(
        exporter_module,
        "figures_of",
        lambda predictor, *_: {"iou_per_image": told.get(predictor.precision, 0.7602)},
    )
    sidecar = api.export(run.path, tmp_path / "a.onnx")
    row = {"run": 0.78, "reference": 0.76, "file": 0.7602, "change": pytest.approx(0.0002)}
    assert sidecar["parity"]["figures"]["iou_per_image"] == row
    assert "run 0.78 in bf16, 0.76 in float32; file 0.7602" in (tmp_path / "a.onnx.md").read_text()
    told["fp32"] = 0.75
    with pytest.raises(RunError, match=r"from 0\.75 to 0\.7602"):
        api.export(run.path, tmp_path / "b.onnx")
    weights = api.export(run.path, tmp_path / "a.safetensors", form="safetensors")  # which compute as the run does
    assert weights["parity"]["figures"]["iou_per_image"]["reference"] == 0.78


def depth_run(folder: Path, patch: pytest.MonkeyPatch, image: tuple[int, int], size: tuple[int, int]) -> Run:
    """A run of depth on three pairs; ``size`` is the network's."""
    for number in range(3):
        write_image(folder / f"images/{number}.png", picture(*image, number))
        write_numbers(folder / f"depths/{number}.png", np.full(image, 900 + number, dtype=np.uint16))
    layout = [f"data.root={folder}", "data.images=images/{id}.png", "data.targets=depths/{id}.png"]
    recipe = load_recipe("depth-regression", [*layout, "data.unlabelled=null", f"input.size={list(size)}"])
    return run_of(recipe, folder / "run", ["0", "1", "2"], patch)


def test_openvino_gives_metres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = depth_run(tmp_path, monkeypatch, (30, 40), (16, 32))
    out = tmp_path / "out" / "depth.xml"
    sidecar = api.export(run.path, out, form="openvino", int8=True, calibrate=tmp_path / "images")
    assert sidecar["metadata"]["precision"] == "int8"
    assert {path.suffix for path in out.parent.iterdir()} == {".xml", ".bin", ".json", ".md"}
    assert sidecar["metadata"]["tensors"]["prediction"]["meaning"] == "metres"
    assert "FakeQuantize" in out.read_text()
    exported, images = open_predictor(out), [picture(21, 19, 5), picture(21, 19, 6)]
    wanted = np.stack(Predictor.from_run(run).scores(images))
    gap = np.abs(np.stack(exported.scores(images)) - wanted) / np.abs(wanted).max()
    assert (
        gap.max() < 0.1
    )  # 0.26 where the last layer is in int8: it can put out nothing beyond what it was calibrated on


def test_pictures_of_any_size_and_in_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        write_image(tmp_path / f"dark/{number}.png", picture(20, 28, number))
        write_image(tmp_path / f"clean/{number}.png", picture(40, 56, number))
    layout = [f"data.root={tmp_path}", "data.images=dark/{id}.png", "data.targets=clean/{id}.png"]
    recipe = load_recipe("lowlight", [*layout, "data.unlabelled=null", "target.scale=2", "inference.tile=24"])
    run = run_of(recipe, tmp_path / "run", ["0", "1"], monkeypatch)
    sidecar = api.export(run.path, tmp_path / "a.onnx")
    assert sidecar["metadata"]["fixed_size"] is None
    assert "tiles" in sidecar["metadata"]["left_to_caller"][0]
    exported = ExportedPredictor.from_file(tmp_path / "a.onnx")
    for size in ((20, 28), (9, 13), (16, 15)):
        image_hwc = picture(*size, 4)
        wanted_hwc = Predictor.from_run(run).predict([image_hwc])[0]
        found_hwc = exported.predict([image_hwc])[0]
        assert found_hwc.shape == (2 * size[0], 2 * size[1], 3)
        assert np.abs(found_hwc.astype(int) - wanted_hwc).max() <= 1


def test_a_graph_that_is_right_at_one_size_is_fixed_to_it(salt: Callable[..., Run], tmp_path: Path) -> None:
    run = salt("input.fit=crop", kind=OneSize)
    sidecar = api.export(run.path, tmp_path / "a.onnx")
    assert sidecar["metadata"]["fixed_size"] == [40, 40]
    assert "40x40 pixels only" in (tmp_path / "a.onnx.md").read_text()
    exported = ExportedPredictor.from_file(tmp_path / "a.onnx")
    assert exported.predict([picture(40, 40)])[0].shape == (40, 40)
    with pytest.raises(DataError, match="40x40 pixels, and one has 30x41"):
        exported.predict([picture(41, 30)])


TEMPERATURE = {"threshold": 0.45, "minimum_area": 0, "temperature": 2.5}


@pytest.mark.parametrize("name", ["salt", "desert"])
def test_confidence_in_the_graph_is_tempered_as_the_runs(name: str) -> None:
    recipe = load_recipe(name, ["model.weights=none", "augmentation.quarter_turns=0", "input.fit=crop"])
    predictor = predictor_of(recipe)
    predictor.decision = TEMPERATURE
    image_hwc = picture(24, 32)
    with torch.no_grad():
        prediction, scores, confidence = ExportGraph(predictor, any_size=True).eval()(torch.from_numpy(image_hwc[None]))
    scores_khw = scores[0].numpy()
    predictor.decision = TEMPERATURE | {"temperature": 1.0}
    untempered_hw = predictor.confidence(scores_khw, prediction[0].numpy())
    predictor.decision = TEMPERATURE
    wanted_hw = predictor.confidence(scores_khw, prediction[0].numpy())
    assert np.abs(wanted_hw - untempered_hw).max() > 0.05
    assert np.abs(confidence[0].numpy() - wanted_hw).max() < 1e-5


def test_files_of_torch_give_confidences_and_figures_of_the_run(salt: Callable[..., Run], tmp_path: Path) -> None:
    run = salt("input.fit=crop", "inference.flip=true")
    run.decision_path.write_text(json.dumps(TEMPERATURE))
    facts = build_task(run.recipe).describe([np.eye(4, dtype=np.uint8)])
    run.update_manifest(data={"training_targets": facts, "fingerprint": "other"})
    ids = list(run.read_split()[0])
    run.write_split(dict.fromkeys(ids[:3], "val") | dict.fromkeys(ids[3:], "train"), {})
    photos, data = tmp_path / "data/train/images", tmp_path / "data"
    api.predict(run.path, photos, tmp_path / "of-run")
    wanted = api.evaluate(run.path)
    for form, ending in {"torch-export": ".pt2", "safetensors": ".safetensors", "onnx": ".onnx"}.items():
        file = tmp_path / f"model{ending}"
        sidecar = api.export(run.path, file, form=form)
        checks = sidecar["parity"]["checks"]
        assert [(row["height"], row["batch"]) for row in checks] == [(40, 1), (40, 2), (31, 1), (31, 2)]
        assert sidecar["file"] == file.name
        api.predict(file, photos, tmp_path / "of-file")
        for path in photos.iterdir():
            assert_same_file(tmp_path, f"{path.stem}.png", 0)
            assert_same_file(tmp_path, f"{path.stem}_confidence.png", 1)
        # Data of another fingerprint are other data, of which all pairs are scored; so are those of the run.
        found = api.evaluate(file, data=data)
        assert found["protocol"]["images"] == 5
        assert found["figures"] == pytest.approx(api.evaluate(run.path, data=data)["figures"], abs=1e-4, nan_ok=True)
    known = wanted["protocol"]["fingerprint"]
    run.update_manifest(data={"training_targets": facts, "fingerprint": known})
    api.export(run.path, file)
    found = api.evaluate(file, data=data)
    assert found["protocol"]["subset"] == "val"
    assert found["protocol"]["images"] == 3
    assert found["figures"] == pytest.approx(wanted["figures"], abs=1e-4, nan_ok=True)
    assert found["protocol"]["chosen"] == wanted["protocol"]["chosen"]
    assert (tmp_path / "model.onnx.evaluation/val/per_image.csv").is_file()
    assert not set(ids[3:]) & set(file.read_bytes().decode("latin-1").split('"'))  # what was trained on is not told
    with pytest.raises(RequestError, match="subset 'train'"):
        api.evaluate(file, data=data, subset="train")


def test_the_fastest_of_those_that_are_right_is_written(
    salt: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = salt("input.fit=crop")
    wrong = Way("openvino", "bf16")
    monkeypatch.setattr(export_module, "_ways", lambda int8: [Way("onnx"), wrong, Way("openvino")])
    monkeypatch.setattr(exporter_module, "tolerated", lambda before, after, precision: precision != "bf16")
    monkeypatch.setattr(export_module, "seconds_per_image", lambda predictors, _: [0.4, 0.3, 0.1][: len(predictors)])
    sidecar = api.export(run.path, tmp_path / "out" / "salt.v2", fastest=True)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"salt.v2.xml", "salt.v2.bin", "salt.v2.xml.json", "salt.v2.xml.md"}
    rows = sidecar["fastest"]
    assert [(row["way"], row.get("times")) for row in rows] == [
        ("openvino float32", 4.0),
        ("onnx float32", 1.333),
        ("openvino bf16", None),
    ]
    assert "changes iou_per_image" in rows[2]["refused"]
    assert "| openvino bf16" in (tmp_path / "out" / "salt.v2.xml.md").read_text()
    assert open_predictor(tmp_path / "out" / "salt.v2.xml").precision == "float32"


@pytest.mark.skipif(not openvino_has_bf16(), reason="this processor does not compute in bf16")
def test_bf16_does_not_misplace_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 700 pixels: places beyond 256 do not fit bf16, so that a file for any size was off by tenths."""
    run = depth_run(tmp_path, monkeypatch, (120, 700), (96, 512))
    monkeypatch.setattr(exporter_module, "tolerated", lambda *_: True)
    monkeypatch.setattr(export_module, "_ways", lambda int8: [Way("openvino", "bf16")])
    sidecar = api.export(run.path, tmp_path / "out", fastest=True)
    assert sidecar["metadata"]["fixed_size"] == [120, 700]
    assert sidecar["metadata"]["precision"] == "bf16"
    assert max(check["mean"] for check in sidecar["parity"]["checks"]) < 0.01


def test_a_wrong_graph_leaves_no_file(
    salt: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = graph_module.fitting
    monkeypatch.setattr(graph_module, "fitting", lambda *axis: right(*axis).roll(1, 0))  # a pixel aside
    out = tmp_path / "out" / "a.onnx"
    with pytest.raises(RunError, match="does not give the scores of the run") as caught:
        api.export(salt().path, out)
    assert "largest difference" in caught.value.details[0]
    assert not list(out.parent.iterdir())


def test_tolerances() -> None:
    def check(largest: float, mean: float, different: float | None = 0.0) -> bool:
        return Check(8, 8, 1, largest, mean, different).good

    assert check(0.01, 1e-4)
    assert check(0.01, 1e-4, None)
    assert not check(0.03, 1e-4)
    assert not check(0.01, 1e-2)
    assert not check(0.01, 1e-4, 0.01)
    assert not check(float("nan"), float("nan"))
    assert tolerated(0.8, 0.8004, "float32")
    assert not tolerated(0.8, 0.804, "float32")
    assert not tolerated(0.8, 0.804, "bf16")
    assert tolerated(0.8, 0.804, "int8")
    assert tolerated(30.0, 30.1, "int8")
    assert not tolerated(30.0, 30.2, "int8")
    assert tolerated(None, None, "float32")
    assert not tolerated(0.8, None, "float32")


def test_only_what_lies_between_layers_becomes_int8() -> None:
    from onnx import helper

    chain = ["Mul", "Conv", "Relu", "Conv", "Sigmoid"]
    nodes = [helper.make_node(kind, [str(i)], [str(i + 1)], name=kind + str(i)) for i, kind in enumerate(chain)]
    nodes.append(helper.make_node("Shape", ["0"], ["9"], name="Shape"))
    model = helper.make_model(helper.make_graph(nodes, "chain", [], []))
    outside, last = outside_the_network(model)
    assert set(outside) == {"Mul0", "Sigmoid4", "Shape"}
    assert last == ["Conv3"]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("a.xml", {}, "onnx ends in .onnx"),
        ("a.pt", {"form": "torchscript"}, "given up TorchScript"),
        ("a.pt", {"form": "pickle"}, "there is no format"),
        ("a.pt2", {"form": "torch-export", "int8": True, "calibrate": "."}, "no int8 in torch-export"),
        ("a.onnx", {"int8": True}, "needs images"),
        ("a.onnx", {"calibrate": "."}, "is of --int8"),
        ("a", {"fastest": True, "int8": True, "calibrate": "."}, "--int8 is of one format"),
        ("a.onnx", {"int8": True, "calibrate": "nowhere"}, "no folder of images"),
        ("run/a.onnx", {"data": "nowhere"}, "nowhere"),
    ],
)
def test_wrong_requests(
    name: str, arguments: dict[str, Any], message: str, salt: Callable[..., Run], tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=message):
        api.export(salt().path, tmp_path / name, **arguments)
    assert not (tmp_path / name).exists()


def test_an_ensemble_is_refused(salt: Callable[..., Run], tmp_path: Path) -> None:
    run = salt()
    run.update_manifest(ensemble=["a", "b"])
    with pytest.raises(RequestError, match="no one network"):
        api.export(run.path, tmp_path / "a.onnx")


def test_files_that_are_no_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    (tmp_path / "damaged.onnx").write_bytes(b"no graph")
    (tmp_path / "damaged.xml").write_text("no graph")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [value])
    other.output[0].name = "y"
    model = onnx.helper.make_model(other, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(tmp_path / "foreign.onnx"))
    expected: dict[str, tuple[type[PerpixelError], str]] = {
        "missing.onnx": (RequestError, "does not exist"),
        "damaged.onnx": (RunError, "cannot be read"),
        "damaged.xml": (RunError, "cannot be read"),
        "foreign.onnx": (RunError, "not exported by perpixel"),
    }
    for name, (kind, message) in expected.items():
        with pytest.raises(kind, match=message):
            open_predictor(tmp_path / name)
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RequestError, match=r"perpixel\[onnx\]"):
        open_predictor(tmp_path / "foreign.onnx")
