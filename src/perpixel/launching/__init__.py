"""Trainings as jobs of a cluster: asked for, submitted, followed, and their results collected. Needs no torch."""

from perpixel.launching.request import Slurm

__all__ = ["Slurm"]
