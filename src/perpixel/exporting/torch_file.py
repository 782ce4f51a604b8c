"""From a predictor to files of PyTorch: a graph of `torch.export`, and weights alone.

There is no TorchScript: PyTorch 2.13 calls both ``torch.jit.script`` and ``torch.jit.trace`` deprecated in favour of
`torch.export`, and tracing cannot follow the sizes of which a graph for any size is made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.export import Dim

from perpixel.exporting.graph import ExportGraph
from perpixel.exporting.onnx_file import no_graph, quiet
from perpixel.inference.exported import METADATA_FILE
from perpixel.inference.predictor import Predictor
from perpixel.models import PixelModel


def write_torch_export(
    predictor: Predictor, path: Path, metadata: Mapping[str, Any], *, size: tuple[int, int], any_size: bool
) -> None:
    """Write the graph of a predictor in float32 as ``.pt2``; arguments and errors are `write_onnx`'s."""
    graph = ExportGraph(predictor, any_size=any_size).eval()
    example_bhwc = torch.zeros((2, *size, 3), dtype=torch.uint8)
    axes = {0: Dim.DYNAMIC} | ({1: Dim.DYNAMIC, 2: Dim.DYNAMIC} if any_size else {})
    facts = json.dumps({key: json.dumps(value) for key, value in metadata.items()})
    try:
        with torch.no_grad(), quiet():
            program = torch.export.export(graph, (example_bhwc,), dynamic_shapes=(axes,))
            torch.export.save(program, path, extra_files={METADATA_FILE: facts})
    except Exception as error:  # whatever the network does that the exporter does not know
        raise no_graph(error) from error
    finally:
        graph.restore()


def write_weights(model: PixelModel, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write ``.safetensors`` with metadata by which perpixel builds the network again."""
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    save_file(state, path, metadata={key: json.dumps(value) for key, value in metadata.items()})
