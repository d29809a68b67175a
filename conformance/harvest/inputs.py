"""What a model is fed when it is taken apart: arrays of the declared shapes, the open dims as the caller sizes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from omniop.conformance.samples.drawing import normal, uniform
from omniop.opset import dtype as dtypes
from omniop.opset.errors import FeedError

Sizes = Mapping[str, int]
"""Of open dims, by their name, or by ``input:axis`` for one that has none."""


def read(files: Mapping[str, Path]) -> dict[str, np.ndarray]:
    """The arrays of ``.npy`` files. FeedError names one that is none."""
    arrays = {}
    for name, file in files.items():
        try:
            arrays[name] = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise FeedError(f"{file} is not an array that numpy.save has written: {error}") from None
    return arrays


def draw(model: onnx.ModelProto, sizes: Sizes, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """A feed for each input that has no value in the model: of ``arrays``, or drawn, the same for the same sizes.

    Integers are 0 and 1, which most models take for identifiers, masks and lengths alike. Raises FeedError naming every
    dim that has no size, every size that no dim takes, an array for no input, and an input that is no tensor.
    """
    inputs = [value.name for value in model.graph.input]
    if strange := sorted(set(arrays) - set(inputs)):
        raise FeedError(f"there is no input {strange[0]!r}; inputs: {', '.join(inputs) or 'none'}")
    given = {tensor.name for tensor in model.graph.initializer} | set(arrays)
    infos = [value for value in model.graph.input if value.name not in given]
    for info in infos:
        if info.type.WhichOneof("value") != "tensor_type" or not info.type.tensor_type.elem_type:
            raise FeedError(f"input {info.name!r} is no tensor of a known type: only tensors are drawn")
    wanted = {key: info for info in infos for key in _open(info)}
    if missing := [key for key in wanted if key not in sizes]:
        told = dict.fromkeys(_told(wanted[key]) for key in missing)
        raise FeedError(f"{', '.join(told)}: give {' '.join(f'--dim {key}=SIZE' for key in missing)}")
    if unused := [key for key in sizes if key not in wanted]:
        raise FeedError(f"no input has a dim {unused[0]!r}; open dims: {', '.join(wanted) or 'none'}")
    return {**arrays, **{info.name: _array(info, sizes) for info in infos}}


def _array(info: onnx.ValueInfoProto, sizes: Sizes) -> np.ndarray:
    dtype = dtypes.of_onnx(info.type.tensor_type.elem_type)
    shape = tuple(sizes[dim] if isinstance(dim, str) else dim for dim in _dims(info))
    random = np.random.default_rng(list(info.name.encode()))
    values = uniform(dtype.name, shape, 0, 2) if dtype.is_int else normal(dtype.name, *shape)
    return values.draw(random)


def _open(info: onnx.ValueInfoProto) -> Iterator[str]:
    return (dim for dim in _dims(info) if isinstance(dim, str))


def _dims(info: onnx.ValueInfoProto) -> list[int | str]:
    """Sizes of the dims that are declared, the keys of the others."""
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        raise FeedError(f"input {info.name!r} declares no shape, so it cannot be drawn")
    return [_dim(dim, f"{info.name}:{axis}") for axis, dim in enumerate(tensor.shape.dim)]


def _dim(dim: onnx.TensorShapeProto.Dimension, place: str) -> int | str:
    """Exporters write -1, and "?", for a dim that has no name."""
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return dim.dim_value
    return dim.dim_param if any(map(str.isalnum, dim.dim_param)) else place


def _told(info: onnx.ValueInfoProto) -> str:
    dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type).name
    return f"input {info.name!r} ({dtype} [{', '.join(map(str, _dims(info)))}])"
