"""From tensors to kernels: definitions written into their readers, and the result numbered into a `Kernel`.

An `Inliner` writes the expression of a tensor out down to its leaves, the tensors that live in buffers. `KernelBuilder`
then turns leaves into buffer arguments, indices into offsets through each buffer's layout, and everything that is not
constant over all shapes into size arguments; content-equal results are equal kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omniop.opset import expr, poly
from omniop.opset.definitions import Map, Tensor
from omniop.opset.dtype import BOOL, INT32
from omniop.opset.expr import Expr
from omniop.opset.kernel import Carry, Kernel, Param, Store, View
from omniop.opset.layout import Layout


class Inliner:
    """Expressions of tensors over given indices, with every tensor that is not a leaf written out."""

    def __init__(self, is_leaf: Callable[[Tensor], bool], resolve: Callable[[Tensor], Tensor], first_axis: int) -> None:
        self.is_leaf = is_leaf
        self.resolve = resolve
        self.next_axis = first_axis
        self.memo: dict[tuple[Tensor, tuple[Expr, ...], Expr | None], Expr] = {}

    def element(self, tensor: Tensor, index: tuple[Expr, ...], guard: Expr | None = None) -> Expr:
        """The element of ``tensor`` at ``index``; under a guard its loads are guarded too and give 0."""
        tensor = self.resolve(tensor)
        key = (tensor, index, guard)
        if key not in self.memo:
            if self.is_leaf(tensor):
                self.memo[key] = expr.load(tensor, index, tensor.dtype, guard)
            else:
                assert isinstance(tensor.definition, Map)
                axes = [expr.axis(k, e) for k, e in enumerate(tensor.extents)]
                bound = {a: i for a, i in zip(axes, index, strict=True) if a.op == "axis"}
                self.memo[key] = self.expand(tensor.definition.value, bound, guard)
        return self.memo[key]

    def expand(self, root: Expr, bound: dict[Expr, Expr], guard: Expr | None = None) -> Expr:
        """``root`` with ``bound`` axes replaced, reduce axes renamed, and loads of tensors written out."""
        reduced = [n for n in expr.walk(root) if n.op == "reduce"] if root.holds & expr.REDUCE else []
        names = dict(bound)
        for node in reduced:
            for a in node.args[: node.attr.axes]:
                if a not in names:
                    names[a] = expr.axis(self.next_axis, a.args[0])
                    self.next_axis += 1
        done: dict[Expr, Expr] = {}
        for node in expr.walk(root):
            if node in names:
                done[node] = names[node]
            elif node.op == "load":
                done[node] = self._load(node, done, guard)
            else:
                done[node] = expr.rebuild(node, tuple(done[a] for a in node.args))
        return done[root]

    def _load(self, node: Expr, done: dict[Expr, Expr], guard: Expr | None) -> Expr:
        index, own, other = expr.load_parts(node)
        places = tuple(poly.simplify(done[i]) for i in index)
        tensor = self.resolve(node.attr.source)
        if own is None:
            return self.element(tensor, places, guard)
        test, alternative = done[own], done[other] if other is not None else expr.const(0, node.dtype)
        if self.is_leaf(tensor):
            both = test if guard is None else expr.alu("and", guard, test)
            return expr.load(tensor, places, node.dtype, both, alternative, node.attr.fault)
        both = test if guard is None else expr.alu("and", guard, test)
        return expr.select(test, self.element(tensor, places, both), alternative)


def collapse_axes(axes: list[Expr], offsets: Sequence[Expr], roots: list[Expr]) -> tuple[list[Expr], list[Expr]]:
    """Neighbouring axes merged where every offset steps through both as through one: fewer axes, longer inner loops.

    ``offsets`` are the stores' element offsets, which are among ``roots``; loads hold theirs. An axis that is used for
    anything else (a guard, a computed value, an offset that is not affine) stays as it is.
    """
    every = list(offsets)
    fixed: set[Expr] = set()
    stack, seen = [r for r in roots if all(r is not o for o in offsets)], set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op == "axis":
            fixed.add(node)
        elif node.op == "load":
            every.append(node.args[0])
            stack.extend(node.args[1:])
        elif node.op == "reduce":
            stack.extend(node.args[node.attr.axes :])
        else:
            stack.extend(node.args)
    strides: list[dict[Expr, Expr]] = []
    for offset in dict.fromkeys(every):
        own = tuple(n for n in expr.walk(offset) if n.op == "axis")
        form = poly.affine(offset, own)
        if form is None:
            fixed.update(own)
        else:
            strides.append(dict(zip(own, form[1], strict=True)))
    zero = expr.index(0)
    merged = list(axes)
    replaced: dict[Expr, Expr] = {}
    k = len(merged) - 2
    while k >= 0:
        outer, inner = merged[k], merged[k + 1]
        extent = inner.args[0]
        if not {outer, inner} & fixed and all(
            poly.same(s.get(outer, zero), s.get(inner, zero) * extent) for s in strides
        ):
            joined = expr.raw_axis(inner.attr, poly.simplify(outer.args[0] * extent))
            for s in strides:
                s[joined] = s.pop(inner, zero)
                s.pop(outer, None)
            replaced = {old: joined if new is inner else new for old, new in replaced.items()}
            replaced.update({outer: zero, inner: joined})
            merged[k : k + 2] = [joined]
        k -= 1
    return merged, [expr.substitute(r, replaced) for r in roots] if replaced else roots


class KernelBuilder:
    """Numbers buffers and sizes of one kernel or call."""

    def __init__(self, layout_of: Callable[[Tensor], Layout]) -> None:
        self.layout_of = layout_of
        self.buffers: list[Tensor] = []
        self.params: list[Param] = []
        self.sizes: list[Expr] = []
        self.error: int | None = None

    def read(self, tensor: Tensor) -> int:
        if tensor not in self.buffers:
            self.buffers.append(tensor)
            self.params.append(Param(tensor.dtype))
        return self.buffers.index(tensor)

    def write(self, tensor: Tensor) -> int:
        self.buffers.append(tensor)
        self.params.append(Param(tensor.dtype, True))
        return len(self.buffers) - 1

    def offset(self, tensor: Tensor, index: tuple[Expr, ...]) -> Expr:
        return self.layout_of(tensor).offset(index, tensor.extents)

    def flatten(self, root: Expr) -> Expr:
        """Loads of tensors at indices made loads of buffers at offsets."""
        done: dict[Expr, Expr] = {}
        for node in expr.walk(root):
            if node.op == "load":
                index, guard, other = expr.load_parts(node)
                tensor = node.attr.source
                offset = self.offset(tensor, tuple(done[i] for i in index))
                test = None if guard is None else done[guard]
                alternative = 0 if other is None else done[other]
                done[node] = expr.load(self.read(tensor), (offset,), node.dtype, test, alternative, node.attr.fault)
            else:
                done[node] = expr.rebuild(node, tuple(done[a] for a in node.args))
        return done[root]

    def size_arguments(self, root: Expr) -> Expr:
        """Every largest subexpression over sizes alone made a size argument."""
        over_sizes: dict[Expr, bool] = {}
        for node in expr.walk(root):
            over_sizes[node] = node.op == "size" or (
                node.op in ("alu", "select", "cast")
                and node.dtype.name == "int64"
                and all(over_sizes[a] or a.op == "const" for a in node.args)
                and any(over_sizes[a] for a in node.args)
            )
        done: dict[Expr, Expr] = {}
        stack = [(root, False)]
        while stack:
            node, ready = stack.pop()
            if node in done:
                continue
            if over_sizes[node]:
                done[node] = self.size(node)
            elif ready:
                done[node] = expr.rebuild(node, tuple(done[a] for a in node.args))
            else:
                stack.append((node, True))
                stack.extend((a, False) for a in reversed(node.args))
        return done[root]

    def size(self, node: Expr) -> Expr:
        """Its argument: "s<k>" when it is provably at least 1, as kernels may assume of such names; else "~s<k>"."""
        if node not in self.sizes:
            self.sizes.append(node)
        prefix = "" if poly.nonnegative(node - 1) else expr.SCALAR
        return expr.size(f"{prefix}s{self.sizes.index(node)}")

    def add_error_word(self, roots: Sequence[Expr], stores: Sequence[Store]) -> None:
        faults = any(r.holds & expr.FAULT for r in roots) or any(s.fault for s in stores)
        if faults:
            self.error = len(self.params)
            self.params.append(Param(INT32, True))

    def view(
        self, tensor: Tensor, shape: Sequence[Expr], offset: Expr, strides: Sequence[Expr], written: bool = False
    ) -> View:
        number = self.write(tensor) if written else self.read(tensor)
        arg = self.size_arguments
        return View(number, tensor.dtype, tuple(map(arg, shape)), tuple(map(arg, strides)), arg(offset))


def number_axes(
    axes: Sequence[Expr], seq: Expr | None, roots: Sequence[Expr]
) -> tuple[list[Expr], Expr | None, list[Expr]]:
    """Axes renumbered: the kernel's own from 0, the sequential one next, reduce axes in order of appearance."""
    order = [*axes, *([] if seq is None else [seq])]
    for node in expr.walk(*roots):
        if node.op == "reduce":
            order += [a for a in node.args[: node.attr.axes] if a not in order]
    mapping = {a: expr.raw_axis(k, a.args[0]) for k, a in enumerate(order)}
    new = [expr.substitute(r, mapping) for r in roots]
    return [mapping[a] for a in axes], None if seq is None else mapping[seq], new


def build_kernel(
    builder: KernelBuilder,
    axes: Sequence[Expr],
    stores: Sequence[tuple[Tensor, tuple[Expr, ...], Expr, Expr | None, str | None, int]],
    seq: Expr | None = None,
    carries: Sequence[tuple[Expr, Expr]] = (),
    until: Expr | None = None,
) -> Kernel:
    """A kernel of ``stores``: (tensor, index, value, guard, combine, fault), over loads of leaves.

    The builder holds what its buffers and size arguments stand for.
    """
    own = [a for a in axes if a.op == "axis"]
    roots: list[Expr] = []
    for tensor, index, value, guard, _, _ in stores:
        roots += [builder.offset(tensor, tuple(map(builder.flatten, index))), builder.flatten(value)]
        roots.append(expr.const(True, BOOL) if guard is None else builder.flatten(guard))
    for init, update in carries:
        roots += [builder.flatten(init), builder.flatten(update)]
    if until is not None:
        roots.append(builder.flatten(until))
    if seq is None:
        own, roots = collapse_axes(own, roots[: 3 * len(stores) : 3], roots)
    own, seq, roots = number_axes(own, seq, roots)
    roots = [builder.size_arguments(r) for r in roots]
    own = [builder.size_arguments(a) for a in own]
    seq = None if seq is None else builder.size_arguments(seq)
    written: dict[Tensor, int] = {}
    for tensor, *_ in stores:
        if tensor not in written:
            written[tensor] = builder.write(tensor)
    built = []
    for k, (tensor, _, _, guard, combine, fault) in enumerate(stores):
        offset, value, test = roots[3 * k : 3 * k + 3]
        built.append(Store(written[tensor], offset, value, None if guard is None else test, combine, fault))
    rest = roots[3 * len(stores) :]
    condition = None if until is None else rest.pop()
    made = tuple(Carry(rest[k].dtype, rest[k], rest[k + 1]) for k in range(0, len(rest), 2))
    builder.add_error_word(roots, built)
    return Kernel(
        tuple(builder.params), tuple(own), tuple(built), len(builder.sizes), seq, made, builder.error, condition
    )
