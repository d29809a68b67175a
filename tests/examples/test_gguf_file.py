"""The examples' GGUF reader, on small files written here."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.smollm2.gguf_file import GgufError, GgufFile

HALF = np.float16


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def header(tensors: int, keys: dict[str, bytes], version: int = 3) -> bytes:
    """``keys``: encoded values, each with its type in front."""
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, len(keys))
    return head + b"".join(text(key) + value for key, value in keys.items())


def info(name: str, shape: tuple[int, ...], kind: int, offset: int = 0) -> bytes:
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
    return text(name) + dims + struct.pack("<IQ", kind, offset)


def with_tensor(shape: tuple[int, ...], kind: int, data: bytes) -> bytes:
    head = header(1, {}) + info("t", shape, kind)
    return head + bytes(-len(head) % 32) + data


def read(tmp_path: Path, content: bytes) -> GgufFile:
    path = tmp_path / "small.gguf"
    path.write_bytes(content)
    return GgufFile(path)


def test_metadata(tmp_path: Path) -> None:
    strings = struct.pack("<IIQ", 9, 8, 2) + text("a") + text("ä")
    nested = struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 4, 1) + struct.pack("<I", 7)
    scalars: dict[str, tuple[int, str, Any]] = {
        "u8": (0, "B", 255),
        "i16": (3, "h", -2),
        "f32": (6, "f", 0.5),
        "yes": (7, "?", True),
        "f64": (12, "d", 1e300),
    }
    keys = {k: struct.pack("<I", kind) + struct.pack("<" + code, v) for k, (kind, code, v) in scalars.items()}
    keys |= {"name": struct.pack("<I", 8) + text("llama"), "list": strings, "nested": nested}
    expected = {k: v for k, (_, _, v) in scalars.items()} | {"name": "llama", "list": ["a", "ä"], "nested": [[7]]}
    assert read(tmp_path, header(0, keys)).metadata == expected


def test_floats(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3) / 4
    for kind, dtype in ((0, np.float32), (1, np.float16)):
        tensor = read(tmp_path, with_tensor((2, 3), kind, values.astype(dtype).tobytes())).tensor("t")
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, values)


def test_alignment_is_the_files_own(tmp_path: Path) -> None:
    head = header(1, {"general.alignment": struct.pack("<II", 4, 64)}) + info("t", (1,), 0)
    content = head + bytes(-len(head) % 64) + np.float32(3).tobytes()
    assert read(tmp_path, content).tensor("t").tolist() == [3]


def test_blocks_of_32(tmp_path: Path) -> None:
    """Each element as the format defines it, one by one, against the whole tensor."""
    rng = np.random.default_rng(0)
    packed, bytes_ = rng.integers(0, 256, (2, 16), np.uint8), rng.integers(-128, 128, (2, 32), np.int8)
    scale, least = HALF([0.5, -0.25]), HALF([3, 0.125])
    expected = {kind: np.empty((2, 32), np.float32) for kind in (2, 3, 8)}
    for block in range(2):
        d, m = float(scale[block]), float(least[block])
        for k in range(32):
            q = packed[block, k] & 15 if k < 16 else packed[block, k - 16] >> 4
            expected[2][block, k] = (int(q) - 8) * d
            expected[3][block, k] = int(q) * d + m
            expected[8][block, k] = int(bytes_[block, k]) * d
    data = {
        2: [scale[b].tobytes() + packed[b].tobytes() for b in range(2)],
        3: [scale[b].tobytes() + least[b].tobytes() + packed[b].tobytes() for b in range(2)],
        8: [scale[b].tobytes() + bytes_[b].tobytes() for b in range(2)],
    }
    for kind, blocks in data.items():
        tensor = read(tmp_path, with_tensor((2, 32), kind, b"".join(blocks))).tensor("t")
        np.testing.assert_array_equal(tensor, expected[kind])


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = with_tensor((2, 3), 0, bytes(24))
    for length in range(len(whole)):
        with pytest.raises(GgufError, match=r"cut short|empty"):
            read(tmp_path, whole[:length]).tensor("t")


def test_what_is_not_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(GgufError, match="not a GGUF file"):
        read(tmp_path, b"PK\3\4" + bytes(100))
    with pytest.raises(GgufError, match="version 1"):
        read(tmp_path, header(0, {}, version=1))
    with pytest.raises(GgufError, match="unknown type 99"):
        read(tmp_path, header(0, {"k": struct.pack("<I", 99)}))
    with pytest.raises(GgufError, match=r"'t' is of ggml type 14; F32, F16.* are read"):
        read(tmp_path, with_tensor((256,), 14, bytes(210))).tensor("t")
    with pytest.raises(GgufError, match="no whole number of blocks"):
        read(tmp_path, with_tensor((31,), 8, bytes(34))).tensor("t")
    with pytest.raises(GgufError, match="no tensor 'weight'"):
        read(tmp_path, with_tensor((1,), 0, bytes(4))).tensor("weight")
