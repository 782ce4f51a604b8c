"""What every test stands on: one thread, one seed, no display, a cache of its own."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from perpixel.run import Run
from tiny import tiny_recipe, write_tiny

# torch and matplotlib read these when they are imported, which only tests do.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MPLBACKEND"] = "Agg"

# Two shared cores: how long an example takes says nothing. In CI, hypothesis's own profile is in force.
if not os.environ.get("CI"):
    hypothesis.settings.register_profile("perpixel", deadline=None)
    hypothesis.settings.load_profile("perpixel")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images of tests never meet those of the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERPIXEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """A test without a seed of its own draws the same numbers each time, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny data set, for reading alone."""
    return write_tiny(tmp_path_factory.mktemp("tiny-data"))


@pytest.fixture(scope="session")
def tiny_run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A tiny finished run with val and test, its decision chosen on val; for reading alone."""
    from perpixel.training.train import train

    split = ("split.method=random", "split.order_column=null", "split.test=0.2")
    decision = ("inference.threshold=validation", "inference.minimum_area=validation")
    return train(tiny_recipe(tiny_data, *split, *decision), tmp_path_factory.mktemp("tiny-run") / "run")
