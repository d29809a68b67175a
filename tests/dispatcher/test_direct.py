"""Runs whose feeds compiled code reads and checks where they are: taken for the same feeds, and for no others."""

from __future__ import annotations

import gc
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest

import omniop
from omniop import ort
from omniop.backends.cpu import direct
from omniop.dispatcher.session import Session
from omniop.opset.errors import DeviceError, ExecutionError, FeedError
from tests.gate.case import model, normal

CHAIN = model("g (float[N, 4] x, float[N, 4] z) => (float[N, 4] y, float[N, 4] q) { y = Add (x, z) q = Mul (y, z) }")
NET = model(
    """g (float[N, 3, 20, 20] x) => (float[N, 8, A, B] y)
    { a = Conv <pads = [1, 1, 1, 1]> (x, k) b = Relu (a) y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (b) }""",
    k=normal(8, 3, 3, 3),
)


def loaded(proto: onnx.ModelProto, **options: Any) -> Session:
    return omniop.load(proto, device="cpu", fallback="error", **options)


def feeds(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": normal(rows, 4, seed=seed), "z": normal(rows, 4, seed=seed + 1)}


def expected(given: dict[str, np.ndarray]) -> list[np.ndarray]:
    total = given["x"] + given["z"]
    return [total, total * given["z"]]


def warm(session: Session, *given: dict[str, np.ndarray]) -> None:
    for f in given:
        session.run(f)
        session.run(f)


@pytest.fixture
def session() -> Session:
    made = loaded(CHAIN)
    warm(made, feeds(3))
    return made


def test_feeds_like_the_last_ones_are_taken(session: Session) -> None:
    for seed in range(5):
        given = feeds(3, seed)
        found = session.direct(given)
        assert found is not None
        for value, right in zip(found, expected(given), strict=True):
            np.testing.assert_array_equal(value, right)
    assert session.last_report.segments


def test_outputs_are_fresh(session: Session) -> None:
    given = feeds(3)
    first, second = session.direct(given), session.direct(given)
    assert first is not None
    assert second is not None
    arrays = [*first, *second, *given.values()]
    assert not any(np.shares_memory(a, b) for k, a in enumerate(arrays) for b in arrays[:k])
    assert all(a.flags.writeable for a in first)


def other_shape(x: np.ndarray) -> Any:
    return normal(4, 4)


def other_rank(x: np.ndarray) -> Any:
    return x.reshape(3, 4, 1)


def flat(x: np.ndarray) -> Any:
    return x.reshape(12)


def other_dtype(x: np.ndarray) -> Any:
    return x.astype(np.int32)


def swapped_bytes(x: np.ndarray) -> Any:
    return x.astype(">f4")


def by_columns(x: np.ndarray) -> Any:
    return np.asfortranarray(x)


def every_second(x: np.ndarray) -> Any:
    return np.repeat(x, 2, axis=0)[::2]


def unaligned(x: np.ndarray) -> Any:
    raw = np.zeros(x.nbytes + 1, np.uint8)
    raw[1:] = x.reshape(-1).view(np.uint8)
    return raw[1:].view(np.float32).reshape(x.shape)


def subclass(x: np.ndarray) -> Any:
    return np.ma.masked_array(x)


def number(x: np.ndarray) -> Any:
    return 3.0


def text(x: np.ndarray) -> Any:
    return "x"


def nothing(x: np.ndarray) -> Any:
    return None


@pytest.mark.parametrize(
    "change",
    [
        *(other_shape, other_rank, flat, other_dtype, swapped_bytes, by_columns, every_second, unaligned),
        *(subclass, number, text, nothing, lambda x: x.tolist(), lambda x: x[0, 0], type),
    ],
)
def test_other_feeds_are_not_taken(change: Any, session: Session) -> None:
    given = {**feeds(3), "x": change(feeds(3)["x"])}
    assert session.direct(given) is None
    right = feeds(3)
    assert session.direct(right) is not None


def test_a_dtype_of_the_same_kind_is_right_either_way(session: Session) -> None:
    """Another object than numpy's own, as pickle and metadata make them."""
    other = np.dtype(np.float32, metadata={"unit": "m"})
    given = feeds(3)
    given["x"] = given["x"].astype(other)
    for value, right in zip(session.run(given).values(), expected(given), strict=True):
        np.testing.assert_array_equal(value, right)
    given = pickle.loads(pickle.dumps(feeds(3)))
    for value, right in zip(session.run(given).values(), expected(given), strict=True):
        np.testing.assert_array_equal(value, right)


def test_missing_and_unknown_names_are_told(session: Session) -> None:
    x, z = feeds(3).values()
    for wrong in ({"x": x}, {"x": x, "z": z, "w": z}, {"x": x, "w": z}, {}):
        assert session.direct(wrong) is None
        with pytest.raises(FeedError):
            session.run(wrong)


def test_the_order_of_names_does_not_matter(session: Session) -> None:
    given = feeds(3)
    found = session.direct({"z": given["z"], "x": given["x"]})
    assert found is not None
    np.testing.assert_array_equal(found[1], expected(given)[1])


def test_shapes_in_turn() -> None:
    session = loaded(CHAIN)
    warm(session, feeds(3), feeds(1), feeds(50))
    for seed, rows in enumerate((3, 1, 1, 50, 3, 50, 50, 1)):
        given = feeds(rows, seed)
        for value, right in zip(session.run(given).values(), expected(given), strict=True):
            np.testing.assert_array_equal(value, right)


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("images", [1, 30])
def test_programs_with_memory_of_their_own(images: int, threads: int) -> None:
    """Scratch memory of the calling thread and of workers; outputs that are large."""
    x = normal(images, 3, 20, 20)
    right = loaded(NET, threads=1).run({"x": x})["y"]
    session = loaded(NET, threads=threads)
    warm(session, {"x": x})
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(session.direct, [{"x": x}] * 12):
            assert found is not None
            np.testing.assert_array_equal(found[0], right)


def test_many_threads_and_shapes() -> None:
    session = loaded(CHAIN)
    warm(session, feeds(2), feeds(9))
    start = threading.Barrier(4)

    def check(seed: int) -> None:
        start.wait()
        for turn in range(200):
            given = feeds(2 if (seed + turn) % 3 else 9, seed)
            for value, right in zip(session.run(given).values(), expected(given), strict=True):
                np.testing.assert_array_equal(value, right)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(check, range(4)))


def test_a_fault_is_told_and_forgotten() -> None:
    session = loaded(model("g (float[5] x, int64[N] i) => (float[N] y) { y = Gather (x, i) }"))
    x, good, bad = normal(5), np.array([0, 4, -5]), np.array([0, 5, 1])
    warm(session, {"x": x, "i": good})
    for _ in range(3):
        with pytest.raises(ExecutionError, match="Gather"):
            session.direct({"x": x, "i": bad})
        found = session.direct({"x": x, "i": good})
        assert found is not None
        np.testing.assert_array_equal(found[0], x[good])


def test_an_input_that_nothing_reads() -> None:
    session = loaded(model("g (float[N] x, float[M] z) => (float[N] y) { y = Neg (x) }"))
    given = {"x": normal(3), "z": normal(5)}
    warm(session, given)
    found = session.direct(given)
    assert found is not None
    np.testing.assert_array_equal(found[0], -given["x"])
    assert session.direct({**given, "z": normal(6)}) is None


def test_no_memory_is_told(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise MemoryError("Unable to allocate")

    context = session.runner.templates
    (template,) = [t for made in context.values() for t in made]
    held = [c.direct for c in template.contexts if c.direct is not None]
    assert held
    for made in held:
        monkeypatch.setattr(made, "_make", [none])
    assert session.direct(feeds(3)) is None
    assert session.run(feeds(3)).keys() == {"y", "q"}


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "readable", lambda: False)


@pytest.mark.usefixtures("unreadable")
def test_where_arrays_cannot_be_read() -> None:
    """Another Python, another numpy: runs are slower and no different."""
    session = loaded(CHAIN)
    warm(session, feeds(3))
    given = feeds(3, 7)
    assert session.direct(given) is None
    for value, right in zip(session.run(given).values(), expected(given), strict=True):
        np.testing.assert_array_equal(value, right)


def test_arrays_are_readable_here_and_it_would_be_noticed_if_not(monkeypatch: pytest.MonkeyPatch) -> None:
    direct.readable.cache_clear()
    assert direct.readable()
    monkeypatch.setattr(direct, "WANTED_FLAGS", 0x102)
    direct.readable.cache_clear()
    assert not direct.readable()
    direct.readable.cache_clear()


def test_nothing_is_held_on_to(session: Session) -> None:
    given = feeds(3)
    counts = [sys.getrefcount(a) for a in given.values()]
    for _ in range(50):
        session.direct(given)
    gc.collect()
    assert [sys.getrefcount(a) for a in given.values()] == counts


def test_the_other_face_takes_it_too(session: Session) -> None:
    other = ort.InferenceSession(CHAIN.SerializeToString())
    given = feeds(3)
    for _ in range(3):
        found = other.run(None, given)
        for value, right in zip(found, expected(given), strict=True):
            np.testing.assert_array_equal(value, right)
    np.testing.assert_array_equal(other.run(["q"], given)[0], expected(given)[1])
    np.testing.assert_array_equal(other.run(["q", "y"], given)[1], expected(given)[0])
    with pytest.raises(FeedError):
        other.run(None, {**given, "x": given["x"].astype(np.float64)})


def test_a_session_that_failed_is_as_good_as_before(session: Session) -> None:
    with pytest.raises((FeedError, DeviceError)):
        session.run({**feeds(3), "x": np.zeros((3, 5), np.float32)})
    assert session.direct(feeds(3)) is not None
