"""What a run gave: a summary of each output, and files that are written all or not at all."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omniop.terminal import UsageError


@dataclass(frozen=True)
class Summary:
    """One output, or one element of a sequence. The statistics are of its finite numbers; None where it has none."""

    name: str
    dtype: str
    shape: list[int]
    min: float | None = None
    mean: float | None = None
    max: float | None = None
    not_finite: int = 0
    """How many elements are NaN or infinite."""


def arrays_of(outputs: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """(name, array) of every tensor; a sequence has ``name[0]``, ``name[1]``, ..., an empty optional nothing."""
    for name, value in outputs.items():
        if isinstance(value, list):
            yield from arrays_of({f"{name}[{k}]": element for k, element in enumerate(value)})
        elif value is not None:
            yield name, np.asarray(value)


def summary(name: str, array: np.ndarray[Any, Any]) -> Summary:
    """Of one array; strings and complex numbers have no least, mean or greatest."""
    shape = list(array.shape)
    if array.dtype.kind in "OUS":
        return Summary(name, "string", shape)
    if array.dtype.kind == "c":
        return Summary(name, str(array.dtype), shape)
    exact = array if array.dtype.kind in "iu" else array.astype(np.float64)
    numbers = exact[np.isfinite(exact)]
    lost = array.size - numbers.size
    if not numbers.size:
        return Summary(name, str(array.dtype), shape, not_finite=lost)
    low, mean, high = numbers.min().item(), float(numbers.mean(dtype=np.float64)), numbers.max().item()
    return Summary(name, str(array.dtype), shape, low, mean, high, lost)


def check_directory(folder: Path) -> None:
    """Say before a long run what would fail after it. Raises UsageError."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UsageError(f"--output-dir {folder}: {there} is a file, not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"--output-dir {folder}: {there} may not be written to")


def write_arrays(outputs: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """Write every tensor as ``folder/NAME.npy`` and return the paths by name.

    All are written aside before the first takes its place, so a failure leaves the folder as it was. Raises UsageError.
    """
    paths = _paths([name for name, _ in arrays_of(outputs)], folder)
    there = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".omniop-", dir=folder) as aside:
            for name, array in arrays_of(outputs):
                # Strings in an object array would be pickled; as fixed-width text they are not.
                plain = array.astype(str) if array.dtype.kind == "O" else array
                np.save(Path(aside) / paths[name].name, plain, allow_pickle=False)
            for path in paths.values():
                os.replace(Path(aside) / path.name, path)
    except BaseException as error:
        if not there and folder.exists():
            folder.rmdir()
        if isinstance(error, OSError):  # numpy's own has neither a file nor a reason
            raise UsageError(f"--output-dir {folder} cannot be written: {error.strerror or error}") from error
        raise
    return paths


def _paths(names: list[str], folder: Path) -> dict[str, Path]:
    """A file per name: what no file system takes becomes ``_``, and a name that is taken by then gets a number."""
    paths: dict[str, Path] = {}
    taken: set[str] = set()
    for name in names:
        stem = re.sub(r"[^\w.\[\]-]+", "_", name).lstrip(".") or "output"
        free = next(s for s in (stem, *(f"{stem}-{k}" for k in range(2, len(names) + 2))) if s.lower() not in taken)
        taken.add(free.lower())
        paths[name] = folder / f"{free}.npy"
    return paths
