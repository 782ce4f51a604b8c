"""Inspection: the data are understood before a step is taken."""

from perpixel.inspection.finding import Finding, Inspection
from perpixel.inspection.inspect import inspect_folder, inspect_recipe, quick_inspection, split_inspection

__all__ = ["Finding", "Inspection", "inspect_folder", "inspect_recipe", "quick_inspection", "split_inspection"]
