"""The commands. Each imports what it needs when it runs, so that ``--help`` is quick."""

from __future__ import annotations

import json as json_
import sys
import time
import warnings
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omniop.cli.demo import demo
from omniop.conformance.__main__ import app as conformance
from omniop.terminal import UsageError, console, device_names, told

if TYPE_CHECKING:
    from omniop.dispatcher.session import Session

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: [bold]omniop devices[/], then: [bold]omniop run model.onnx --random[/]",
)

app.command()(demo)
app.add_typer(conformance, name="conformance")


class Fallback(StrEnum):
    """What happens to a node that none of the chosen devices can run."""

    warn = "warn"
    error = "error"
    silent = "silent"


Model = Annotated[Path, typer.Argument(metavar="MODEL", show_default=False, help="An ONNX file.")]
DeviceOption = Annotated[
    list[str] | None,
    typer.Option(
        *("--device", "-d"),
        metavar="NAME",
        help="Where to run, as [bold]omniop devices[/] calls it; repeatable, best first. By default cpu.",
        autocompletion=device_names,
    ),
]
InputOption = Annotated[
    list[str] | None, typer.Option("--input", "-i", metavar="NAME=FILE.npy", help="An input's array; repeatable.")
]
RandomOption = Annotated[bool, typer.Option("--random", help="Fill inputs that are not given with random data.")]
DimOption = Annotated[
    list[str] | None,
    typer.Option(
        "--dim", metavar="NAME=SIZE", help="With --random: a symbolic dim's size; INPUT:AXIS if it has no name."
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, metavar="N", help="With --random: another seed gives other data.")]
FallbackOption = Annotated[
    Fallback, typer.Option(help="A node that no device of yours can run: goes elsewhere, or is an error.")
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, metavar="N", help="Of the cpu device. By default one for each CPU."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        import omniop

        typer.echo(f"omniop {omniop.__version__}")
        raise typer.Exit


@app.callback()
def omniop(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run ONNX models on any device, and see where each node ran and why."""


@app.command()
def devices(
    all_: Annotated[bool, typer.Option("--all", help="Also those that cannot be used, and why.")] = False,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List the devices of this machine.

    A device is listed once a small kernel has been built for it, has run, and gave the right answer.

    \b
    Examples:
      omniop devices
      omniop devices --all     # what is registered and cannot be used, and why
      omniop devices --json
    """
    with told(debug):
        import omniop
        from omniop.cli import show

        with _busy("trying out the devices"):
            found = omniop.devices(all=True)
        usable = [d for d in found if d.available]
        listed = found if all_ else usable
        if json:
            print(json_.dumps([asdict(d) for d in listed], indent=2))
            return
        out = console()
        show.print_devices(listed, out)
        if len(found) > len(listed):
            out.print(f"{len(found) - len(usable)} not available: omniop devices --all says why", style="dim")


@app.command()
def run(
    model: Model,
    device: DeviceOption = None,
    input_: InputOption = None,
    random: RandomOption = False,
    dim: DimOption = None,
    seed: SeedOption = 0,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", metavar="DIR", help="Write each output to DIR/NAME.npy.")
    ] = None,
    fallback: FallbackOption = Fallback.warn,
    threads: ThreadsOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Run a model once and summarise its outputs.

    \b
    Examples:
      omniop run model.onnx --input x=x.npy --output-dir out
      omniop run model.onnx --random --dim batch=2 --dim 'x:3=320'
      omniop run model.onnx --random --device opencl --device cpu --fallback error
    """
    with told(debug):
        from omniop.cli import outputs as results
        from omniop.cli import show

        if output_dir is not None:
            results.check_directory(output_dir)
        ran = _run(_Request(model, device, input_, random, dim, seed, fallback, threads))
        paths = {} if output_dir is None else results.write_arrays(ran.outputs, output_dir)
        summaries = [results.summary(name, array) for name, array in results.arrays_of(ran.outputs)]
        explanation = ran.session.explain()
        line = show.placement_line(explanation)
        if json:
            files = {name: str(path) for name, path in paths.items()}
            told_outputs = [{**asdict(s), "file": files.get(s.name)} for s in summaries]
            facts = {"load_seconds": ran.load_seconds, "run_seconds": ran.run_seconds, "notes": ran.notes}
            placed = {"devices": explanation.devices, "placement": line, "copied_bytes": explanation.copied_bytes}
            print(json_.dumps({"model": str(model), **placed, **facts, "outputs": told_outputs}, indent=2))
            return
        out = console()
        out.print(show.outputs_table(summaries, paths))
        out.print(f"\n{line}", markup=False)
        loaded, first = map(show.seconds_text, (ran.load_seconds, ran.run_seconds))
        out.print(f"loaded in {loaded}, first run in {first}", style="dim")


@app.command()
def explain(
    model: Model,
    device: DeviceOption = None,
    input_: InputOption = None,
    random: RandomOption = False,
    dim: DimOption = None,
    seed: SeedOption = 0,
    fallback: FallbackOption = Fallback.silent,
    threads: ThreadsOption = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say where each node of a model runs and why, and which kernels and copies that makes.

    The model is run once: placement depends on the shapes.

    \b
    Examples:
      omniop explain model.onnx --random --dim batch=1
      omniop explain model.onnx --input x=x.npy --device opencl
      omniop explain model.onnx --random --json
    """
    with told(debug):
        from omniop.cli import show

        ran = _run(_Request(model, device, input_, random, dim, seed, fallback, threads))
        if json:
            print(ran.session.explain().json())
        else:
            show.print_explanation(ran.session, console())


# One run ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Request:
    """What was asked for on the command line."""

    model: Path
    devices: list[str] | None
    inputs: list[str] | None
    random: bool
    dims: list[str] | None
    seed: int
    fallback: Fallback
    threads: int | None


@dataclass(frozen=True)
class _Ran:
    """A session after one run, and what to tell of it."""

    session: Session
    outputs: dict[str, Any]
    notes: list[str]
    load_seconds: float
    run_seconds: float


def _run(request: _Request) -> _Ran:
    """Load the model, gather its feeds and run it. Fallbacks are told as a line on stderr."""
    import omniop
    from omniop.cli import inputs

    if not request.random and request.dims:
        raise UsageError("--dim sizes random inputs: it needs --random")
    sizes = inputs.sizes_of(request.dims or [])
    files = inputs.assignments(request.inputs or [], "--input", "NAME=FILE.npy")
    start = time.perf_counter()
    with _busy(f"loading {request.model.name}"):
        session = omniop.load(
            request.model, request.devices or "cpu", threads=request.threads, fallback=request.fallback.value
        )
    loaded = time.perf_counter()
    feeds = inputs.feeds_of(session.inputs, files, sizes, random=request.random, seed=request.seed)
    ready = time.perf_counter()
    with _busy(f"running {request.model.name}"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", omniop.FallbackWarning)
        outputs = session.run(feeds)
    notes = [str(w.message) for w in caught if issubclass(w.category, omniop.FallbackWarning)]
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return _Ran(session, outputs, notes, loaded - start, time.perf_counter() - ready)


def _busy(what: str) -> AbstractContextManager[None]:
    from omniop.cli import bar

    return bar.busy(what, console(stderr=True))
