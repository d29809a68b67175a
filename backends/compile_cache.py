"""The on-disk cache of compiled code that every compile-type backend shares.

One entry is one file, named by the hash of its key: the payload, then a footer with a digest of key and payload. A
writer fills a private temporary and renames it, so a reader sees a whole entry or none; whatever else is found there
(cut short by a crash, corrupted, put under another key's name) fails the digest, is deleted and counts as missing: no
writer waits for the disk. The footer comes last so that the file can still be used as what it holds: a loader of ELF
objects ignores it.

The cache only ever saves time. A directory that cannot be used counts as empty, and one that cannot be written to (a
full disk, an image's read-only layer) is only read; either is logged once, as a warning.

``OMNIOP_CACHE_DIR`` moves the cache, ``OMNIOP_CACHE=0`` turns it off.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import mmap
import os
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

_LOG = logging.getLogger(__name__)

_MAGIC = b"omniopcc"
_DIGEST_BYTES = 32
_FOOTER_BYTES = _DIGEST_BYTES + len(_MAGIC)
_SUFFIX = ".bin"
_TEMPORARY_SUFFIX = ".tmp"
# A temporary this old has lost its writer: compilers take seconds.
_ABANDONED_AFTER_S = 3600.0
# The directory is listed on a process's first write and then each time it has written this share of the limit.
_SWEEPS_PER_LIMIT = 16


def cache_root() -> Path | None:
    """The directory that holds every kind of entry, or None when ``OMNIOP_CACHE`` turns the cache off."""
    if os.environ.get("OMNIOP_CACHE", "1").strip().lower() in ("0", "off", "no", "false"):
        return None
    configured = os.environ.get("OMNIOP_CACHE_DIR")
    if configured:
        return Path(configured)
    import platformdirs

    return Path(platformdirs.user_cache_dir("omniop", appauthor=False))


def cache_key(*parts: str | bytes) -> str:
    """A key made of everything a result depends on: sources, flags, compiler, machine. Where a part ends matters."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


class CompileCache:
    """Entries of one kind (``"cuda-emu"``, ``"cubin"``, ...), shared by threads and processes without a lock.

    The least recently used entries go once the kind holds more than ``limit_bytes``. No method raises for the state of
    the disk: a lookup that fails is a miss, a write that fails is forgotten.
    """

    def __init__(self, kind: str, limit_bytes: int = 1 << 30) -> None:
        root = cache_root()
        self.directory: Path | None = None if root is None else root / kind
        self.limit_bytes = limit_bytes
        self._checked = False
        self._writable = True
        self._written_since_sweep: int | None = None

    def get(self, key: str) -> bytes | None:
        """The payload stored under ``key``, or None."""
        entry = self._entry(key)
        if entry is None:
            return None
        payload = _verified(entry, key, Path.read_bytes)
        return None if payload is None else bytes(payload)

    def mapped(self, key: str) -> memoryview | None:
        """As `get`, for large payloads: the file's own pages, which all processes share. It begins at a page."""
        entry = self._entry(key)
        return None if entry is None else _verified(entry, key, _map)

    def path(self, key: str) -> Path | None:
        """A file that begins with the payload stored under ``key`` (the footer follows), checked just now, or None.

        It is never written again, but another process may evict it: open it at once and be ready to find it gone.
        """
        return None if self.get(key) is None else self._entry(key)

    def put(self, key: str, *payload: bytes | memoryview) -> None:
        """Stores ``payload``, whose parts follow each other, under ``key``; the last of several writers wins."""
        entry = self._entry(key)
        if entry is None or not self._writable:
            return
        try:
            _write_renamed(entry, *payload, _footer(key, *payload))
        except OSError as error:
            self._writable = False
            _warn(entry.parent, f"cannot be written to ({error})")
            return
        self._sweep_if_due(sum(map(len, payload)))

    def _entry(self, key: str) -> Path | None:
        directory = self._open()
        return None if directory is None else directory / (hashlib.sha256(key.encode()).hexdigest() + _SUFFIX)

    def _open(self) -> Path | None:
        """The directory, made on first use: entries hold code to be run, so nobody else may be able to write there."""
        if self._checked or self.directory is None:
            return self.directory
        self._checked = True
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            complaint = _not_private(self.directory)
        except OSError as error:
            complaint = str(error)
        if complaint:
            _warn(self.directory, f"cannot be used ({complaint})")
            self.directory = None
        return self.directory

    def _sweep_if_due(self, written: int) -> None:
        since = self._written_since_sweep
        if since is None or since + written > self.limit_bytes // _SWEEPS_PER_LIMIT:
            self._written_since_sweep = 0
            self._sweep()
        else:
            self._written_since_sweep = since + written

    def _sweep(self) -> None:
        """Deletes abandoned temporaries, and the oldest entries while there is more than the limit."""
        if self.directory is None:
            return
        entries: list[tuple[float, int, str]] = []
        with contextlib.suppress(OSError), os.scandir(self.directory) as listing:
            for found in listing:
                with contextlib.suppress(OSError):
                    status = found.stat(follow_symlinks=False)
                    if found.name.endswith(_SUFFIX):
                        entries.append((status.st_mtime, status.st_size, found.path))
                    elif found.name.endswith(_TEMPORARY_SUFFIX) and time.time() - status.st_mtime > _ABANDONED_AFTER_S:
                        os.unlink(found.path)
        excess = sum(size for _, size, _ in entries) - self.limit_bytes
        for _, size, name in sorted(entries):
            if excess <= 0:
                break
            excess -= size
            with contextlib.suppress(OSError):
                os.unlink(name)


_warned: set[Path] = set()


def _warn(directory: Path, what: str) -> None:
    """Once for all kinds of entries: what is the matter with one is with all."""
    if directory.parent not in _warned:
        _warned.add(directory.parent)
        _LOG.warning("the compile cache %s %s; going on without", directory, what)


def _footer(key: str, *payload: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(key.encode() + b"\0")
    for part in payload:
        digest.update(part)
    return digest.digest() + _MAGIC


def _verified(entry: Path, key: str, read: Callable[[Path], bytes | mmap.mmap]) -> memoryview | None:
    """The payload of an entry that is whole. The file's time orders the eviction."""
    try:
        data = memoryview(read(entry))
    except (OSError, ValueError):  # ValueError: an empty file, to be mapped
        return None
    payload = data[:-_FOOTER_BYTES]
    if data[-_FOOTER_BYTES:] == _footer(key, payload):
        with contextlib.suppress(OSError):
            os.utime(entry)
        return payload
    _LOG.info("the compile cache entry %s is damaged; it will be built again", entry)
    with contextlib.suppress(OSError):
        entry.unlink()
    return None


def _map(entry: Path) -> mmap.mmap:
    with entry.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _write_renamed(entry: Path, *parts: bytes | memoryview) -> None:
    descriptor, temporary = tempfile.mkstemp(suffix=_TEMPORARY_SUFFIX, dir=entry.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(parts)
        os.replace(temporary, entry)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _not_private(directory: Path) -> str | None:
    """Why code found in ``directory`` must not be run, or None. Access on Windows is not expressed in mode bits."""
    if os.name != "posix":
        return None
    status = directory.stat()
    if status.st_uid not in (os.getuid(), 0):
        return f"it belongs to user {status.st_uid}"
    if status.st_mode & stat.S_IWOTH:
        return "every user may write to it"
    return None
