"""``omniop conformance``, also ``python -m omniop.conformance``: run the suite, draw its reports, compare two.

Each command imports what it needs when it runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omniop.conformance.choices import KINDS, LEVELS, QUICK, USUAL, Fallback, Oracle
from omniop.terminal import check_file, device_names, told

if TYPE_CHECKING:
    from omniop.conformance.record import Report
    from omniop.conformance.suite import Settings

app = typer.Typer(
    add_completion=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

HtmlOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write one self-contained page: operators by dtype.")
]
MarkdownOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a summary in Markdown.")]
JunitOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML, for CI.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.callback()
def main(
    context: typer.Context,
    device: Annotated[
        str,
        typer.Option(
            *("--device", "-d"),
            metavar="NAME",
            help="What is asked, as omniop devices calls it.",
            autocompletion=device_names,
        ),
    ] = "cpu",
    filter: Annotated[
        str, typer.Option(metavar="REGEX", show_default=False, help="Only cases whose name has a match of it.")
    ] = "",
    level: Annotated[
        list[str] | None, typer.Option(metavar="LEVEL", help=f"Only this level, repeatable: {', '.join(LEVELS)}.")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help=f"Only this kind, repeatable: {', '.join(KINDS)}.")
    ] = None,
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
        int,
        typer.Option(
            *("--sample",),
            min=0,
            metavar="N",
            show_default=False,
            help="Only so many cases: the same ones everywhere, each operator by its share.",
        ),
    ] = 0,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Only part I of N.")] = "1/1",
    fallback: Annotated[
        Fallback, typer.Option(help="A node that the device declines is an error, or goes to the cpu.")
    ] = "error",
    fold: Annotated[
        bool, typer.Option("--fold", help="Let a model's constants be constants; by default they are fed.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Sentinels behind each buffer; strided feeds, and two threads, for each case."),
    ] = False,
    oracle: Annotated[Oracle | None, typer.Option(help="Run the cases on an oracle instead of omniop.")] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-n", min=0, metavar="N", help="Worker processes; 0 runs in this one.")
    ] = 2,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="For one case; a network compiles for a while.")
    ] = 120.0,
    expect: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A TOML list of what you expect to fail, and why; repeatable."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report; the other forms are drawn from it.")
    ] = None,
    html: HtmlOption = None,
    markdown: MarkdownOption = None,
    junit: JunitOption = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Fail if a case that passed in this earlier report does not.")
    ] = None,
    min_pass: Annotated[int, typer.Option(metavar="N", show_default=False, help="Fail if fewer cases pass.")] = 0,
    reasons: Annotated[int, typer.Option(metavar="N", help="How many reasons to list.")] = 20,
    verbose: Annotated[
        int,
        typer.Option(
            *("--verbose", "-v"),
            count=True,
            show_default=False,
            help="Print each case that does not pass; -vv: its traceback.",
        ),
    ] = 0,
    list_: Annotated[bool, typer.Option("--list", help="Only list the names of the cases.")] = False,
    debug: DebugOption = False,
) -> None:
    """Ask a device for everything: memory, operations, operators, tuned kernels, trained networks.

    \b
    L0  memory, and each operation of the kernels at its edges
    L1  every operator
    L2  each tuned kernel beside the lowering that it stands for
    L3  trained networks that are installed; with --level L3 or --full

    \b
    Exit status:
    0  nothing went wrong; what is unsupported, unjudged or expected to fail
       did not
    1  a case failed, crashed, hung, or passed against expectation; or an
       expectation is stale, the device is not there, or fewer cases pass than
       --min-pass or --baseline ask for
    2  a wrong option

    \b
    Examples:
      omniop conformance --device opencl --json opencl.json --html opencl.html
      omniop conformance --device cuda:emu --quick
      omniop conformance --device cpu --filter '^test_softmax' -v
      omniop conformance --device opencl --from-model block.onnx --dim tokens=128
      omniop conformance diff before.json after.json
    """
    if context.invoked_subcommand is not None:
        return
    if oracle == "onnxruntime" and importlib.util.find_spec(oracle) is None:
        raise typer.BadParameter("it is not installed: pip install onnxruntime", param_hint="--oracle")
    if (dim or input) and not from_model:
        raise typer.BadParameter("--dim and --input are about the model of --from-model, which is not given")
    if quick and full:
        raise typer.BadParameter("give one of --quick and --full")
    with told(debug):
        from omniop.conformance.suite import Settings

        settings = Settings(
            *(device, filter, _kinds(level or [], kind or []), sample, _shard(shard)),
            *(fallback, fold, oracle, jobs, timeout),
            expect=tuple(expect or ()),
            extent="quick" if quick else "full" if full else "usual",
            strict=strict,
            model=from_model,
            dims=_sizes(dim or []),
            inputs=_files(input or []),
        )
        if list_:
            _list(settings)
            return
        forms = {"html": html, "markdown": markdown, "junit": junit}
        _check(json, *forms.values())
        earlier = _read(baseline, "--baseline") if baseline else None
        report = _report(settings, reasons, verbose)
        if json:
            report.write(json)
        _draw(report, **forms)
        raise typer.Exit(int(_disappoints(report, min_pass, earlier)))


def _check(*paths: Path | None) -> None:
    for path in paths:
        if path is not None:
            check_file(path)


@contextmanager
def _settings_named() -> Iterator[None]:
    """What `suite.selected` raises is about an option."""
    from omniop.opset.errors import FeedError, ModelError

    try:
        yield
    except (ValueError, ModelError, FeedError) as error:
        raise typer.BadParameter(str(error)) from None


def _list(settings: Settings) -> None:
    from omniop.conformance.suite import selected

    with _settings_named(), selected(settings) as cases:
        typer.echo("\n".join(f"{case.kind}/{case.name}" for case in cases))


def _report(settings: Settings, reasons: int, verbose: int) -> Report:
    """Run the suite and say what came of it."""
    from omniop.conformance.report import summarise, track
    from omniop.conformance.suite import run_suite

    with _settings_named():
        report = run_suite(settings, functools.partial(track, verbose=verbose))
    summarise(report, reasons)
    return report


def _draw(*reports: Report, **paths: Path | None) -> None:
    from omniop.conformance.render import draw

    draw(*reports, **paths)


def _disappoints(report: Report, min_pass: int, earlier: Report | None) -> bool:
    from omniop.conformance.record import lost_passes
    from omniop.conformance.report import print_results

    passed = report.counts["pass"]
    if passed < min_pass:
        typer.echo(f"{passed} cases pass, fewer than {min_pass}", err=True)
    lost = lost_passes(report.results, earlier) if earlier else []
    if lost:
        print_results(lost, f"{len(lost)} cases passed before and do not now")
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
    from omniop.conformance.record import Report

    try:
        return Report.read(path)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=hint) from None


@app.command("diff")
def diff_(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="A report that was written with --json.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="A later one.")],
    debug: DebugOption = False,
) -> None:
    """Say which cases changed between two reports. Exit status 1 where one that passed does not."""
    with told(debug):
        from omniop.conformance.record import lost_passes
        from omniop.conformance.report import print_diff

        old, new = _read(before, "BEFORE"), _read(after, "AFTER")
        print_diff(old, new)
        raise typer.Exit(int(bool(lost_passes(new.results, old))))


@app.command("draw")
def draw_(
    reports: Annotated[list[Path], typer.Argument(metavar="REPORT...", help="Written with --json.")],
    html: HtmlOption = None,
    markdown: MarkdownOption = None,
    junit: JunitOption = None,
    debug: DebugOption = False,
) -> None:
    """Draw a report that was written with --json in other forms. Several, of several devices, make one HTML page."""
    forms = {"html": html, "markdown": markdown, "junit": junit}
    with told(debug):
        if not any(forms.values()):
            raise typer.BadParameter(f"give at least one of {', '.join(f'--{form}' for form in forms)}")
        if len(reports) > 1 and (markdown or junit):
            raise typer.BadParameter("several reports are drawn as --html alone")
        _check(*forms.values())
        _draw(*(_read(report, "REPORT") for report in reports), **forms)


if __name__ == "__main__":
    app()
