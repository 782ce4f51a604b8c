"""Two other ways to train the same: Hugging Face's Trainer and Keras, as their own examples have them.

fastai is not among them: its wheel asks for spaCy, a package for text.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cases import Case
from plain import Pairs, loss_of

Note = Callable[[], None]


def train_trainer(case: Case, root: Path, epoch_began: Note, batch_ended: Note) -> None:
    """`transformers.Trainer` over the plain loop's Dataset; fp32, Adam with its defaults, a constant rate."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Scored(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.loss = case.network(), loss_of(case)

        def forward(self, image: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": self.loss(self.network(image), target)}

    class Marks(TrainerCallback):
        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            epoch_began()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            batch_ended()

    def collate(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, torch.Tensor]:
        images, targets = zip(*pairs, strict=True)
        return {"image": torch.stack(images), "target": torch.stack(targets)}

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=case.epochs,
            per_device_train_batch_size=case.batch,
            learning_rate=case.learning_rate,
            lr_scheduler_type="constant",
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            remove_unused_columns=False,
        )
        Trainer(
            Scored(), arguments, data_collator=collate, train_dataset=Pairs(root / "train", case), callbacks=[Marks()]
        ).train()


def train_keras(case: Case, root: Path, epoch_began: Note, batch_ended: Note) -> None:
    """System 4 as it was: Keras, EfficientNetB0 frozen, three dense layers, all pictures in memory. On PyTorch."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    pairs = Pairs(root / "train", case)
    images, targets = zip(*(pairs[index] for index in range(len(pairs))), strict=True)
    image_bhwc, metres_bn = (np.stack([part.numpy() for part in parts]) for parts in (images, targets))
    encoder = keras.applications.EfficientNetB0(
        include_top=False, weights=None, input_shape=(*case.size, 3), pooling="avg"
    )
    encoder.trainable = False
    layers = [keras.layers.Dense(512, "relu"), keras.layers.Dense(256, "relu"), keras.layers.Dense(128 * 128)]
    model = keras.Sequential([encoder, *layers, keras.layers.Reshape((128, 128))])
    model.compile(optimizer=keras.optimizers.Adam(case.learning_rate), loss="mse")

    class Marks(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            epoch_began()

        def on_train_batch_end(self, *_: Any, **__: Any) -> None:
            batch_ended()

    model.fit(
        np.ascontiguousarray(image_bhwc.transpose(0, 2, 3, 1)),
        metres_bn,
        batch_size=case.batch,
        epochs=case.epochs,
        verbose=0,
        callbacks=[Marks()],
    )
