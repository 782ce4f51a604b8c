"""Each guard catches the defect planted for it, and is silent without."""

from __future__ import annotations

import pytest

from perpixel.evaluation.evaluate import Evaluation
from perpixel.evaluation.guards import no_better_than_baseline
from perpixel.metrics import MetricInfo


def evaluation(model: float, baselines: dict[str, float], direction: str = "higher") -> Evaluation:
    info = MetricInfo("iou", "", direction, "mean over images", "")  # type: ignore[arg-type]
    return Evaluation({"iou": model}, [], {"iou": info}, {name: {"iou": value} for name, value in baselines.items()})


@pytest.mark.parametrize(
    ("model", "baselines", "direction", "caught"),
    [
        (0.4, {"all rock": 0.5, "all salt": 0.2}, "higher", "'all rock' 0.5000"),
        (0.5, {"all rock": 0.5}, "higher", "'all rock' 0.5000"),
        (0.6, {"all rock": 0.5}, "higher", None),
        (0.6, {"all rock": 0.5}, "lower", "'all rock' 0.5000"),
        (float("nan"), {"all rock": 0.5}, "higher", "'all rock' 0.5000"),
        (0.1, {"all rock": float("nan")}, "higher", None),
        (0.1, {}, "higher", None),
    ],
)
def test_no_better_than_baseline(model: float, baselines: dict[str, float], direction: str, caught: str | None) -> None:
    warning = no_better_than_baseline(evaluation(model, baselines, direction), "iou")
    assert (warning is None) == (caught is None)
    assert caught is None or caught in str(warning)
