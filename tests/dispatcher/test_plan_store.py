"""Plans on disk: what a second process is spared, and what makes a plan void."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import omniop
from omniop.backends import compile_cache
from omniop.backends.cpu.device import CpuDevice
from omniop.dispatcher import plan_store
from omniop.dispatcher.session import Session
from omniop.dispatcher.weights import Recipe
from omniop.opset import lowering
from tests.dispatcher.test_control_flow import LOOP, NESTED, integer
from tests.gate.case import model, normal

WEIGHT = normal(64, 64)
NET = model(
    """g (float[N, 64] x) => (float[N, 64] y)
    { t = Exp (w) u = Softmax (t) p = MatMul (x, u) q = MatMul (p, w) r = Relu (q) y = Add (r, x) }""",
    w=WEIGHT,
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OMNIOP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("OMNIOP_CACHE", raising=False)
    return tmp_path / "cache" / "plans"


@pytest.fixture
def net(tmp_path: Path) -> Path:
    onnx.save(NET, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def planned(path: Path | bytes, *feeds: dict[str, Any], **options: Any) -> tuple[Session, list[int]]:
    """A fresh session, and how many templates each run had to make. Results are those of an unplanned session."""
    session = omniop.load(path, **{"device": "cpu", **options})
    proto = onnx.load_from_string(path) if isinstance(path, bytes) else onnx.load(path)
    expected = omniop.load(proto, device=session.devices[0].name)
    made = []
    for given in feeds:
        found = session.run(given)
        made.append(session.last_report.templates_made)
        for name, value in expected.run(given).items():
            np.testing.assert_array_equal(found[name], value)
    return session, made


def rows(n: int) -> dict[str, np.ndarray]:
    return {"x": normal(n, 64)}


@pytest.mark.parametrize("device", ["reference", "cpu", "opencl"])
def test_a_second_session_plans_nothing(device: str, net: Path) -> None:
    assert planned(net, rows(3), rows(5), device=device)[1] == [1, 0]
    first, made = planned(net, rows(5), rows(7), device=device)
    assert made == [0, 0]
    assert first.explain().kernels()
    assert sum(t.constant_steps for t in first.explain().templates) > 0
    assert {n.op for n in first.explain().nodes} >= {"MatMul", "Relu"}


def test_packed_weights_are_packed_anew(own_cache: Path, tmp_path: Path) -> None:
    """They would be on the disk a second time; a new shape shares those of the others."""
    path = tmp_path / "m.onnx"
    wide = normal(512, 512)
    onnx.save(model("g (float[N, 512] x) => (float[N, 512] y) { p = MatMul (x, w) y = Add (p, x) }", w=wide), path)
    several, one = {"x": normal(5, 512)}, {"x": normal(1, 512)}
    assert planned(path, several)[1] == [1]
    assert sum(file.stat().st_size for file in own_cache.rglob("*") if file.is_file()) < wide.nbytes / 4
    session, made = planned(path, several, one)
    assert made[0] == 0
    templates = [t for made in session.runner.templates.values() for t in made]
    assert len({id(constant) for t in templates for _, constant in t.constants}) == 1


def test_the_largest_constant_is_made_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While there is little else: for a moment it is in memory twice, as it was given and as it is packed. What is
    made of others waits for them."""
    text = """g (float[5, 128] x) => (float[5, 1024] y)
    { e = Exp (a) t = Exp (e) p = MatMul (x, t) q = MatMul (p, b) y = MatMul (q, c) }"""
    net = model(text, a=normal(128, 128), b=normal(128, 512), c=normal(512, 1024))
    onnx.save(net, tmp_path / "net.onnx")
    made: list[int] = []
    launch = Recipe.launch

    def noted(self: Recipe, outputs: Sequence[Any]) -> None:
        made.append(sum(map(len, outputs)))
        launch(self, outputs)

    monkeypatch.setattr(Recipe, "launch", noted)
    small, middle, large = (4 * n for n in (128 * 128, 128 * 512, 512 * 1024))
    feeds = {"x": normal(5, 128)}
    expected = omniop.load(tmp_path / "net.onnx", device="cpu").run(feeds)["y"]
    assert made[:2] == [large, middle]
    assert set(made[2:]) == {small}
    made.clear()
    session = omniop.load(tmp_path / "net.onnx", device="cpu")
    assert made == [large, middle]  # the others are on the disk as they are
    np.testing.assert_array_equal(session.run(feeds)["y"], expected)


def test_a_new_shape_is_planned_and_kept_with_the_others(tmp_path: Path) -> None:
    """What broadcasts needs other guards; later sessions have both."""
    path = tmp_path / "m.onnx"
    onnx.save(model("g (float[A, 4] x, float[B, 4] z) => (float[C, 4] y) { y = Add (x, z) }"), path)
    like, one = ({"x": normal(3, 4), "z": normal(n, 4)} for n in (3, 1))
    assert planned(path, like)[1] == [1]
    assert planned(path, one, like)[1] == [1, 0]
    assert planned(path, like, one)[1] == [0, 0]


def test_explain_tells_of_what_ran_and_not_of_what_others_planned(net: Path) -> None:
    planned(net, rows(3), rows(0))
    session, made = planned(net, rows(3))
    assert made == [0]
    told = session.explain()
    assert len(told.templates) == 1
    assert {node.device for node in told.nodes} == {"cpu"}
    session.run(rows(0))
    assert "-" in {node.device for node in session.explain().nodes}
    session.run(rows(3))
    assert {node.device for node in session.explain().nodes} == {"cpu"}


def test_bytes_of_the_same_model_share_the_plan(net: Path) -> None:
    assert planned(net, rows(3))[1] == [1]
    assert planned(net.read_bytes(), rows(3))[1] == [0]


@pytest.mark.parametrize(
    ("proto", "feeds"),
    [
        (LOOP, {"x": normal(3), "n": integer(4)}),
        (NESTED, {"x": normal(3), "n": integer(2), "c": np.array(True)}),
        (
            model("g (string[N] a, string[N] b) => (string[N] y) { y = StringConcat (a, b) }"),
            {"a": np.array(["x", "y"], object), "b": np.array(["1", "2"], object)},
        ),
        (
            model("g (float[N] x) => (float[M] y, int64[M] k) { z = NonZero (x) y, k = TopK (x, n) }", n=np.array([2])),
            {"x": normal(5)},
        ),
    ],
    ids=["loop", "nested", "strings", "read-back"],
)
def test_host_steps_come_from_the_disk(proto: onnx.ModelProto, feeds: dict[str, Any], tmp_path: Path) -> None:
    onnx.save(proto, tmp_path / "m.onnx")
    planned(tmp_path / "m.onnx", feeds)
    assert planned(tmp_path / "m.onnx", feeds)[1] == [0]


def test_nothing_that_plans_is_imported_for_a_known_plan(net: Path) -> None:
    """It takes longer to import than most models to load."""
    planned(net, rows(3))
    program = (
        "import sys, numpy, omniop\n"
        f"session = omniop.load({str(net)!r})\n"
        "session.run({'x': numpy.ones((3, 64), numpy.float32)})\n"
        "assert session.last_report.templates_made == 0\n"
        "rooms = ('onnx', 'onnx_ir', 'sympy', 'ml_dtypes', 'threadpoolctl', 'omniop.dispatcher.segment', "
        "'omniop.dispatcher.host_ops', 'omniop.backends.cpu.calls', 'omniop.backends.codegen.llvm_flow')\n"
        "print([m for m in rooms if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_onnx_ir_computes_dims_by_is_not_imported(net: Path) -> None:
    program = (
        "import sys, numpy, omniop\n"
        f"session = omniop.load({str(net)!r})\n"
        "session.run({'x': numpy.ones((3, 64), numpy.float32)})\n"
        "assert session.last_report.templates_made == 1\n"
        "print([m for m in ('onnx_ir', 'sympy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['onnx_ir']"


@pytest.mark.parametrize("known", [False, True])
def test_a_session_outlives_its_file(known: bool, net: Path) -> None:
    """Written anew or cut short in place, before and after the first run: the session has what it loaded."""
    if known:
        planned(net, rows(3))
    session = omniop.load(net)
    expected = omniop.load(NET).run(rows(3))["y"]
    net.write_bytes(b"")
    np.testing.assert_array_equal(session.run(rows(3))["y"], expected)
    onnx.save(NET, net)
    assert planned(net, rows(3))[1] == [0 if known else 1]


# What makes a plan void -----------------------------------------------------------------------------------------------


def changed_model(net: Path, _: pytest.MonkeyPatch) -> dict[str, Any]:
    other = onnx.ModelProto()
    other.CopyFrom(NET)
    other.graph.initializer[0].raw_data = normal(64, 64, seed=9).tobytes()
    onnx.save(other, net)
    return {}


def other_devices(net: Path, _: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"device": "reference"}


def other_options(net: Path, _: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"exclude": {"cpu": ["Sin"]}}


def other_sources(net: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(plan_store, "_environment", lambda: ("another omniop",))
    return {}


def cache_off(net: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("OMNIOP_CACHE", "0")
    return {}


Change = Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]


@pytest.mark.parametrize("change", [changed_model, other_devices, other_options, other_sources, cache_off])
def test_a_plan_for_something_else_is_not_used(change: Change, net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned(net, rows(3))
    assert planned(net, rows(3), **change(net, monkeypatch))[1] == [1]


def test_weights_of_changed_external_data_are_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    for seed in (1, 2):
        weight = normal(64, 64, seed=seed)
        proto = model("g (float[N, 64] x) => (float[N, 64] y) { y = MatMul (x, w) }", w=weight)
        onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
        session = omniop.load(path)
        np.testing.assert_allclose(session.run(rows(3))["y"], rows(3)["x"] @ weight, rtol=1e-4, atol=1e-5)
        assert session.last_report.templates_made == 1
        again = omniop.load(path)
        np.testing.assert_allclose(again.run(rows(3))["y"], rows(3)["x"] @ weight, rtol=1e-4, atol=1e-5)
        assert again.last_report.templates_made == 0


@pytest.mark.parametrize("size", [4, 64], ids=["kept in the plan", "left in their file"])
def test_the_same_model_with_other_weights_beside_it(size: int, tmp_path: Path) -> None:
    """One model file in two folders; then its weights changed where they are."""
    x = normal(3, size)
    for seed, name in enumerate(("a", "b", "b")):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        weight = normal(size, size, seed=seed)
        proto = model(f"g (float[N, {size}] x) => (float[N, {size}] y) {{ y = MatMul (x, w) }}", w=weight)
        onnx.save(proto, folder / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
        for made in (1, 0):
            session = omniop.load(folder / "m.onnx")
            np.testing.assert_allclose(session.run({"x": x})["y"], x @ weight, rtol=1e-4, atol=1e-5)
            assert session.last_report.templates_made == made


@pytest.mark.parametrize("damage", [b"", b"not a plan", None], ids=["empty", "rubbish", "a pickle of something else"])
def test_a_damaged_plan_counts_as_none(damage: bytes | None, net: Path, own_cache: Path) -> None:
    """Whole entries with wrong content too: another version may have left them."""
    planned(net, rows(3))
    (entry,) = own_cache.iterdir()
    if damage is None:
        session = omniop.load(net)
        assert session._plans is not None
        session._plans._cache.put(session._plans._key, b"\x80\x05N.")
    else:
        entry.write_bytes(damage)
    assert planned(net, rows(3))[1] == [1]
    assert planned(net, rows(3))[1] == [0]


def test_a_lowering_of_somebody_else_is_a_source_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan names the file that a foreign lowering is from; without a file there is no plan."""
    source = tmp_path / "foreign_lowering.py"
    source.write_text(
        "from omniop.opset import prims\n"
        "from omniop.opset.lowering import lowering\n\n"
        "@lowering('Twice', domain='tests.plans')\n"
        "def twice(node, x):\n"
        "    return prims.elementwise(lambda a: a + a, x)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    make = onnx.helper
    value = make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N"])
    graph = make.make_graph([make.make_node("Twice", ["x"], ["y"], domain="tests.plans")], "g", [value], [])
    graph.output.append(make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N"]))
    proto = make.make_model(graph, opset_imports=[make.make_opsetid("", 21), make.make_opsetid("tests.plans", 1)])
    onnx.save(proto, tmp_path / "m.onnx")
    __import__("foreign_lowering")
    try:
        feeds = {"x": normal(4)}
        assert planned(tmp_path / "m.onnx", feeds)[1] == [1]
        assert planned(tmp_path / "m.onnx", feeds)[1] == [0]
        source.write_text(source.read_text() + "# changed\n")
        assert planned(tmp_path / "m.onnx", feeds)[1] == [1]
        monkeypatch.delattr(sys.modules["foreign_lowering"], "__file__")
        source.unlink()
        assert planned(tmp_path / "m.onnx", feeds)[1] == [1]
        assert planned(tmp_path / "m.onnx", feeds)[1] == [1]
    finally:
        del lowering._entries["tests.plans", "Twice"]
        del sys.modules["foreign_lowering"]


# The disk -------------------------------------------------------------------------------------------------------------


def test_processes_that_plan_at_once(net: Path) -> None:
    """Each writes the whole plan; whichever stays is good for all."""
    program = (
        f"import numpy, omniop\nsession = omniop.load({str(net)!r})\n"
        "session.run({'x': numpy.ones((3, 64), numpy.float32)})\nprint(session.last_report.templates_made)"
    )
    running = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    made = [process.communicate()[0].strip() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert "1" in made
    assert planned(net, rows(3))[1] == [0]


def test_a_full_disk(net: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compile_cache, "_write_renamed", full)
    assert planned(net, rows(3))[1] == [1]
    monkeypatch.undo()
    monkeypatch.setenv("OMNIOP_CACHE_DIR", str(own_cache.parent))
    assert planned(net, rows(3))[1] == [1]
    assert planned(net, rows(3))[1] == [0]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_plan_that_was_cut_short(share: float, net: Path, own_cache: Path) -> None:
    """As a writer killed half-way would leave it, did it write in place; its own temporary file does no harm."""
    planned(net, rows(3))
    (entry,) = own_cache.iterdir()
    whole = entry.read_bytes()
    (own_cache / "left.tmp").write_bytes(whole[:100])
    entry.write_bytes(whole[: int(len(whole) * share)])
    assert planned(net, rows(3))[1] == [1]
    assert planned(net, rows(3))[1] == [0]


def test_damaged_runnables_void_the_plan(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CpuDevice, "keep", lambda self, runs: b"\x80\x05N.")
    planned(net, rows(3))
    monkeypatch.undo()
    monkeypatch.setenv("OMNIOP_CACHE_DIR", str(net.parent / "cache"))
    assert planned(net, rows(3))[1] == [1]
