"""External data: tensors whose bytes lie in files beside the model. Mapped, not read.

A model is untrusted, and its locations are paths of its author's choosing. A location must be relative, without
``..``, and lead to a regular file under the model's folder, links resolved. One exception: a Hugging Face cache is made
of links (``snapshots/<revision>/model.onnx_data -> ../../blobs/<hash>``), so a model in such a snapshot may reach the
blobs of its own repository, and nothing else. A hard link is a file of the folder like any other: only who may write
there can make one, and package managers install by them. Offsets and lengths are compared with the file's size before a
tensor is made of it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx_ir as ir

from omniop.opset.errors import ModelError
from omniop.opset.tensor_data import element_count, packed_bytes


def resolve(location: str, folder: Path, what: str) -> Path:
    """The real path of an external-data location: under ``folder``, or among the blobs of the same Hugging Face cache.

    Raises ModelError when it leads anywhere else, or nowhere.
    """
    # A model made on one system is read on another: what either takes for absolute or for a parent is refused.
    flavours = (PurePosixPath(location), PureWindowsPath(location))
    if not location or "\0" in location:
        raise ModelError(f"{what} keeps its data in a file without a name")
    if any(p.anchor or ".." in p.parts for p in flavours):
        raise ModelError(f"{what} keeps its data in {location!r}, and only a path below the model's folder is allowed")
    path = folder / location
    try:
        real = path.resolve(strict=True)
        allowed = [folder.resolve(), *_blobs(folder)]
    except (OSError, RuntimeError) as e:
        raise ModelError(f"{what} keeps its data in {path}, which cannot be read: {_reason(e)}") from e
    if not any(real.is_relative_to(root) for root in allowed):
        raise ModelError(f"{what} keeps its data in {location!r}, which leads out of the model's folder, to {real}")
    return real


def _blobs(folder: Path) -> list[Path]:
    """The blobs folder of the Hugging Face repository whose snapshot holds ``folder``."""
    for parent in folder.resolve().parents:
        blobs = parent.parent / "blobs"
        # A link in its place could lead anywhere.
        if parent.name == "snapshots" and blobs.is_dir() and not blobs.is_symlink():
            return [blobs]
    return []


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class ExternalData:
    """Maps the tensors of one model. Each file is opened and mapped once; the arrays keep the mapping alive."""

    def __init__(self, folder: Path | None) -> None:
        """``folder``: where locations are relative to; None when the model did not come from a file."""
        self.folder = folder
        self._files: dict[Path, np.ndarray] = {}
        self._places: dict[tuple[Path, str], Path] = {}
        """Resolved, by folder and location: most tensors of a model share a file."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files mapped so far, as resolved."""
        return tuple(self._files)

    def map(self, tensor: ir.ExternalTensor, what: str) -> ir.TensorProtocol:
        """The same tensor over mapped bytes, read-only, without a copy; sub-byte types are unpacked when read.

        Raises ModelError when the location is not allowed or the file does not hold the bytes.
        """
        dtype, shape = tensor.dtype, ir.Shape(tensor.shape)
        if dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED):
            raise ModelError(f"{what} has the type {dtype.name}, which external data cannot hold")
        size = packed_bytes(dtype, element_count(shape.numpy(), what))
        offset = tensor.offset or 0
        if tensor.length is not None and tensor.length != size:
            raise ModelError(f"{what} states {tensor.length} bytes of external data; its shape and type need {size}")
        data = self._file(tensor, what)
        if offset < 0 or offset + size > data.size:
            raise ModelError(
                f"{what} needs the bytes {offset} to {offset + size} of {tensor.location!r}, which has {data.size}"
            )
        raw = data[offset : offset + size]
        if dtype.bitwidth < 8:
            return ir.PackedTensor(raw, dtype, shape=shape, name=tensor.name)
        array = raw.view(dtype.numpy().newbyteorder("<")).reshape(tuple(shape.numpy()))
        return ir.Tensor(array, dtype=dtype, shape=shape, name=tensor.name)

    def _file(self, tensor: ir.ExternalTensor, what: str) -> np.ndarray:
        """All bytes of the file, mapped: uint8 of shape [size]."""
        # A tensor of an ir.Model knows its own folder, chosen by whoever loaded it.
        folder = Path(tensor.base_dir) if tensor.base_dir else self.folder
        if folder is None:
            raise ModelError(
                f"{what} keeps its data in {str(tensor.location)!r}, and this model has no folder: "
                "import it from its path, or pass folder="
            )
        place = folder, os.fspath(tensor.location)
        if place not in self._places:
            self._places[place] = resolve(place[1], folder, what)
        path = self._places[place]
        if path not in self._files:
            self._files[path] = _map_file(path, what)
        return self._files[path]


def _map_file(path: Path, what: str) -> np.ndarray:
    # The path is resolved: a link found here now was put there since. Not blocking, for a pipe would.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        file = open(path, "rb", opener=lambda name, _: os.open(name, flags))  # noqa: SIM115 - closed below
    except IsADirectoryError as e:
        raise ModelError(f"{what} keeps its data in {path}, which is not a regular file") from e
    except OSError as e:
        raise ModelError(f"{what} keeps its data in {path}, which cannot be read: {_reason(e)}") from e
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{what} keeps its data in {path}, which is not a regular file")
        if status.st_size == 0:
            return np.empty(0, dtype=np.uint8)
        return np.memmap(file, np.uint8, "r")  # it knows its file's name, which plans on disk refer to
