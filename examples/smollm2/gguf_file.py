"""Reading GGUF, the file format of llama.cpp: metadata, and tensors dequantised to float32.

Layout (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): a header, key-value pairs, a record per tensor, then
the tensors' data, each tensor aligned. Everything is little-endian. Quantised types store blocks of 32 elements.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_BLOCK = 32


class GgufError(Exception):
    """The file is no GGUF, is cut short, or holds a type that is not read here."""


def _half(blocks: np.ndarray, start: int) -> np.ndarray:
    """One float16 of each block, at byte ``start``, as float32 [blocks, 1]."""
    return blocks[:, start : start + 2].copy().view(np.float16).astype(np.float32)


def _nibbles(packed: np.ndarray) -> np.ndarray:
    """[blocks, 16] bytes to [blocks, 32] values 0 .. 15: all low halves, then all high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32)


def _q4_0(blocks: np.ndarray) -> np.ndarray:
    return (_nibbles(blocks[:, 2:]) - 8) * _half(blocks, 0)


def _q4_1(blocks: np.ndarray) -> np.ndarray:
    return _nibbles(blocks[:, 4:]) * _half(blocks, 0) + _half(blocks, 2)


def _q8_0(blocks: np.ndarray) -> np.ndarray:
    return blocks[:, 2:].view(np.int8).astype(np.float32) * _half(blocks, 0)


@dataclass(frozen=True)
class _Type:
    """How a tensor type is stored: ``decode`` makes float32 [blocks, elements] of bytes [blocks, size]."""

    name: str
    elements: int
    size: int
    decode: Callable[[np.ndarray], np.ndarray]


_TYPES = {
    0: _Type("F32", 1, 4, lambda blocks: blocks.view("<f4")),
    1: _Type("F16", 1, 2, lambda blocks: blocks.view("<f2").astype(np.float32)),
    2: _Type("Q4_0", _BLOCK, 18, _q4_0),
    3: _Type("Q4_1", _BLOCK, 20, _q4_1),
    8: _Type("Q8_0", _BLOCK, 34, _q8_0),
}


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of the file. ``shape`` is numpy's, slowest axis first; ``offset`` counts from the data's start."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


class GgufFile:
    """An open file. ``metadata`` maps keys to Python values, ``infos`` names to what is known of each tensor."""

    def __init__(self, path: str | Path) -> None:
        """Raises GgufError, or OSError when the file cannot be opened."""
        self._path = Path(path)
        with open(path, "rb") as file:
            if not file.read(1):
                raise GgufError(f"{path}: the file is empty")
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._at = 0
        if self._take(4) != _MAGIC:
            raise GgufError(f"{path}: not a GGUF file, which begins with {_MAGIC!r}")
        if (version := self._scalar("I")) not in _VERSIONS:
            raise GgufError(f"{path}: GGUF of version {version}; versions {_VERSIONS} are read")
        tensors, keys = self._scalar("Q"), self._scalar("Q")
        self.metadata: dict[str, Any] = {self._string(): self._value(self._scalar("I")) for _ in range(keys)}
        self.infos = {info.name: info for info in (self._info() for _ in range(tensors))}
        alignment = self.metadata.get("general.alignment", 32)
        self._data = math.ceil(self._at / alignment) * alignment

    def tensor(self, name: str) -> np.ndarray:
        """A tensor in float32, a copy. Raises GgufError when it is not there, or not readable."""
        if name not in self.infos:
            raise GgufError(f"{self._path}: no tensor {name!r}")
        info = self.infos[name]
        if info.kind not in _TYPES:
            known = ", ".join(t.name for t in _TYPES.values())
            raise GgufError(f"{self._path}: tensor {name!r} is of ggml type {info.kind}; {known} are read")
        stored = _TYPES[info.kind]
        count = math.prod(info.shape)
        if count % stored.elements:
            raise GgufError(f"{self._path}: tensor {name!r} of shape {info.shape} is no whole number of blocks")
        self._at = self._data + info.offset
        blocks = np.frombuffer(self._take(count // stored.elements * stored.size), np.uint8)
        return np.array(stored.decode(blocks.reshape(-1, stored.size)).reshape(info.shape), np.float32)

    def _take(self, count: int) -> bytes:
        taken = self._bytes[self._at : self._at + count]
        if len(taken) < count:
            raise GgufError(f"{self._path}: cut short: {count} bytes wanted at {self._at}, of {len(self._bytes)}")
        self._at += count
        return taken

    def _scalar(self, code: str) -> Any:
        return struct.unpack("<" + code, self._take(struct.calcsize("<" + code)))[0]

    def _string(self) -> str:
        return self._take(self._scalar("Q")).decode("utf-8")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            element, count = self._scalar("I"), self._scalar("Q")
            return [self._value(element) for _ in range(count)]
        if kind not in _SCALARS:
            raise GgufError(f"{self._path}: a metadata value of unknown type {kind}")
        return self._scalar(_SCALARS[kind])

    def _info(self) -> TensorInfo:
        name, rank = self._string(), self._scalar("I")
        shape = tuple(reversed([self._scalar("Q") for _ in range(rank)]))
        return TensorInfo(name, shape, self._scalar("I"), self._scalar("Q"))
