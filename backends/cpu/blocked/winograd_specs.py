"""When Winograd's convolution is taken, and what it takes."""

from __future__ import annotations

from dataclasses import replace

from omniop.backends.base import YES, Answer, KernelSpec, No, OpContext, Prepared, Runnable
from omniop.backends.codegen.llvm_ir import Target
from omniop.backends.codegen.winograd import F2, F4, TAPS, Winograd
from omniop.backends.cpu.blocked.costs import WinogradCost
from omniop.backends.cpu.blocked.winograd import (
    MANY_TILES,
    WinogradConv,
    WinogradFilters,
    taps_layout,
    transformed_shape,
)
from omniop.opset.dtype import FLOAT32
from omniop.opset.kernel import Call
from omniop.opset.layout import ROW_MAJOR, Layout
from omniop.opset.sym import Dim, hint_of

ALGORITHMS = (F2, F4)
ANEW = (F4,)
"""Those whose filters, transformed, are large enough that some had better be transformed in each run."""
MAX_GROWTH = 2.0
"""Of the error against a direct sum's: one bit."""
MIN_CHANNELS = 16
"""Of the image and of the result. With fewer the transforms outweigh what they spare, and their own roundings those of
the sums over channels, which is what `Winograd.error_growth` counts."""


def winograd_specs(target: Target, image: Layout) -> list[KernelSpec]:
    """A convolution for each algorithm, what prepares its filters, and convolutions that take them as they are."""
    found = []
    for winograd in ALGORITHMS:
        name = f"winograd_{winograd.name}_{image}"
        found += [_filters(target, f"{name}_filters", winograd), _prepared(target, name, image, winograd)]
    found += [_anew(target, f"winograd_{w.name}_{image}_anew", image, w) for w in ALGORITHMS if w in ANEW]
    return found


def _filters(target: Target, name: str, winograd: Winograd) -> KernelSpec:
    def make(_: object, call: Call) -> Runnable:
        return WinogradFilters(call, target, winograd)

    return KernelSpec("winograd_filters", name, make)


def _prepared(target: Target, name: str, image: Layout, winograd: Winograd) -> KernelSpec:
    """Of filters that are transformed once, at load."""

    def make(_: object, call: Call) -> Runnable:
        return WinogradConv(call, target, image, winograd)

    def when(op: OpContext) -> Answer:
        return _takes(op, winograd)

    def cost(op: OpContext) -> float:
        found = _cost(op, winograd)
        return found.seconds + found.rent

    def shape(filters: tuple[Dim, ...]) -> tuple[Dim, ...]:
        return transformed_shape(target, winograd, [hint_of(d) for d in filters])  # they are constant

    return KernelSpec(
        "conv",
        name,
        make,
        dtypes=(FLOAT32,),
        when=when,
        cost=cost,
        input_layouts=(image, ROW_MAJOR),
        output_layouts=(image,),
        prepared={1: Prepared(f"{name}_filters", shape)},
        epilogue=True,
    )


def _anew(target: Target, name: str, image: Layout, winograd: Winograd) -> KernelSpec:
    """Of filters that are transformed in each run."""

    def make(_: object, call: Call) -> Runnable:
        return WinogradConv(call, target, image, winograd, anew=True)

    def when(op: OpContext) -> Answer:
        answer = _takes(op, winograd)
        if not answer:
            return answer
        tiles = _cost(op, winograd).tiles
        return No("tiles", f"for {tiles} tiles they would be transformed over and over") if tiles > MANY_TILES else YES

    def cost(op: OpContext) -> float:
        return replace(_cost(op, winograd), anew=True).seconds

    return replace(
        _prepared(target, name, image, winograd),
        make=make,
        when=when,
        cost=cost,
        input_layouts=(image, taps_layout(target)),
        prepared={},
    )


def _cost(op: OpContext, winograd: Winograd) -> WinogradCost:
    images, filters, *space = map(hint_of, op.outputs[0].dims)
    tiles = images
    for extent in space:
        tiles *= -(-extent // winograd.outputs)
    assert op.inputs[0] is not None
    return WinogradCost(winograd, tiles, hint_of(op.inputs[0].dims[1]), filters)


def _takes(op: OpContext, winograd: Winograd) -> Answer:
    _, w = (t for t in op.inputs if t is not None)
    (out,) = op.outputs
    if w.shape[2:] != (TAPS, TAPS):
        return No("window", f"it is for windows of {TAPS} x {TAPS}")
    steps = {*op.attrs["strides"], *op.attrs["dilations"], op.attrs["group"]}
    if steps != {1}:
        return No("steps", "it is for windows without steps, gaps or groups")
    if out.dtype is not FLOAT32:
        return No("dtype", "it gives float32")
    if out.shape[2:] == (1, 1):
        return No("pixels", "one pixel makes no tile")
    if not w.constant:
        return No("weights", "its filters are transformed once, and these are computed")
    if not all(isinstance(p, int) for p in op.attrs["pads"]):
        return No("dynamic", "padding has to be known")
    filters, channels = w.shape[:2]
    if filters is None or channels is None or min(filters, channels) < MIN_CHANNELS:
        return No("channels", f"it is for {MIN_CHANNELS} channels and filters, or more")
    if winograd.error_growth > MAX_GROWTH:
        return No("accuracy", f"it is off by {winograd.error_growth:.1f} times what a direct sum is")
    return YES
