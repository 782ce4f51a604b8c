"""A Task: what a pixel means. Nobody outside this room asks which task it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perpixel.metrics import Detail, MetricInfo
from perpixel.tasks.view import PictureView, View

if TYPE_CHECKING:
    import torch

Decision = dict[str, float]
"""What was chosen on validation data (a threshold, say); kept with the run and used wherever it predicts."""

TaskLoss = Callable[[int, "torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""(epoch, output_bkhw, target_bhw or target_bhwc) -> scalar; only valid pixels count."""

Scored = tuple[NDArray[np.float32], NDArray[Any]]
"""(scores_khw, target_hw) of one image at its original size; target_hwc where targets are images."""


class Metrics(Protocol):
    """An accumulator of figures: sums over images."""

    def update(
        self,
        predicted_hw: NDArray[Any],
        target_hw: NDArray[Any],
        valid_hw: NDArray[np.bool_],
        confidence_hw: NDArray[np.float32],
    ) -> dict[str, float]:
        """Add one image; ``confidence_hw`` is what `Task.confidence` says. Returns its own figures."""

    def merge(self, other: Any) -> None:
        """Add what another accumulator of the same kind has seen, as if its images had been added here."""

    def compute(self) -> dict[str, float]:
        """The figures of all images so far."""

    def infos(self) -> Mapping[str, MetricInfo]:
        """What each figure is."""

    def details(self) -> Sequence[Detail]:
        """What lies behind the figures, to be drawn."""


class Task(ABC):
    """Target files, network outputs, losses, predictions and figures of one kind of map.

    Where targets are images, what is called target_hw and prediction_hw here is an image_hwc.
    """

    #: channels that the network puts out
    out_channels: int
    #: target value of pixels without truth; `valid` is False there
    fill: float
    #: whether what is enlarged by s comes nearer by s: its target is then divided by s
    zoom_divides: bool = False
    #: of targets that are images: how many times as high and as wide they are; images of 16 bits then stay so
    image_scale: int | None = None
    #: endings of the files that are written of a prediction; the first one's holds the data set's own values
    prediction_files: tuple[str, ...]
    #: what the colours of the ``error`` panel mean, in a few words
    error_legend: str
    #: whether a pixel of a prediction is right or wrong, so that one can ask how often it is, given its confidence
    right_or_wrong: bool = False
    #: what is assumed about predictions that nothing in the recipe says, for a person
    assumptions: tuple[str, ...] = ()

    @property
    @abstractmethod
    def meaning(self) -> str:
        """A text that changes whenever the same target file would be read differently."""

    @abstractmethod
    def decode_target(self, path: Path, notes: list[str] | None = None) -> NDArray[Any]:
        """Read a target file without loss as target_hw; what had to be done goes to ``notes``; raises DataError."""

    @abstractmethod
    def valid(self, target_hw: NDArray[Any]) -> NDArray[np.bool_]:
        """Where a target has truth."""

    @abstractmethod
    def stratum_value(self, target_hw: NDArray[Any]) -> float:
        """The figure that a stratified split balances."""

    @abstractmethod
    def describe(self, targets: Iterable[NDArray[Any]]) -> dict[str, Any]:
        """Facts of a subset's targets for log and manifest, such as the share of each class."""

    @abstractmethod
    def facts_table(self, facts: Mapping[str, Any]) -> str:
        """What `describe` said of the training targets, as lines for a person."""

    def require_network(self, network: torch.nn.Module) -> None:  # noqa: B027 - most tasks take any network
        """Raise RequestError when the network's output cannot be read as the recipe says."""

    @abstractmethod
    def loss(self, facts: Mapping[str, Any]) -> TaskLoss:
        """The training loss; ``facts`` are what `describe` said of the training targets."""

    @abstractmethod
    def scores(self, output_bkhw: torch.Tensor) -> torch.Tensor:
        """Network output to float32 scores_bkhw, in a space where averaging and resizing are right."""

    def refine(self, scores_khw: NDArray[np.float32], image_hwc: NDArray[Any]) -> NDArray[np.float32]:
        """Scores at the original size, made to follow the image where the recipe asks for it."""
        return scores_khw

    @abstractmethod
    def finalize(self, scores_khw: NDArray[np.float32], decision: Decision) -> NDArray[Any]:
        """Scores at the original size to the prediction."""

    @abstractmethod
    def graph_prediction(self, scores_bkhw: torch.Tensor, decision: Decision) -> torch.Tensor:
        """`finalize` of a batch in tensor operations, for an exported file; prediction_bhw, or prediction_bhwc.

        What of `refine` and `finalize` cannot be told in tensor operations is left out: see `left_out_of_graph`.
        """

    def graph_confidence(
        self, scores_bkhw: torch.Tensor, prediction_bhw: torch.Tensor, decision: Decision
    ) -> torch.Tensor | None:
        """`confidence` of `calibrated` scores in tensor operations, confidence_bhw; None where it is 1 everywhere."""
        return None

    @abstractmethod
    def graph_output(self, size: str) -> dict[str, str]:
        """Of `graph_prediction` ``type``, ``shape`` (names of axes, ``size`` being those of a map) and ``meaning``."""

    def left_out_of_graph(self, decision: Decision) -> list[str]:
        """What a prediction needs after `graph_prediction`, for a person, with the key of the recipe."""
        return []

    @abstractmethod
    def confidence(self, scores_khw: NDArray[np.float32], prediction_hw: NDArray[Any]) -> NDArray[np.float32]:
        """How sure the network is of each pixel of a prediction, confidence_hw in 0..1."""

    def calibrated(self, scores_khw: NDArray[np.float32], decision: Decision) -> NDArray[np.float32]:
        """Scores for `confidence`, as the decision corrects them; `finalize` takes them uncorrected."""
        return scores_khw

    def pixel_error(self, prediction_hw: NDArray[Any], target_hw: NDArray[Any]) -> NDArray[np.float32] | None:
        """How far each pixel is off, error_hw, 0 or more; anything where `valid` is False. None for classes."""
        return None

    def properties(self, target_hw: NDArray[Any]) -> dict[str, float]:
        """What of a target may make an image hard, by name; nan where it has none."""
        return {}

    @abstractmethod
    def first_decision(self) -> Decision:
        """The decision before anything was chosen on validation data."""

    @property
    def chosen_on_validation(self) -> tuple[str, ...]:
        """The entries of the decision that `choose` chooses; the others are the recipe's."""
        return ()

    def choose(self, scored: Iterable[Scored], monitor: str) -> Decision:
        """The decision that is best for the monitored figure on validation data; asked where anything is chosen."""
        return self.first_decision()

    @abstractmethod
    def metrics(self) -> Metrics:
        """A fresh accumulator."""

    @abstractmethod
    def baselines(self, facts: Mapping[str, Any]) -> dict[str, Callable[[NDArray[Any]], NDArray[Any]]]:
        """Trivial predictions by name, as functions of the image_hwc."""

    @abstractmethod
    def paint(self, prediction_hw: NDArray[Any]) -> NDArray[np.uint8]:
        """A colour picture of a prediction or a target, image_hwc."""

    @abstractmethod
    def panels(
        self, image_hwc: NDArray[np.uint8], prediction_hw: NDArray[Any], target_hw: NDArray[Any] | None = None
    ) -> dict[str, NDArray[np.uint8]]:
        """Pictures to look at side by side, image_hwc each: ``input`` and ``prediction``; with a target also ``truth``
        and ``error``, of which `error_legend` says what it shows."""

    def close_up(
        self, image_hwc: NDArray[np.uint8], prediction_hw: NDArray[Any], target_hw: NDArray[Any]
    ) -> dict[str, NDArray[np.uint8]]:
        """A part of an image, enlarged, where the prediction is farthest off: ``where`` it lies, and what is to be
        compared, image_hwc each. Empty where `panels` show all there is to see."""
        return {}

    @abstractmethod
    def guards(self, figures: Mapping[str, float]) -> list[str]:
        """Sentences on what makes these figures of an evaluation unbelievable; none when all is well."""

    @abstractmethod
    def write_prediction(
        self,
        stem: Path,
        image_hwc: NDArray[np.uint8],
        scores_khw: NDArray[np.float32],
        prediction_hw: NDArray[Any],
        source: Path | None = None,
    ) -> list[Path]:
        """Write all that is told of a predicted image: ``<stem><ending>`` for each of `prediction_files`.

        ``source`` is the image's file, which may tell of its camera.
        """

    @abstractmethod
    def require_same_maps(self, other: Task, where: Path) -> None:
        """Raise RequestError unless targets that ``other`` reads can be held against predictions of this task."""

    @abstractmethod
    def submission_map(self, prediction_hw: NDArray[Any]) -> NDArray[Any]:
        """What a submission tells of a prediction: a bool mask, or a number a pixel."""

    def view(self) -> View:
        """How a person looks at predictions; pictures where a task says nothing else."""
        return PictureView(scale=self.image_scale or 1)
