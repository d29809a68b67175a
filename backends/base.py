"""The contract between the dispatcher and a backend.

A backend is a module (named by an entry point of the group ``omniop.backends``) with a ``BACKEND``: a `Backend` that
lists its `Device`s. A device owns memory and builds work. The smallest one implements alloc, h2d, d2h and build; see
`omniop.backends.template`, and `omniop.backends.reference` for what every prim means.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from omniop.opset import dtype as dtypes
from omniop.opset.dtype import DType
from omniop.opset.kernel import Work
from omniop.opset.layout import ROW_MAJOR, Layout
from omniop.opset.sym import Dim

API_VERSION = 1
"""Version of this contract. A backend states the one it was written for as ``Backend.api_version``."""

Buffer = Any
"""A device's own handle of an allocation."""


@dataclass(frozen=True)
class Yes:
    """Accepted."""

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True)
class No:
    """Rejected: ``code`` for machines ("needs-fp64"), ``detail`` for people. It is false in a test."""

    code: str
    detail: str = ""

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}" if self.detail else self.code


Answer = Yes | No
YES = Yes()

_BASIC = frozenset(d for d in dtypes.ALL if d.kind in "biu" and d.bits >= 8) | {dtypes.FLOAT32}


@dataclass(frozen=True)
class Caps:
    """What a device can do. `omniop.opset.legalise` rewrites a kernel into this, or says why it cannot.

    ``storage``: dtypes its kernels can load and store; ``compute``: dtypes they can do arithmetic in. ``max_buffers``:
    buffer arguments of one kernel. ``loops``: it compiles loop programs, so that a structured prim is best given to it
    as loops; otherwise it evaluates array by array and gets them expanded into contracts and maps. ``dtype_aliases``
    are done by legalise: float16 in ``storage`` but not in ``compute`` is loaded, cast, computed in float32 and rounded
    at every operation.
    """

    storage: frozenset[DType] = _BASIC
    compute: frozenset[DType] = _BASIC
    max_buffers: int = 16
    loops: bool = False
    atomics: bool = True
    """Combining stores may be built in parallel."""

    @property
    def fp64(self) -> bool:
        return dtypes.FLOAT64 in self.compute


@dataclass(frozen=True)
class Fingerprint:
    """Which piece of hardware and software this is: the key of tuning records and conformance results."""

    vendor: str
    name: str
    arch: str
    driver: str


@dataclass(frozen=True)
class TensorType:
    """What planning knows of a tensor: an int per dim where it is the same for all shapes, None where not."""

    dtype: DType
    shape: tuple[int | None, ...]
    dims: tuple[Dim, ...] = ()
    """The dims themselves; comparing them leaves guards."""
    constant: bool = False
    """Its elements are the model's: what a kernel wants of them is computed once."""


@dataclass(frozen=True)
class OpContext:
    """What a kernel's ``when`` and ``cost`` see of the op or prim they are asked about."""

    op: str
    inputs: tuple[TensorType | None, ...]
    outputs: tuple[TensorType, ...]
    attrs: Mapping[str, Any]
    caps: Caps
    layouts: tuple[Layout, ...] = ()
    """Of a prim's operands, as far as it is decided; the kernels of maps may still write another."""


class Runnable(Protocol):
    """Built work. ``buffers`` in the order of the work's params, ``sizes`` its size arguments.

    It may return before the work is done; `Device.sync`, `d2h` and later launches come after it.
    """

    def __call__(self, buffers: Sequence[Buffer], sizes: Sequence[int]) -> None: ...


class Launched(NamedTuple):
    """A launch of built work: its buffers by their places in a run's table, and its size arguments."""

    run: Runnable
    buffers: tuple[int, ...]
    sizes: tuple[int, ...]


class LaunchError(Exception):
    """A launch of a sequence found no memory for what it needs itself."""

    def __init__(self, position: int, reason: object) -> None:
        super().__init__(str(reason))
        self.position = position


Sequenced = Callable[[Sequence[Buffer]], None]
"""Runs launches on a table of buffers. Raises LaunchError."""


class HostArray(NamedTuple):
    """A row-major array of the host that a sequence reads or writes as the buffer at ``entry`` of its table; None for
    one that it does not look at."""

    entry: int | None
    dtype: np.dtype
    shape: tuple[int, ...]


Direct = Callable[[Sequence[Any]], "list[np.ndarray] | None"]
"""Runs a sequence on arrays; gives fresh ones. None when one is not as described: nothing has been done then."""


class Device(ABC):
    """One piece of hardware. All methods may be called from several threads.

    Attributes: ``name`` ("opencl:0"), ``caps``, ``fingerprint``, ``kernels`` (tuned ones of its backend).
    """

    name: str
    caps: Caps
    fingerprint: Fingerprint
    kernels: KernelTable
    precisions: frozenset[str] = frozenset()
    """Of those that a session may ask for (`omniop.load`), in which its products are faster than in float32."""
    emulated: bool = False
    """It stands in for other hardware than it runs on: used only when asked for by its full name."""

    @abstractmethod
    def alloc(self, nbytes: int) -> Buffer:
        """Memory for ``nbytes`` (above 0), freed when the handle is garbage. Raises DeviceError when there is none."""

    @abstractmethod
    def h2d(self, buffer: Buffer, array: np.ndarray) -> None:
        """Copy a C-contiguous array to the start of ``buffer``; the array may change once this returns."""

    @abstractmethod
    def d2h(self, array: np.ndarray, buffer: Buffer) -> None:
        """Fill a C-contiguous array from the start of ``buffer``, after all work launched before."""

    def borrow(self, array: np.ndarray) -> Buffer | None:
        """A C-contiguous array's own memory as a buffer that work reads and never writes.

        A feed is lent for the time of one run, a constant for good: the buffer keeps the array alive.

        None, the default: the array has to be copied.
        """
        return None

    def lend(self, buffer: Buffer, shape: tuple[int, ...], dtype: DType) -> np.ndarray | None:
        """A buffer's own memory as a row-major array that keeps it alive. None, the default: it has to be copied."""
        return None

    def copy(self, target: Buffer, source: Buffer, nbytes: int) -> None:
        """Copy between buffers of this device. The default goes through the host."""
        staging = np.empty(nbytes, np.uint8)
        self.d2h(staging, source)
        self.h2d(target, staging)

    def sync(self) -> None:  # noqa: B027 - right as it is for devices that launch synchronously
        """Wait until all launched work is done."""

    def accepts(self, op: OpContext) -> Answer:
        """Whether it takes a structured prim (or "contract") whole, as a `kernel.Call`. By default none."""
        return No("expands", f"{self.name} runs {op.op} by its expansion")

    def accepts_epilogue(self, prim: str) -> bool:
        """Whether a Call of this prim may carry an epilogue expression."""
        return False

    @abstractmethod
    def build(self, works: Sequence[Work]) -> list[Runnable]:
        """Make work runnable, all of a template's at once so that compilation can be batched.

        Works are legal for ``caps``. Raises DeviceError naming the work that did not build.
        """

    @property
    def threads(self) -> int | None:
        """How many of the host's a run keeps busy that does not say so; None for hardware that is not made of them."""
        return None

    def keep_calm(self) -> None:
        """From here on its threads of the host's sleep when there is nothing to do, where they would watch for work:
        somebody else wants the CPUs. Nothing, the default, for hardware that has none."""
        return None

    def keep(self, runs: Sequence[Runnable]) -> bytes | None:
        """What `restore` makes them of, in another process on the same device. None, the default: they are built."""
        return None

    def restore(self, runs: bytes) -> Sequence[Runnable | None]:
        """Runnables that were kept, by the same sources; None for those that have to be built after all."""
        raise NotImplementedError

    def sequence(self, launches: Sequence[Launched], threads: int | None = None) -> Sequenced:
        """These launches, in order, as one function. A device that can hand on several at once does it here.

        ``threads``: how many of the host's a run may keep busy, for devices that are made of them; None: as the device
        sees fit. What comes out must not depend on it.
        """
        return partial(_one_by_one, launches)

    def direct(
        self, run: Sequenced, table: Sequence[Buffer], feeds: Sequence[HostArray], outputs: Sequence[HostArray]
    ) -> Direct | None:
        """A sequence of this device for one table, with arrays in place of some of its buffers; one call of it runs at
        a time. None, the default: it has to be given buffers."""
        return None


def _one_by_one(launches: Sequence[Launched], table: Sequence[Buffer]) -> None:
    for position, (run, buffers, sizes) in enumerate(launches):
        try:
            run([table[k] for k in buffers], sizes)
        except MemoryError as error:
            raise LaunchError(position, error) from error


class Backend(ABC):
    """A family of devices. ``name`` is the first part of its devices' names."""

    name: str
    api_version: int = API_VERSION

    @abstractmethod
    def devices(self) -> list[Device]:
        """The devices that are there. Raises DeviceError, with the reason, when the backend cannot run here."""


# Tuned kernels --------------------------------------------------------------------------------------------------------

When = Callable[[OpContext], Answer]
Cost = Callable[[OpContext], float]


def always(_: OpContext) -> Answer:
    return YES


@dataclass(frozen=True)
class Prepared:
    """What a kernel wants in place of an operand: the row-major result, of ``shape(operand's shape)``, of the kernel
    ``name`` of the same table on that operand alone. Of a constant it is computed once."""

    name: str
    shape: Callable[[tuple[Dim, ...]], tuple[Dim, ...]]


@dataclass(frozen=True)
class KernelSpec:
    """A tuned kernel for an ONNX op, a composite op, or a prim (lower-case name).

    ``when`` and ``cost`` (seconds) are pure and see types, attributes and Caps only. ``make(device, work)`` builds a
    `kernel.Call` whose prim is "kernel:<name>". ``layouts``: what it reads and writes, per input and output; row-major
    by default. ``prepared``: operands, by position, that it wants in another form. ``epilogue``: whether it computes a
    `kernel.Call.epilogue` as well.
    """

    op: str
    name: str
    make: Callable[[Any, Any], Runnable]
    versions: tuple[int, int] = (1, 1 << 30)
    dtypes: tuple[DType, ...] = ()
    when: When = always
    cost: Cost = lambda _: 0.0
    input_layouts: tuple[Layout, ...] = ()
    output_layouts: tuple[Layout, ...] = ()
    prepared: Mapping[int, Prepared] = field(default_factory=dict)
    epilogue: bool = False

    @property
    def source(self) -> str:
        """Where it was declared."""
        file = inspect.getsourcefile(self.make) or "?"
        return f"{self.make.__module__}.{self.make.__qualname__} ({file})"

    def input_layout(self, position: int) -> Layout:
        return self.input_layouts[position] if position < len(self.input_layouts) else ROW_MAJOR

    def output_layout(self, position: int) -> Layout:
        return self.output_layouts[position] if position < len(self.output_layouts) else ROW_MAJOR


class KernelTable:
    """The tuned kernels of one backend, by op. ``declared`` gives the first ones, when they are first asked for."""

    def __init__(self, declared: Callable[[], Iterable[KernelSpec]] = tuple) -> None:
        self._declared = declared

    @cached_property
    def _specs(self) -> dict[str, list[KernelSpec]]:
        specs: dict[str, list[KernelSpec]] = {}
        for spec in self._declared():
            _add(specs, spec)
        return specs

    def add(self, spec: KernelSpec) -> None:
        """Raises ValueError when the op has a kernel of this name, naming both sources."""
        _add(self._specs, spec)

    def remove(self, op: str, name: str) -> None:
        """Take a kernel out again."""
        self._specs[op] = [s for s in self._specs.get(op, []) if s.name != name]

    def of(self, op: str) -> tuple[KernelSpec, ...]:
        return tuple(self._specs.get(op, ()))

    def __iter__(self) -> Iterator[KernelSpec]:
        return (spec for specs in self._specs.values() for spec in specs)

    def named(self, name: str) -> KernelSpec:
        """Raises KeyError."""
        for specs in self._specs.values():
            for spec in specs:
                if spec.name == name:
                    return spec
        raise KeyError(name)

    def kernel(
        self, op: str, **options: Any
    ) -> Callable[[Callable[[Any, Any], Runnable]], Callable[[Any, Any], Runnable]]:
        """Decorator: ``@table.kernel("Conv", when=..., cost=...)`` over ``make(device, call) -> Runnable``."""

        def register(make: Callable[[Any, Any], Runnable]) -> Callable[[Any, Any], Runnable]:
            name = options.pop("name", getattr(make, "__name__", "kernel"))
            self.add(KernelSpec(op, name, make, **options))
            return make

        return register


def _add(table: dict[str, list[KernelSpec]], spec: KernelSpec) -> None:
    specs = table.setdefault(spec.op, [])
    for other in specs:
        if other.name == spec.name:
            raise ValueError(f"kernel {spec.name!r} for {spec.op} is declared twice: {other.source} and {spec.source}")
    specs.append(spec)
