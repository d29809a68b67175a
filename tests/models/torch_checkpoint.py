"""Tensors of a PyTorch checkpoint in the format from before version 1.6, read without PyTorch.

Such a file is five pickles: a magic number, a protocol version, facts about the machine, the object, and the keys of
the storages, whose bytes follow in that order, each after its length. A tensor in the object is a call of
``torch._utils._rebuild_tensor_v2`` on a storage; nothing else is ever called.
See ``_legacy_save`` in https://github.com/pytorch/pytorch/blob/main/torch/serialization.py.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_STORAGES = {"FloatStorage": np.float32, "HalfStorage": np.float16, "LongStorage": np.int64}


def read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """A state dict's arrays by name. Raises pickle.UnpicklingError for anything that is no legacy checkpoint."""
    with path.open("rb") as file:
        header = [_Unpickler(file).load() for _ in range(3)]
        if header[:2] != [_MAGIC, _VERSION]:
            raise pickle.UnpicklingError(f"{path.name} is no legacy checkpoint")
        reader = _Unpickler(file)
        state = reader.load()
        for key in _Unpickler(file).load():
            storage = reader.storages[key]
            (length,) = np.frombuffer(file.read(8), np.int64)
            if length != storage.size:
                raise pickle.UnpicklingError(f"{path.name}: storage {key} has {length} elements, not {storage.size}")
            file.readinto(storage.data)  # type: ignore[attr-defined]  # a file opened "rb" is a BufferedReader
    return dict(state)


class _Unpickler(pickle.Unpickler):
    """Makes arrays on storages that are filled later; refuses every other object."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _array
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"a checkpoint of tensors holds no {module}.{name}")

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, dtype, key, _, length, _ = pid
        return self.storages.setdefault(key, np.empty(length, dtype))


def _array(
    storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> np.ndarray:
    steps = tuple(step * storage.itemsize for step in strides)
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps)
