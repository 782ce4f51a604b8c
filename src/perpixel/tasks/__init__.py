"""Tasks: what a pixel means."""

from perpixel.recipe import DepthTarget, Recipe, RestorationTarget
from perpixel.tasks.base import Decision, Metrics, Scored, Task, TaskLoss
from perpixel.tasks.depth import DepthTask
from perpixel.tasks.restoration import RestorationTask
from perpixel.tasks.segmentation import SegmentationTask, check_monitor

__all__ = ["Decision", "Metrics", "Scored", "Task", "TaskLoss", "build_task", "check_monitor"]


def build_task(recipe: Recipe) -> Task:
    """The task of a recipe."""
    if isinstance(recipe.target, DepthTarget):
        return DepthTask(recipe.target, recipe.loss, recipe.inference)
    if isinstance(recipe.target, RestorationTarget):
        return RestorationTask(recipe.target, recipe.loss, recipe.inference)
    return SegmentationTask(recipe.target, recipe.loss, recipe.inference)
