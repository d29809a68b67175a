"""Makes OpenCL drivers visible that the loader would not find by itself.

A loader reads a folder of ``.icd`` files, each holding the path of a driver. Two drivers usually have none that works:
the CPU runtime that pip installs (its ``.icd`` holds a path of the machine it was packed on), and NVIDIA's in a
container, which mounts the library alone. `make_visible` writes a folder with the entries that work and points
``OCL_ICD_VENDORS`` to it. A value that the user set is left as it is.

The folder's name is the hash of what it holds, so runs and processes share one, and nothing is ever changed in place.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from omniop.backends.compile_cache import cache_root

_VARIABLE = "OCL_ICD_VENDORS"
_FOLDER = "opencl-vendors"

_PIP_DRIVERS = (("intel-opencl-rt", "libintelocl.so"),)
_NVIDIA = "libnvidia-opencl.so.1"
_LIBRARY_FOLDERS = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
)


def make_visible() -> None:
    """Set ``OCL_ICD_VENDORS`` where that finds more drivers; call it before the first platform query.

    Loaders read the variable once a process. Raises nothing: what cannot be written is not found, as before.
    """
    if not sys.platform.startswith("linux") or not _ours(os.environ.get(_VARIABLE)):
        return
    known = system_entries(system_folders())
    found = missing_entries(known, pip_drivers(), nvidia_driver(library_folders()))
    folder = publish({**known, **found}) if found else None
    if folder is not None:
        os.environ[_VARIABLE] = str(folder)
    else:
        os.environ.pop(_VARIABLE, None)


def _ours(value: str | None) -> bool:
    """Unset, or set by this module in the process that started this one."""
    return not value or Path(value).parent.name.startswith(_FOLDER)


def system_folders() -> list[Path]:
    """Where loaders look by default: the system's folder, and that of the environment Python runs in."""
    system = os.environ.get("OPENCL_VENDOR_PATH") or "/etc/OpenCL/vendors"
    return [Path(system), Path(sys.prefix, "etc/OpenCL/vendors")]


def system_entries(folders: Iterable[Path]) -> dict[str, str]:
    """Name and library of every ``.icd`` that can work: its library is there, or the dynamic linker has to find it."""
    entries: dict[str, str] = {}
    for folder in folders:
        for file in sorted(folder.glob("*.icd")):
            with contextlib.suppress(OSError, UnicodeDecodeError):
                library = file.read_text().strip()
                if library and (not os.path.isabs(library) or os.path.exists(library)):
                    entries.setdefault(file.name, library)
    return entries


def missing_entries(known: Mapping[str, str], pip: Iterable[Path], nvidia: Path | None) -> dict[str, str]:
    """Entries for the drivers that no known one stands for; one driver loaded twice would list its devices twice."""
    names = {Path(library).name.split(".so")[0] for library in known.values()}
    drivers = [*pip, *([] if nvidia is None else [nvidia])]
    missing = [driver for driver in drivers if driver.name.split(".so")[0] not in names]
    return {f"omniop-{driver.name.split('.so')[0]}.icd": str(driver) for driver in missing}


def pip_drivers() -> list[Path]:
    """CPU runtimes that pip installed into this Python."""
    drivers = []
    for package, library in _PIP_DRIVERS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            files = importlib.metadata.files(package) or []
            paths = [Path(str(file.locate())) for file in files if file.name == library]
            drivers += [path.resolve() for path in paths if path.exists()][:1]
    return drivers


def library_folders() -> list[str]:
    configured = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return [*filter(None, configured), *_LIBRARY_FOLDERS]


def nvidia_driver(folders: Sequence[str]) -> Path | None:
    return next((path for path in (Path(folder, _NVIDIA) for folder in folders) if path.exists()), None)


# Writing the folder ---------------------------------------------------------------------------------------------------


def publish(entries: Mapping[str, str], roots: Sequence[Path] | None = None) -> Path | None:
    """A folder with exactly these entries, made by this process or an earlier one; None where none can be had.

    The user's cache is tried first, the temporary folder next.
    """
    digest = hashlib.sha256(repr(sorted(entries.items())).encode()).hexdigest()[:16]
    for root in roots if roots is not None else _roots():
        with contextlib.suppress(OSError):
            folder = root / digest
            if not _holds(folder, entries):
                _write(folder, entries)
            if _holds(folder, entries):
                return folder
    return None


def _roots() -> list[Path]:
    cache = cache_root()
    temporary = Path(tempfile.gettempdir(), f"{_FOLDER}-{os.getuid()}")
    return [temporary] if cache is None else [cache / _FOLDER, temporary]


def _write(folder: Path, entries: Mapping[str, str]) -> None:
    """Fill a private folder, then rename it: others see all entries or none."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    private = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        for name, library in entries.items():
            (private / name).write_text(library + "\n")
        with contextlib.suppress(OSError):  # another process was first
            private.rename(folder)
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _holds(folder: Path, entries: Mapping[str, str]) -> bool:
    """Exactly these entries, in folders that only this user can write to: they name code to be run."""
    if not (_private(folder.parent) and _private(folder)):
        return False
    found = {file.name: file.read_text().strip() for file in folder.iterdir()}
    return found == dict(entries)


def _private(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & stat.S_IWOTH
