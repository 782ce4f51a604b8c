"""A float ONNX file in int8: what becomes int8, calibrated on images, and which layers cost the most in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.exporting.onnx_file import quiet, set_metadata
from perpixel.inference.exported import ExportedPredictor, missing

_QUANTIZED = ["Conv", "ConvTranspose", "Gemm", "Add", "Relu", "MaxPool", "Concat", "Resize", "Clip"]
_LAYERS = ("Conv", "ConvTranspose", "Gemm")
_GROUPS = 16
_COMPARED_IMAGES = 8

Progress = Callable[[int, int], None]


def quantize(
    source: Path,
    path: Path,
    images: Sequence[NDArray[np.uint8]],
    metadata: Mapping[str, Any],
    *,
    in_float: Collection[str] = (),
    ranges: Path | None = None,
) -> None:
    """Write an ONNX file with the network in int8: weights a channel, activations static, calibrated on ``images``.

    What is before the first and after the last layer, such as resizing and the decision, stays in float. So does what
    the last layer puts out: in int8 it could be nothing beyond what it was for the calibration images.

    Args:
        in_float: names, as `layers_of` gives them, of layers that stay in float too.
        ranges: a file that keeps the ranges for the next call with the same source and the same images.
    """
    try:
        import onnx
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    except ImportError:
        raise missing("onnx") from None

    prepared = path.with_suffix(".prepared.onnx")
    model = onnx.shape_inference.infer_shapes(onnx.load(str(source)))
    onnx.save(model, str(prepared))
    kept = [node.name for node in _layers(model) if _name(node) in in_float]
    outside, last = outside_the_network(model)
    try:
        with quiet():
            quantize_static(
                str(prepared),
                str(path),
                _Calibration(images),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=_QUANTIZED,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[*outside, *kept],
                calibrate_method=CalibrationMethod.MinMax,
                calibration_cache_path=ranges,
            )
    finally:
        prepared.unlink()
    quantized = onnx.load(str(path))
    _free_outputs(quantized, last)
    set_metadata(quantized, metadata)
    onnx.save(quantized, str(path))


def layers_of(source: Path) -> list[str]:
    """Names of the layers of an ONNX file, in the order of its arithmetic; one that several views share counts once."""
    import onnx

    return list(dict.fromkeys(_name(node) for node in _layers(onnx.load(str(source)))))


def costliest(
    source: Path, images: Sequence[NDArray[np.uint8]], metadata: Mapping[str, Any], *, ranges: Path, progress: Progress
) -> list[list[str]]:
    """The layers in groups that follow each other in the network, those first whose int8 moves the scores the most.

    A group's cost is what the mean difference of the scores to the float file's falls by when that group alone stays in
    float.
    """
    layers = layers_of(source)
    count = min(_GROUPS, len(layers))
    groups = [layers[len(layers) * index // count : len(layers) * (index + 1) // count] for index in range(count)]
    some = images[:: -(-len(images) // _COMPARED_IMAGES)]
    wanted = _scores(source, some)
    trial = source.with_suffix(".trial.onnx")
    differences = []
    for number, group in enumerate(groups):
        progress(number, count)
        quantize(source, trial, images, metadata, in_float=group, ranges=ranges)
        gaps = [np.abs(own - other).mean() for own, other in zip(_scores(trial, some), wanted, strict=True)]
        differences.append(float(np.mean(gaps)))
    progress(count, count)
    trial.unlink()
    return [groups[index] for index in np.argsort(differences, kind="stable")]


def _scores(path: Path, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
    predictor = ExportedPredictor.from_file(path)
    return [predictor.scores([image_hwc])[0] for image_hwc in images]


def _layers(model: Any) -> list[Any]:
    return [node for node in model.graph.node if node.op_type in _LAYERS]


def _name(layer: Any) -> str:
    """Of its weights, which all views of a network share unless the graph computes them."""
    return str(layer.input[1])


class _Calibration:
    """Images one by one, as onnxruntime's calibration asks for them."""

    def __init__(self, images: Sequence[NDArray[np.uint8]]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next input, None after the last."""
        image_hwc = next(self._images, None)
        return None if image_hwc is None else {"image": image_hwc[None]}

    def __iter__(self) -> _Calibration:
        return self

    def __next__(self) -> dict[str, NDArray[np.uint8]]:
        if (item := self.get_next()) is None:
            raise StopIteration
        return item


def outside_the_network(model: Any) -> tuple[list[str], list[str]]:
    """Names of the nodes that no layer leads to or that lead to none, and of the layers that lead to no other."""
    nodes = list(model.graph.node)
    is_layer = [node.op_type in _LAYERS for node in nodes]
    after: set[str] = set()
    has_layer_before = []
    for node, layer in zip(nodes, is_layer, strict=True):  # nodes are in the order of their arithmetic
        reached = layer or any(name in after for name in node.input)
        has_layer_before.append(reached)
        after.update(node.output if reached else ())
    before: set[str] = set()
    leads_on = [False] * len(nodes)
    for index in reversed(range(len(nodes))):
        leads_on[index] = any(name in before for name in nodes[index].output)
        before.update(nodes[index].input if leads_on[index] or is_layer[index] else ())
    facts = list(zip(nodes, is_layer, has_layer_before, leads_on, strict=True))
    outside = [node.name for node, layer, reached, leads in facts if not reached or not (leads or layer)]
    return outside, [node.name for node, layer, _, leads in facts if layer and not leads]


def _free_outputs(model: Any, layers: Collection[str]) -> None:
    """Take the rounding to int8 away that follows these layers."""
    graph = model.graph
    for layer in [node for node in graph.node if node.name in layers]:
        rounding = [
            node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == layer.output[0]
        ]
        back = [node for node in graph.node if rounding and node.input and node.input[0] == rounding[0].output[0]]
        if not back:
            continue
        old, new = layer.output[0], back[0].output[0]
        graph.node.remove(rounding[0])
        graph.node.remove(back[0])
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for initializer in [item for item in graph.initializer if item.name not in used]:
        graph.initializer.remove(initializer)
