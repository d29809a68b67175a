"""Runnables on the disk, for plans: what was derived to make them is not derived again.

What they hold are numbers, machine code and addresses. Machine code is kept linked, and runs wherever it is put;
addresses stand in contexts alone, and are written anew. What depends on sizes that were not met yet (`Later`) is read
when it is asked for.
"""

from __future__ import annotations

import io
import logging
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from omniop.backends.base import Runnable
from omniop.backends.cpu import jit
from omniop.backends.cpu.memory import Scratch

_LOG = logging.getLogger(__name__)

T = TypeVar("T")


class Keepable:
    """A runnable that may be pickled: it holds no address but in `recording.Context` and
    `jit.MachineCode`."""

    def on_disk(self) -> Keepable:
        """What is pickled in its place."""
        return self


class Later(Generic[T]):
    """A value; one from the disk is read when it is first asked for."""

    def __init__(self, read: Callable[[], T]) -> None:
        self._read: Callable[[], T] | None = read
        self._value: T | None = None

    @classmethod
    def of(cls, value: T) -> Later[T]:
        return cls(lambda: value)

    def __call__(self) -> T:
        if self._read is not None:
            self._value, self._read = self._read(), None
        return self._value  # type: ignore[return-value]  # it was read


@dataclass
class _Kept:
    """``compiler``: what made the code; ``functions``: what of it is called."""

    compiler: str
    functions: list[jit.Name]
    code: jit.Archive
    runs: list[bytes | None]


def keep(runs: Sequence[Runnable], scratch: Scratch) -> bytes:
    """What `restore` needs for the runnables."""
    shelf = _Shelf(scratch)
    kept = [shelf.pickled(run) for run in runs]
    functions = [(code.key, code.symbol) for code in shelf.code]
    code = jit.archive(key for key, _ in functions)
    if code is None:
        functions, code, kept = [], (), [None] * len(kept)
    return pickle.dumps(_Kept(jit.identity(), functions, code, kept), 5)


def restore(kept: bytes, scratch: Scratch) -> list[Runnable | None]:
    """The runnables; None for one that has to be built."""
    found: _Kept = pickle.loads(kept)
    if found.compiler != jit.identity():
        return [None] * len(found.runs)
    shelf = _Shelf(scratch, jit.restored(found.functions, found.code))
    return [None if run is None else shelf.unpickled(run) for run in found.runs]


class _Shelf:
    """Pickles that share their machine code and refer to the device's scratch memory."""

    def __init__(self, scratch: Scratch, code: Sequence[jit.MachineCode] = ()) -> None:
        self.scratch = scratch
        self.code = list(code)
        self.numbers: dict[tuple[str, str], int] = {}

    def pickled(self, run: Runnable) -> bytes | None:
        if not isinstance(run, Keepable):
            return None
        try:
            return self.dumps(run.on_disk())
        except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
            _LOG.info("%s is not kept: %s", type(run).__name__, error)
            return None

    def unpickled(self, run: bytes) -> Runnable:
        made: Runnable = self.loads(run)
        return made

    def dumps(self, value: object) -> bytes:
        sink = io.BytesIO()
        _Pickler(sink, self).dump(value)
        return sink.getvalue()

    def loads(self, data: bytes) -> Any:
        return _Unpickler(io.BytesIO(data), self).load()

    def number(self, code: jit.MachineCode) -> int:
        name = code.key, code.symbol
        if name not in self.numbers:
            self.numbers[name] = len(self.code)
            self.code.append(code)
        return self.numbers[name]


class _Pickler(pickle.Pickler):
    def __init__(self, sink: io.BytesIO, shelf: _Shelf) -> None:
        super().__init__(sink, 5)
        self._shelf = shelf

    def persistent_id(self, obj: Any) -> tuple[str, Any] | None:
        if isinstance(obj, jit.MachineCode):
            return "code", self._shelf.number(obj)
        if obj is self._shelf.scratch:
            return "scratch", None
        if isinstance(obj, Later):
            return "later", self._shelf.dumps(obj())
        return None


class _Unpickler(pickle.Unpickler):
    def __init__(self, source: io.BytesIO, shelf: _Shelf) -> None:
        super().__init__(source)
        self._shelf = shelf

    def persistent_load(self, pid: tuple[str, Any]) -> Any:
        kind, what = pid
        if kind == "later":
            return Later(lambda: self._shelf.loads(what))
        return self._shelf.code[what] if kind == "code" else self._shelf.scratch
