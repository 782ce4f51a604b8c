"""The options that several commands of the command line share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perpixel.errors import RequestError

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE|FILE", help="a built-in recipe, or a YAML file")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="a run folder; a grid folder stands for its best run")]
Data = Annotated[Path | None, typer.Option("--data", help="the data folder")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="override a key; repeatable")]
RunOption = Annotated[Path | None, typer.Option("--run", help="the folder to write; default: the next free runs/NAME")]
Resume = Annotated[bool, typer.Option("--resume", help="continue where it stopped")]
Force = Annotated[bool, typer.Option("--force", help="train in spite of errors in the data; the run remembers them")]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error; may stand anywhere")]
Devices = Annotated[int | None, typer.Option("--devices", help="train with so many processes a machine, a GPU each")]
Nodes = Annotated[int | None, typer.Option("--nodes", help="on so many machines, under torchrun or srun")]
Launcher = Annotated[str, typer.Option("--launcher", help="local, or slurm: in jobs of a cluster")]
Time = Annotated[str | None, typer.Option("--time", help="slurm: limit of a job, as in 90 (minutes) or 8:00:00")]
Partition = Annotated[str | None, typer.Option("--partition", help="slurm: default: the cluster's own")]
Gpus = Annotated[int | None, typer.Option("--gpus", help="slurm: of a job; default 1")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="slurm: print the script and submit nothing")]
Budget = Annotated[
    str | None,
    typer.Option("--budget", metavar="30m", help="choose the number of epochs so that all ends in this time"),
]
Runs = Annotated[Path, typer.Option("--runs", help="the folder whose runs are served")]
Images = Annotated[Path | None, typer.Option("--images", help="a folder of images that visitors may choose from")]
Host = Annotated[str, typer.Option("--host", help="the address to listen at")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535)]
Auth = Annotated[Path | None, typer.Option("--auth", metavar="FILE", help="a line name:password for each visitor")]

# Of `synthesize`: each generator takes some of them.
Size = Annotated[
    str | None, typer.Option("--size", metavar="WIDTHxHEIGHT", help="of desert 960x540, night 512x320, objects 256x256")
]
Place = Annotated[str | None, typer.Option("--place", help="desert: A, B or C; default: all three, mixed")]
RaysPerPixel = Annotated[int | None, typer.Option("--spp", help="desert, objects: rays a pixel; default 16")]
Processes = Annotated[int | None, typer.Option("--processes", help="all but salt: rendered at once")]
Style = Annotated[str | None, typer.Option("--style", help="objects: before a sky (default), or in a room")]
Encoding = Annotated[
    str | None, typer.Option("--encoding", help="objects: metric (default; millimetres) or srgb-radial (system 5)")
]
Captures = Annotated[int | None, typer.Option("--captures", help="objects: images of one scene; default 15")]
From = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="DIR|desert|objects",
        help="night: a folder of photographs, or what is rendered; default: scikit-image's",
    ),
]
Scale = Annotated[int | None, typer.Option("--scale", help="night: the dark picture is so much smaller")]
NightTruth = Annotated[str | None, typer.Option("--truth", help="night: clean pictures as dark, or of the day")]


def as_size(text: str | None) -> tuple[int, int] | None:
    """``960x540`` as (width, height)."""
    if text is None:
        return None
    width, times, height = text.partition("x")
    if not (times and width.isdecimal() and height.isdecimal()):
        raise RequestError(f"--size is {text!r}", rule="a size is WIDTHxHEIGHT in pixels, such as 960x540.")
    return int(width), int(height)
