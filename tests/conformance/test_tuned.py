"""Level L2: tuned kernels beside their lowerings. A wrong one is found, and one that nothing reaches is told."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from omniop.backends.base import YES, Buffer, Device, KernelSpec, KernelTable, No, OpContext, Runnable
from omniop.backends.reference import ReferenceDevice
from omniop.conformance import report as terminal
from omniop.conformance.cases import load_cases, sample_cases
from omniop.conformance.engines import omniop_engine
from omniop.conformance.markdown import markdown_text
from omniop.conformance.oracles import reference_engine
from omniop.conformance.probe import here
from omniop.conformance.record import Report
from omniop.conformance.runner import judge, result_of
from omniop.conformance.table import Reached, tuned_kernels
from omniop.conformance.tuned.case import TunedCase
from omniop.conformance.tuned.sized import FED, sized
from omniop.conformance.tuned.twins import run
from omniop.conformance.tuned.twins import tuned_kernels as names_of
from omniop.dispatcher.precision import OPERANDS
from omniop.dispatcher.registry import registry
from omniop.opset.kernel import Call, Work
from tests.conformance.planted import Planted

PRODUCTS = "^tuned_matmul_float32_(17x33x129|64x64x64|3x65x127)(_relu)?$"


def products(wrong: float) -> Callable[[ReferenceDevice], None]:
    """A table with a kernel for MatMul that is off by a part of the result, and one for what no case has."""

    def spoil(device: ReferenceDevice) -> None:
        table = KernelTable()
        table.add(KernelSpec("MatMul", "panels", _make(wrong), when=_two_matrices))
        table.add(KernelSpec("ImageDecoder", "dusty", _make(0.0)))
        device.kernels = table

    return spoil


def _two_matrices(op: OpContext) -> Any:
    return YES if all(t is not None and len(t.shape) == 2 for t in op.inputs) else No("rank")


def _make(wrong: float) -> Callable[[Any, Call], Runnable]:
    def make(device: Any, call: Call) -> Runnable:
        shapes = [[d.attr for d in view.shape] for view in (*call.operands, *call.results)]

        def run(buffers: Sequence[Buffer], sizes: Sequence[int]) -> None:
            views = (*call.operands, *call.results)
            a, b, y = (
                buffers[view.buffer][: 4 * int(np.prod(shape))].view(np.float32).reshape(shape)
                for view, shape in zip(views, shapes, strict=True)
            )
            y[...] = a @ b * np.float32(1 + wrong)

        return run

    return make


def report_on(name: str) -> Report:
    engine = omniop_engine(name)
    results = tuple(result_of(case, judge(case, engine)) for case in load_cases(PRODUCTS, kinds=["tuned"]))
    return Report(name, results, versions={"onnx": "1"}, kernels=here(name).kernels)


def test_a_kernel_is_found_in_its_table_and_one_that_nothing_reaches_is_told(
    plant: Callable[[Planted], str], capsys: pytest.CaptureFixture[str]
) -> None:
    report = report_on(plant(Planted("tuned", products(0.0))))
    assert report.counts == {"pass": 6}
    found = tuned_kernels(report)
    assert found["kernel dusty"] == Reached()
    assert (found["kernel panels"].cases, found["kernel panels"].wrong) == (6, 0)
    terminal.summarise(report)
    assert "reached by no case: kernel dusty" in capsys.readouterr().out
    assert "| kernel dusty | **none** |" in markdown_text(report)


def test_a_wrong_kernel_is_found(plant: Callable[[Planted], str]) -> None:
    report = report_on(plant(Planted("wrong", products(2.0**-13))))
    assert report.counts == {"fail": 6}
    assert tuned_kernels(report)["kernel panels"].wrong == 6
    assert all("weights fed: output 'y'" in result.verdict.reason for result in report.results)


@pytest.mark.parametrize("name", ["tuned_conv_float32_1x17x13x11_19x3_stride1_residual", "tuned_sample_gemm"])
def test_weights_are_fed_and_constant(name: str) -> None:
    """Kernels that pack weights ahead of time are reached by constant ones alone."""
    case = next(case for case in load_cases(f"^{name}") if isinstance(case, TunedCase))
    fed, constant = list(case.ways())[:2]
    assert (fed.how, constant.how) == ("weights fed", "weights constant")
    assert not {tensor.name for tensor in fed.model.graph.initializer} & set(fed.feeds)
    weights = {tensor.name for tensor in constant.model.graph.initializer}
    assert weights == set(fed.feeds) - set(constant.feeds)
    assert {value.name for value in constant.model.graph.input} == set(constant.feeds)


def test_the_kernels_of_a_device_are_sound(device: str) -> None:
    cases = sample_cases(load_cases(kinds=["tuned"]), 24)
    found = {case.name: judge(case, omniop_engine(device)) for case in cases}
    assert {name: v.reason for name, v in found.items() if v.status not in ("pass", "unsupported")} == {}
    assert any(v.facts.tuned for v in found.values())


class Planned(Exception):
    """All kernels of a model are chosen."""


def planner(device: Device, found: set[str]) -> Device:
    """A twin that is told what to build, and builds nothing: ``found`` gets the tuned kernels of its table."""
    twin = copy.copy(device)

    def build(works: Sequence[Work]) -> list[Runnable]:
        found.update(f"kernel {work.tuned}" for work in works if isinstance(work, Call) and work.tuned)
        raise Planned

    twin.build = build  # type: ignore[method-assign]
    return twin


def test_each_kernel_of_a_table_has_a_case(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that only speaks where less precision is asked for, too: by cases that ask for it."""
    own = registry().device(device)
    monkeypatch.setattr(type(own), "precisions", frozenset(OPERANDS))  # whatever the processor is fast at
    left = set(names_of(own))
    for one in sized().values():
        if not left:
            break
        arrays = one.feeds()
        fed = {name: array for name, array in arrays.items() if name in FED}
        constant = {name: array for name, array in arrays.items() if name not in FED}
        found: set[str] = set()
        with suppress(Planned):
            run(planner(own, found), one.model(constant), fed, one.precision)
        left -= found
    assert left == set()


def test_less_precision_is_asked_of_who_has_it(plant: Callable[[Planted], str]) -> None:
    (case,) = load_cases("^tuned_matmul_64x64x64_bf16$")
    found = judge(case, omniop_engine(plant(Planted("single", products(0.0)))))
    assert found.status == "unsupported"
    assert found.reason == "single has no products of bf16 that are faster than float32's"


def test_without_tuned_kernels_there_is_nothing_to_judge(plant: Callable[[Planted], str]) -> None:
    (case,) = load_cases("^tuned_softmax_17x768$")
    found = judge(case, omniop_engine(plant(Planted("bare"))))
    assert (found.status, found.reason) == ("unsupported", "bare has no tuned kernel for it")
    assert judge(case, reference_engine).status == "unsupported"


def test_every_model_is_one() -> None:
    """By onnx.reference, which knows nothing of kernels; the poisoned ones hold what is not finite."""
    for one in list(sized().values())[::9]:
        with np.errstate(invalid="ignore"):
            found = reference_engine(one.model({}))(one.feeds())["y"]
        assert np.isfinite(found.astype(np.float64)).all() or "special" in one.name, one.name
