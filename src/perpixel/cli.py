"""The command line: parse, call, show. It holds no decision."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from perpixel import api, cli_data, console
from perpixel import cli_options as given
from perpixel.errors import PerpixelError

app = typer.Typer(
    name="perpixel",
    help="From a folder of images and per-pixel maps to a model you can trust.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"perpixel {metadata.version('perpixel')}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", help="show the version", callback=_version, is_eager=True)]


@app.callback()
def _common(debug: given.Debug = False, version: Version = False) -> None:
    pass


for command in (cli_data.recipes, cli_data.synthesize, cli_data.inspect, cli_data.init, cli_data.shard):
    app.command()(command)


@app.command()
def train(
    recipe: given.RecipeName,
    data: given.Data = None,
    overrides: given.Overrides = None,
    run: given.RunOption = None,
    resume: given.Resume = False,
    force: given.Force = False,
    devices: given.Devices = None,
    nodes: given.Nodes = None,
    launcher: given.Launcher = "local",
    time: given.Time = None,
    partition: given.Partition = None,
    gpus: given.Gpus = None,
    dry_run: given.DryRun = False,
    budget: given.Budget = None,
) -> None:
    """Train a recipe, after a quick look at its data; Ctrl-C leaves a run that --resume continues."""
    slurm = api.Slurm.asked(launcher, time=time, partition=partition, gpus=gpus, dry_run=dry_run)
    settings = overrides or ()
    if slurm is not None and dry_run:
        typer.echo(api.sbatch_script(recipe, slurm=slurm, overrides=settings, run=run, resume=resume))
        return
    done = api.train(
        recipe,
        data=data,
        overrides=settings,
        run=run,
        resume=resume,
        force=force,
        devices=devices,
        nodes=nodes,
        slurm=slurm,
        budget=budget,
        console=console.terminal(),
    )
    typer.echo(done.path)


@app.command()
def evaluate(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN|FILE...", help="run folders, grid folders, or exported files")
    ],
    subset: Annotated[str, typer.Option("--subset", help="val or test")] = "val",
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", help="other data: a folder, or a recipe file that describes one; repeatable"),
    ] = None,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="depth, images: is what views disagree on what is wrong?")
    ] = False,
) -> None:
    """The figures of a run on a subset or on other data; several runs or data sets in one table, with drops."""
    result = api.evaluate(runs, subset=subset, data=data, uncertainty=uncertainty, console=console.terminal())
    typer.echo(console.in_red(result["table"]))  # without colours where it is piped


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="run folders, or grid folders")],
    subset: Annotated[str, typer.Option("--subset", help="val or test")] = "val",
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", help="other data: a folder, or a recipe file that describes one; repeatable"),
    ] = None,
) -> None:
    """Which run is better on the same images, by how much, and how sure that is."""
    typer.echo(api.compare(runs, subset=subset, data=data, console=console.terminal()).table())


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="a run, a grid, or several runs to compare")],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="a .html or .md file; with --figures a folder")
    ] = Path("report.html"),
    subset: Annotated[str, typer.Option(help="of several runs: the subset that they are compared on")] = "test",
    figures: Annotated[bool, typer.Option("--figures", help="the pictures and plots alone, as PNGs")] = False,
) -> None:
    """Write a page that a person reads from top to bottom: the answer, what it rests on, pictures, how to repeat it."""
    typer.echo(f"written: {api.report(runs, out, subset=subset, figures=figures, console=console.terminal())}")


@app.command()
def before_after(
    recipe: given.RecipeName,
    data: given.Data = None,
    other: Annotated[
        list[Path] | None, typer.Option("--other", help="other data to compare on, as evaluate takes them; repeatable")
    ] = None,
    overrides: given.Overrides = None,
    run: given.RunOption = None,
    resume: given.Resume = False,
    force: given.Force = False,
) -> None:
    """Score a recipe's starting weights, fine-tune them, score again: what changed, with intervals and pictures."""
    folder = api.before_after(
        recipe,
        data=data,
        others=other,
        overrides=overrides or (),
        run=run,
        resume=resume,
        force=force,
        console=console.terminal(),
    )
    typer.echo(console.in_red((folder / "before_after.md").read_text(encoding="utf-8")))


@app.command()
def ensemble(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="run folders; folds of one recipe too")],
    out: Annotated[Path | None, typer.Option("--out", help="the folder to write; default: runs/NAME-ensemble")] = None,
) -> None:
    """Average several runs: a folder that predicts and is evaluated as a run is, with its figures beside theirs."""
    typer.echo(api.ensemble(runs, out, console=console.terminal())["table"])


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN|FILE", help="a run folder, a grid folder, or an exported file")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="image files or folders")],
    out: Annotated[Path, typer.Option("--out", help="the folder to write")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="inference.KEY=VALUE", help="use the model otherwise; repeatable"),
    ] = None,
) -> None:
    """Predict images at their original sizes: values and pictures of each, and timing.json."""
    written = api.predict(run, images, out, overrides=overrides or (), console=console.terminal())
    typer.echo(f"{len(written)} predictions in {out}")


@app.command()
def grid(
    recipe: given.RecipeName,
    vary: Annotated[list[str], typer.Option("--vary", metavar="KEY=V,V", help="an axis of the grid; repeatable")],
    data: given.Data = None,
    overrides: given.Overrides = None,
    run: given.RunOption = None,
    resume: given.Resume = False,
    force: given.Force = False,
    launcher: given.Launcher = "local",
    time: given.Time = None,
    partition: given.Partition = None,
    gpus: given.Gpus = None,
    dry_run: given.DryRun = False,
) -> None:
    """Train every combination and compare them: a table, one plot of the curves, the best of all."""
    slurm = api.Slurm.asked(launcher, time=time, partition=partition, gpus=gpus, dry_run=dry_run)
    settings = overrides or ()
    if slurm is not None and dry_run:
        typer.echo(api.sbatch_script(recipe, vary, slurm=slurm, overrides=settings, run=run, resume=resume))
        return
    folder = api.grid(
        recipe,
        vary,
        data=data,
        overrides=settings,
        run=run,
        resume=resume,
        force=force,
        slurm=slurm,
        console=console.terminal(),
    )
    typer.echo((folder / "table.md").read_text(encoding="utf-8"))


@app.command()
def search(
    recipe: given.RecipeName,
    over: Annotated[
        list[str],
        typer.Option("--over", metavar="KEY=RANGE", help="1e-4..1e-2 log, 4..32, or values: a,b; repeatable"),
    ],
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="how many in all")] = None,
    budget: Annotated[float | None, typer.Option("--budget", metavar="HOURS", help="no trial begins later")] = None,
    pruner: Annotated[str, typer.Option("--pruner", help="ends poor trials: median, hyperband or none")] = "median",
    data: given.Data = None,
    overrides: given.Overrides = None,
    run: given.RunOption = None,
    resume: given.Resume = False,
    force: given.Force = False,
) -> None:
    """Let Optuna choose values of recipe keys; poor trials end early. Results as those of a grid; needs [search]."""
    folder = api.search(
        recipe,
        over,
        trials=trials,
        hours=budget,
        pruner=pruner,
        data=data,
        overrides=overrides or (),
        run=run,
        resume=resume,
        force=force,
        console=console.terminal(),
    )
    typer.echo((folder / "table.md").read_text(encoding="utf-8"))


@app.command()
def export(
    run: given.RunFolder,
    out: Annotated[Path, typer.Option("--out", help="the file to write: .onnx, .xml, .pt2 or .safetensors")],
    form: Annotated[str, typer.Option("--format", help="onnx, openvino, torch-export or safetensors")] = "onnx",
    int8: Annotated[bool, typer.Option("--int8", help="the network in whole numbers of 8 bits")] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option("--calibrate", metavar="DIR", help="of --int8 and --fastest: images like those it will see"),
    ] = None,
    fastest: Annotated[
        bool, typer.Option("--fastest", help="measure what this machine has, write the fastest; --out without ending")
    ] = False,
    data: given.Data = None,
) -> None:
    """One file from pixels to prediction, checked against the run; predict and evaluate take it like a run."""
    shown = console.terminal()
    done = api.export(run, out, form=form, int8=int8, calibrate=calibrate, fastest=fastest, data=data, console=shown)
    typer.echo(out.with_name(done["file"]))


@app.command()
def submit(
    run: given.RunFolder,
    out: Annotated[Path, typer.Option("--out", help="the CSV to write")],
    data: given.Data = None,
) -> None:
    """Predict the unlabelled images and write the competition's submission, read back and compared."""
    typer.echo(api.submit(run, out, data=data, console=console.terminal()))


@app.command()
def pack(
    run: Annotated[Path, typer.Argument(metavar="RUN|GRID", help="the folder of a run or of a grid")],
    out: Annotated[Path, typer.Option("--out", help="the zip file to write")],
) -> None:
    """Zip the models and results of a run or a grid."""
    typer.echo(api.pack(run, out))


@app.command()
def page(
    runs: given.Runs = api.RUNS,
    images: given.Images = None,
    host: given.Host = "127.0.0.1",
    port: given.Port = 7860,
    auth: given.Auth = None,
) -> None:
    """A page to look at runs, and at what they do to your images; needs the extra perpixel[page]."""
    from perpixel.app.server import serve as serve_app

    serve_app(runs, images=images, host=host, port=port, auth=auth, pictures=True, console=console.terminal())


@app.command()
def serve(
    runs: given.Runs = api.RUNS, host: given.Host = "127.0.0.1", port: given.Port = 7860, auth: given.Auth = None
) -> None:
    """The same without pictures: HTTP under /api, described by /api/openapi.json."""
    from perpixel.app.server import serve as serve_app

    serve_app(runs, images=None, host=host, port=port, auth=auth, pictures=False, console=console.terminal())


def main() -> None:
    """Entry point: exit status 0, 1 for a run that failed, 2 for a request that was wrong."""
    debug = "--debug" in sys.argv
    try:
        app([argument for argument in sys.argv[1:] if argument != "--debug"])
    except (PerpixelError, OSError) as error:
        if debug:
            raise
        text = error.text() if isinstance(error, PerpixelError) else f"{error.filename or 'a file'}: {error.strerror}"
        console.show_error(f"Error: {text}")
        sys.exit(error.exit_status if isinstance(error, PerpixelError) else 2 if isinstance(error, _WRONG_PATHS) else 1)
    except SystemExit as stop:
        if stop.code != _CTRL_C:
            raise
        console.show_error("Interrupted.")
        sys.exit(1)


_CTRL_C = 130  # what typer makes of it
# A path that cannot be used is a wrong request; other trouble of the system, such as a full disk, a failed run.
_WRONG_PATHS = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
