"""Feeds from the command line: arrays from files, random data where that is asked for."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.format import MAGIC_PREFIX

from omniop.dispatcher.feeds import dims_text
from omniop.terminal import UsageError

if TYPE_CHECKING:
    from omniop.dispatcher.session import ValueInfo
    from omniop.opset.dtype import DType

Sizes = dict[str, int]
"""Sizes of symbolic dims: by the dim's name, or by ``input:axis`` for a dim that has none."""


def assignments(texts: Sequence[str], option: str, form: str) -> dict[str, str]:
    """``name=value`` texts as a dict. Raises UsageError for another form, and for a name that comes twice."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UsageError(f"{option} {text!r}: the form is {form}")
        if name in found:
            raise UsageError(f"{option}: {name!r} is given twice")
        found[name] = value
    return found


def sizes_of(texts: Sequence[str]) -> Sizes:
    """``batch=2`` texts as sizes. Raises UsageError for what is no size."""
    sizes: Sizes = {}
    for name, value in assignments(texts, "--dim", "NAME=SIZE, as in --dim batch=2").items():
        if not value.isdecimal():
            raise UsageError(f"--dim {name}={value}: a size is a whole number, 0 or more")
        sizes[name] = int(value)
    return sizes


def feeds_of(
    infos: Sequence[ValueInfo], files: Mapping[str, str], sizes: Sizes, *, random: bool, seed: int
) -> dict[str, Any]:
    """An array per input: from its file, or random.

    Raises UsageError naming the inputs that neither covers, with their types. Whether the arrays fit is the session's
    to say.
    """
    dtypes = {info.name: info.dtype for info in infos}
    if unknown := [name for name in files if name not in dtypes]:
        raise UsageError(f"--input {unknown[0]}: the model has no such input; it has: {', '.join(map(str, infos))}")
    feeds = {name: read_array(Path(path), dtypes.get(name)) for name, path in files.items()}
    missing = [info for info in infos if info.name not in feeds]
    if not missing:
        if unused := sorted(sizes):
            raise UsageError(f"--dim {unused[0]}: every input is given, so nothing is left to be sized")
        return feeds
    known = {**_dims_of_feeds(infos, feeds), **sizes}
    if not random:
        raise UsageError(_missing(missing, known))
    _check_names(missing, sizes)
    generator = np.random.default_rng(seed)
    return {**feeds, **{info.name: random_array(info, known, generator) for info in missing}}


def read_array(path: Path, dtype: str | None) -> np.ndarray[Any, Any]:
    """The array of a ``.npy`` file; the bytes of a type that numpy has no name for are read as ``dtype``."""
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        # Of what has another beginning numpy says that it may be a pickle, and how to load that.
        why = f": {error}" if path.read_bytes()[: len(MAGIC_PREFIX)] == MAGIC_PREFIX else ""
        raise UsageError(f"{path} is not an array that numpy.save has written{why}") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise UsageError(f"{path} holds several arrays (.npz); numpy.save writes one to a file")
    if array.dtype.kind == "V" and dtype is not None:
        wanted = _dtype(dtype)
        if wanted is not None and wanted.numpy.itemsize == array.dtype.itemsize:
            return array.view(wanted.numpy)
    return array


def random_array(info: ValueInfo, sizes: Sizes, generator: np.random.Generator) -> np.ndarray[Any, Any]:
    """Random data for an input. Raises UsageError when a dim has no size, and when there is not enough memory.

    Floats are normal; integers of at least 32 bits are 0 or 1, which are valid as indices, masks and token ids; smaller
    ones take any value; strings are "a" or "b".
    """
    unsized = _unsized(info, sizes)
    if info.shape is None or unsized:
        raise UsageError(f"input {info} has dims without a size: add {_dim_options(unsized)}")
    dtype = _dtype(info.dtype)
    if dtype is None:
        raise UsageError(f"input {info}: there is no random data for its type; give --input {info.name}=FILE.npy")
    shape = tuple(_size(info, axis, sizes) or 0 for axis in range(len(info.shape)))
    try:
        return _drawn(dtype, shape, generator)
    except (MemoryError, ValueError):  # ValueError: more than numpy can count
        raise UsageError(f"input {info}: no memory for random data of shape {dims_text(shape)}") from None


def _drawn(dtype: DType, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray[Any, Any]:
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype.numpy)
    if dtype.kind == "c":
        return (generator.standard_normal(shape) + 1j * generator.standard_normal(shape)).astype(dtype.numpy)
    if dtype.kind == "s":
        return generator.choice(np.array(["a", "b"], object), shape)
    if dtype.kind == "b" or dtype.bits >= 32:
        return generator.integers(0, 2, shape).astype(dtype.numpy)
    low, high = (-(1 << dtype.bits - 1), 1 << dtype.bits - 1) if dtype.kind == "i" else (0, 1 << dtype.bits)
    return generator.integers(low, high, shape).astype(dtype.numpy)


def _dtype(name: str) -> DType | None:
    from omniop.opset import dtype as dtypes

    try:
        return dtypes.of_name(name)
    except KeyError:
        return None


# Dims ---------------------------------------------------------------------------------------------


def _size(info: ValueInfo, axis: int, sizes: Sizes) -> int | None:
    """The size of one dim, when it is known: fixed, by ``input:axis``, or by the dim's name."""
    assert info.shape is not None
    dim = info.shape[axis]
    if isinstance(dim, int):
        return dim
    by_place = sizes.get(f"{info.name}:{axis}")
    return sizes.get(dim) if by_place is None and dim is not None else by_place


def _unsized(info: ValueInfo, sizes: Sizes) -> list[str]:
    """How ``--dim`` calls each dim of an input that has no size."""
    if info.shape is None:
        return []
    names = [f"{info.name}:{axis}" if dim is None else str(dim) for axis, dim in enumerate(info.shape)]
    return [name for axis, name in enumerate(names) if _size(info, axis, sizes) is None]


def _dims_of_feeds(infos: Sequence[ValueInfo], feeds: Mapping[str, Any]) -> Sizes:
    """What the arrays at hand say about named dims."""
    sizes: Sizes = {}
    for info in infos:
        if info.name in feeds and info.shape is not None and len(info.shape) == feeds[info.name].ndim:
            named = zip(info.shape, feeds[info.name].shape, strict=True)
            sizes.update({dim: size for dim, size in named if isinstance(dim, str)})
    return sizes


def _check_names(missing: Sequence[ValueInfo], sizes: Sizes) -> None:
    """A dim that no random input has is a typing error, not something to pass over."""
    known = dict.fromkeys(name for info in missing for name in _unsized(info, {}))
    places = {f"{info.name}:{axis}" for info in missing for axis in range(len(info.shape or ()))}
    for name in sizes:
        if name not in known and name not in places:
            there = ", ".join(known) or "no symbolic dim"
            raise UsageError(f"--dim {name}: the inputs to be filled have no such dim; they have: {there}")


# Words --------------------------------------------------------------------------------------------


def _dim_options(names: Sequence[str]) -> str:
    return " ".join(f"--dim {name}=SIZE" for name in dict.fromkeys(names))


def _missing(missing: Sequence[ValueInfo], sizes: Sizes) -> str:
    inputs = "input" if len(missing) == 1 else "inputs"
    given = " ".join(f"--input {info.name}=FILE.npy" for info in missing)
    dims = _dim_options([name for info in missing for name in _unsized(info, sizes)])
    random = f"--random {dims}".strip()
    return f"missing {inputs} {', '.join(map(str, missing))}: give {given}, or {random} for random data"
