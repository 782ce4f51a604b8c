"""The model card beside an exported file: what it is, how good, and where its limits are, in Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perpixel.evaluation.evaluate import read_evaluation
from perpixel.reporting.markdown import markdown_table
from perpixel.run import Run

_OWN_LICENCE = (
    "The weights began as: {source}. perpixel does not know under which licence these were published, nor that of the"
    " training data; look both up before this file is passed on."
)


def model_card(run: Run, file: Path, sidecar: Mapping[str, Any]) -> str:
    """Markdown; ``sidecar`` is what the JSON beside the file holds."""
    recipe, metadata = run.recipe, sidecar["metadata"]
    fastest = sidecar.get("fastest")
    sections = {
        f"# {recipe.name}: {file.name}": recipe.description or "A model trained by perpixel.",
        "## Input and output": _interface(metadata),
        "## Data": _data(run),
        "## Figures": _figures(run, sidecar),
        "## This file beside its run": _parity(sidecar),
        **({"## Other ways, on that machine": _others(sidecar)} if fastest else {}),
        "## Limits": _limits(metadata),
        "## Licence": _OWN_LICENCE.format(source=run.manifest.get("weights", {}).get("source", "not recorded")),
    }
    return "\n\n".join(f"{title}\n\n{text}" for title, text in sections.items()) + "\n"


def _interface(metadata: Mapping[str, Any]) -> str:
    if not metadata["tensors"]:
        return "Weights alone: `perpixel predict` and `perpixel evaluate` take the file in place of the run."
    rows = [[name, values["type"], values["shape"], values["meaning"]] for name, values in metadata["tensors"].items()]
    lines = ["\n".join(markdown_table(["name", "type", "shape", "meaning"], rows, left=4))]
    if classes := metadata["view"].get("names"):
        lines.append("Classes, from 0: " + ", ".join(classes) + ".")
    return "\n\n".join(lines)


def _data(run: Run) -> str:
    subsets = list(run.read_split()[0].values())
    counts = ", ".join(f"{subsets.count(name)} {name}" for name in sorted(set(subsets)))
    fingerprint = run.manifest.get("data", {}).get("fingerprint", "not recorded")
    return f"Pairs of an image and its truth: {counts}. Fingerprint of the data: `{fingerprint}`."


def _figures(run: Run, sidecar: Mapping[str, Any]) -> str:
    texts = []
    for subset in ("test", "val"):
        stored = read_evaluation(run, subset)
        if stored is None:
            continue
        infos = stored["meaning"]
        rows = [
            [key, figure_text(value), infos[key]["direction"]]
            for key, value in stored["figures"].items()
            if key in infos
        ]
        note = (
            " The best epoch was chosen on this subset: the figures are a little too good." if subset == "val" else ""
        )
        texts.append(
            f"Of the run on `{subset}`, {stored['protocol']['images']} images.{note}\n\n"
            + "\n".join(markdown_table(["figure", "value", "better"], rows))
        )
    return "\n\n".join(texts) or "The run holds no evaluation."


def _parity(sidecar: Mapping[str, Any]) -> str:
    parity = sidecar["parity"]
    rows = [
        [f"{check['width']}x{check['height']}", str(check["batch"]), f"{check['largest']:.2e}", f"{check['mean']:.2e}"]
        for check in parity["checks"]
    ]
    key = parity["monitor"]
    values = parity["figures"][key]
    seconds = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in parity["seconds_per_image"].items())
    return (
        "\n".join(markdown_table(["image", "batch", "largest difference", "mean difference"], rows))
        + "\n\nDifferences are of scores, as parts of the largest score.\n\n"
        + figures_line(parity["precision_of_run"], values, key, parity["images"])
        + "."
        + (f" {in_float_line(parity['in_float'])}." if parity["in_float"] else "")
        + f"\n\nOne image, warm, median: {seconds}; {parity['machine']}."
    )


def in_float_line(layers: Sequence[int]) -> str:
    """Of int8: how many of how many layers are not."""
    return f"In float stay {layers[0]} of {layers[1]} layers"


def figures_line(precision: str, values: Mapping[str, float | None], monitor: str, images: int) -> str:
    """The monitored figure of run and file; of a run that computes in another ``precision`` also in float32."""
    run = figure_text(values["run"])
    if values["run"] != values["reference"]:
        run = f"{run} in {precision}, {figure_text(values['reference'])} in float32"
    return f"{monitor} on {images} validation images: run {run}; file {figure_text(values['file'])}"


def _others(sidecar: Mapping[str, Any]) -> str:
    parity = sidecar["parity"]
    return "\n".join(fastest_table(sidecar["fastest"], parity["monitor"], parity["seconds_per_image"]["run"]))


def fastest_table(rows: Sequence[Mapping[str, Any]], monitor: str, seconds: float) -> list[str]:
    """Each way of `perpixel export --fastest` beside the run's own ``seconds`` an image, in Markdown."""
    cells = [["run itself", f"{1000 * seconds:.1f}", "1.00", "", "", ""]]
    for row in rows:
        if "refused" in row:
            cells.append([row["way"], "", "", "", "", row["refused"]])
            continue
        own = [
            f"{1000 * row['seconds']:.1f}",
            f"{row['times']:.2f}",
            f"{row['largest']:.1e}",
            figure_text(row[monitor]),
        ]
        cells.append([row["way"], *own, ""])
    return markdown_table(["way", "ms an image", "times the run", "largest difference", monitor, "left out"], cells)


def _limits(metadata: Mapping[str, Any]) -> str:
    lines = ["It was judged on images like those of the training data alone; on others, evaluate it before use."]
    if metadata["fixed_size"]:
        height, width = metadata["fixed_size"]
        lines.append(f"It takes images of {width}x{height} pixels only: at other sizes the graph is not right.")
    lines += [f"Not in the graph: {text}. `perpixel predict` does it." for text in metadata["left_to_caller"]]
    lines.append(f"Inference settings of the recipe: `{json.dumps(metadata['inference'])}`.")
    return "\n".join(f"- {line}" for line in lines)


def figure_text(value: float | None) -> str:
    """A figure in a text."""
    return "none" if value is None else f"{value:.5g}"
