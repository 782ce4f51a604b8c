"""Recipes: what was asked."""

from perpixel.recipe.inputs import AugmentationSection, InputSection
from perpixel.recipe.loading import builtin_names, did_you_mean, dump_recipe, load_recipe, recipe_from_dict
from perpixel.recipe.loss import LOSS_NAMES, LossSection, parse_loss
from perpixel.recipe.schema import (
    DataSection,
    InferenceSection,
    ModelSection,
    OptimizerSection,
    Recipe,
    ScheduleSection,
    SplitSection,
    SubmissionSection,
    TrainingSection,
)
from perpixel.recipe.targets import DepthTarget, RestorationTarget, SegmentationTarget

__all__ = [
    "LOSS_NAMES",
    "AugmentationSection",
    "DataSection",
    "DepthTarget",
    "InferenceSection",
    "InputSection",
    "LossSection",
    "ModelSection",
    "OptimizerSection",
    "Recipe",
    "RestorationTarget",
    "ScheduleSection",
    "SegmentationTarget",
    "SplitSection",
    "SubmissionSection",
    "TrainingSection",
    "builtin_names",
    "did_you_mean",
    "dump_recipe",
    "load_recipe",
    "parse_loss",
    "recipe_from_dict",
]
