"""Strict runs find what ordinary ones cannot: writes behind buffers, and runs that differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from omniop.backends.base import Buffer, Runnable
from omniop.backends.reference import ReferenceDevice
from omniop.conformance.cases import load_cases, sample_cases
from omniop.conformance.engines import omniop_engine
from omniop.conformance.runner import judge
from omniop.conformance.strict import strided
from omniop.dispatcher.registry import registry
from omniop.opset.kernel import Work
from tests.conformance.planted import Planted, shares_scratch

OWN = load_cases("^own_(add|matmul|softmax|transpose|concat|topk|reducesum)_", kinds=["own"])


def overruns(device: ReferenceDevice) -> None:
    """Every kernel writes a byte behind its first buffer, where there is room."""
    build = device.build

    def broken(works: Sequence[Work]) -> list[Runnable]:
        return [_spoiling(run) for run in build(works)]

    device.build = broken  # type: ignore[method-assign]


def _spoiling(run: Runnable) -> Runnable:
    def spoil(buffers: Sequence[Buffer], sizes: Sequence[int]) -> None:
        run(buffers, sizes)
        if len(buffers[-1]) > 256:
            buffers[-1][-256] = 1

    return spoil


def verdict(name: str) -> tuple[str, str]:
    case = next(case for case in OWN if case.name.startswith("own_add_14_float32_2x3x4_4"))
    found = judge(case, omniop_engine(name, strict=True))
    registry().unregister(f"strict-{name}")
    return found.status, found.reason


def test_a_write_behind_a_buffer_is_found(plant: Callable[[Planted], str]) -> None:
    name = plant(Planted("overruns", overruns))
    case = next(case for case in OWN if case.name.startswith("own_add_14_float32_2x3x4_4"))
    assert judge(case, omniop_engine(name)).status == "pass"
    status, reason = verdict(name)
    assert status == "fail"
    assert "behind a buffer of 96 bytes was overwritten" in reason


def test_a_race_between_runs_is_found(plant: Callable[[Planted], str]) -> None:
    """Alone, every run is right."""
    name = plant(Planted("shares_scratch", shares_scratch))
    case = next(case for case in OWN if case.name.startswith("own_add_14_float32_2x3x4_4"))
    assert judge(case, omniop_engine(name)).status == "pass"
    assert verdict(name) == ("fail", "UnsoundError: output 'y0' is another in two threads at once")


def test_a_sound_backend_passes_on_strides_and_threads(device: str) -> None:
    for case in sample_cases([case for case in OWN if not case.refused], 20):
        assert judge(case, omniop_engine(device, strict=True)).reason == "", case.name


@pytest.mark.parametrize("shape", [(5,), (2, 0, 3), (3, 4), ()])
def test_strided_views_hold_the_same(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    view = strided(array)
    assert np.array_equal(view, array)
    assert array.size < 2 or not view.flags.c_contiguous
