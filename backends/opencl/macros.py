"""What the texts in ``kernels/`` are fitted with: loads, and for CPU devices vectors and a register tile."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from omniop.backends.opencl.probe import Profile
from omniop.backends.opencl.programs import Text
from omniop.opset import dtype as dtypes
from omniop.opset.dtype import DType

ACCUMULATORS = {
    dtypes.FLOAT32: "float",
    dtypes.FLOAT64: "double",
    dtypes.INT32: "int",
    dtypes.UINT32: "uint",
    dtypes.INT64: "long",
    dtypes.UINT64: "ulong",
}
"""What sums are kept in, by OpenCL's names, which its vector functions are named after."""

_HALF = ("vload_half(i, (global const half *)(p))", "vload_half{lanes}(0, (global const half *)((p) + (i)))")
_BFLOAT = ("as_float((uint)(p)[i] << 16)", "as_float{lanes}(convert_uint{lanes}(vload{lanes}(0, (p) + (i))) << 16)")
_SAME = ("((p)[i])", "vload{lanes}(0, (p) + (i))")
_CONVERTED = ("({type})(p)[i]", "convert_{type}{lanes}(vload{lanes}(0, (p) + (i)))")


def loads_as(dtype: DType, accumulator: DType) -> tuple[str, str] | None:
    """Templates of a load of element i from pointer p, and of several; None where it is not a plain conversion."""
    if dtype is accumulator:
        return _SAME
    if dtype.is_float != accumulator.is_float:
        return None
    if dtype in (dtypes.FLOAT16, dtypes.BFLOAT16):
        return {dtypes.FLOAT16: _HALF, dtypes.BFLOAT16: _BFLOAT}[dtype] if accumulator is dtypes.FLOAT32 else None
    return _CONVERTED if 8 <= dtype.bits <= accumulator.bits else None


def load_macros(letter: str, dtype: DType, accumulator: DType, lanes: int) -> dict[str, str]:
    """``LOAD_A(p, i)`` and ``LOADV_A(p, i)`` of the operand ``letter``."""
    loads = loads_as(dtype, accumulator)
    assert loads is not None, f"{dtype} with sums in {accumulator} was not accepted"
    one, several = (text.format(type=ACCUMULATORS[accumulator], lanes=lanes) for text in loads)
    return {f"LOAD_{letter}(p, i)": one, f"LOADV_{letter}(p, i)": several}


@dataclass(frozen=True)
class Tile:
    """Shape of the register tile of CPU devices: rows, and vectors of ``lanes`` elements."""

    rows: int
    vectors: int
    lanes: int

    @property
    def panel(self) -> int:
        return self.vectors * self.lanes


def tile_of(profile: Profile, accumulator: DType) -> Tile:
    """Twelve sums in the 16 registers of narrower machines, 24 in the 32 of those with vectors of 16."""
    return Tile(12 if profile.vector == 16 else 6, 2, max(2, profile.vector * 32 // accumulator.bits))


def tile_macros(tile: Tile, accumulator: DType) -> dict[str, str]:
    half = tile.lanes // 2
    mask = f"{'ulong' if accumulator.bits == 64 else 'uint'}{tile.lanes}"
    low, high = (", ".join(f"{first + j}, {first + j + tile.lanes}" for j in range(half)) for first in (0, half))
    return {
        "LANES": str(tile.lanes),
        "TILE_ROWS": str(tile.rows),
        "TILE_VECTORS": str(tile.vectors),
        "TV": f"{ACCUMULATORS[accumulator]}{tile.lanes}",
        "VLOAD": f"vload{tile.lanes}",
        "VSTORE": f"vstore{tile.lanes}",
        "INTERLEAVE_LOW": f"({mask})({low})",
        "INTERLEAVE_HIGH": f"({mask})({high})",
    }


@functools.cache
def read(name: str) -> str:
    """A file of ``kernels/``."""
    return resources.files("omniop.backends.opencl").joinpath("kernels", name).read_text()


def fitted(label: str, uses: frozenset[str], macros: Mapping[str, str], parts: Sequence[str]) -> Text:
    """``parts`` after definitions of their macros. Equal texts have one tag: the hash of what they say."""
    body = "".join((*(f"#define {name} {text}\n" for name, text in macros.items()), *parts))
    tag = hashlib.sha256(body.encode()).hexdigest()[:16]
    return Text(tag, label, f"#define ID(name) name##_{tag}\n{body}", uses)
