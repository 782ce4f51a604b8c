"""The verbs of perpixel. The command line, the page and a notebook all call these."""

from perpixel.api._arguments import RUNS
from perpixel.api.data import SYNTHESES, RecipeLine, init, inspect, recipes, shard, synthesize
from perpixel.api.results import compare, evaluate, export, pack, predict, report, submit
from perpixel.api.training import before_after, ensemble, grid, sbatch_script, search, train
from perpixel.launching.request import Slurm

__all__ = [
    "RUNS",
    "SYNTHESES",
    "RecipeLine",
    "Slurm",
    "before_after",
    "compare",
    "ensemble",
    "evaluate",
    "export",
    "grid",
    "init",
    "inspect",
    "pack",
    "predict",
    "recipes",
    "report",
    "sbatch_script",
    "search",
    "shard",
    "submit",
    "synthesize",
    "train",
]
