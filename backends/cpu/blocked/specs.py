"""The tuned kernels for blocked layouts, as the dispatcher chooses among them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from omniop.backends.base import YES, Answer, KernelSpec, No, OpContext, Runnable
from omniop.backends.codegen.llvm_dot import Dot
from omniop.backends.codegen.llvm_ir import Target
from omniop.backends.codegen.llvm_tiles import PANEL, block_of
from omniop.backends.cpu.blocked.channelwise import Channelwise
from omniop.backends.cpu.blocked.costs import direct_seconds
from omniop.backends.cpu.blocked.direct import MAX_FRAME, DirectConv
from omniop.backends.cpu.blocked.grid import GridCall
from omniop.backends.cpu.blocked.winograd_specs import winograd_specs
from omniop.opset.dtype import BFLOAT16, FLOAT32
from omniop.opset.kernel import Call
from omniop.opset.layout import ROW_MAJOR, Layout, blocked
from omniop.opset.sym import hint_of

PRIMS = ("conv", "window_reduce")
"""What there are kernels for."""
RANKS = (3, 4)
FEW_CHANNELS = 4
"""Up to so many channels an image is read row-major, or if it is narrow, in blocks of so many: others would be mostly
empty."""


def specs(target: Target) -> list[KernelSpec]:
    """Those for a CPU of this kind."""
    found = []
    for rank in RANKS:
        image = blocked(rank, 1, block_of(target))
        found += [_direct(target, image, few) for few in (False, True)]
        found += [_rounded(target, image, few) for few in (False, True)]
        found += [_depthwise(target, image), _pool(target, image)]
    found += winograd_specs(target, blocked(4, 1, block_of(target)))
    return found


def weights_layout(rank: int, block: int, rows: bool) -> Layout:
    """Weights in the order in which a tile reads them: ``[M / panel, C / block, *window, block, panel]``; the image's
    channels are not in blocks when it is row-major (``rows``)."""
    panel = PANEL * block
    space = tuple((k, 0, "whole") for k in range(2, rank))
    if rows:
        return Layout(f"panels of {panel}", ((0, panel, "outer"), (1, 0, "whole"), *space, (0, panel, "inner")))
    order = ((0, panel, "outer"), (1, block, "outer"), *space, (1, block, "inner"), (0, panel, "inner"))
    return Layout(f"panels of {panel} by {block}", order)


def words_layout(rank: int, block: int, group: int) -> Layout:
    """Weights of narrow elements, ``group`` channels in a word: ``[M / panel, *window, C / group, panel, group]``."""
    panel = PANEL * block
    space = tuple((k, 0, "whole") for k in range(2, rank))
    order = ((0, panel, "outer"), *space, (1, group, "outer"), (0, panel, "inner"), (1, group, "inner"))
    return Layout(f"panels of {panel} by {group} in a word", order)


def _rounded(target: Target, image: Layout, few: bool) -> KernelSpec:
    """Of bfloat16 into float32; ``few``: of an image of few channels."""
    block, rank = block_of(target), len(image.order) - 1
    read = blocked(rank, 1, FEW_CHANNELS) if few else image
    depth = FEW_CHANNELS if few else block
    kind = Dot(BFLOAT16, BFLOAT16)

    def make(_: object, call: Call) -> Runnable:
        return GridCall(call, DirectConv(call, target, image, depth, kind))

    def when(op: OpContext) -> Answer:
        answer = _takes(op, rank, block, few)
        if not answer:
            return answer
        assert op.inputs[1] is not None
        summed = op.inputs[1].shape[1]
        return No("channels", f"{summed} channels are not whole words") if not summed or summed % kind.group else YES

    def cost(op: OpContext) -> float:
        return _cost(op) / kind.group

    return KernelSpec(
        "conv",
        f"conv{rank - 2}d_{image}_of_bfloat16" + (f"_in_{read}" if few else ""),
        make,
        dtypes=(BFLOAT16,),
        when=when,
        cost=cost,
        input_layouts=(read, words_layout(rank, block, kind.group)),
        output_layouts=(image,),
        epilogue=True,
    )


def _direct(target: Target, image: Layout, few: bool) -> KernelSpec:
    block, rank = block_of(target), len(image.order) - 1

    def make(_: object, call: Call) -> Runnable:
        return GridCall(call, DirectConv(call, target, image, 1 if few else block))

    def when(op: OpContext) -> Answer:
        return _takes(op, rank, block, few)

    return KernelSpec(
        "conv",
        f"conv{rank - 2}d_{image}" + ("_of_rows" if few else ""),
        make,
        dtypes=(FLOAT32,),
        when=when,
        cost=_cost,
        input_layouts=(ROW_MAJOR if few else image, weights_layout(rank, block, few)),
        output_layouts=(image,),
        epilogue=True,
    )


def _takes(op: OpContext, rank: int, block: int, few: bool) -> Answer:
    x, w = (t for t in op.inputs if t is not None)
    (out,) = op.outputs
    if len(x.shape) != rank:
        return No("rank", f"it is for {rank - 2} dims of space")
    if out.dtype is not FLOAT32:
        return No("dtype", "it gives float32")
    if not w.constant:
        return No("weights", "its weights are packed once, and these are computed")
    filters, depth, *window = _known(w.shape)
    channels, group = x.shape[1], op.attrs["group"]
    if not filters or not isinstance(channels, int) or not _whole(op.attrs["pads"]):
        return No("dynamic", "channels, window and padding have to be known")
    if few != (channels <= FEW_CHANNELS):
        return No("channels", f"it is for images of {'up to' if few else 'more than'} {FEW_CHANNELS} channels")
    if filters < block:
        return No("channels", f"{filters} filters do not fill a block of {block}")
    if group > 1 and (depth % block or filters // group % (PANEL * block)):
        return No("group", f"groups of {depth} channels and {filters // group} filters are no whole blocks")
    reach = prod((k - 1) * d + 1 for k, d in zip(window, op.attrs["dilations"], strict=True))
    if 4 * reach * channels > MAX_FRAME:
        return No("window", f"a window of {reach} pixels of {channels} channels is too large")
    if out.shape[2:] == (1,) * (rank - 2):
        return No("pixels", "one pixel makes no tile")
    return YES


def _depthwise(target: Target, image: Layout) -> KernelSpec:
    block, rank = block_of(target), len(image.order) - 1
    space = tuple((k, 0, "whole") for k in range(1, rank))
    weights = Layout(f"blocks of {block}", ((0, block, "outer"), *space, (0, block, "inner")))

    def make(_: object, call: Call) -> Runnable:
        return GridCall(call, Channelwise(call, target, image))

    def when(op: OpContext) -> Answer:
        x, w = (t for t in op.inputs if t is not None)
        if len(x.shape) != rank:
            return No("rank", f"it is for {rank - 2} dims of space")
        if not w.constant:
            return No("weights", "its weights are packed once, and these are computed")
        filters, depth, *_ = _known(w.shape)
        if depth != 1 or not filters == x.shape[1] == op.attrs["group"] or not _whole(op.attrs["pads"]):
            return No("group", "it is for a window of known size for each channel")
        if filters < block:
            return No("channels", f"{filters} channels do not fill a block of {block}")
        return YES if op.outputs[0].dtype is FLOAT32 else No("dtype", "it gives float32")

    return KernelSpec(
        "conv",
        f"depthwise{rank - 2}d_{image}",
        make,
        dtypes=(FLOAT32,),
        when=when,
        input_layouts=(image, weights),
        output_layouts=(image,),
        epilogue=True,
    )


def _pool(target: Target, image: Layout) -> KernelSpec:
    rank = len(image.order) - 1

    def make(_: object, call: Call) -> Runnable:
        return GridCall(call, Channelwise(call, target, image))

    def when(op: OpContext) -> Answer:
        if op.layouts[0] != image:
            return No("layout", "its image is not in blocks")
        if op.attrs["monoid"] not in ("add", "max", "min"):
            return No("monoid", f"it reduces by {op.attrs['monoid']}")
        if not _whole(op.attrs["pads"]) or not _whole(op.attrs["kernel"]):
            return No("dynamic", "window and padding have to be known")
        return YES if op.outputs[0].dtype is FLOAT32 else No("dtype", "it gives float32")

    return KernelSpec(
        "window_reduce",
        f"pool{rank - 2}d_{image}",
        make,
        dtypes=(FLOAT32,),
        when=when,
        input_layouts=(image,),
        output_layouts=(image,),
        epilogue=True,
    )


def _cost(op: OpContext) -> float:
    assert op.inputs[1] is not None
    images, filters, *space = map(hint_of, op.outputs[0].dims)
    depth = prod(map(hint_of, op.inputs[1].dims[1:]))
    return direct_seconds(images * prod(space), depth, filters, depth * filters)


def _known(shape: Sequence[int | None]) -> list[int]:
    """The shape, or zeros when it is not all known."""
    return [d if isinstance(d, int) else 0 for d in shape] if None not in shape else [0] * len(shape)


def _whole(numbers: Sequence[object]) -> bool:
    return all(isinstance(n, int) and n >= 0 for n in numbers)
