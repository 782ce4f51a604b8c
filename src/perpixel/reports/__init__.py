"""Reports of runs, grids and comparisons: what a person reads."""

from perpixel.reports.report import report

__all__ = ["report"]
