"""The Recipe: a complete, validated description of one experiment. Needs no torch.

Every section is a frozen pydantic model that knows its keys, so a misspelt key, a wrong type and an
impossible value are all found when the file is read.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from perpixel.recipe.inputs import AugmentationSection, InputSection
from perpixel.recipe.loss import LOSS_NAMES, LossSection, parse_loss
from perpixel.recipe.section import (
    Float,
    Fraction,
    Int,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
    Seed,
    Side,
)
from perpixel.recipe.targets import Angle, DepthTarget, RestorationTarget, SegmentationTarget, Target


class Archive(Section):
    """A zip file of the data set; it is unpacked into ``folder`` when that folder is missing."""

    file: str
    folder: str

    @field_validator("file", "folder")
    @classmethod
    def _below_root(cls, path: str) -> str:
        parts = PurePosixPath(path).parts
        if not parts or ".." in parts or PurePosixPath(path).is_absolute():
            raise ValueError("an archive and its folder are paths below the data folder")
        return path


class DataSection(Section):
    """Where images and targets lie, relative to ``root``.

    In the templates ``{id}`` and ``{subset}`` stand for a part of a name, the same in image and target. ``{any}`` is a
    part that the target does not have: ``train/{any}_{id}.png`` finds ``train/night_shot_7.png`` as number 7. It takes
    as much of a name as it can.

    ``also`` names recipe files whose pairs train too, such as real photographs beside rendered ones: their own ``data``
    and ``target`` sections say where they lie and what they mean, ``split`` which of them train, and ``augmentation``
    how these are changed. What chooses and what is reported are this recipe's own pairs alone.

    ``root`` may be a folder that `perpixel shard` wrote, or its URL (``s3://``, ``gs://``, ``azure://``, ``hf://``);
    then the templates say nothing. ``shard_cache`` is the number of chunks of a URL that lie on this machine at most;
    samples are shuffled among those of half as many.
    """

    root: str | None = None
    images: str = "train/images/{id}.png"
    targets: str = "train/masks/{id}.png"
    pairs_csv: str | None = None
    unlabelled: str | None = None
    tables: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()
    also: tuple[str, ...] = ()
    cache: Literal["auto", "off"] = "auto"
    shard_cache: Annotated[Int, Field(ge=2)] = 16

    @field_validator("images", "targets", "unlabelled")
    @classmethod
    def _template_names_the_id(cls, template: str | None) -> str | None:
        if template is None:
            return None
        if template.count("{id}") != 1 or set(re.findall(r"{([^}]*)}", template)) - {"id", "subset", "any"}:
            raise ValueError(
                "a template holds {id} once, and may hold {subset} and {any}, as in 'train/images/{id}.png'"
            )
        if PurePosixPath(template).is_absolute() or ".." in PurePosixPath(template).parts:
            raise ValueError("a template is a path below the data folder")
        return template

    @model_validator(mode="after")
    def _subset_comes_from_the_image(self) -> DataSection:
        if "{subset}" in self.targets and "{subset}" not in self.images:
            raise ValueError("targets holds {subset}, which must then stand in images too")
        if "{any}" in self.targets:
            raise ValueError("targets cannot hold {any}: the name of an image must tell the name of its target")
        return self


class SplitSection(Section):
    """Which samples train, which choose (val), which are reported (test).

    ``given`` takes the subset from a ``{subset}`` folder or a ``subset`` column. ``folds`` turns the
    other methods into k-fold: fold number ``fold`` is the validation subset.

    ``sorted`` cuts the samples, in the order of ``order_column`` (``id``: of the ids, such as the numbers of video
    frames), into ``blocks`` of neighbours, which stay together.
    """

    method: Literal["given", "random", "stratified", "grouped", "sorted"] = "random"
    validation: Fraction = 0.2
    test: Fraction = 0.0
    seed: Seed = 42
    folds: Annotated[Int, Field(ge=2)] | None = None
    fold: NonNegativeInt = 0
    group_column: str | None = None
    group_pattern: str | None = None
    order_column: str | None = None
    blocks: Annotated[Int, Field(ge=2)] = 50

    @model_validator(mode="after")
    def _consistent(self) -> SplitSection:
        if self.method == "grouped" and (self.group_column is None) == (self.group_pattern is None):
            raise ValueError("method 'grouped' needs exactly one of group_column and group_pattern")
        if self.method == "sorted" and self.order_column is None:
            raise ValueError("method 'sorted' needs order_column, the column whose values put the samples in order")
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"fold counts from 0 and must be below folds ({self.folds})")
        if self.validation + self.test >= 1:
            raise ValueError("validation + test must be below 1, or nothing is left to train on")
        if self.group_pattern is not None:
            _check_pattern(self.group_pattern)
        return self


def _check_pattern(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"group_pattern is not a regular expression: {error}") from None
    if groups != 1:
        raise ValueError(f"group_pattern must hold one pair of parentheses, around the group; it holds {groups}")


class ModelSection(Section):
    """The network. ``weights``: ``imagenet``, ``none``, a file, or the folder of a run: its best weights."""

    architecture: str = "unet"
    encoder: str = "resnet34"
    weights: str = "imagenet"
    decoder_norm: bool = True
    decoder_attention: bool = False
    freeze_encoder: bool = False
    unfreeze_epochs: tuple[PositiveInt, ...] = ()

    @model_validator(mode="after")
    def _unfreezing_needs_freezing(self) -> ModelSection:
        if self.unfreeze_epochs and not self.freeze_encoder:
            raise ValueError(
                "unfreeze_epochs needs freeze_encoder: true; else all of the encoder trains from the start"
            )
        if list(self.unfreeze_epochs) != sorted(set(self.unfreeze_epochs)):
            raise ValueError("unfreeze_epochs must grow from stage to stage, as in [2, 4, 6]")
        return self

    def trainable_stages(self, epoch: int) -> int | None:
        """How many stages of the encoder train in an epoch, counted from 0; None: all of them, always."""
        return sum(start <= epoch for start in self.unfreeze_epochs) if self.freeze_encoder else None


class OptimizerSection(Section):
    """``encoder_factor`` multiplies the learning rate of the encoder, ``layer_decay`` that of each of its stages once
    more than the one nearer the output; ``gradient_clip`` is a norm."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: PositiveFloat = 1e-4
    weight_decay: NonNegativeFloat = 0.0
    momentum: Annotated[Float, Field(ge=0, lt=1)] = 0.9
    encoder_factor: NonNegativeFloat = 1.0
    layer_decay: Annotated[Float, Field(gt=0, le=1)] = 1.0
    gradient_clip: PositiveFloat | None = None
    accumulate: PositiveInt = 1


class ScheduleSection(Section):
    """How the learning rate moves. Warm-up is linear and counted in epochs (parts of one are fine).

    ``plateau`` watches ``training.monitor``: times ``factor`` after ``patience`` epochs without gain.
    ``step``: times ``factor`` every ``step_epochs``. ``cosine`` and ``poly`` fall to ``final_factor``.
    """

    name: Literal["constant", "plateau", "step", "cosine", "poly"] = "constant"
    warmup_epochs: NonNegativeFloat = 0.0
    factor: Annotated[Float, Field(gt=0, lt=1)] = 0.1
    patience: NonNegativeInt = 5
    step_epochs: PositiveInt = 20
    power: PositiveFloat = 0.9
    final_factor: Fraction = 0.0


class TrainingSection(Section):
    """The loop. With 0 ``epochs`` a run is its starting weights, scored.

    ``precision: auto`` and ``threads: null`` are settled when a run starts and written into it. ``monitor`` is the
    validation metric that decides which epoch is best. A checkpoint from which ``--resume`` continues is written after
    every epoch and every ``checkpoint_seconds``.

    ``batch_size`` is that of a step, whatever the number of processes that share it; ``auto`` finds one by trial when a
    run starts, as large as memory allows and gains speed, and writes it into the run. Of several processes,
    ``sync_batch_norm`` lets batch normalisation see all their images, and ``strategy: fsdp`` deals weights, derivatives
    and the optimiser's state to them, for models that do not fit on one device. ``trackers`` are told what history.csv
    holds.
    """

    epochs: NonNegativeInt = 20
    batch_size: PositiveInt | Literal["auto"] = 32
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    monitor: str = "iou_per_image"
    ema_decay: Annotated[Float, Field(gt=0, lt=1)] | None = None
    early_stopping_epochs: PositiveInt | None = None
    seed: Seed = 42
    workers: NonNegativeInt = 0
    threads: PositiveInt | None = None
    checkpoint_seconds: PositiveFloat = 60.0
    sync_batch_norm: bool = False
    strategy: Literal["ddp", "fsdp"] = "ddp"
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ("tensorboard",)

    @property
    def images_a_step(self) -> int:
        """``batch_size`` of a training that has begun: a number."""
        assert self.batch_size != "auto", "it is settled before anything trains"
        return self.batch_size


class InferenceSection(Section):
    """How the trained model is used, in validation, evaluation and prediction alike.

    ``flip`` and ``scales`` average the scores of the image, its mirror image, and both at other sizes;
    ``self_ensemble`` those of its eight flips and quarter turns.

    ``tile`` (pixels; null: none) is the side of the overlapping squares that a larger image is predicted in, so that
    the memory a network takes does not grow with the image. Where it is known how far the network sees, the prediction
    is that of the whole image. A network that looks at an image's overall brightness, as ``nafnet`` does, is best
    given tiles as large as the crops that it was trained on.

    ``threshold`` and ``minimum_area`` (pixels at the original size) concern one foreground against a
    background; ``validation`` means: chosen on validation data after training. ``smooth_sigma`` is that of a
    Gaussian over depth, in pixels of the original size; ``edge_radius`` that of a guided filter, which smooths depth
    but keeps it sharp where the image is. ``point_cloud`` writes one beside each predicted depth map, seen through a
    camera with ``vertical_fov_deg``, else with the focal length that the image's EXIF data tell, else that of the
    target section, else one of 55 degrees.
    """

    flip: bool = False
    self_ensemble: bool = False
    scales: tuple[PositiveFloat, ...] = Field(default=(1.0,), min_length=1)
    tile: Side | None = None
    threshold: Annotated[Float, Field(gt=0, lt=1)] | Literal["validation"] = 0.5
    minimum_area: NonNegativeInt | Literal["validation"] = 0
    smooth_sigma: NonNegativeFloat = 0.0
    edge_radius: NonNegativeInt = 0
    point_cloud: Literal["none", "ply", "glb"] = "none"
    vertical_fov_deg: Angle | None = None
    batch_size: PositiveInt = 32


class SubmissionSection(Section):
    """The CSV of a competition.

    ``rle``: a row an image, ``id_column,rle_mask``, run-length codes of a mask. ``wide``: a row an image, with a column
    a pixel, named ``value_column`` and the pixel's number (``pixel_0``). ``long``: a row a pixel, whose id is
    the image's, an underscore and the pixel's number. Pixels are counted row by row, after resizing to ``size``
    (height, width; null: the image's own); of them every ``stride``-th is told, or ``count`` evenly spaced ones.
    ``id_replace`` changes a part of an image's id: [test_, gt_]. ``number_column`` adds a first column that
    counts the rows from 0. ``digits`` are those that a fraction is rounded to.
    """

    format: Literal["rle", "wide", "long"] = "rle"
    id_column: str = "id"
    number_column: str | None = None
    value_column: str = "pixel_"
    id_replace: tuple[str, str] | None = None
    size: tuple[PositiveInt, PositiveInt] | None = None
    stride: PositiveInt = 1
    count: PositiveInt | None = None
    digits: NonNegativeInt = 4

    @model_validator(mode="after")
    def _one_choice_of_pixels(self) -> SubmissionSection:
        if self.count is not None and self.stride > 1:
            raise ValueError("submission.stride and submission.count both choose pixels; give one of them")
        return self


class Recipe(Section):
    """One experiment, complete."""

    name: str
    description: str = ""
    data: DataSection = DataSection()
    split: SplitSection = SplitSection()
    target: Target
    input: InputSection = InputSection()
    augmentation: AugmentationSection = AugmentationSection()
    model: ModelSection = ModelSection()
    loss: LossSection = LossSection()
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    training: TrainingSection = TrainingSection()
    inference: InferenceSection = InferenceSection()
    submission: SubmissionSection = SubmissionSection()

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError("a name holds letters, digits, '.', '_' and '-', and begins with a letter or a digit")
        return name

    @model_validator(mode="after")
    def _sections_agree(self) -> Recipe:
        if self.augmentation.quarter_turns > 0 and self.input.size[0] != self.input.size[1]:
            raise ValueError("augmentation.quarter_turns needs a square input.size")
        crops = self.augmentation.rare_class_crops > 0 or self.augmentation.crop_scale != (1.0, 1.0)
        if crops and self.input.fit != "crop":
            raise ValueError("augmentation.crop_scale and rare_class_crops need input.fit 'crop'")
        if self.training.strategy == "fsdp" and self.model.unfreeze_epochs:
            raise ValueError("training.strategy 'fsdp' needs weights that train from the start: no unfreeze_epochs")
        if self.training.strategy == "fsdp" and self.training.batch_size == "auto":
            raise ValueError("training.batch_size 'auto' tries whole models: with strategy 'fsdp' give a number")
        self._check_losses()
        self._check_what_needs_metres()
        if isinstance(self.target, SegmentationTarget):
            self._check_classes(self.target)
        else:
            self._refuse_what_needs_classes()
        if isinstance(self.target, RestorationTarget):
            self._refuse_what_spoils_pairs()
        if isinstance(self.target, DepthTarget) and self.target.output == "relative" and self.inference.tile:
            raise ValueError("inference.tile: depth up to scale and shift has other ones in every tile; leave it null")
        return self

    def _check_what_needs_metres(self) -> None:
        asked = {
            "inference.smooth_sigma": self.inference.smooth_sigma > 0,
            "inference.edge_radius": self.inference.edge_radius > 0,
            "inference.point_cloud": self.inference.point_cloud != "none",
        }
        wrong = [key for key, is_asked in asked.items() if is_asked]
        if wrong and (not isinstance(self.target, DepthTarget) or self.target.output == "relative"):
            raise ValueError(f"{', '.join(wrong)} need{'s' if len(wrong) == 1 else ''} a target of depth in metres")

    def _check_losses(self) -> None:
        known = LOSS_NAMES[self.target.kind]
        for expression in filter(None, (self.loss.name, self.loss.warm_start)):
            foreign = [name for _, name in parse_loss(expression) if name not in known]
            if foreign:
                raise ValueError(
                    f"loss {', '.join(foreign)} does not judge {self.target.kind}; there are: {', '.join(known)}"
                )

    def _check_classes(self, target: SegmentationTarget) -> None:
        weights, count = self.loss.class_weights, len(target.classes)
        if isinstance(weights, tuple) and len(weights) != count:
            raise ValueError(f"loss.class_weights has {len(weights)} weights for {count} classes")
        if count > 2 and (self.inference.threshold, self.inference.minimum_area) != (0.5, 0):
            raise ValueError("inference.threshold and minimum_area concern two classes; leave them at 0.5 and 0")

    def _refuse_what_needs_classes(self) -> None:
        asked = {
            "augmentation.rare_class_crops": self.augmentation.rare_class_crops > 0,
            "loss.class_weights": self.loss.class_weights != "none",
            "inference.threshold": self.inference.threshold != 0.5,
            "inference.minimum_area": self.inference.minimum_area != 0,
        }
        wrong = [key for key, is_asked in asked.items() if is_asked]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} need{'s' if len(wrong) == 1 else ''} a target of classes")

    def _refuse_what_spoils_pairs(self) -> None:
        """Both images of a pair are taken as they are: what changes only one of them, or resizes both, is refused."""
        if self.input.fit != "crop" or self.input.long_side is not None:
            raise ValueError("a restoration target needs input.fit 'crop' and no long_side: nothing is resized")
        changes = {
            f"augmentation.{name}": getattr(self.augmentation, name)
            for name in ("affine", "photometric", "grayscale", "degrade")
        }
        asked = [key for key, probability in changes.items() if probability > 0]
        if self.augmentation.crop_scale != (1.0, 1.0):
            asked.append("augmentation.crop_scale")
        if self.inference.scales != (1.0,):
            asked.append("inference.scales")
        if asked:
            raise ValueError(f"{', '.join(asked)} would spoil what a restoration target is compared with")

    def with_training(self, **settings: Any) -> Recipe:
        """The recipe with other values of some keys of its training section, which are not checked."""
        return self.model_copy(update={"training": self.training.model_copy(update=settings)})

    def to_dict(self) -> dict[str, Any]:
        """The resolved recipe as plain YAML-ready values."""
        return self.model_dump(mode="json")
