"""``omniop conformance``, also ``python -m omniop.conformance``: run the suite, draw its reports, compare two."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from omniop.conformance import report as terminal
from omniop.conformance.cases import KINDS, LEVELS
from omniop.conformance.engines import Fallback
from omniop.conformance.oracles import ENGINES
from omniop.conformance.record import Report, lost_passes
from omniop.conformance.render import FORMS, draw
from omniop.conformance.suite import QUICK, USUAL, Settings, run_suite, selected
from omniop.opset.errors import FeedError, ModelError

app = typer.Typer(add_completion=False, invoke_without_command=True, rich_markup_mode="rich")

HtmlOption = Annotated[Path | None, typer.Option(help="Write one self-contained page: operators by dtype.")]
MarkdownOption = Annotated[Path | None, typer.Option(help="Write a summary in Markdown.")]
JunitOption = Annotated[Path | None, typer.Option(help="Write JUnit XML, for CI.")]


@app.callback()
def main(
    context: typer.Context,
    device: Annotated[str, typer.Option(help="The device that omniop runs on.")] = "cpu",
    filter: Annotated[str, typer.Option(help="A regular expression on case names.")] = "",
    level: Annotated[list[str] | None, typer.Option(help=f"Only this level, repeatable: {', '.join(LEVELS)}.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help=f"Only this kind, repeatable: {', '.join(KINDS)}.")] = None,
    from_model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Judge each distinct node of this ONNX model instead.")
    ] = None,
    dim: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SIZE", help="The size of an open dim of that model, repeatable.")
    ] = None,
    input: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="An input of that model from a .npy file, repeatable.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help=f"Only a sample of {QUICK} cases of all kinds.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help=f"All of our own cases too, instead of {USUAL} of them.")
    ] = False,
    sample: Annotated[
        int, typer.Option(min=0, help="Only so many cases: the same ones everywhere, each operator by its share.")
    ] = 0,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Only part I of N.")] = "1/1",
    fallback: Annotated[Fallback, typer.Option(help="When the device declines: warn, error, silent.")] = "error",
    fold: Annotated[
        bool, typer.Option("--fold", help="Let a model's constants be constants; by default they are fed.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Sentinels behind each buffer; strided feeds, and two threads, for each case."),
    ] = False,
    oracle: Annotated[
        str | None, typer.Option(help=f"Run on an oracle instead of omniop: {', '.join(ENGINES)}.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-n", min=0, help="Worker processes; 0 runs in this one.")] = 2,
    timeout: Annotated[float, typer.Option(help="Seconds for one case; a network compiles for a while.")] = 120.0,
    expect: Annotated[
        list[Path] | None, typer.Option(help="A TOML list of what you expect to fail, and why; repeatable.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the report; the other forms are drawn from it.")] = None,
    html: HtmlOption = None,
    markdown: MarkdownOption = None,
    junit: JunitOption = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Fail if a case that passed in this earlier report does not.")
    ] = None,
    min_pass: Annotated[int, typer.Option(help="Fail if fewer cases pass.")] = 0,
    reasons: Annotated[int, typer.Option(help="How many reasons to list.")] = 20,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Print each case that does not pass; -vv: its traceback.")
    ] = 0,
    list_: Annotated[bool, typer.Option("--list", help="Only list the names of the cases.")] = False,
) -> None:
    """Run ONNX's conformance cases and our own on a device.

    Levels: L0 asks for memory and each operation of the kernels at its edges, L1 for every operator, L2 for each tuned
    kernel beside the lowering that it stands for, L3 for trained networks, where their packages are installed.

    Exit status: 0 nothing went wrong (what is unsupported, and what was expected to fail, did not); 1 a case failed,
    crashed or hung, passed against expectation, an expectation is stale, the device is not there, or fewer than
    --min-pass or --baseline ask for; 2 a wrong option.

    \b
    Examples:
      omniop conformance --device opencl --json opencl.json --html opencl.html
      omniop conformance --device cuda:emu --quick
      omniop conformance --device cpu --filter '^test_softmax' -v
      omniop conformance --device opencl --from-model block.onnx --dim tokens=128
    """
    if context.invoked_subcommand is not None:
        return
    if oracle is not None and oracle not in ENGINES:
        raise typer.BadParameter(f"{oracle!r} is none of {', '.join(ENGINES)}", param_hint="--oracle")
    if (dim or input) and not from_model:
        raise typer.BadParameter("--dim and --input are about the model of --from-model, which is not given")
    if quick and full:
        raise typer.BadParameter("give one of --quick and --full")
    settings = Settings(
        *(
            device,
            filter,
            _kinds(level or [], kind or []),
            sample,
            _shard(shard),
            fallback,
            fold,
            oracle,
            jobs,
            timeout,
        ),
        expect=tuple(expect or ()),
        extent="quick" if quick else "full" if full else "usual",
        strict=strict,
        model=from_model,
        dims=_sizes(dim or []),
        inputs=_files(input or []),
    )
    earlier = _read(baseline, "--baseline") if baseline else None
    try:
        if list_:
            with selected(settings) as cases:
                typer.echo("\n".join(f"{case.kind}/{case.name}" for case in cases))
            return
        report = run_suite(settings, functools.partial(terminal.track, verbose=verbose))
    except (ValueError, ModelError, FeedError) as error:
        raise typer.BadParameter(str(error)) from None
    terminal.summarise(report, reasons)
    if json:
        report.write(json)
    draw(report, html=html, markdown=markdown, junit=junit)
    raise typer.Exit(int(_disappoints(report, min_pass, earlier)))


def _disappoints(report: Report, min_pass: int, earlier: Report | None) -> bool:
    passed = report.counts["pass"]
    if passed < min_pass:
        typer.echo(f"{passed} cases pass, fewer than {min_pass}", err=True)
    lost = lost_passes(report.results, earlier) if earlier else []
    if lost:
        terminal.print_results(lost, f"{len(lost)} cases passed before and do not now")
    return bool(report.wrong or report.stale or report.counts["unavailable"] or passed < min_pass or lost)


def _sizes(texts: list[str]) -> dict[str, int]:
    sizes = {}
    for text in texts:
        name, _, size = text.rpartition("=")
        if not (name and size.isdecimal()):
            raise typer.BadParameter(f"{text!r} is not NAME=SIZE, as in batch=2", param_hint="--dim")
        sizes[name] = int(size)
    return sizes


def _files(texts: list[str]) -> dict[str, Path]:
    pairs = [text.partition("=") for text in texts]
    for text, (name, _, file) in zip(texts, pairs, strict=True):
        if not (name and file):
            raise typer.BadParameter(f"{text!r} is not NAME=FILE, as in x=x.npy", param_hint="--input")
    return {name: Path(file) for name, _, file in pairs}


def _kinds(levels: list[str], kinds: list[str]) -> tuple[str, ...]:
    """The kinds of the levels and the kinds that are named; those of all levels where none is."""
    if unknown := set(levels) - set(LEVELS):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))} is none of {', '.join(LEVELS)}", param_hint="--level")
    return tuple(dict.fromkeys([*(kind for level in levels for kind in LEVELS[level]), *kinds])) or KINDS


def _shard(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdigit() and count.isdigit()):
        raise typer.BadParameter(f"{text!r} is not I/N, as in 1/4", param_hint="--shard")
    return int(number), int(count)


def _read(path: Path, hint: str) -> Report:
    try:
        return Report.read(path)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=hint) from None


@app.command("diff")
def diff_(before: Path, after: Path) -> None:
    """Say which cases changed between two reports. Exit status 1 where one that passed does not."""
    old, new = _read(before, "BEFORE"), _read(after, "AFTER")
    terminal.print_diff(old, new)
    raise typer.Exit(int(bool(lost_passes(new.results, old))))


@app.command("draw")
def draw_(
    reports: Annotated[list[Path], typer.Argument(metavar="REPORT...")],
    html: HtmlOption = None,
    markdown: MarkdownOption = None,
    junit: JunitOption = None,
) -> None:
    """Draw a report that was written with --json in other forms. Several, of several devices, make one HTML page."""
    if not (html or markdown or junit):
        raise typer.BadParameter(f"give at least one of {', '.join(f'--{form}' for form in FORMS)}")
    if len(reports) > 1 and (markdown or junit):
        raise typer.BadParameter("several reports are drawn as --html alone")
    draw(*(_read(report, "REPORT") for report in reports), html=html, markdown=markdown, junit=junit)


if __name__ == "__main__":
    app()
