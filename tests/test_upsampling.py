"""Decoders that train without making the doubled map: the same figures, the same derivatives."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perpixel.models import upsampling
from perpixel.models.upsampling import convolve_doubled, train_without_doubled_maps


@pytest.mark.parametrize("size", [(1, 1), (4, 5), (7, 2)])
def test_the_transposed_convolution_is_the_doubled_map_convolved(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x_bchw, weight, bias = torch.randn(2, 5, *size).double(), torch.randn(4, 5, 3, 3).double(), torch.randn(4).double()
    expected = F.conv2d(F.interpolate(x_bchw, scale_factor=2, mode="nearest"), weight, bias, padding=1)
    assert torch.allclose(convolve_doubled(x_bchw, weight, bias), expected, atol=1e-12)


def unet(architecture: str, norm: bool = True, attention: str | None = None) -> nn.Module:
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    network: nn.Module = getattr(smp, architecture)(
        "resnet18",
        encoder_weights=None,
        decoder_channels=(64, 32, 16, 16, 16),
        decoder_use_norm=norm,
        decoder_attention_type=attention,
    )
    return network.double()


def trained(network: nn.Module, image_bchw: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Output and all derivatives of one step."""
    output_bkhw = network(image_bchw)
    output_bkhw.square().mean().backward()
    return output_bkhw.detach(), [weight.grad for weight in network.parameters() if weight.grad is not None]


@pytest.mark.parametrize("architecture", ["Unet", "UnetPlusPlus"])
@pytest.mark.parametrize(("norm", "attention"), [(True, None), (False, None), (True, "scse")])
def test_a_step_is_the_same_with_and_without(architecture: str, norm: bool, attention: str | None) -> None:
    usual = unet(architecture, norm, attention)
    shorter = copy.deepcopy(usual)
    train_without_doubled_maps(shorter)
    shorter = copy.deepcopy(shorter)  # as the moving average does
    assert list(shorter.state_dict()) == list(usual.state_dict())
    calls: list[torch.Size] = []

    def recorded(x_bchw: Tensor, *weights: Tensor) -> Tensor:
        calls.append(x_bchw.shape)
        return convolve_doubled(x_bchw, *weights)

    image_bchw = torch.rand(6, 3, 64, 64).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upsampling, "convolve_doubled", recorded)
        output, derivatives = trained(shorter, image_bchw)
    assert calls, "no block took the shorter way"
    assert all(count * height * width >= 4 * channels for count, channels, height, width in calls)
    expected_output, expected = trained(usual, image_bchw)
    assert torch.allclose(output, expected_output, atol=1e-10)
    assert len(derivatives) == len(expected)
    for found, wanted in zip(derivatives, expected, strict=True):
        assert torch.allclose(found, wanted, atol=1e-10 + 1e-7 * float(wanted.abs().max()))


def test_prediction_takes_the_usual_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Tensor:
        raise AssertionError("a prediction went the shorter way")

    network = unet("Unet")
    train_without_doubled_maps(network)
    monkeypatch.setattr(upsampling, "convolve_doubled", fail)
    with torch.no_grad():
        network(torch.rand(8, 3, 64, 64).double())
    with pytest.raises(AssertionError):
        network(torch.rand(8, 3, 64, 64).double())


def test_maps_that_are_not_doubled_are_left_alone() -> None:
    """An image of 40 has maps of 20, 10, 5 and 3 in an encoder that rounds up: 5 is not twice 3."""
    from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoderBlock

    block = UnetDecoderBlock(4, 0, 3).double()
    shorter = copy.deepcopy(block)
    train_without_doubled_maps(shorter)
    x_bchw = torch.rand(8, 4, 3, 3).double()
    assert torch.equal(block(x_bchw, 5, 5), shorter(x_bchw, 5, 5))
    assert torch.allclose(block(x_bchw, 6, 6), shorter(x_bchw, 6, 6), atol=1e-12)
