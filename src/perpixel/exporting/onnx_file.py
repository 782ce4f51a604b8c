"""From a predictor to an ONNX file, and from that to OpenVINO."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

from perpixel.errors import RunError
from perpixel.exporting.graph import ExportGraph
from perpixel.inference.exported import missing
from perpixel.inference.predictor import Predictor

_OPSET = 18


def write_onnx(
    predictor: Predictor, path: Path, metadata: Mapping[str, Any], *, size: tuple[int, int], any_size: bool
) -> None:
    """Write the graph of a predictor in float32, batches of any number.

    Args:
        size: (height, width) of an image; of every image unless ``any_size``.

    Raises:
        RequestError: the packages of the extra ``onnx`` are not installed.
        RunError: the network has an operation, or asks a question about the size, that no graph can hold.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - the exporter's
    except ImportError:
        raise missing("onnx") from None
    graph = ExportGraph(predictor, any_size=any_size).eval()
    example_bhwc = torch.zeros((2, *size, 3), dtype=torch.uint8)
    axes = {0: Dim.DYNAMIC} | ({1: Dim.DYNAMIC, 2: Dim.DYNAMIC} if any_size else {})
    try:
        with torch.no_grad(), quiet():
            program = _exported(graph, example_bhwc, axes)
    except Exception as error:  # whatever the network does that the exporter does not know
        raise no_graph(error) from error
    finally:
        graph.restore()
    assert program is not None
    model = program.model_proto
    _name_axes(model, any_size)
    set_metadata(model, metadata)
    onnx.save(model, str(path))


def _exported(graph: ExportGraph, example_bhwc: torch.Tensor, axes: Mapping[int, Any]) -> Any:
    """The ONNX program; without the exporter's simplification where that fails, as of ZoeDepth."""
    from onnx_ir.passes import PassError

    def export(optimize: bool) -> Any:
        return torch.onnx.export(
            graph,
            (example_bhwc,),
            dynamo=True,
            input_names=["image"],
            output_names=graph.output_names,
            dynamic_shapes=(axes,),
            opset_version=_OPSET,
            optimize=optimize,
            verbose=False,
        )

    try:
        return export(True)
    except PassError:
        return export(False)


def write_openvino(source: Path, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write an ONNX file as OpenVINO's ``.xml`` and ``.bin``.

    Raises:
        RequestError: OpenVINO is not installed.
        RunError: OpenVINO does not know an operation of the network.
    """
    try:
        import openvino
    except ImportError:
        raise missing("openvino") from None
    try:
        model = openvino.Core().read_model(source)
    except RuntimeError as error:
        reasons = [line for line in str(error).splitlines() if line.startswith("--")]
        raise RunError(
            "OpenVINO cannot read this network",
            details=reasons[:1] or [str(error).splitlines()[0]],
            cure="take --format onnx, or use the run itself.",
        ) from None
    for key, value in metadata.items():
        model.set_rt_info(json.dumps(value), ["perpixel", key])
    openvino.save_model(model, str(path), compress_to_fp16=False)


def set_metadata(model: Any, metadata: Mapping[str, Any]) -> None:
    """Metadata of ONNX are texts: here JSON, a key each."""
    import onnx

    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in metadata.items()})


def _name_axes(model: Any, any_size: bool) -> None:
    """Axes of the input that are free have names; those of the outputs follow from the graph."""
    names = ["batch", "height", "width"] if any_size else ["batch"]
    renamed = {}
    for name, axis in zip(names, model.graph.input[0].type.tensor_type.shape.dim, strict=False):
        renamed[axis.dim_param] = name
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in renamed:
                axis.dim_param = renamed[axis.dim_param]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporters talk a lot to developers of exporters."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        rest = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(rest), contextlib.redirect_stderr(rest):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def no_graph(error: BaseException) -> RunError:
    """What an exporter's exception says to a person."""
    return RunError(
        "this network cannot be exported as a graph", details=[_first_line(error)], cure="use the run itself."
    )


def openvino_has_bf16() -> bool:
    """Whether OpenVINO is installed and this processor computes in bf16."""
    try:
        import openvino
    except ImportError:
        return False
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _first_line(error: BaseException) -> str:
    """What is at the bottom of a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
