"""Constants: uploaded once, folded once, whatever the number of templates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import omniop
from omniop.backends.base import Runnable
from omniop.dispatcher.report import templates_of
from omniop.dispatcher.weights import Constant, Recipe
from omniop.opset.dtype import FLOAT32
from omniop.opset.kernel import Work
from tests.dispatcher.conftest import LoadPlain
from tests.gate.case import model, normal


def test_templates_share_folded_constants(load_plain: LoadPlain) -> None:
    """A weight that only constants go into is computed when the first template is made, and never again."""
    text = """g (float[A, 64] x, float[B, 64] z) => (float[C, 64] y)
    { t = Exp (w) u = Softmax (t) p = MatMul (x, u) y = Add (p, z) }"""
    weight = normal(64, 64)
    session = load_plain(model(text, w=weight))
    exp = np.exp(np.exp(weight) - np.exp(weight).max(1, keepdims=True))
    folded = exp / exp.sum(1, keepdims=True)
    weights = session.runner.options.weights
    derived: set[object] = set()
    for rows, more in ((3, 3), (3, 1), (1, 4)):
        x, z = normal(rows, 64), normal(more, 64, seed=1)
        np.testing.assert_allclose(session.run({"x": x, "z": z})["y"], x @ folded + z, rtol=1e-4, atol=1e-5)
        derived = derived or set(weights._derived)
        assert set(weights._derived) == derived
        assert len(weights._uploaded) == 1
    made = list(templates_of(session.runner))
    assert len(made) == 3
    assert derived
    assert all(t.summary.constant_steps for t in made)


def test_folded_steps_are_reported_apart(load_plain: LoadPlain) -> None:
    session = load_plain(
        model("g (float[N, 64] x) => (float[N, 64] y) { t = Exp (w) y = MatMul (x, t) }", w=normal(64, 64))
    )
    session.run({"x": normal(3, 64)})
    (template,) = session.explain().templates
    assert template.constant_steps == 1
    assert [s.kind for s in template.steps] == ["call"]


def test_equal_small_constants_are_one_buffer(load_plain: LoadPlain) -> None:
    text = "g (float[N, 16] x) => (float[N, 16] y) { a = MatMul (x, u) y = MatMul (a, v) }"
    weight = normal(16, 16)
    session = load_plain(model(text, u=weight, v=weight.copy()))
    x = normal(3, 16)
    np.testing.assert_allclose(session.run({"x": x})["y"], x @ weight @ weight, rtol=1e-4, atol=1e-5)
    assert len(session.runner.options.weights._uploaded) == 1


def test_the_cpu_reads_weights_where_they_lie() -> None:
    """A large weight is not copied."""
    weight = normal(64, 64)
    session = omniop.load(model("g (float[N, 64] x) => (float[N, 64] y) { y = MatMul (x, w) }", w=weight), device="cpu")
    x = normal(3, 64)
    np.testing.assert_allclose(session.run({"x": x})["y"], x @ weight, rtol=1e-4, atol=1e-5)
    (array,) = session.runner.options.weights._arrays.values()
    (constant,) = session.runner.options.weights._uploaded.values()
    assert constant.buffer.address == array.ctypes.data


def test_constants_are_built_with_the_run(load_plain: LoadPlain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folded steps wait for each other, their kernels do not: a compiler is called once for all."""
    text = "g (float[N, 37] x) => (float[N, 37] y) { t = Sinh (w) u = Softmax (t) p = MatMul (x, u) y = Cosh (p) }"
    session = load_plain(model(text, w=normal(37, 37)))
    device = session.devices[0]
    batches: list[int] = []
    build = device.build

    def counted(works: Sequence[Work]) -> list[Runnable]:
        batches.append(len(works))
        return build(works)

    monkeypatch.setattr(device, "build", counted)
    session.run({"x": normal(3, 37)})
    (template,) = session.explain().templates
    assert template.constant_steps > 0
    assert len(batches) == 1


def resident(array: np.ndarray) -> int:
    """Bytes of the array's memory that are in the process's own."""
    with open("/proc/self/smaps", encoding="ascii") as file:
        inside = False
        for line in file:
            first, _, last = line.split()[0].partition("-")
            if last:
                inside = int(first, 16) <= array.ctypes.data < int(last, 16)
            elif inside and first == "Rss:":
                return int(line.split()[1]) * 1024
    raise AssertionError("the array is in no mapping")


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="it asks Linux")
def test_weights_that_were_packed_leave_the_memory(tmp_path: Path) -> None:
    """What a file holds of them is read once, and may be read again."""
    (tmp_path / "weights").write_bytes(np.arange(1 << 20, dtype=np.float32).tobytes())
    held = np.memmap(tmp_path / "weights", np.uint8, "r")
    array = held[4096 + 8 :].view(np.ndarray)[: 3 << 20].view(np.float32)
    sums = []

    class Built:
        @staticmethod
        def run(buffers: Sequence[np.ndarray], sizes: Sequence[int]) -> None:
            sums.append(float(buffers[1].sum()))
            assert resident(array) > 3 << 20

    source = Constant(None, array, array.nbytes, FLOAT32, array)  # type: ignore[arg-type]  # no device is asked
    recipe = Recipe(Built(), (True, False), (source,))  # type: ignore[arg-type]  # what it needs of one
    recipe.launch([np.empty(1)])
    assert resident(array) < 1 << 18
    recipe.launch([np.empty(1)])
    assert sums[0] == sums[1] == array.sum()
