"""What an exported file computes: from uint8 pixels of any size to the prediction at that size, in tensor operations.

Resizing is written as products with matrices that are made inside the graph, so that it is the same arithmetic in every
runtime, whatever its own resizing does, and no shape depends on a value.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from perpixel.exporting.metadata import output_tensors
from perpixel.inference.predictor import Predictor
from perpixel.models import PixelModel
from perpixel.models.restoration import RestorationNetwork


class ExportGraph(nn.Module):
    """image_bhwc (uint8, RGB) -> `output_names`, all at the images' own size (times the task's scale).

    Prediction and scores_bkhw; where the task knows how sure it is, also confidence_bhw, after the temperature.

    Everything that a `Predictor` does to an image, but tiles, and what the task says of itself in `left_to_caller`.

    Args:
        predictor: whose model, views, task and decision are taken.
        any_size: whether the network sees images of sizes that are known only when the graph runs.
    """

    def __init__(self, predictor: Predictor, *, any_size: bool) -> None:
        super().__init__()
        self.model = predictor.model
        self.predictor = predictor
        self.section = predictor.input_section
        self.whole = self.section.fit == "crop"
        if any_size and self.whole:
            predictor.model = AnySize(self.model)  # type: ignore[assignment]

    def restore(self) -> None:
        """Give the predictor its own model back."""
        self.predictor.model = self.model

    @property
    def output_names(self) -> list[str]:
        """Of the outputs, in order."""
        return list(output_tensors(self.predictor, "batch"))

    def forward(self, image_bhwc: Tensor) -> tuple[Tensor, ...]:
        """The outputs of a batch of images of one size."""
        image_bchw = image_bhwc.permute(0, 3, 1, 2).to(torch.float32)
        if self.whole and self.section.long_side is None:
            scores_bkhw = self.predictor.averaged_views(image_bchw / 255)
        else:
            scores_bkhw = self._scaled(image_bchw)
        task, decision = self.predictor.task, self.predictor.decision
        prediction = task.graph_prediction(scores_bkhw, decision)
        confidence_bhw = task.graph_confidence(scores_bkhw, prediction, decision)
        return (prediction, scores_bkhw, *([] if confidence_bhw is None else [confidence_bhw]))

    def _scaled(self, image_bchw: Tensor) -> Tensor:
        """Brought to the size that the network sees, and back."""
        rows, columns = self._axes(*image_bchw.shape[2:])
        exact_bchw = fitting(*rows) @ image_bchw @ fitting(*columns).T
        # To whole levels as OpenCV does it: halves to the even number, of an image of half the size upwards.
        halved = (rows.length == 2 * rows.scaled) & (columns.length == 2 * columns.scaled)
        fitted_bchw = torch.where(halved, torch.floor(exact_bchw + 0.5), exact_bchw.round())
        scores_bkhw = self.predictor.averaged_views(fitted_bchw / 255)
        return unfitting(*rows) @ scores_bkhw @ unfitting(*columns).T

    def _axes(self, height: int, width: int) -> tuple[Axis, Axis]:
        """How `perpixel.data.fit.plan_fit` places an image of this size."""
        if self.whole:
            longer, side = torch.sym_max(height, width), self.section.long_side  # type: ignore[no-untyped-call]
            assert side is not None
            sizes = [_rounded(length * side, longer) for length in (height, width)]
            inner = [size + 1 // (size + 1) for size in sizes]  # at least 1
            return Axis.make(inner[0], height, inner[0]), Axis.make(inner[1], width, inner[1])
        size = self.section.size
        if self.section.fit == "resize":
            return Axis.make(size[0], height, size[0]), Axis.make(size[1], width, size[1])
        rows, columns = _number(height), _number(width)
        factor = torch.minimum(size[0] / rows, size[1] / columns).clamp(max=1)
        return Axis.make(size[0], height, rows * factor), Axis.make(size[1], width, columns * factor)


class Axis(NamedTuple):
    """``original`` pixels are scaled to ``scaled`` ones, which begin at ``start`` among ``size``.

    Those that are tensors hold one whole number, float64.
    """

    original: int
    size: int
    length: Tensor
    scaled: Tensor
    start: Tensor

    @classmethod
    def make(cls, size: int, original: int, scaled: int | Tensor) -> Axis:
        """In the middle of ``size``; ``scaled`` is rounded, halves to the even number."""
        exact = scaled if isinstance(scaled, Tensor) else _number(scaled)
        whole = exact.round().clamp(min=1)
        return cls(original, size, _number(original), whole, torch.floor((size - whole) / 2))


def _rounded(dividend: int, divisor: int) -> int:
    """The quotient as Python rounds it, halves to the even number, in whole numbers alone: it becomes a size."""
    # Never of a negative number: the graph's division rounds towards 0.
    up, down = (2 * dividend + divisor) // (2 * divisor), (2 * dividend + divisor - 1) // (2 * divisor)
    return up - (up - down) * (up - up // 2 * 2)


def _number(value: int) -> Tensor:
    return torch.scalar_tensor(value, dtype=torch.float64)


def fitting(original: int, size: int, length: Tensor, scaled: Tensor, start: Tensor) -> Tensor:
    """The matrix, size x original, that scales an axis and mirrors the border into what is left of ``size``.

    Area average where it shrinks, bilinear where it grows, as in `perpixel.data.fit.fit_image`.
    """
    place_n1 = _mirrored(torch.arange(size, dtype=torch.float64) - start, scaled)[:, None]
    cell_m = torch.arange(original, dtype=torch.float64)
    step = length / scaled
    overlap_nm = torch.minimum((place_n1 + 1) * step, cell_m + 1) - torch.maximum(place_n1 * step, cell_m)
    area_nm = overlap_nm.clamp(min=0) / step
    return torch.where(step > 1, area_nm, _between(place_n1, step, length, cell_m)).to(torch.float32)


def unfitting(original: int, size: int, length: Tensor, scaled: Tensor, start: Tensor) -> Tensor:
    """The matrix, original x size, that brings scores back, as in `perpixel.data.fit.unfit_scores`: bilinear."""
    place_n1 = torch.arange(original, dtype=torch.float64)[:, None]
    cell_m = torch.arange(size, dtype=torch.float64) - start
    return _between(place_n1, scaled / length, scaled, cell_m).to(torch.float32)


def _mirrored(place_n: Tensor, count: Tensor) -> Tensor:
    """Places outside 0..count-1 reflected about the outermost pixels."""
    period = (2 * (count - 1)).clamp(min=1)
    around_n = place_n.abs()
    around_n = around_n - period * torch.floor(around_n / period)
    return torch.minimum(around_n, period - around_n)


def _between(place_n1: Tensor, step: Tensor, count: Tensor, cell_m: Tensor) -> Tensor:
    """Bilinear weights of ``count`` cells, pixel middles at halves (`align_corners=False`)."""
    at_n1 = torch.minimum(((place_n1 + 0.5) * step - 0.5).clamp(min=0), count - 1)
    return (1 - (at_n1 - cell_m).abs()).clamp(min=0)


class AnySize(nn.Module):
    """A `PixelModel` whose padding asks nothing of the size, which a graph of any size could not answer."""

    def __init__(self, model: PixelModel) -> None:
        super().__init__()
        self.pixel_model = model

    def forward(self, image_bchw: Tensor) -> Tensor:
        """As `PixelModel.forward`."""
        model = self.pixel_model
        x_bchw = (image_bchw - model.normalization_mean) / model.normalization_std
        if isinstance(model.network, RestorationNetwork):
            return self._at_the_end(x_bchw, model.network)
        height, width = image_bchw.shape[2:]
        starts: list[int] = []
        for axis, side in ((2, height), (3, width)):
            multiple = (side + model.divisor - 1) // model.divisor * model.divisor
            wanted = torch.sym_max(multiple, model.minimum_size)  # type: ignore[no-untyped-call]
            starts.append((wanted - side) // 2)
            x_bchw = _repeated(x_bchw, axis, starts[-1], wanted, side)
        output_bkhw: Tensor = model.network(x_bchw)
        # `narrow`, not a slice: the exporter then knows the length without being told where the slice ends.
        return output_bkhw.narrow(2, starts[0], height).narrow(3, starts[1], width)

    @staticmethod
    def _at_the_end(x_bchw: Tensor, network: RestorationNetwork) -> Tensor:
        """Networks of restoration pad below and on the right."""
        height, width = x_bchw.shape[2:]
        for axis, side in ((2, height), (3, width)):
            wanted = (side + network.divisor - 1) // network.divisor * network.divisor
            x_bchw = _repeated(x_bchw, axis, 0, wanted, side)
        return network.restore(x_bchw)[..., : height * network.scale, : width * network.scale]


def _repeated(x_bchw: Tensor, axis: int, start: int, size: int, side: int) -> Tensor:
    """An axis of ``side`` pixels that begins at ``start`` among ``size``; the outermost pixels are repeated."""
    index_n = (torch.arange(size) - start).clamp(min=0)
    return x_bchw.index_select(axis, torch.minimum(index_n, torch.scalar_tensor(side - 1, dtype=torch.int64)))
