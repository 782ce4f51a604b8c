"""What a prediction costs, and which models nothing beats in both cost and quality."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from perpixel import api
from perpixel.evaluation.fronts import pareto_plot
from perpixel.inference.cost import measure_cost
from perpixel.inference.predictor import Predictor
from perpixel.reporting.pareto import pareto_front, pareto_png
from perpixel.run import Run


def test_operations_by_hand(tiny_run: Run) -> None:
    predictor = Predictor.from_run(tiny_run, ["inference.flip=true"])
    height, width = predictor.input_section.size

    class OneConvolution(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 1, 3, padding=1)

        def forward(self, image_bchw: torch.Tensor) -> torch.Tensor:
            return self.layer(image_bchw)

    predictor.model = OneConvolution()  # type: ignore[assignment]
    cost = measure_cost(predictor)
    assert cost["operations_per_image"] == 2 * (2 * height * width * 27)  # two views
    assert cost["latency_ms_per_image"] > 0
    assert cost["peak_memory_mib"] > 50
    assert (cost["image_height"], cost["image_width"]) == (height, width)


def test_a_run_knows_its_cost(tiny_run: Run) -> None:
    manifest = tiny_run.manifest
    assert manifest["cost"]["operations_per_image"] > 10 * sum(manifest["parameters"].values())
    assert manifest["cost"]["threads"] == 1


def test_the_front_by_hand() -> None:
    costs, qualities = [3, 1, 2, 2, 5], [0.9, 0.5, 0.8, 0.4, 0.9]
    assert pareto_front(costs, qualities, higher=True) == [1, 2, 0]
    assert pareto_front(costs, qualities, higher=False) == [1, 3]
    assert pareto_front([], [], higher=True) == []


POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


@given(POINTS)
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    def beaten(place: int) -> bool:
        cost, quality = points[place]
        return any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in points)

    front = pareto_front([cost for cost, _ in points], [quality for _, quality in points], higher=True)
    assert sorted(front) == [place for place in range(len(points)) if not beaten(place)]


def test_the_plot(tiny_run: Run, tmp_path: Path) -> None:
    png = pareto_png("ab", [1, 100], [0.5, 0.6], cost_label="c", quality_label="q", higher=True)
    assert png.startswith(b"\x89PNG")
    shutil.copytree(tiny_run.path, tmp_path / "dear")
    dear = Run(tmp_path / "dear")
    runs = [tiny_run, dear]
    each = [[run] for run in runs]
    assert pareto_plot(each, ["a", "b"], ["val", "val"], "iou_per_image") is None  # both cost the same
    dear.update_manifest(cost=dear.manifest["cost"] | {"operations_per_image": 10**9})
    assert (pareto_plot(each, ["a", "b"], ["val", "val"], "iou_per_image") or b"").startswith(b"\x89PNG")
    shutil.copytree(tiny_run.path, tmp_path / "cheap")
    api.compare([tmp_path / "cheap", dear.path])
    assert (dear.path / "evaluation" / "pareto.png").is_file()
    dear.update_manifest(cost=None)
    assert pareto_plot(each, ["a", "b"], ["val", "val"], "iou_per_image") is None
