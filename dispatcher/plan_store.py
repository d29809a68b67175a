"""Plans on disk: a model that was planned before, by any process, is neither imported nor traced nor planned again.

A plan is the model's graph and the templates made so far, pickled: for the same bytes of the model, the same devices,
options and omniop. Weights are not in it, but where they lie in the model's files; what was computed from them at load
is. So are the runnables of devices that can keep them; others are built of their works, which devices have caches for.

A plan that cannot be read, or that does not fit what is there now, counts as none. Plans live beside compiled code and
are as private (`omniop.backends.compile_cache`); ``OMNIOP_CACHE=0`` turns both off.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pickle
import platform
import sys
from collections.abc import Iterator, Sequence
from functools import cache, partial
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from omniop import backends, dispatcher, opset
from omniop.backends.base import Device, Runnable
from omniop.backends.compile_cache import CompileCache, cache_key
from omniop.dispatcher.build import Built, make_ready
from omniop.dispatcher.execute import GraphRunner, Options
from omniop.opset import dtype as dtypes

_LOG = logging.getLogger(__name__)

INLINE_BYTES = 1 << 12
"""Arrays up to this size are in the plan itself."""
MAX_PLAN_BYTES = 1 << 28
"""A larger one (models whose folded constants are) is not kept."""

Stamp = tuple[str, int, int, int]
"""A file as it was: path, inode, size, time of its last change in nanoseconds."""


_MODEL, _ENTRY = "", "/"
"""Instead of a path: the model itself, and the entry, which begins with arrays and ends with an `_Entry`."""
_LENGTH = 8
"""Bytes of the length of the latter, at the very end."""
_ALIGNMENT = 64


class _Place(NamedTuple):
    """Where an array lies: ``file`` is a path, `_MODEL` or `_ENTRY`."""

    file: str
    offset: int
    dtype: str
    shape: tuple[int, ...]


class _Entry(NamedTuple):
    """What is on the disk. ``plan`` is the pickled runner; ``files`` hold arrays or code that it depends on."""

    files: tuple[Stamp, ...]
    plan: bytes
    arrays: list[_Place]
    works: list[tuple[int, bytes]]
    """Of launches: the number of the device, and the work, pickled."""
    runs: dict[int, bytes]
    """By the number of a device, what it keeps of its works' runnables."""
    folder: str
    """Of the model, when it has external data: the same model has other weights elsewhere."""


class PlanStore:
    """The plans of one model on one list of devices."""

    def __init__(self, source: str | os.PathLike[str] | bytes, options: Options) -> None:
        """Raises OSError when the model cannot be read."""
        self._options = options
        self._cache = CompileCache("plans")
        path = "" if isinstance(source, bytes) else os.fspath(source)
        self._source = source
        self._path = path
        # Read, not mapped: whoever writes the model anew while it is loaded would pull a mapping away from under it.
        model = self._model()
        self._files: dict[str, np.ndarray] = {_MODEL: np.frombuffer(model, np.uint8)}
        self._digest = hashlib.sha256(model).digest()
        self._key = cache_key(self._digest, *_environment(), *map(str, _choices(options)))
        self._folder = os.path.realpath(os.path.dirname(path)) if path else ""
        self.kept = 0
        """Templates that the disk has."""

    def load(self) -> GraphRunner | None:
        """The main graph's runner, with its templates ready to run; None when there is no plan that fits."""
        try:
            return self._load()
        finally:
            self._files.clear()  # what is used of them is held by its arrays

    def _model(self) -> bytes:
        return self._source if isinstance(self._source, bytes) else Path(self._source).read_bytes()

    def _load(self) -> GraphRunner | None:
        payload = self._cache.mapped(self._key)
        if payload is None:
            return None
        try:
            length = int.from_bytes(payload[-_LENGTH:], "little")
            entry: _Entry = pickle.loads(payload[-_LENGTH - length : -_LENGTH])
            self._files[_ENTRY] = np.frombuffer(payload, np.uint8)
            if any(_stamp(stamp[0]) != stamp for stamp in entry.files) or entry.folder not in ("", self._folder):
                return None
            arrays = [self._array(place) for place in entry.arrays]
            built = self._built(entry)
            runner: GraphRunner = _Unpickler(entry.plan, self._options, arrays, built).load()
            templates = (t for r in _runners(runner) for made in r.templates.values() for t in made)
            constants = [constant for template in templates for _, constant in template.constants]
            for constant in sorted(constants, key=lambda c: c.nbytes, reverse=True):
                constant.compute()  # beside its source, which is then let go: the largest while there is little else
                self._options.weights.adopt(constant)
        except Exception as error:  # whatever a damaged or outdated pickle raises
            _LOG.info("the plan of %s is not usable (%s: %s)", self._path or "a model", type(error).__name__, error)
            return None
        self.kept = self._options.templates_made = sum(
            len(made) for r in _runners(runner) for made in r.templates.values()
        )
        return runner

    def save(self, runner: GraphRunner) -> None:
        """Keep what has been planned so far. Never raises for what cannot be kept."""
        self.kept = self._options.templates_made
        files = _foreign_sources(runner, self._options)
        if files is None:
            return
        sink = io.BytesIO()
        pickler = _Pickler(sink, self._options)
        try:
            pickler.dump(runner)
        except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
            _LOG.info("the plan of %s cannot be kept: %s", self._path or "a model", error)
            return
        try:
            model = self._model()
        except OSError:
            return
        if hashlib.sha256(model).digest() != self._digest:
            return  # another model has taken the file's place
        own: list[memoryview] = []
        places = [self._place(array, model, own) for array in pickler.arrays]
        if sum(map(len, own)) > MAX_PLAN_BYTES:
            return
        files += [_stamp(p.file) for p in places if p.file not in (_MODEL, _ENTRY)]
        files += [_stamp(file) for file in runner.model.files]  # small arrays of theirs are in the plan itself
        stamps = tuple(dict.fromkeys(s for s in files if s is not None))
        if None in files:
            return
        folder = self._folder if runner.model.files else ""
        works, runs = self._kept(pickler.built)
        entry = pickle.dumps(_Entry(stamps, sink.getvalue(), places, works, runs, folder), 5)
        if len(entry) <= MAX_PLAN_BYTES:
            self._cache.put(self._key, *own, entry, len(entry).to_bytes(_LENGTH, "little"))

    # Works ------------------------------------------------------------------------------------------------------------

    def _kept(self, built: Sequence[Built]) -> tuple[list[tuple[int, bytes]], dict[int, bytes]]:
        """Works and runnables for an `_Entry`."""
        devices = self._options.devices
        by_device: dict[Device, list[Built]] = {}
        for b in built:
            by_device.setdefault(b.device, []).append(b)
        kept = {devices.index(device): device.keep([b.run for b in found]) for device, found in by_device.items()}
        works = [(devices.index(b.device), b.pickled_work()) for b in built]
        return works, {number: runs for number, runs in kept.items() if runs is not None}

    def _built(self, entry: _Entry) -> list[Built]:
        """All of the entry's works, ready to run."""
        devices = self._options.devices
        runs: dict[int, Iterator[Runnable | None]] = {}
        for number in dict.fromkeys(number for number, _ in entry.works):
            kept = entry.runs.get(number)
            runs[number] = repeat(None) if kept is None else iter(devices[number].restore(kept))
        built = [Built(devices[number], work, next(runs[number])) for number, work in entry.works]
        make_ready(built)
        return built

    # Arrays -----------------------------------------------------------------------------------------------------------

    def _place(self, array: np.ndarray, model: bytes, own: list[memoryview]) -> _Place:
        """Where the array lies in a file that stays where it is; one that does nowhere joins ``own``, the arrays of the
        entry. Any place of the model with the right content is as good as another."""
        root: Any = array
        while isinstance(root.base, np.ndarray) and not isinstance(root, np.memmap):
            root = root.base
        place = partial(_Place, dtype=array.dtype.name, shape=array.shape)
        if isinstance(root, np.memmap) and array.flags.c_contiguous:
            while isinstance(root.base, np.memmap):
                root = root.base
            return place(os.fspath(root.filename), array.ctypes.data - root.ctypes.data)
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        if isinstance(root.base, bytes | memoryview) and (offset := model.find(content)) >= 0:
            return place(_MODEL, offset)
        offset = sum(map(len, own))
        own += [content, memoryview(bytes(-len(content) % _ALIGNMENT))]
        return place(_ENTRY, offset)

    def _array(self, place: _Place) -> np.ndarray:
        if place.file not in self._files:
            self._files[place.file] = np.memmap(place.file, np.uint8, "r")
        dtype = dtypes.of_name(place.dtype).numpy
        nbytes = int(np.prod(place.shape, dtype=np.int64)) * dtype.itemsize
        raw = self._files[place.file][place.offset : place.offset + nbytes]
        return raw.view(np.ndarray).view(dtype).reshape(place.shape)


class _Pickler(pickle.Pickler):
    """Devices and the session's options by name, works and large arrays by number."""

    def __init__(self, sink: io.BytesIO, options: Options) -> None:
        super().__init__(sink, 5)
        self._options = options
        self.arrays: list[np.ndarray] = []
        self.built: list[Built] = []
        self._numbers: dict[int, int] = {}

    def persistent_id(self, obj: Any) -> tuple[str, int] | None:
        if obj is self._options:
            return ("options", 0)
        if isinstance(obj, Device):
            return ("device", self._options.devices.index(obj))
        if isinstance(obj, Built):
            return ("built", self._number(obj, self.built))
        if isinstance(obj, np.ndarray) and obj.nbytes > INLINE_BYTES and obj.dtype != object:
            return ("array", self._number(obj, self.arrays))
        return None

    def _number(self, obj: Any, members: list[Any]) -> int:
        if id(obj) not in self._numbers:
            self._numbers[id(obj)] = len(members)
            members.append(obj)
        return self._numbers[id(obj)]


class _Unpickler(pickle.Unpickler):
    def __init__(self, plan: bytes, options: Options, arrays: Sequence[np.ndarray], built: Sequence[Built]) -> None:
        super().__init__(io.BytesIO(plan))
        self._of: dict[str, Sequence[Any]]
        self._of = {"options": [options], "device": options.devices, "array": arrays, "built": built}

    def persistent_load(self, pid: tuple[str, int]) -> Any:
        kind, number = pid
        return self._of[kind][number]


def _runners(runner: GraphRunner) -> Iterator[GraphRunner]:
    yield runner
    for inner in runner.bodies.values():
        yield from _runners(inner)


# What a plan depends on -----------------------------------------------------------------------------------------------


def _choices(options: Options) -> Iterator[object]:
    """Devices in order, with all that placement looks at, and the session's options."""
    for device in options.devices:
        yield device.threads  # work is cut up for so many
        yield device.name, device.fingerprint, device.caps.max_buffers, device.caps.loops, device.caps.atomics
        yield sorted(d.name for d in device.caps.storage), sorted(d.name for d in device.caps.compute)
    yield sorted((k, sorted(v)) for k, v in options.exclude.items())
    yield options.precision


@cache
def _environment() -> tuple[str, ...]:
    """omniop's sources, and what else decides how a plan is written."""
    versions = f"{sys.implementation.cache_tag} {platform.machine()} numpy {np.__version__}"
    files = sorted(
        stamp for room in (opset, backends, dispatcher) for path in room.__path__ for stamp in _sources(path)
    )
    return versions, repr(files)


def _sources(folder: str) -> Iterator[Stamp]:
    with os.scandir(folder) as listing:
        for found in listing:
            if found.name.endswith(".py"):
                yield _stamp_of(found.path, found.stat())
            elif found.is_dir() and found.name != "__pycache__":
                yield from _sources(found.path)


def _foreign_sources(runner: GraphRunner, options: Options) -> list[Stamp | None] | None:
    """The files outside of omniop that define devices or lowerings of this plan; None when one has no file."""
    modules = {type(device).__module__ for device in options.devices}
    graphs = [r.graph for r in _runners(runner)]
    modules |= {info.entry.function.__module__ for g in graphs for info in g.nodes if info.entry is not None}
    found: list[Stamp | None] = []
    for name in sorted(m for m in modules if m.partition(".")[0] != "omniop"):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is None:
            return None
        found.append(_stamp(file))
    return found


def _stamp(file: str) -> Stamp | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return _stamp_of(file, status)


def _stamp_of(file: str, status: os.stat_result) -> Stamp:
    return file, status.st_ino, status.st_size, status.st_mtime_ns
