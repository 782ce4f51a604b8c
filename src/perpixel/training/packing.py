"""A tree of plain values and tensors as one safetensors file: nothing in it is ever unpickled."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from perpixel.errors import RunError
from perpixel.run import write_atomic

_STRUCTURE = "perpixel"


def save_tree(path: Path, tree: Any) -> None:
    """Write nested dicts, lists, tuples, numbers, texts, None and tensors; atomically."""
    tensors: dict[str, torch.Tensor] = {}
    structure = _flatten(tree, tensors)
    write_atomic(path, save(tensors, {_STRUCTURE: json.dumps(structure)}))


def load_tree(path: Path) -> Any:
    """Read what `save_tree` wrote; raises RunError when the file is damaged."""
    try:
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        structure = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_STRUCTURE])
        return _restore(structure, load(content))
    except (SafetensorError, struct.error, ValueError, KeyError, MemoryError) as error:
        raise RunError(f"this checkpoint is damaged ({type(error).__name__})", where=path) from None


def _flatten(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        # safetensors refuses shared memory: each leaf gets its own.
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_flatten(key, tensors), _flatten(item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [_flatten(item, tensors) for item in value]}
    if isinstance(value, float):
        return {"float": value.hex()}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__}")


def _restore(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "float":
        return float.fromhex(content)
    if kind == "dict":
        return {_restore(key, tensors): _restore(item, tensors) for key, item in content}
    items = [_restore(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items
