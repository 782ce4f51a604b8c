"""The Recipe: a complete, validated description of one experiment. Needs no torch.

Every section is a frozen pydantic model that knows its keys, so a misspelt key, a wrong type and an
impossible value are all found when the file is read.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, field_validator, model_validator

LOSS_NAMES = ("bce", "bce_dice", "cross_entropy", "dice", "focal", "jaccard", "lovasz", "tversky")

# Strict: `true` is not the number 1, and "20" is not the number 20.
Int = Annotated[int, Strict()]
Float = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Probability = Annotated[Float, Field(ge=0, le=1)]
Fraction = Annotated[Float, Field(ge=0, lt=1)]
PositiveFloat = Annotated[Float, Field(gt=0)]
NonNegativeFloat = Annotated[Float, Field(ge=0)]
PositiveInt = Annotated[Int, Field(gt=0)]
NonNegativeInt = Annotated[Int, Field(ge=0)]
Seed = Annotated[Int, Field(ge=0, lt=2**32)]
Level = Annotated[Int, Field(ge=0, le=255)]
Side = Annotated[Int, Field(ge=16, le=8192)]
RawValue = Int | tuple[Int, Int, Int]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


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
    """Where images and targets lie, relative to ``root``."""

    root: str | None = None
    images: str = "train/images/{id}.png"
    targets: str = "train/masks/{id}.png"
    pairs_csv: str | None = None
    unlabelled: str | None = None
    tables: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()
    cache: Literal["auto", "off"] = "auto"

    @field_validator("images", "targets", "unlabelled")
    @classmethod
    def _template_names_the_id(cls, template: str | None) -> str | None:
        if template is None:
            return None
        if template.count("{id}") != 1 or set(re.findall(r"{([^}]*)}", template)) - {"id", "subset"}:
            raise ValueError("a template holds {id} once, and may hold {subset}, as in 'train/images/{id}.png'")
        if PurePosixPath(template).is_absolute() or ".." in PurePosixPath(template).parts:
            raise ValueError("a template is a path below the data folder")
        return template

    @model_validator(mode="after")
    def _subset_comes_from_the_image(self) -> DataSection:
        if "{subset}" in self.targets and "{subset}" not in self.images:
            raise ValueError("targets holds {subset}, which must then stand in images too")
        return self


class SplitSection(Section):
    """Which samples train, which choose (val), which are reported (test).

    ``given`` takes the subset from a ``{subset}`` folder or a ``subset`` column. ``folds`` turns the
    other methods into k-fold: fold number ``fold`` is the validation subset.
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


class ClassSpec(Section):
    """One class: its name, the raw values that stand for it in the files, and its colour in pictures."""

    name: Annotated[str, Field(min_length=1)]
    values: tuple[RawValue, ...] = Field(min_length=1)
    color: tuple[Level, Level, Level]


class SegmentationTarget(Section):
    """A label map. ``ignore`` lists raw values that no loss and no metric sees."""

    kind: Literal["segmentation"] = "segmentation"
    classes: tuple[ClassSpec, ...] = Field(min_length=2, max_length=255)
    ignore: tuple[RawValue, ...] = ()

    @model_validator(mode="after")
    def _unique(self) -> SegmentationTarget:
        values = [value for spec in self.classes for value in spec.values] + list(self.ignore)
        unique: dict[str, list[Any]] = {
            "name": [spec.name for spec in self.classes],
            "color": [spec.color for spec in self.classes],
            "value": values,
        }
        for what, items in unique.items():
            repeated = sorted({str(item) for item in items if items.count(item) > 1})
            if repeated:
                raise ValueError(f"each class {what} may stand once; repeated: {', '.join(repeated)}")
        if len({isinstance(value, int) for value in values}) > 1:
            raise ValueError("raw values are either all whole numbers or all colours [red, green, blue]")
        return self


class InputSection(Section):
    """What the network sees: ``size`` is (height, width) in pixels.

    ``resize`` squashes to that size; ``pad`` keeps the aspect, shrinks only what is larger, and mirrors
    the border into the rest.
    """

    size: tuple[Side, Side] = (128, 128)
    fit: Literal["resize", "pad"] = "resize"


class AugmentationSection(Section):
    """Random changes of training samples. Limits are fractions of the size; ``rotate`` is in degrees."""

    horizontal_flip: Probability = 0.5
    vertical_flip: Probability = 0.0
    quarter_turns: Probability = 0.0
    affine: Probability = 0.0
    shift: Fraction = 0.0
    scale: Fraction = 0.0
    rotate: Annotated[Float, Field(ge=0, le=180)] = 0.0
    photometric: Probability = 0.0
    brightness: Fraction = 0.0
    contrast: Fraction = 0.0


class ModelSection(Section):
    """The network. ``weights``: ``imagenet``, ``none``, or a file."""

    architecture: str = "unet"
    encoder: str = "resnet34"
    weights: str = "imagenet"
    decoder_norm: bool = True
    decoder_attention: bool = False
    freeze_encoder: bool = False


_TERM = re.compile(r"^(?:(?P<weight>\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*\*\s*)?(?P<name>[a-z_]+)$")


def parse_loss(expression: str) -> list[tuple[float, str]]:
    """Weighted terms of a loss expression such as ``0.5*bce_dice + 0.5*lovasz``.

    Raises:
        ValueError: the expression is not a sum of known losses.
    """
    terms = []
    for part in expression.split("+"):
        match = _TERM.match(part.strip())
        if match is None:
            raise ValueError(f"{expression!r} is not a sum of losses like 'bce' or '0.5*bce_dice + 0.5*lovasz'")
        if match["name"] not in LOSS_NAMES:
            raise ValueError(f"no loss is named {match['name']!r}; there are: {', '.join(LOSS_NAMES)}")
        weight = float(match["weight"] or 1)
        if weight <= 0:
            raise ValueError(f"the weight of {match['name']} must be above 0")
        terms.append((weight, match["name"]))
    return terms


class LossSection(Section):
    """``name`` is a loss or a weighted sum: ``bce_dice``, ``0.5*bce_dice + 0.5*lovasz``.

    ``per_image``: the set losses (Dice, Jaccard, Tversky, Lovasz) are taken image by image, or over the
    batch. ``warm_start`` is the loss of the first ``warm_start_epochs`` epochs.
    """

    name: str = "bce_dice"
    per_image: bool = True
    class_weights: Literal["none", "balanced"] | tuple[PositiveFloat, ...] = "none"
    focal_gamma: NonNegativeFloat = 2.0
    tversky_alpha: NonNegativeFloat = 0.5
    tversky_beta: NonNegativeFloat = 0.5
    warm_start: str | None = None
    warm_start_epochs: NonNegativeInt = 0

    @field_validator("name", "warm_start")
    @classmethod
    def _known(cls, expression: str | None) -> str | None:
        if expression is not None:
            parse_loss(expression)
        return expression

    @model_validator(mode="after")
    def _warm_start_is_whole(self) -> LossSection:
        if (self.warm_start is None) != (self.warm_start_epochs == 0):
            raise ValueError("warm_start and warm_start_epochs go together")
        return self


class OptimizerSection(Section):
    """``encoder_factor`` multiplies the learning rate of the encoder; ``gradient_clip`` is a norm."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: PositiveFloat = 1e-4
    weight_decay: NonNegativeFloat = 0.0
    momentum: Annotated[Float, Field(ge=0, lt=1)] = 0.9
    encoder_factor: NonNegativeFloat = 1.0
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
    """The loop. ``precision: auto`` and ``threads: null`` are settled when a run starts and written into it.

    ``monitor`` is the validation metric that decides which epoch is best. A checkpoint from which
    ``--resume`` continues is written after every epoch and every ``checkpoint_seconds``.
    """

    epochs: PositiveInt = 20
    batch_size: PositiveInt = 32
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    monitor: str = "iou_per_image"
    ema_decay: Annotated[Float, Field(gt=0, lt=1)] | None = None
    early_stopping_epochs: PositiveInt | None = None
    seed: Seed = 42
    workers: NonNegativeInt = 0
    threads: PositiveInt | None = None
    checkpoint_seconds: PositiveFloat = 60.0


class InferenceSection(Section):
    """How the trained model is used, in validation, evaluation and prediction alike.

    ``threshold`` and ``minimum_area`` (pixels at the original size) concern one foreground against a
    background; ``validation`` means: chosen on validation data after training.
    """

    flip: bool = False
    threshold: Annotated[Float, Field(gt=0, lt=1)] | Literal["validation"] = 0.5
    minimum_area: NonNegativeInt | Literal["validation"] = 0
    batch_size: PositiveInt = 32


class Recipe(Section):
    """One experiment, complete."""

    name: str
    description: str = ""
    data: DataSection = DataSection()
    split: SplitSection = SplitSection()
    target: SegmentationTarget
    input: InputSection = InputSection()
    augmentation: AugmentationSection = AugmentationSection()
    model: ModelSection = ModelSection()
    loss: LossSection = LossSection()
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    training: TrainingSection = TrainingSection()
    inference: InferenceSection = InferenceSection()

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError("a name holds letters, digits, '.', '_' and '-', and begins with a letter or a digit")
        return name

    @model_validator(mode="after")
    def _sections_agree(self) -> Recipe:
        weights = self.loss.class_weights
        if isinstance(weights, tuple) and len(weights) != len(self.target.classes):
            raise ValueError(f"loss.class_weights has {len(weights)} weights for {len(self.target.classes)} classes")
        if self.augmentation.quarter_turns > 0 and self.input.size[0] != self.input.size[1]:
            raise ValueError("augmentation.quarter_turns needs a square input.size")
        if len(self.target.classes) > 2 and (self.inference.threshold, self.inference.minimum_area) != (0.5, 0):
            raise ValueError("inference.threshold and minimum_area concern two classes; leave them at 0.5 and 0")
        return self

    def to_dict(self) -> dict[str, Any]:
        """The resolved recipe as plain YAML-ready values."""
        return self.model_dump(mode="json")
