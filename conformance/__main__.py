"""``python -m omniop.conformance``: run ONNX's own cases on a device, or on an oracle to check the runner itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omniop.conformance import report
from omniop.conformance.cases import KINDS, load_cases
from omniop.conformance.oracles import ENGINES
from omniop.conformance.runner import Fallback, Result, omniop_engine, run_cases

app = typer.Typer(add_completion=False)


@app.command()
def main(
    device: Annotated[str, typer.Option(help="The device that omniop runs on.")] = "cpu",
    filter: Annotated[str, typer.Option(help="A regular expression on case names.")] = "",
    kind: Annotated[list[str] | None, typer.Option(help=f"Only this kind, repeatable: {', '.join(KINDS)}.")] = None,
    fallback: Annotated[Fallback, typer.Option(help="When the device declines: warn, error, silent.")] = ("error"),
    oracle: Annotated[
        str | None, typer.Option(help=f"Run on an oracle instead of omniop: {', '.join(ENGINES)}.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-n", help="Worker processes; 0 runs in this one.")] = 2,
    timeout: Annotated[float, typer.Option(help="Seconds for one case.")] = 60.0,
    json: Annotated[Path | None, typer.Option(help="Write every verdict to this file.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Fail if a case that passed in this earlier file fails.")
    ] = None,
    min_pass: Annotated[int, typer.Option(help="Fail if fewer cases pass.")] = 0,
    reasons: Annotated[int, typer.Option(help="How many reasons to list.")] = 20,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Print each case that does not pass; -vv: its traceback.")
    ] = 0,
    list_: Annotated[bool, typer.Option("--list", help="Only list the names of the cases.")] = False,
) -> None:
    """Run ONNX's conformance cases. Exit status: 0 done, 1 below --min-pass or --baseline, 2 a wrong option."""
    if oracle is not None and oracle not in ENGINES:
        raise typer.BadParameter(f"{oracle!r} is none of {', '.join(ENGINES)}", param_hint="--oracle")
    try:
        cases = load_cases(filter, kind or KINDS)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if not cases:
        raise typer.BadParameter(f"no case matches {filter!r}", param_hint="--filter")
    if list_:
        typer.echo("\n".join(f"{case.kind}/{case.name}" for case in cases))
        return

    engine = ENGINES[oracle] if oracle else omniop_engine(device, fallback)
    target = oracle or device
    results = report.track(run_cases(cases, engine, jobs, timeout), len(cases), target, verbose=verbose)
    results.sort(key=lambda result: (KINDS.index(result.kind), result.name))
    report.summarise(results, target, reasons)
    if json:
        report.write_json(json, results, target)
    passed = sum(result.verdict.status == "pass" for result in results)
    wrong = passed < min_pass
    if wrong:
        typer.echo(f"{passed} cases pass, fewer than {min_pass}", err=True)
    if baseline and (lost := _lost(results, baseline)):
        report.print_results(lost, f"{len(lost)} cases passed in {baseline} and do not now")
        wrong = True
    raise typer.Exit(int(wrong))


def _lost(results: list[Result], baseline: Path) -> list[Result]:
    try:
        return report.lost_passes(results, baseline)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--baseline") from None


if __name__ == "__main__":
    app()
