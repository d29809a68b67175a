"""The prim ``contract``: matrix products by hand-written kernels, for devices of two kinds.

Where a core runs one work item after the other, vectors are written out and B is packed into panels; where lanes of a
work group run together, tiles lie in local memory. Few rows have a kernel of their own. Sizes are arguments, so one set
of kernels serves all shapes: it is made for the dtypes, and for the epilogue if there is one. A kernel is compiled when
it is first needed, and serves all models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod

from omniop.backends.base import YES, Answer, Caps, No, OpContext, Runnable
from omniop.backends.codegen.product import ProductNumbers
from omniop.backends.opencl.finish import Finish, finish
from omniop.backends.opencl.gemm_problem import Problem
from omniop.backends.opencl.gemm_text import FEW_ROWS, gemm_texts
from omniop.backends.opencl.general import generalised
from omniop.backends.opencl.launch import BoundKernel, Launch, PlannedWork, Scratch, numbers_from
from omniop.backends.opencl.macros import ACCUMULATORS, loads_as, tile_of
from omniop.backends.opencl.probe import Profile
from omniop.backends.opencl.programs import Text
from omniop.opset.dtype import DType
from omniop.opset.kernel import Call

_ITEMS_PER_CORE = 4
_CHUNK_TILES = 8
"""Rows are split among work items down to so many tiles: each of them packs the panel anew."""
_SCRATCH_BYTES = 64 << 20
_PANELS = 4
"""Panels of a work item, where there are enough: their rows lie together in B, and are read faster so."""
_STRIP_SUMS = 2048
_FEW_COLUMNS = 16
"""Work items of few rows take a multiple of so many columns: a cache line of float32."""
_DENSE_ROWS = 16
_TILE = 64
_SIDE = 16
_GEMV_GROUP = 256
_GEMV_ROWS = 4
_GEMV_COLUMNS = {True: 4, False: 64}
"""Columns of a work group, by whether the columns of B are contiguous."""
_MAX_GROUPS = 65535
"""Of the second and third axis of a launch, on any driver."""


def accepts(op: OpContext) -> Answer:
    """Sums in 32 or 64 bits, of dtypes that convert to them by a load."""
    accumulator: DType = op.attrs["accumulate"]
    if accumulator not in ACCUMULATORS or accumulator not in op.caps.compute:
        return No("contract-dtype", f"sums in {accumulator} have no kernel")
    for operand in op.inputs:
        if operand is None or loads_as(operand.dtype, accumulator) is None:
            return No("contract-dtype", f"{operand and operand.dtype} with sums in {accumulator} has no kernel")
    return YES


def make_contract(
    call: Call, caps: Caps, profile: Profile, compiled: Callable[[Text], Mapping[str, BoundKernel]], scratch: Scratch
) -> Runnable:
    """``compiled`` gives the kernels of a text; it is asked when sizes first need one."""
    accumulator: DType = call.attr("accumulate")
    general, more = (call, ()) if call.epilogue is None else generalised(call)
    done = finish(general, accumulator, caps)
    texts = gemm_texts(general, accumulator, profile, done)

    def kernel(name: str) -> BoundKernel:
        return compiled(texts[name])[f"{name}_{texts[name].tag}"]

    planner = (_CPUPlanner if profile.cpu else _LanesPlanner)(general, accumulator, profile, done, kernel)
    return PlannedWork(lambda sizes, _: planner((*sizes, *more)), scratch, done.buffers)


class _Planner:
    """From sizes to launches."""

    def __init__(
        self, call: Call, accumulator: DType, profile: Profile, done: Finish, kernel: Callable[[str], BoundKernel]
    ) -> None:
        self._problem = ProductNumbers(call, Problem)
        self._flips = call.operands[0].dtype is call.operands[1].dtype
        self._must_be_dense = call.operands[0].dtype is not accumulator
        self._buffers = len(done.buffers)
        self._with_sizes = done.sizes
        self._units = profile.units
        self._tile = tile_of(profile, accumulator)
        self._itemsize = accumulator.itemsize
        self._kernel = kernel

    def __call__(self, sizes: tuple[int, ...]) -> tuple[Launch, ...]:
        whole = self._problem(sizes).merged()
        return tuple(launch for problem in whole.launches() for launch in self._launches(sizes, problem))

    def _launches(self, sizes: tuple[int, ...], problem: Problem) -> Iterator[Launch]:
        raise NotImplementedError

    def _oriented(self, problem: Problem) -> Problem:
        """With few rows rather than few columns, where the kernels take either operand as the first."""
        few = problem.n <= FEW_ROWS and problem.n < problem.m
        return problem.flipped() if few and self._flips else problem

    def _launch(
        self,
        name: str,
        sizes: tuple[int, ...],
        arguments: bytes,
        groups: tuple[int, int, int],
        local: tuple[int, int, int] = (1, 1, 1),
        offset: tuple[int, int, int] | None = None,
        scratch: int = 0,
    ) -> Launch:
        numbers = numbers_from(self._buffers + bool(scratch), (*(sizes if self._with_sizes else ()), arguments))
        size = tuple(g * n for g, n in zip(groups, local, strict=True))
        return Launch(self._kernel(name), numbers, size, local, offset, scratch)


class _CPUPlanner(_Planner):
    def _launches(self, sizes: tuple[int, ...], problem: Problem) -> Iterator[Launch]:
        problem = self._oriented(problem)
        if problem.m <= FEW_ROWS and problem.a.column == 1 and problem.b.row == 1:
            yield self._few("dot", sizes, problem, self._units * _ITEMS_PER_CORE, problem.n)
        elif problem.m <= FEW_ROWS and problem.b.column == 1:
            yield self._few("strip", sizes, problem, self._units, _STRIP_SUMS // problem.m)
        else:
            yield from self._gemm(sizes, problem)

    def _few(self, name: str, sizes: tuple[int, ...], problem: Problem, items: int, most: int) -> Launch:
        """About ``items`` work items, of ``most`` columns at most."""
        batches = prod(problem.batch)
        columns = min(most, _up(-(-problem.n * batches // items), _FEW_COLUMNS))
        return self._launch(name, sizes, problem.packed(columns=columns), (-(-problem.n // columns), 1, batches))

    def _items(self, parts: int) -> int:
        """Into how many work items each of so many parts is to be split."""
        return -(-self._units * _ITEMS_PER_CORE // parts)

    def _gemm(self, sizes: tuple[int, ...], problem: Problem) -> Iterator[Launch]:
        tile, batches = self._tile, prod(problem.batch)
        panels = -(-problem.n // tile.panel)
        tiles = -(-problem.m // tile.rows)
        rows = -(-tiles // min(self._items(panels * batches), -(-tiles // _CHUNK_TILES))) * tile.rows
        chunks = -(-problem.m // rows)
        columns = max(1, min(_PANELS, panels * chunks * batches // self._items(1))) * tile.panel
        dense = 0
        if self._must_be_dense or (problem.a.column != 1 and problem.n > tile.panel):
            dense = batches * problem.m * problem.k
            blocks = -(-problem.m // _DENSE_ROWS)
            whole = dense * self._itemsize
            yield self._launch("dense", sizes, problem.packed(), (blocks, 1, batches), scratch=whole)
            problem = problem.dense()
        arguments = problem.packed(rows, columns, bool(dense), dense)
        items = -(-problem.n // columns)
        each = chunks * batches * problem.k * columns * self._itemsize
        step = max(1, min(items, _SCRATCH_BYTES // each))
        for first in range(0, items, step):
            count = min(step, items - first)
            scratch = dense * self._itemsize + each * count
            groups = (count, chunks, batches)
            yield self._launch("gemm", sizes, arguments, groups, offset=(first, 0, 0), scratch=scratch)


class _LanesPlanner(_Planner):
    def _launches(self, sizes: tuple[int, ...], problem: Problem) -> Iterator[Launch]:
        problem = self._oriented(problem)
        columns = _GEMV_COLUMNS[problem.b.row == 1]
        arguments = problem.packed(columns=columns)
        batches = prod(problem.batch)
        for first in range(0, batches, _MAX_GROUPS):
            count = min(_MAX_GROUPS, batches - first)
            offset = (0, 0, first) if first else None
            if problem.m <= _GEMV_ROWS:
                groups = (-(-problem.n // columns), 1, count)
                yield self._launch("gemv", sizes, arguments, groups, (_GEMV_GROUP, 1, 1), offset)
            else:
                groups = (-(-problem.m // _TILE), -(-problem.n // _TILE), count)
                yield self._launch("gemm", sizes, arguments, groups, (_SIDE, _SIDE, 1), offset)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
