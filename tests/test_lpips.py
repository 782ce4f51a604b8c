"""LPIPS against torchmetrics, on a backbone of random weights: published ones are not at hand here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from perpixel._torchvision import ensure_torchvision
from perpixel.errors import WeightsError
from perpixel.models.lpips import Lpips, lpips_at_hand

ensure_torchvision()
from torchmetrics.functional.image import lpips as reference  # noqa: E402


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    from torchvision.models import alexnet

    folder = tmp_path_factory.mktemp("lpips")
    torch.manual_seed(0)
    features = {name: tensor for name, tensor in alexnet().state_dict().items() if name.startswith("features")}
    torch.save(features, folder / "alexnet.pth")
    linear = Path(reference.__file__).parent / "lpips_models" / "alex.pth"
    return folder / "alexnet.pth", linear


def test_value_is_torchmetrics(files: tuple[Path, Path]) -> None:
    backbone, linear = files
    theirs = reference._LPIPS(pretrained=True, net="alex", pnet_rand=True)
    named = torch.load(backbone, weights_only=True)
    own = theirs.net.state_dict()
    theirs.net.load_state_dict({name: named[f"features.{name.partition('.')[2]}"] for name in own})
    rng = np.random.default_rng(0)
    first = rng.random((50, 67, 3))
    second = (first + rng.normal(0, 0.2, first.shape)).clip(0, 1)
    ours = Lpips(backbone=backbone, linear=linear)
    with torch.no_grad():
        tensors = [torch.tensor(image).float().permute(2, 0, 1)[None] for image in (first, second)]
        expected = float(theirs(*tensors, normalize=True))
    assert ours(first, second) == pytest.approx(expected, rel=1e-4)
    assert expected > 0 and ours(first, first) == 0
    with pytest.raises(ValueError, match="32 x 32"):
        ours(first[:20], second[:20])


def test_wrong_files_are_said(files: tuple[Path, Path], tmp_path: Path) -> None:
    backbone, linear = files
    with pytest.raises(WeightsError, match=r"no tensor features\.0\.weight"):
        Lpips(backbone=linear, linear=linear)
    with pytest.raises(WeightsError, match=r"no tensor lin0\.model\.1\.weight"):
        Lpips(backbone=backbone, linear=backbone)
    with pytest.raises(WeightsError, match="cannot be read"):
        Lpips(backbone=tmp_path / "missing.pth", linear=linear)


def test_it_is_found_where_torch_keeps_downloads(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    lpips_at_hand.cache_clear()
    assert lpips_at_hand() is None
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth").write_bytes(files[0].read_bytes())
    lpips_at_hand.cache_clear()
    found = lpips_at_hand()
    images = np.random.default_rng(1).random((2, 40, 40, 3))
    assert found is not None and found(*images) == Lpips(backbone=files[0], linear=files[1])(*images)
    lpips_at_hand.cache_clear()
