"""Networks of restoration: published arithmetic and parameter counts, images of any size, and what tiles rely on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from perpixel._torchvision import ensure_torchvision
from perpixel.errors import RequestError, WeightsError
from perpixel.imresize import imresize
from perpixel.models.mrpnet import MRPNetSR
from perpixel.models.nafnet import NAFNET_SIZES, LayerNorm2d, NAFBlock, NAFNet, nafnet
from perpixel.models.network import PixelModel
from perpixel.models.restoration import RestorationNetwork, parameter_count
from perpixel.models.spandrel import load_spandrel

scales = pytest.mark.parametrize("scale", [1, 2, 3, 4])


def awakened(network: RestorationNetwork, seed: int = 0) -> RestorationNetwork:
    """Every parameter random, so that no branch is switched off by a start at 0."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return network.eval()


def tiny(scale: int = 1) -> NAFNet:
    return NAFNet(4, (1, 2), 1, (1, 1), scale=scale)


def test_mrpnet_has_the_systems_number_of_parameters() -> None:
    assert parameter_count(MRPNetSR(4)) == 441_030
    assert parameter_count(MRPNetSR(1)) == 441_030 - 2 * (64 * 256 * 9 + 256) == 145_606


@pytest.mark.parametrize(
    ("name", "at_1", "at_4"),
    [
        ("nafnet-xs", 288_691, 295_216),
        ("nafnet-s", 1_129_315, 1_142_320),
        ("nafnet-m", 4_497_507, 4_510_512),
        ("nafnet-l", 17_111_907, 17_124_912),  # the paper's 17.1 M
    ],
)
def test_nafnet_sizes(name: str, at_1: int, at_4: int) -> None:
    with torch.device("meta"):
        assert (parameter_count(nafnet(name)), parameter_count(nafnet(name, 4))) == (at_1, at_4)
    assert len(NAFNET_SIZES) == 4


@scales
@pytest.mark.parametrize("size", [(1, 1), (7, 10), (16, 9), (32, 24)])
def test_images_of_any_size(scale: int, size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size)
    for network in (MRPNetSR(scale), tiny(scale)):
        output = awakened(network)(image)
        assert output.shape == (2, 3, scale * size[0], scale * size[1])
        assert torch.isfinite(output).all()
        assert network.scale == scale


@scales
def test_an_untrained_nafnet_is_bicubic(scale: int) -> None:
    image = torch.rand(1, 3, 12, 14)
    output = tiny(scale)(image)[0].permute(1, 2, 0).detach().numpy()
    expected = imresize(image[0].permute(1, 2, 0).numpy(), (12 * scale, 14 * scale))
    inner = slice(2 * scale, -2 * scale)  # the borders are mirrored there, and cut off here
    torch.testing.assert_close(
        torch.tensor(output[inner, inner]), torch.tensor(expected[inner, inner]), atol=1e-5, rtol=0
    )


def test_nafnet_learns_from_its_start() -> None:
    network, image = tiny(2), torch.rand(2, 3, 8, 8)
    target = torch.nn.functional.interpolate(1 - image, scale_factor=2.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (network(image) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    unmoved = [name for name, parameter in network.named_parameters() if not parameter.grad.abs().sum() > 0]  # type: ignore[union-attr]
    assert not unmoved


def test_nafnet_trains_as_it_predicts() -> None:
    """In training the factors of a block's branches are in its weights."""
    torch.manual_seed(0)
    block = NAFBlock(8).double()
    for scale in (block.beta, block.gamma):
        nn.init.normal_(scale)
    image_bchw = torch.randn(2, 8, 6, 5).double()
    with torch.no_grad():
        predicted_bchw = block(image_bchw)
    trained_bchw = block(image_bchw)
    assert trained_bchw.requires_grad
    assert torch.allclose(trained_bchw, predicted_bchw, atol=1e-12)


def test_layer_norm_is_over_the_channels_of_a_pixel() -> None:
    norm = LayerNorm2d(5)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 5, 3, 4)
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0)
    expected = norm.weight.view(5, 1, 1) * (x - mean) / (variance + 1e-6).sqrt() + norm.bias.view(5, 1, 1)
    torch.testing.assert_close(norm(x), expected)
    last = x.contiguous(memory_format=torch.channels_last)
    assert norm(last).is_contiguous(memory_format=torch.channels_last)


def test_channels_last_and_precision_change_little() -> None:
    for network in (awakened(tiny(2)), MRPNetSR(2).eval()):
        image = torch.rand(1, 3, 11, 13)
        expected = network(image)
        last = network.to(memory_format=torch.channels_last)(image.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(last, expected, atol=1e-4, rtol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            low = network(image).float()
        assert 0 < (low - expected).abs().mean() < 0.05 * expected.abs().mean() + 0.01


def reach(network: RestorationNetwork, side: int = 32) -> int:
    """How far from a pixel of the input its gradient comes from, over a cell of the output that has all phases."""
    image = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    network = network.double()
    cell = slice(network.scale * side // 2, network.scale * (side // 2 + network.divisor))
    (gradient,) = torch.autograd.grad(network(image)[..., cell, cell].abs().sum(), image)
    touched = gradient.abs().sum((0, 1, 2)).nonzero()
    assert touched.min() > 0 and touched.max() < side - 1
    return max(side // 2 - int(touched.min()), int(touched.max()) - (side // 2 + network.divisor - 1))


@scales
def test_mrpnet_sees_as_far_as_it_says(scale: int) -> None:
    # SiLU instead of ReLU: no path is shut by chance.
    network = MRPNetSR(scale)
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.SiLU())
    context = network.context
    assert context is not None and reach(network.eval()) in (context, context - 1)


@scales
def test_a_tile_of_mrpnet_is_that_of_the_whole_image(scale: int) -> None:
    network = awakened(MRPNetSR(scale))
    image = torch.rand(1, 3, 60, 56)
    whole = network(image)
    assert network.context is not None
    margin = -(-network.context // network.divisor) * network.divisor
    tile = network(image[..., 10 : 10 + 16 + 2 * margin, 8 : 8 + 12 + 2 * margin])
    top, left = (10 + margin) * scale, (8 + margin) * scale
    inner = tile[..., margin * scale : (margin + 16) * scale, margin * scale : (margin + 12) * scale]
    expected = whole[..., top : top + 16 * scale, left : left + 12 * scale]
    torch.testing.assert_close(inner, expected, atol=1e-4 * float(whole.detach().abs().max()), rtol=1e-4)


def test_nafnet_sees_the_whole_image() -> None:
    image = torch.rand(1, 3, 64, 64)
    network = awakened(tiny())
    far = image.clone()
    far[..., 60:, 60:] = 0
    assert network.context is None and (network(image) - network(far))[..., :4, :4].abs().max() > 0


def test_wrapped_as_a_pixel_model_it_has_a_decoder_alone() -> None:
    model = PixelModel(tiny(4), mean=(0, 0, 0), std=(1, 1, 1), divisor=1, minimum_size=1)
    assert model(torch.rand(1, 3, 9, 7)).shape == (1, 3, 36, 28)
    assert not model.encoder_parameters()
    assert len(model.decoder_parameters()) == len(list(model.parameters()))
    assert model.parameter_counts() == {"trained": parameter_count(tiny(4)), "frozen": 0}
    with pytest.raises(RequestError, match="no encoder"):
        model.freeze_encoder()


@pytest.mark.parametrize("scale", [0, 5])
def test_wrong_scales_are_refused(scale: int) -> None:
    with pytest.raises(ValueError, match="scale"):
        MRPNetSR(scale)
    with pytest.raises(ValueError, match="stages"):
        NAFNet(4, (1,), 1, (1, 1))


# ---------------------------------------------------------------- spandrel


def spandrels_nafnet() -> nn.Module:
    ensure_torchvision()
    pytest.importorskip("spandrel", reason="an extra")
    from spandrel.architectures.NAFNet import NAFNet as Theirs

    torch.manual_seed(1)
    network: nn.Module = Theirs(width=4, enc_blk_nums=[1, 2], middle_blk_num=1, dec_blk_nums=[1, 1])
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network.eval()


RENAMED = {
    "intro": "head", "ending": "tail", "encoders": "down_stages", "decoders": "up_stages", "middle_blks": "middle",
    "conv1": "expand1", "conv2": "depthwise", "conv3": "project1", "conv4": "expand2", "conv5": "project2",
    "sca": "attention",
}  # fmt: skip


def test_nafnet_computes_what_the_authors_network_does() -> None:
    theirs, ours = spandrels_nafnet(), tiny()
    state = {}
    for name, tensor in theirs.state_dict().items():
        parts = [RENAMED.get(part, part) for part in name.replace("sca.1", "sca").split(".")]
        state[".".join(parts)] = tensor
    ours.load_state_dict(state)
    image = torch.rand(2, 3, 24, 20)
    torch.testing.assert_close(ours(image), theirs(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_spandrel_by_checkpoint(suffix: str, tmp_path: Path) -> None:
    theirs = spandrels_nafnet()
    path = tmp_path / f"net{suffix}"
    save(theirs.state_dict(), path)
    network = load_spandrel(path)
    image = torch.rand(1, 3, 16, 12)
    assert (network.scale, network.context) == (1, None)
    torch.testing.assert_close(network(image), theirs(image))
    assert network(torch.rand(1, 3, 5, 7)).shape == (1, 3, 5, 7)


def save(state: dict[str, Tensor], path: Path) -> None:
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    else:
        torch.save({"params": state}, path)  # as BasicSR does


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run",)


def test_what_spandrel_cannot_load_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_torchvision()
    pytest.importorskip("spandrel", reason="an extra")
    torch.save({"params": Evil()}, tmp_path / "evil.pth")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    for name, says in (("evil", "cannot be read"), ("other", "knows no architecture"), ("missing", "no such file")):
        with pytest.raises(WeightsError, match=says):
            load_spandrel(tmp_path / f"{name}.pth")
    monkeypatch.setitem(__import__("sys").modules, "spandrel", None)
    with pytest.raises(RequestError, match="not installed"):
        load_spandrel(tmp_path / "other.pth")
