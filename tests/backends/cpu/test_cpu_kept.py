"""Runnables of the cpu that went to the disk and came back."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest

import omniop
from omniop.backends.cpu import calls, fused, jit, kept, recording
from omniop.backends.cpu.device import CpuDevice
from omniop.backends.cpu.kept import Later
from omniop.backends.cpu.memory import Scratch
from omniop.backends.cpu.program import RecordedWork
from omniop.backends.cpu.recording import Context
from tests.gate.case import model, normal

MODELS = {
    "products": model(
        """g (float[N, 24] x) => (float[N, 40] y)
        { a = MatMul (x, w) b = Relu (a) c = Softmax (b) y = Add (c, b) }""",
        w=normal(24, 40),
    ),
    "convolutions": model(
        """g (float[1, 3, N, 11] x) => (float[1, 4, A, B] y)
        { a = Conv <pads = [1, 1, 1, 1]> (x, k) b = HardSwish (a) c = Conv <group = 4> (b, d)
        y = MaxPool <kernel_shape = [2, 2]> (c) }""",
        k=normal(4, 3, 3, 3),
        d=normal(4, 1, 3, 3),
    ),
    "one row": model("g (float[1, 24] x) => (float[1, 8] y) { a = MatMul (x, w) y = Tanh (a) }", w=normal(24, 8)),
    "by numpy": model(
        """g (float[N, 9] x) => (float[N, 9] y, int64[N, 3] k)
        { y = CumSum (x, axis) v, k = TopK (y, few) }""",
        axis=np.array(1),
        few=np.array([3]),
    ),
}
FEEDS = {
    "products": [{"x": normal(n, 24)} for n in (5, 1, 7)],
    "convolutions": [{"x": normal(1, 3, n, 11)} for n in (9, 6, 20)],
    "one row": [{"x": normal(1, 24)}],
    "by numpy": [{"x": normal(n, 9)} for n in (4, 6)],
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIOP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("OMNIOP_CACHE", raising=False)


def planned(name: str, folder: Path) -> list[dict[str, np.ndarray]]:
    """What a session gives that planned the model, and kept the plan after its first run."""
    onnx.save(MODELS[name], folder / "m.onnx")
    session = omniop.load(folder / "m.onnx")
    return [session.run(feeds) for feeds in FEEDS[name]]


@pytest.mark.parametrize("name", MODELS)
def test_a_planned_model_derives_and_builds_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (expected, *_) = planned(name, tmp_path)

    def never(*_: object) -> None:
        raise AssertionError("derived what the plan holds")

    monkeypatch.setattr(CpuDevice, "build", never)
    monkeypatch.setattr(calls.PlannedCall, "__init__", never)
    for kind in RecordedWork.__subclasses__():
        monkeypatch.setattr(kind, "record", never)
    session = omniop.load(tmp_path / "m.onnx")
    found = session.run(FEEDS[name][0])
    assert session.last_report.templates_made == 0
    for output, value in expected.items():
        np.testing.assert_array_equal(found[output], value)


@pytest.mark.parametrize("name", MODELS)
def test_other_sizes_need_no_kernel_derived_again(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = planned(name, tmp_path)

    def never(*_: object) -> None:
        raise AssertionError("derived a kernel that the plan holds")

    for function in ("block_kernel", "epilogue_kernel", "depthwise_kernel", "copy_kernel", "pixels_are_one_run"):
        monkeypatch.setattr(fused, function, never)
    session = omniop.load(tmp_path / "m.onnx")
    for feeds, outputs in reversed(list(zip(FEEDS[name], expected, strict=True))):
        for output, value in session.run(feeds).items():
            np.testing.assert_array_equal(value, outputs[output])
    assert session.last_report.templates_made == 0


@pytest.mark.parametrize("name", MODELS)
def test_runnables_of_another_compiler_are_built(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (expected, *_) = planned(name, tmp_path)
    monkeypatch.setattr(jit, "identity", lambda: "another compiler")
    session = omniop.load(tmp_path / "m.onnx")
    for output, value in session.run(FEEDS[name][0]).items():
        np.testing.assert_array_equal(value, expected[output])
    assert session.last_report.templates_made == 0


def test_a_context_points_to_its_own_arrays_again() -> None:
    numbers = np.arange(5)
    table = np.array([7, numbers.ctypes.data, -3, numbers.ctypes.data])
    again = pickle.loads(pickle.dumps(Context(table, (numbers,))))
    (copy,) = again.targets
    assert again.table.tolist() == [7, copy.ctypes.data, -3, copy.ctypes.data]
    assert copy.tolist() == numbers.tolist()
    assert copy is not numbers


def test_a_context_with_an_unknown_address_is_not_kept() -> None:
    stranger = np.arange(5)
    with pytest.raises(pickle.PicklingError, match="an address"):
        pickle.dumps(Context(np.array([7, stranger.ctypes.data])))


def test_nothing_is_kept_where_addresses_look_like_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a process has its heap below 4 GiB."""
    monkeypatch.setattr(recording, "_LEAST_ADDRESS", 1 << 62)
    numbers = np.arange(5)
    with pytest.raises(pickle.PicklingError, match="told from numbers"):
        pickle.dumps(Context(np.array([7, numbers.ctypes.data]), (numbers,)))


def test_what_cannot_be_kept_is_left_out() -> None:
    class Odd(kept.Keepable):
        def __call__(self, *_: object) -> None: ...

    scratch = Scratch()
    assert kept.restore(kept.keep([Odd(), print], scratch), scratch) == [None, None]


def test_later_reads_once() -> None:
    reads: list[int] = []
    later = Later(lambda: reads.append(1) or len(reads))
    assert not reads
    assert [later(), later()] == [1, 1]
