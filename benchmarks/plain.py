"""The plain loop: a torch Dataset that opens PNG files with Pillow, a network, a LightningModule, Adam, fp32.

As the examples of segmentation-models-pytorch have it; nothing is tuned, nothing is made worse.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import Case
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


class Pairs(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Decodes, resizes and flips two files a sample."""

    def __init__(self, root: Path, case: Case) -> None:
        self.images = sorted((root / "images").iterdir())
        self.root, self.case = root, case

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        path, case = self.images[index], self.case
        image, target = Image.open(path).convert("RGB"), Image.open(self.root / "targets" / path.name)
        if case.read == "pictures":
            return _planes(np.asarray(image) / np.float32(255)), _planes(np.asarray(target) / np.float32(255))
        height, width = case.size
        image_hwc = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)) / np.float32(255)
        target_hw = np.asarray(target.resize((width, height), Image.Resampling.NEAREST))
        if case.flip and random.random() < 0.5:
            image_hwc, target_hw = image_hwc[:, ::-1], target_hw[:, ::-1]
        if case.read == "metres":
            target_hw = target_hw.astype(np.float32) / 1000
        elif case.loss == "bce_dice":
            target_hw = (target_hw > 0).astype(np.float32)
        else:
            target_hw = target_hw.astype(np.int64)
        return _planes((image_hwc - MEAN) / STD), torch.from_numpy(np.ascontiguousarray(target_hw))


def _planes(image_hwc: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image_hwc.transpose(2, 0, 1)))


def loss_of(case: Case) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The recipe's loss, from PyTorch and segmentation-models-pytorch."""
    if case.loss == "cross_entropy":
        return F.cross_entropy
    if case.loss == "mse":
        return lambda output, target: F.mse_loss(output if output.ndim == target.ndim else output[:, 0], target)
    import segmentation_models_pytorch as smp

    dice = smp.losses.DiceLoss(mode="binary")
    return lambda output, target: (
        F.binary_cross_entropy_with_logits(output[:, 0], target) + dice(output, target[:, None])
    )


class Plain(LightningModule):
    """Forward, loss, Adam."""

    def __init__(self, case: Case, network: torch.nn.Module) -> None:
        super().__init__()
        self.case, self.network, self.loss = case, network, loss_of(case)

    def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        image_bchw, target = batch
        return self.loss(self.network(image_bchw), target)

    def on_train_epoch_start(self) -> None:
        if self.case.frozen:
            self.network.encoder.eval()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trained, lr=self.case.learning_rate)


class Marks(Callback):
    """Tells when an epoch begins and a batch ends."""

    def __init__(self, epoch_began: Callable[[], None], batch_ended: Callable[[], None]) -> None:
        self._began, self._ended = epoch_began, batch_ended

    def on_train_epoch_start(self, *_: Any) -> None:
        self._began()

    def on_train_batch_end(self, *_: Any) -> None:
        self._ended()


def train_plain(
    case: Case, root: Path, epoch_began: Callable[[], None], batch_ended: Callable[[], None], seed: int = 0
) -> torch.nn.Module:
    """Train the case's network; returns it."""
    torch.manual_seed(seed)
    random.seed(seed)
    network = case.network()
    start = root / "start.safetensors"
    if start.is_file():  # the weights that perpixel starts with
        from safetensors.torch import load_file

        of_network = {name.removeprefix("network."): value for name, value in load_file(start).items()}
        network.load_state_dict({name: value for name, value in of_network.items() if name in network.state_dict()})
    if case.frozen:
        network.encoder.requires_grad_(False)
    loader = DataLoader(Pairs(root / "train", case), case.batch, shuffle=True, num_workers=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=case.epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Marks(epoch_began, batch_ended)],
        )
        trainer.fit(Plain(case, network), loader)
    return network
