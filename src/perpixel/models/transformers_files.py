"""Depth models of the transformers library from the model hub, a local folder, or a file of perpixel's own.

Nothing is ever unpickled and no code is taken from a repository: configurations are JSON, weights are safetensors.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from perpixel._torchvision import ensure_torchvision
from perpixel.errors import RequestError, WeightsError
from perpixel.models.network import PixelModel, WeightsReport
from perpixel.models.transformers_depth import DEPTH_FAMILIES, DepthTransformer, Family, preprocessing_of
from perpixel.models.weights import HubFile, load_weights, require_hub

__all__ = ["build_depth_transformer"]

_CONFIG, _PREPROCESSOR = "config.json", "preprocessor_config.json"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_FILES = (".safetensors", ".pth", ".pt", ".bin")
_EXAMPLE = {
    "zoedepth": "Intel/zoedepth-nyu",
    "depth-anything": "depth-anything/Depth-Anything-V2-Small-hf",
    "dpt-depth": "Intel/dpt-large",
}
# What has no part in computing depth may be absent.
_UNUSED = ("mask_token",)
_SHOWN = 3


def build_depth_transformer(architecture: str, encoder: str, weights: str) -> PixelModel:
    """A depth estimator of the transformers library; ``model.network.output_kind`` says what it puts out.

    Args:
        architecture: a key of `DEPTH_FAMILIES`.
        encoder: a repository of the model hub (``Intel/zoedepth-nyu``) or a local folder with its ``config.json``.
        weights: ``none``: random, by the configuration of ``encoder``; ``imagenet`` or ``pretrained``: what ``encoder``
            comes with (``imagenet`` because it is the recipe's default); a folder as the library writes it, with
            configuration and weights; or the ``.safetensors`` file of a trained `PixelModel`, which needs no folder.

    Raises:
        RequestError: the library is not installed, or ``encoder`` is no configuration of this architecture.
        WeightsError: the weights cannot be had, are pickled, or leave the encoder random.
    """
    ensure_torchvision()
    _require_library()
    family = DEPTH_FAMILIES[architecture]
    if Path(weights).suffix in _FILES:
        model = _build(architecture, family, _description_in(Path(weights)), where=weights)
        model.weights_report = load_weights(model, encoder=encoder, weights=weights, hub=None)
        return model
    place = encoder if weights in ("none", "imagenet", "pretrained") else weights
    folder = _folder(architecture, place, with_weights=weights != "none")
    description = {
        "config": _read_json(folder / _CONFIG),
        "preprocessor": _read_json(folder / _PREPROCESSOR) if (folder / _PREPROCESSOR).is_file() else {},
    }
    if weights == "none":
        return _build(architecture, family, description, where=place)
    _require_safetensors(folder, place)
    return _build(architecture, family, description, where=place, folder=folder)


def _require_library() -> None:
    try:
        import transformers  # noqa: F401
    except ModuleNotFoundError as error:
        raise RequestError(
            "this architecture needs the package transformers, which is not installed",
            cure="pip install 'perpixel[depth]'",
        ) from error


def _folder(architecture: str, place: str, *, with_weights: bool) -> Path:
    """The folder with the files of ``place``, fetched from the hub if need be."""
    folder = Path(place).expanduser()
    if folder.is_dir():
        if (folder / _CONFIG).is_file():
            return folder
        raise WeightsError(
            f"there is no {_CONFIG} in this folder",
            where=folder,
            rule="A folder of the transformers library holds config.json, model.safetensors and, as a rule, "
            "preprocessor_config.json.",
            cure="Name the folder that holds them.",
        )
    if re.fullmatch(r"[\w.-]+/[\w.-]+", place):
        return _from_hub(place, with_weights=with_weights)
    raise RequestError(
        f"{architecture} is built from a repository of the model hub or a local folder, and this is neither",
        where=place,
        cure=f"Set encoder to a folder, or to a repository such as {_EXAMPLE[architecture]}.",
    )


def _from_hub(repository: str, *, with_weights: bool) -> Path:
    from huggingface_hub import snapshot_download

    wanted = [_CONFIG, _PREPROCESSOR, *(["model*.safetensors", _WEIGHTS[1]] if with_weights else [])]
    with contextlib.suppress(Exception):  # not there, or not whole: the hub is asked
        folder = Path(snapshot_download(repository, allow_patterns=wanted, local_files_only=True))
        if (folder / _CONFIG).is_file() and (not with_weights or any((folder / name).is_file() for name in _WEIGHTS)):
            return folder
    try:
        require_hub(HubFile(repository, _CONFIG))
        return Path(snapshot_download(repository, allow_patterns=wanted))
    except Exception as error:  # network, proxy, missing repository, full disk: the cure is the same
        first = next(iter(str(error).splitlines()), "no message")
        raise WeightsError(
            "this is no folder here, and neither in the local cache nor to be had from the model hub",
            where=repository,
            details=[f"{type(error).__name__}: {first}"],
            cure=f"Fetch config.json, preprocessor_config.json and model.safetensors of {repository} on a machine that "
            "reaches the hub, into one folder, and pass --set model.encoder=FOLDER; or copy the hub's cache and point "
            "HF_HOME at it.",
        ) from error


def _require_safetensors(folder: Path, place: str) -> None:
    if any((folder / name).is_file() for name in _WEIGHTS):
        return
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pth", ".pt", ".ckpt"))
    if pickled:
        raise WeightsError(
            f"the weights are pickled: {', '.join(pickled)}",
            where=place,
            rule="Pickled files may run code when they are read, so perpixel reads model.safetensors alone.",
            cure="Take a revision with model.safetensors, or convert the file where it can be trusted: load the model "
            "with the transformers library and call save_pretrained(FOLDER).",
        )
    raise WeightsError(
        f"there are no weights here ({_WEIGHTS[0]})",
        where=place,
        cure="Add the file, or set weights to none: random weights.",
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"this file cannot be read: {error}", where=path, cure="Fetch it again.") from error
    if not isinstance(content, dict):
        raise WeightsError("this file holds no settings", where=path, cure="Fetch it again.")
    return content


def _description_in(file: Path) -> dict[str, Any]:
    """The configuration that a trained model keeps with its weights."""
    try:
        with safe_open(file, framework="pt") as content:
            description: dict[str, Any] = json.loads(bytes(content.get_tensor("network.description").tolist()))
        return description
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            "no such file" if not file.exists() else "this file holds no trained depth model of perpixel",
            where=file,
            rule="weights is none, pretrained, a folder of the transformers library, or the best.safetensors of a run.",
            cure="Name the folder with config.json and model.safetensors instead of the file.",
        ) from error


def _build(
    architecture: str, family: Family, description: Mapping[str, Any], *, where: str, folder: Path | None = None
) -> PixelModel:
    """The model of ``description``; with the weights of ``folder``, or random."""
    import transformers

    raw = dict(description["config"])
    if raw.get("model_type") != family.model_type:
        names = {other.model_type: name for name, other in DEPTH_FAMILIES.items()}
        found = str(raw.get("model_type"))
        raise RequestError(
            f"this is a model of type {found}, not {family.model_type}",
            where=where,
            cure=f"Set architecture to {names[found]}."
            if found in names
            else f"Take one of type {family.model_type}, for example {_EXAMPLE[architecture]}.",
        )
    report = WeightsReport(source="none")
    with _quiet():
        try:
            config = transformers.AutoConfig.for_model(raw.pop("model_type"), **_without_dtype(raw))
            preprocessing = preprocessing_of(family, config, description["preprocessor"])
            kind = transformers.AutoModelForDepthEstimation
            estimator = kind.from_config(config) if folder is None else None
        except Exception as error:  # the library raises many kinds, and all mean the same to the user
            raise WeightsError(
                f"no {architecture} can be built from this configuration: {_one_line(error)}",
                where=where,
                cure="Correct config.json or preprocessor_config.json, or fetch them again.",
            ) from error
        if folder is not None:
            estimator, report = _pretrained(kind, config, folder, where)
    network = DepthTransformer(estimator, preprocessing, description)
    if folder is None:
        network.start_decoder()
    model = PixelModel(network, mean=preprocessing.mean, std=preprocessing.std, divisor=1, minimum_size=1)
    model.weights_report = report
    return model.train()


def _pretrained(kind: Any, config: Any, folder: Path, where: str) -> tuple[Any, WeightsReport]:
    """The network with the weights of ``folder``, in float32, and the names of all that did not find its place."""
    try:
        estimator, info = kind.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise WeightsError(
            f"the weights cannot be read: {_one_line(error)}", where=folder, cure="Fetch model.safetensors again."
        ) from error
    other_shape = {str(entry[0] if isinstance(entry, tuple) else entry) for entry in info["mismatched_keys"]}
    report = WeightsReport(
        source=f"{'folder' if Path(where).is_dir() else 'hub'} {where}, whole model",
        file=str(folder / next(name for name in _WEIGHTS if (folder / name).is_file())),
        missing=sorted({*info["missing_keys"], *other_shape}),
        unexpected=sorted({*info["unexpected_keys"], *other_shape}),
    )
    report.loaded = len(estimator.state_dict()) - len(report.missing)
    _require_encoder([name for name in report.missing if name.startswith(("backbone.", "dpt."))], report)
    return estimator, report


def _require_encoder(missing: list[str], report: WeightsReport) -> None:
    """A half-loaded encoder is never what was meant, and no later figure would tell."""
    wanted = [name for name in missing if not name.endswith(_UNUSED)]
    if wanted:
        raise WeightsError(
            f"{len(wanted)} tensors of the encoder are not in this file, or have another shape there",
            where=report.file,
            details=[
                f"wanted: {', '.join(wanted[:_SHOWN])}",
                f"in the file, without a place: {', '.join(report.unexpected[:_SHOWN]) or 'nothing'}",
            ],
            rule="A file of weights fills the whole encoder.",
            cure="Use the weights and the config.json of one and the same repository.",
        )


def _without_dtype(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration for a network in float32, whatever its weights were saved in."""
    dropped = ("dtype", "torch_dtype")
    return {
        key: _without_dtype(value) if isinstance(value, Mapping) else value
        for key, value in raw.items()
        if key not in dropped
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The library prints bars and tables of its own; what they say stands in the report."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
