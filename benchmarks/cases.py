"""What is trained in the suite: data sets, recipes, and what a plain loop needs to train the same.

Every data set lies in ``train/`` and ``val/``, each with ``images/{id}.png`` and ``targets/{id}.png``.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

LAYOUT = (
    "data.images={subset}/images/{id}.png",
    "data.targets={subset}/targets/{id}.png",
    "data.unlabelled=null",
    "data.tables=[]",
    "data.archives=[]",
    "split.method=given",
)
_NO_AUGMENTATION = tuple(
    f"augmentation.{key}=0" for key in ("horizontal_flip", "vertical_flip", "quarter_turns", "affine", "photometric")
)
_FLIP = (*_NO_AUGMENTATION[1:], "augmentation.horizontal_flip=0.5")
_VALIDATION = 4  # images: validation is no part of what is timed


@dataclass(frozen=True)
class Case:
    """A training that perpixel and its rivals do alike.

    Attributes:
        recipe, settings: what perpixel trains.
        write: writes the data, with so many training images.
        read: how a plain loop makes a sample of two files: ``mask``, ``metres`` or ``pictures``.
        network: the rival's network; its input is normalised if it is no restoration.
        loss: of its output and target.
        batch, size: batch, and (height, width) of what the network sees.
        frozen: the encoder does not train.
        rivals: further ways to train it.
        epochs, warm: in all, and those (of one epoch alone: batches) that are left out of the measurement.
    """

    name: str
    title: str
    recipe: str
    settings: tuple[str, ...]
    write: Callable[[Path, int], None]
    read: Literal["mask", "metres", "pictures"]
    network: Callable[[], Any]
    loss: str
    images: int
    batch: int
    size: tuple[int, int]
    learning_rate: float = 1e-4
    flip: bool = False
    frozen: bool = False
    epochs: int = 1
    warm: int = 2
    rivals: tuple[str, ...] = ()


def write_salt(root: Path, count: int) -> None:
    """Synthetic seismic tiles of 101x101 and their masks, as `perpixel synthesize salt` makes them."""
    from perpixel import api

    with tempfile.TemporaryDirectory() as folder:
        api.synthesize("salt", folder, count=count + max(_VALIDATION, count // 4), seed=3)
        images = sorted((Path(folder) / "train/images").iterdir())
        for number, image in enumerate(images):
            subset = "train" if number < count else "val"
            for kind, source in (("images", image), ("targets", Path(folder) / "train/masks" / image.name)):
                (root / subset / kind).mkdir(parents=True, exist_ok=True)
                shutil.move(source, root / subset / kind / image.name)


def write_depth(root: Path, count: int) -> None:
    """Smooth random depths of 640x480 between 1 and 9 m, in millimetres of 16 bits; what is near is bright."""
    rng = np.random.default_rng(0)

    def pair() -> tuple[np.ndarray, np.ndarray]:
        depth_hw = cv2.resize(rng.uniform(1000, 9000, (6, 8)), (640, 480), interpolation=cv2.INTER_LINEAR)
        grey_hw = np.clip(255 - depth_hw / 40 + rng.normal(0, 5, depth_hw.shape), 0, 255).astype(np.uint8)
        return np.repeat(grey_hw[..., None], 3, axis=2), depth_hw.astype(np.uint16)

    _write(root, count, pair)


def write_dark(root: Path, count: int) -> None:
    """Clean pictures of 512x320, and dark noisy ones a quarter as large: the sizes of system 3."""
    rng = np.random.default_rng(0)

    def pair() -> tuple[np.ndarray, np.ndarray]:
        coarse_hwc = rng.integers(0, 256, (10, 16, 3), dtype=np.uint8)
        clean_hwc = cv2.resize(coarse_hwc, (512, 320), interpolation=cv2.INTER_CUBIC)
        small_hwc = cv2.resize(clean_hwc, (128, 80), interpolation=cv2.INTER_AREA) * 0.2
        return np.clip(small_hwc + rng.normal(0, 4, small_hwc.shape), 0, 255).astype(np.uint8), clean_hwc

    _write(root, count, pair)


def write_places(root: Path, count: int) -> None:
    """Pictures of 960x540 in blots of one colour a class, ids 0 to 5 as numbers: the size of system 2."""
    rng = np.random.default_rng(0)
    colors_k3 = rng.integers(0, 256, (6, 3))

    def pair() -> tuple[np.ndarray, np.ndarray]:
        label_hw = cv2.resize(rng.integers(0, 6, (9, 16), dtype=np.uint8), (960, 540), interpolation=cv2.INTER_NEAREST)
        image_hwc = colors_k3[label_hw] + rng.normal(0, 20, (540, 960, 3))
        return np.clip(image_hwc, 0, 255).astype(np.uint8), label_hw

    _write(root, count, pair)


def _write(root: Path, count: int, pair: Callable[[], tuple[np.ndarray, np.ndarray]]) -> None:
    for index in range(count + _VALIDATION):
        subset = "train" if index < count else "val"
        for kind, array in zip(("images", "targets"), pair(), strict=True):
            (root / subset / kind).mkdir(parents=True, exist_ok=True)
            stored = array[..., ::-1] if array.ndim == 3 else array
            cv2.imwrite(str(root / subset / kind / f"{index:04}.png"), stored)


def unet(encoder: str) -> Callable[[], Any]:
    """System 1's networks."""

    def make() -> Any:
        import segmentation_models_pytorch as smp

        return smp.Unet(encoder, encoder_weights=None, classes=1)

    return make


def deeplab() -> Any:
    """System 2's network."""
    import segmentation_models_pytorch as smp

    return smp.DeepLabV3("resnet50", encoder_weights=None, classes=6)


def head() -> Any:
    """System 4's network."""
    import timm
    import torch
    from torch import nn

    encoder = timm.create_model("efficientnet_b0", pretrained=False, num_classes=0)
    with torch.no_grad():
        width = encoder.eval()(torch.zeros(1, 3, 64, 64)).shape[1]
    layers = [nn.Linear(width, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 128 * 128)]
    layers.append(nn.Unflatten(1, (1, 128, 128)))
    return nn.Sequential(OrderedDict(encoder=encoder, head=nn.Sequential(*layers)))


def restoration(architecture: str) -> Callable[[], Any]:
    """Networks of system 3, of which there is no other package: the same modules, trained by the plain loop."""

    def make() -> Any:
        from perpixel.models import build_model

        return build_model(architecture=architecture, encoder="none", weights="none", out_channels=3, scale=4).network

    return make


CASES = {
    case.name: case
    for case in (
        Case(
            "unet",
            "U-Net on ResNet34, all trained, 128x128, batches of 32, PNG files of 101x101",
            "salt",
            (*_FLIP, "model.encoder=resnet34", "model.decoder_norm=true", "loss.per_image=false"),
            write_salt,
            "mask",
            unet("resnet34"),
            "bce_dice",
            images=160,
            batch=32,
            size=(128, 128),
            flip=True,
            rivals=("Hugging Face Trainer",),
        ),
        Case(
            "unet50",
            "U-Net on ResNet50, all trained, 128x128, batches of 32, PNG files of 101x101",
            "salt",
            (*_FLIP, "model.encoder=resnet50", "model.decoder_norm=true", "loss.per_image=false"),
            write_salt,
            "mask",
            unet("resnet50"),
            "bce_dice",
            images=96,
            batch=32,
            size=(128, 128),
            flip=True,
            warm=1,
        ),
        Case(
            "head",
            "Regression head of system 4 on a frozen EfficientNetB0, 128x128, batches of 32, PNG files of 640x480",
            "depth-regression",
            ("training.early_stopping_epochs=null",),
            write_depth,
            "metres",
            head,
            "mse",
            images=128,
            batch=32,
            size=(128, 128),
            frozen=True,
            epochs=3,
            warm=1,
            rivals=("Keras on PyTorch",),
        ),
        Case(
            "mrpnet",
            "MRPNet-SR, 128x80 to 512x320, batches of 16, PNG files",
            "lowlight",
            (),
            write_dark,
            "pictures",
            restoration("mrpnet-sr"),
            "mse",
            images=48,
            batch=16,
            size=(80, 128),
            warm=1,
        ),
        Case(
            "nafnet",
            "NAFNet, 128x80 to 512x320, batches of 16, PNG files",
            "lowlight",
            ("model.architecture=nafnet-s",),
            write_dark,
            "pictures",
            restoration("nafnet-s"),
            "mse",
            images=64,
            batch=16,
            size=(80, 128),
            warm=1,
        ),
        Case(
            "deeplab",
            "DeepLabV3 on ResNet50, all trained, 256x256, batches of 8, PNG files of 960x540",
            "desert",
            (
                *_FLIP,
                "input.size=[256, 256]",
                "input.fit=resize",
                "loss.name=cross_entropy",
                "loss.class_weights=none",
                "target.classes="
                + json.dumps([{"name": f"class {k}", "values": [k], "color": [40 * k] * 3} for k in range(6)]),
                "target.ignore=[]",
                "training.monitor=mean_iou",
            ),
            write_places,
            "mask",
            deeplab,
            "cross_entropy",
            images=24,
            batch=8,
            size=(256, 256),
            flip=True,
            warm=1,
        ),
    )
}
