"""`ensure_torchvision` in fresh interpreters, beside a torchvision of every kind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "src"

# What the real package does when its compiled library is missing: describe an operator that nobody declared.
BROKEN = """
import torch
from torchvision import part
@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold):
    return dets
"""
GOOD = """
import torch
library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold):
    return dets
"""


def run(code: str, packages: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(folder) for folder in (packages, SOURCES) if folder)
    return subprocess.run(
        [sys.executable, "-c", f"from perpixel._torchvision import ensure_torchvision\n{code}"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def fake(folder: Path, code: str) -> Path:
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(code)
    (folder / "torchvision" / "part.py").write_text("")
    return folder


def test_the_installed_pair_can_be_imported_with_all_that_stands_on_it() -> None:
    code = (
        "ensure_torchvision(); ensure_torchvision()\n"
        "from torchvision.transforms import v2\n"
        "import timm, segmentation_models_pytorch\n"
    )
    result = run(code)
    assert result.returncode == 0, result.stderr


def test_broken_pair_is_repaired_and_stays_so(tmp_path: Path) -> None:
    code = (
        "try:\n    import torchvision\nexcept RuntimeError as error:\n    assert 'nms does not exist' in str(error)\n"
        "else:\n    raise SystemExit('the fake is not broken')\n"
        "ensure_torchvision()\nimport gc, torch, torchvision, torchvision.part\ngc.collect()\n"
        "torch.ops.torchvision.nms.default, torch.ops.torchvision.qnms.default\n"
    )
    result = run(code, fake(tmp_path, BROKEN))
    assert result.returncode == 0, result.stderr


def test_good_pair_is_left_alone(tmp_path: Path) -> None:
    code = (
        "ensure_torchvision()\nimport torch\nfrom perpixel import _torchvision\n"
        "assert _torchvision._library is None\nassert not hasattr(torch.ops.torchvision, 'qnms')\n"
    )
    result = run(code, fake(tmp_path, GOOD))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("error", ["RuntimeError('out of luck')", "ImportError('no such library')"])
def test_every_other_error_passes_untouched(tmp_path: Path, error: str) -> None:
    code = (
        f"try:\n    ensure_torchvision()\nexcept Exception as error:\n"
        f"    assert repr(error) == {error!r}, repr(error)\n"
        "else:\n    raise SystemExit('the error was swallowed')\n"
        "from perpixel import _torchvision\nassert _torchvision._library is None\n"
    )
    result = run(code, fake(tmp_path, f"raise {error}"))
    assert result.returncode == 0, result.stderr
