"""Batch statistics of a new place in a trained network (AdaBN, Li et al. 2016): do unlabelled images make it better?

    OMP_NUM_THREADS=1 python benchmarks/batch_statistics.py RUN DATA [DATA ...]

The images of a data set's `test`, without their labels, give the means and variances of every batch normalisation, in
place of those of the training data, or half of each. Prints the run's monitored figure with each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from perpixel.console import Console
from perpixel.data.cache import DecodedSamples, decode_samples
from perpixel.evaluation.evaluate import evaluate_samples
from perpixel.evaluation.pairs import open_pairs
from perpixel.inference.predictor import Predictor
from perpixel.run import Run

Statistics = list[tuple[torch.Tensor, torch.Tensor]]


def statistics_of(norms: list[_BatchNorm]) -> Statistics:
    """A copy of (mean, variance) of each layer."""
    return [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]


def take(norms: list[_BatchNorm], own: Statistics, other: Statistics, share: float) -> None:
    """Statistics between two, ``share`` of them of the second."""
    for norm, (mean, variance), (mean2, variance2) in zip(norms, own, other, strict=True):
        norm.running_mean.copy_(torch.lerp(mean, mean2, share))
        norm.running_var.copy_(torch.lerp(variance, variance2, share))


def of_place(predictor: Predictor, norms: list[_BatchNorm], decoded: DecodedSamples) -> Statistics:
    """What the images of a data set give, all of them alike, in the views that a prediction takes."""
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all images
        norm.train()
    for place in range(len(decoded)):
        predictor.scores([decoded.image(place)])
    for norm in norms:
        norm.eval()
    return statistics_of(norms)


def main() -> None:
    """Evaluate with each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    run = Run.open(asked.run)
    predictor = Predictor.from_run(run)
    norms = [module for module in predictor.model.modules() if isinstance(module, _BatchNorm)]
    own = statistics_of(norms)
    monitor = run.recipe.training.monitor
    for data in asked.data:
        pairs = open_pairs(run, predictor.task, subset="test", data=data, console=Console())
        decoded = decode_samples(pairs.samples, predictor.task.decode_target, key=None)
        ids = [sample.id for sample in pairs.samples]
        new = of_place(predictor, norms, decoded)
        for share in (0.0, 0.5, 1.0):
            take(norms, own, new, share)
            figures = evaluate_samples(predictor, decoded, ids, range(len(ids))).figures
            print(f"{data}, {share:.0%} of the statistics its own: {monitor} {figures[monitor]:.4f}", flush=True)


if __name__ == "__main__":
    main()
