"""The stages of an encoder, from its output to its input, for staged unfreezing and layer-wise learning rates."""

from __future__ import annotations

from itertools import chain, pairwise

from torch import nn

__all__ = ["encoder_stages"]

_MOST_STAGES = 8
_GROUPS = 4


def encoder_stages(encoder: nn.Module) -> list[list[nn.Parameter]]:
    """All parameters of ``encoder``, each once, by stage: the stage nearest the output first, the stem last.

    Networks register their parts in the order in which they run them. A stage is a block of the trunk; single layers
    before the trunk are the stem, together with parameters of the encoder itself, such as the position embedding of a
    transformer; single layers behind a stage belong to it. Where there are more than eight stages (a transformer's
    blocks, for example), those behind the stem are put together in four groups of equal length.
    """
    stem, body = _split(encoder)
    if len(body) > _MOST_STAGES:
        starts = [round(group * len(body) / _GROUPS) for group in range(_GROUPS + 1)]
        body = [list(chain.from_iterable(body[start:end])) for start, end in pairwise(starts)]
    known = {id(parameter) for stage in [stem, *body] for parameter in stage}
    stem = [parameter for parameter in encoder.parameters() if id(parameter) not in known] + stem
    return [stage for stage in [*reversed(body), stem] if stage]


def _split(encoder: nn.Module) -> tuple[list[nn.Parameter], list[list[nn.Parameter]]]:
    """Parameters of the stem and of each stage behind it, from input to output."""
    parts = _parts(_unwrap(encoder))
    with_blocks = [part for part in parts if any(_is_row(module) for module in part.modules())]
    trunk = with_blocks[0] if len(with_blocks) == 1 and _is_row(with_blocks[0]) else None
    stem: list[nn.Parameter] = []
    body: list[list[nn.Parameter]] = []
    for part in parts:
        if part is trunk:
            body += [list(block.parameters()) for block in _parts(part)]
        elif trunk is None and _parts(part):
            body.append(list(part.parameters()))
        else:
            (body[-1] if body else stem).extend(part.parameters())
    return stem, body


def _parts(module: nn.Module) -> list[nn.Module]:
    """The children that hold parameters, without modules that do nothing but wrap another."""
    return [_unwrap(child) for child in _children(module)]


def _children(module: nn.Module) -> list[nn.Module]:
    return [child for child in module.children() if any(True for _ in child.parameters())]


def _unwrap(module: nn.Module) -> nn.Module:
    children = _children(module)
    own = any(True for _ in module.parameters(recurse=False))
    return _unwrap(children[0]) if len(children) == 1 and not own else module


def _is_row(module: nn.Module) -> bool:
    """Whether ``module`` is several blocks in a row."""
    return isinstance(module, nn.Sequential | nn.ModuleList) and len(_parts(module)) > 1
