"""Losses, figures and codecs beside those of the libraries: processor time of each, and that the results agree.

    OMP_NUM_THREADS=1 python benchmarks/pieces.py [--out benchmarks/results/pieces.md]

One thread; the two run in turn, and the medians of the rounds are compared.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from perpixel import rle
from perpixel._torchvision import ensure_torchvision
from perpixel.inference.timing import processor_name

ensure_torchvision()  # the libraries would fail beside a CPU build of torch
import segmentation_models_pytorch as smp  # noqa: E402
import torchmetrics.functional as tm  # noqa: E402

ROUNDS = 7


@dataclass(frozen=True)
class Piece:
    """Two ways to one number (or several): ours, and a library's; None where there is none to compare with."""

    name: str
    own: Callable[[], Any]
    rival: Callable[[], Any] | None
    rival_name: str = ""
    tolerance: float = 1e-4


def lovasz_pieces() -> list[Piece]:
    """Forward and backward, of logits as they are early in a training (nothing learned) and late (1.5 % wrong)."""
    from perpixel.losses.base import LossOptions
    from perpixel.losses.lovasz import lovasz

    torch.manual_seed(0)
    pieces = []
    for shape, classes in (((32, 128, 128), 1), ((8, 256, 256), 6)):
        target_bhw = torch.randint(max(2, classes), shape)
        valid_bhw = torch.ones(shape, dtype=torch.bool)
        signs_bkhw = torch.nn.functional.one_hot(target_bhw, max(2, classes)).movedim(-1, 1) * 2.0 - 1
        if classes == 1:
            signs_bkhw = signs_bkhw[:, 1:]
        noise_bkhw = torch.randn(signs_bkhw.shape)
        right_bkhw = torch.where(torch.rand(signs_bkhw.shape) < 0.985, signs_bkhw, -signs_bkhw)
        for stage, logits in (("early", noise_bkhw), ("late", 12 * right_bkhw + noise_bkhw)):
            mode, options = ("binary", LossOptions(per_image=True)) if classes == 1 else ("multiclass", LossOptions())
            theirs = smp.losses.LovaszLoss(mode, per_image=classes == 1)

            def own(
                logits: Any = logits, target: Any = target_bhw, options: Any = options, valid: Any = valid_bhw
            ) -> Any:
                return _step(logits, lambda leaf: lovasz(leaf, target, valid, options))

            def rival(logits: Any = logits, target: Any = target_bhw, theirs: Any = theirs) -> Any:
                return _step(logits, lambda leaf: theirs(leaf, target))

            kind = "hinge, 32 masks of 128x128" if classes == 1 else "softmax, 6 classes, 8 x 256x256"
            pieces.append(Piece(f"Lovasz {kind}, {stage}", own, rival, "segmentation-models-pytorch"))
    return pieces


def _step(logits_bkhw: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor]) -> float:
    leaf = logits_bkhw.clone().requires_grad_()
    value = loss(leaf)
    value.backward()
    return float(value.detach())


def confusion_piece() -> Piece:
    """From the scores of ten classes to a confusion matrix."""
    from perpixel.metrics.segmentation import _confusion

    rng = np.random.default_rng(0)
    scores_khw = rng.normal(size=(10, 540, 960)).astype(np.float32)
    target_hw = rng.integers(0, 10, (540, 960)).astype(np.uint8)
    scores_bkhw, target_bhw = torch.from_numpy(scores_khw)[None], torch.from_numpy(target_hw).long()[None]

    def own() -> Any:
        return _confusion(target_hw.ravel(), np.argmax(scores_khw, axis=0).astype(np.uint8).ravel(), 10)

    def rival() -> Any:
        return tm.confusion_matrix(scores_bkhw, target_bhw, "multiclass", num_classes=10).numpy()

    return Piece("confusion matrix of 10 classes from scores, 960x540", own, rival, "torchmetrics", 0)


def ssim_piece() -> Piece:
    """SSIM of RGB."""
    from perpixel.metrics.restoration import ssim_map

    rng = np.random.default_rng(0)
    clean_hwc = rng.random((320, 512, 3))
    noisy_hwc = np.clip(clean_hwc + rng.normal(0, 0.1, clean_hwc.shape), 0, 1)
    a, b = (torch.from_numpy(image_hwc).movedim(-1, 0)[None].float() for image_hwc in (noisy_hwc, clean_hwc))

    def own() -> Any:
        return np.mean([ssim_map(noisy_hwc[..., channel], clean_hwc[..., channel]).mean() for channel in range(3)])

    def rival() -> Any:
        return float(tm.structural_similarity_index_measure(a, b, data_range=1.0))

    # torchmetrics also counts windows that reach over the border.
    return Piece("SSIM of an image of 512x320", own, rival, "torchmetrics", 2e-3)


def rle_piece() -> Piece:
    """The submission of the salt competition."""
    rng = np.random.default_rng(0)
    coarse = rng.random((18_000, 4, 4)) < 0.3
    masks = [np.kron(mask, np.ones((26, 26), dtype=bool))[:101, :101] for mask in coarse]

    def own() -> Any:
        return sum(len(rle.encode(mask)) for mask in masks)

    return Piece("RLE of 18,000 masks of 101x101", own, None)


def row(piece: Piece) -> str:
    """Both in turn; a line of the table."""
    ways = {"own": piece.own} | ({"rival": piece.rival} if piece.rival else {})
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results = {}
    for number in range(ROUNDS + 1):
        for name, run in ways.items():
            began = time.process_time()
            results[name] = run()
            if number:
                seconds[name].append(time.process_time() - began)
    own = statistics.median(seconds["own"])
    if not piece.rival:
        return f"| {piece.name} | {1000 * own:.2f} | | | |"
    gap = np.abs(np.asarray(results["own"], dtype=float) - np.asarray(results["rival"], dtype=float)).max()
    assert gap <= piece.tolerance, f"{piece.name}: {results}"
    rival = statistics.median(seconds["rival"])
    each = sorted(b / a for a, b in zip(seconds["own"], seconds["rival"], strict=True))
    ratio = f"**{rival / own:.1f}** ({each[0]:.1f} to {each[-1]:.1f})"
    return f"| {piece.name} | {1000 * own:.2f} | {1000 * rival:.2f} ({piece.rival_name}) | {ratio} | {gap:.1e} |"


def main() -> None:
    """Measure and write Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pieces.md")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    packages = ("torch", "torchmetrics", "segmentation-models-pytorch", "numpy", "opencv-python-headless")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    lines = [
        "# Losses, figures and codecs",
        "",
        f"Written by `python benchmarks/pieces.py` on {time.strftime('%Y-%m-%d')}: {processor_name()}, one thread,"
        f" Python {platform.python_version()}, {versions}. Milliseconds of the processor, medians of {ROUNDS} rounds in"
        " turn. Losses: forward and backward; early: nothing learned, late: 1.5 % of the pixels are wrong.",
        "",
        "| what | perpixel, ms | a library, ms | times as fast (of a round) | difference of the results |",
        "| :--- | ---: | ---: | ---: | ---: |",
        *[row(piece) for piece in (*lovasz_pieces(), confusion_piece(), ssim_piece(), rle_piece())],
        "",
    ]
    asked.out.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
