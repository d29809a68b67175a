"""Feeds: whatever holds an array becomes a host array that fits the input it is for.

Taken are numpy arrays, and objects with ``__array_interface__``, ``__dlpack__``, a buffer (memoryview, bytearray,
array.array) or ``__array__``, all without a copy where the owner has the data in host memory; and Python numbers,
strings and nested lists of them, which have no element type of their own and get the input's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from omniop.dispatcher.graph import Value, ValueType
from omniop.dispatcher.values import RuntimeValue
from omniop.opset import dtype as dtypes
from omniop.opset.dtype import STRING, DType
from omniop.opset.errors import FeedError

Sizes = dict[str, tuple[int, str]]
"""Size of each named dim met so far, and the input that gave it."""

_HOST_MEMORY = {1: "cpu", 3: "pinned", 11: "pinned", 13: "managed"}
"""DLDeviceType (dlpack.h) of memory that the host can read."""
_OTHER_MEMORY = {2: "cuda", 4: "opencl", 7: "vulkan", 8: "metal", 10: "rocm", 14: "oneapi", 15: "webgpu"}


def feed(v: Value, value: Any, sizes: Sizes) -> RuntimeValue:
    """A feed as a runtime value, checked against the input's type, rank, fixed dims and dims that share a name.

    Raises FeedError naming the input.
    """
    kind = "" if v.type is None else "map" if v.type.holds_map else v.type.kind
    if isinstance(value, Mapping):
        if kind != "map":
            raise FeedError(f"input {v.name!r}: an array is needed, not a {type(value).__name__}")
        return value
    if kind in ("sequence", "optional"):
        return _typed(v.name, v.type, value)
    if kind in ("", "map") and (value is None or _is_sequence(value)):
        return value
    array = _tensor(v.name, value, None if v.type is None else v.type.dtype)
    _check_dims(v, array, sizes)
    return array


def _is_sequence(value: Any) -> bool:
    """A list of arrays or maps, for an input whose type the model does not declare."""
    return isinstance(value, list) and any(isinstance(e, np.ndarray | Mapping) for e in value)


def _typed(name: str, type_: ValueType | None, value: Any) -> RuntimeValue:
    """A value of a sequence or an optional, elements included."""
    kind = "" if type_ is None else type_.kind
    if type_ is not None and kind == "optional":
        return None if value is None else _typed(name, type_.element, value)
    if type_ is not None and kind == "sequence":
        if not isinstance(value, list | tuple):
            raise FeedError(f"input {name!r}: a list of arrays is needed, not a {type(value).__name__}")
        return [_typed(f"{name}[{k}]", type_.element, element) for k, element in enumerate(value)]
    return _tensor(name, value, None if type_ is None else type_.dtype)


def _tensor(name: str, value: Any, wanted: DType | None) -> np.ndarray:
    """A feed as an array of the declared element type, None where the model leaves it open."""
    array = _python_array(name, value, wanted) if _is_python(value) else _host_array(name, value)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    found = _dtype(name, array)
    if wanted is not None and found is not wanted:
        raise FeedError(f"input {name!r}: {wanted} is needed, the feed is {found}; convert it with astype")
    return _strings(name, array) if found is STRING else array


def _dtype(name: str, array: np.ndarray) -> DType:
    try:
        return dtypes.of_numpy(array.dtype)
    except KeyError:
        raise FeedError(f"input {name!r}: numpy dtype {array.dtype} has no counterpart in ONNX") from None


# Python's own values --------------------------------------------------------------------------------------------------


def _is_python(value: Any) -> bool:
    return isinstance(value, bool | int | float | complex | str | list | tuple) and not isinstance(value, np.generic)


def _python_array(name: str, value: Any, wanted: DType | None) -> np.ndarray:
    """Python's numbers take the input's dtype where that loses nothing of their kind: an int is no bool, a float no
    int. Raises FeedError for those, for ragged lists, and for ints out of range."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        raise FeedError(f"input {name!r}: the list is no array: {error}") from None
    if wanted is None or wanted is STRING or array.dtype.kind not in "biufc":
        return array
    if array.size and not _widens(array.dtype.kind, wanted):
        raise FeedError(f"input {name!r}: {wanted} is needed, the feed holds Python values of {array.dtype}")
    converted = array.astype(wanted.numpy)
    if wanted.is_int and not np.array_equal(converted.astype(array.dtype), array):
        raise FeedError(f"input {name!r}: {wanted} is needed, the feed holds integers outside of its range")
    return converted


def _widens(kind: str, wanted: DType) -> bool:
    order = "biufc"
    low = kind if kind != "u" else "i"
    return order.index(low) <= order.index(wanted.kind)


def _strings(name: str, array: np.ndarray) -> np.ndarray:
    """Strings as an object array of str, which is how the host holds them; bytes are taken as UTF-8."""
    elements = [e.decode("utf-8", "surrogateescape") if isinstance(e, bytes) else e for e in array.reshape(-1).tolist()]
    strange = next((e for e in elements if not isinstance(e, str)), None)
    if strange is not None:
        raise FeedError(f"input {name!r}: strings are needed, the feed holds a {type(strange).__name__}")
    result = np.empty(len(elements), object)
    result[:] = elements
    return result.reshape(array.shape)


# Objects that hold arrays ---------------------------------------------------------------------------------------------


def _host_array(name: str, value: Any) -> np.ndarray:
    """An array on the memory of ``value`` where that can be; the first protocol that it speaks and that works."""
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    refused: list[str] = []
    for speaks, read in _PROTOCOLS:
        if speaks(value):
            try:
                return read(value)
            except Exception as error:  # whatever the owner of the data raises
                refused.append(" ".join(str(error).split()) or type(error).__name__)
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    where = _memory(value)
    if where is not None:
        hint = f" ({refused[0]})" if refused else ""
        raise FeedError(
            f"input {name!r}: the feed, a {kind}, is in {where} memory{hint}; copy it to the host first, "
            "as by its .cpu() or .get()"
        )
    if refused:
        raise FeedError(f"input {name!r}: the feed, a {kind}, cannot be read as an array: {refused[0]}")
    raise FeedError(f"input {name!r}: an array is needed, not a {kind}")


def _memory(value: Any) -> str | None:
    """What memory a feed is in when the host cannot read it."""
    if hasattr(value, "__cuda_array_interface__"):
        return "cuda"
    try:
        number = int(value.__dlpack_device__()[0])
    except Exception:  # no DLPack at all, or one that does not work
        return None
    return None if number in _HOST_MEMORY else _OTHER_MEMORY.get(number, f"another device's (DLPack type {number})")


def _from_dlpack(value: Any) -> np.ndarray:
    """Host memory is shared; of any other the owner is asked for a copy on the host (DLPack 1.0)."""
    if int(value.__dlpack_device__()[0]) in _HOST_MEMORY:
        return np.from_dlpack(value)
    return np.from_dlpack(value, device="cpu")


def _from_buffer(value: Any) -> np.ndarray:
    view = memoryview(value)
    return np.frombuffer(view, np.uint8) if isinstance(value, bytes | bytearray) else np.asarray(view)


def _has_buffer(value: Any) -> bool:
    try:
        memoryview(value).release()
    except TypeError:
        return False
    return True


_PROTOCOLS: tuple[tuple[Callable[[Any], bool], Callable[[Any], np.ndarray]], ...] = (
    (lambda value: hasattr(value, "__array_interface__") or hasattr(value, "__array_struct__"), np.asarray),
    (lambda value: hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"), _from_dlpack),
    (_has_buffer, _from_buffer),
    (lambda value: hasattr(value, "__array__"), np.asarray),
)
"""In the order they are tried."""


# Dims -----------------------------------------------------------------------------------------------------------------


def _check_dims(v: Value, array: np.ndarray, sizes: Sizes) -> None:
    dims = None if v.type is None else v.type.dims
    if dims is None:
        return
    name, shape = v.name, list(array.shape)
    if len(dims) != array.ndim:
        raise FeedError(f"input {name!r}: rank {len(dims)} is needed ({dims_text(dims)}), the feed has {shape}")
    for axis, (declared, extent) in enumerate(zip(dims, shape, strict=True)):
        if isinstance(declared, int) and declared != extent:
            raise FeedError(f"input {name!r}: shape {dims_text(dims)} is needed, the feed has {shape} (axis {axis})")
        if isinstance(declared, str):
            known, who = sizes.setdefault(declared, (extent, name))
            if known != extent:
                raise FeedError(f"input {name!r}: dim {declared!r} is {extent}, but {who!r} makes it {known}")


def dims_text(dims: Sequence[object] | None) -> str:
    """As messages show a shape: ``[batch, 3, ?]``."""
    if dims is None:
        return "of any rank"
    return "[" + ", ".join("?" if d is None else str(d) for d in dims) + "]"
