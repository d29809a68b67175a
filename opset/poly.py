"""Index arithmetic in normal form.

An index or size expression is a polynomial with integer coefficients over atoms: size symbols, axes, and whatever is
not a sum or product (a load, a select, a quotient that did not simplify). In this form two spellings of one offset
are equal, ``(i * 64 + j) // 64`` is ``i`` when ``j`` runs below 64, and ``S * (i // S) + i % S`` is ``i``: that is what
lets a reshape or a transpose disappear into its reader.

Facts used: a size is at least 1 (a dim of 0 is made constant when traced; names that begin with `expr.SCALAR` are
free), an axis runs over 0 .. extent - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import blake2b
from math import gcd

from omniop.opset import expr
from omniop.opset.dtype import INT64
from omniop.opset.expr import Expr
from omniop.opset.expr_text import format_expr

Monomial = tuple[Expr, ...]
Poly = dict[Monomial, int]

_ORDER = {"size": 0, "axis": 1}


@lru_cache(maxsize=1 << 16)
def _sort_key(atom: Expr) -> tuple[int, str, bytes]:
    """An order that does not change from run to run, and in which no two atoms are equal."""
    return (_ORDER.get(atom.op, 2), format_expr(atom, 3), _digest(atom))


def _digest(root: Expr) -> bytes:
    if root._digest is None:
        for node in _operands_first(root, lambda n: n._digest is not None):
            below = b"".join(a._digest for a in node.args)  # type: ignore[misc]
            own = f"{node.op} {node.dtype} {node.attr!r}".encode()
            node._digest = blake2b(own + below, digest_size=16).digest()
    assert root._digest is not None
    return root._digest


def _operands_first(root: Expr, done: Callable[[Expr], bool]) -> Iterator[Expr]:
    """What is under ``root`` and not yet done, itself last; each must be done when the next one is asked for. Without
    recursion: sums and chains of views may be thousands of nodes deep."""
    stack = [root]
    while stack:
        node = stack[-1]
        waiting = [a for a in reversed(node.args) if not done(a)]
        if waiting:
            stack += waiting
            continue
        stack.pop()
        if not done(node):
            yield node


def _times(a: Poly, b: Poly) -> Poly:
    result: Poly = {}
    for m, x in a.items():
        for n, y in b.items():
            key = tuple(sorted(m + n, key=_sort_key)) if m and n else m or n
            result[key] = result.get(key, 0) + x * y
    return {m: c for m, c in result.items() if c}


def _plus(a: Poly, b: Poly, sign: int = 1) -> Poly:
    result = dict(a)
    for m, c in b.items():
        result[m] = result.get(m, 0) + sign * c
    return {m: c for m, c in result.items() if c}


def poly_of(node: Expr) -> Poly:
    """The polynomial of an integer expression, its quotients and remainders simplified."""
    return dict(_kept(node))


def _kept(root: Expr) -> Poly:
    """`poly_of`, not to be changed."""
    if root._poly is None:
        for node in _operands_first(root, lambda n: n._poly is not None):
            node._poly = _compute(node) if node.dtype is INT64 else {(simplify_inside(node),): 1}
    assert root._poly is not None
    return root._poly


def _compute(node: Expr) -> Poly:
    if node.op == "const":
        return {(): node.attr} if node.attr else {}
    if node.op == "alu":
        if node.attr == "add":
            return _fuse_div_mod(_plus(_kept(node.args[0]), _kept(node.args[1])))
        if node.attr == "sub":
            return _fuse_div_mod(_plus(_kept(node.args[0]), _kept(node.args[1]), -1))
        if node.attr == "neg":
            return _plus({}, _kept(node.args[0]), -1)
        if node.attr == "mul":
            return _fuse_div_mod(_times(_kept(node.args[0]), _kept(node.args[1])))
        if node.attr in ("floordiv", "floormod"):
            return _divide(_kept(node.args[0]), _kept(node.args[1]), node.attr)
    atom = simplify_inside(node)
    same_operation = (atom.op, atom.attr) == (node.op, node.attr)
    return {(atom,): 1} if same_operation else _kept(atom)  # it may have folded into one of its operands


@lru_cache(maxsize=1 << 16)
def simplify_inside(node: Expr) -> Expr:
    """The node with its operands simplified (an axis keeps its extent as it is)."""
    if node.op in ("axis", "size") or not node.args:
        return node
    return expr.rebuild(node, tuple(simplify(a) if a.dtype is INT64 else simplify_inside(a) for a in node.args))


def expr_of(poly: Poly) -> Expr:
    """The expression of a polynomial; terms in a fixed order, so that equal polynomials are the same node."""
    result: Expr | None = None
    for monomial in sorted(poly, key=lambda m: (-len(m), [_sort_key(a) for a in m])):
        term: Expr | None = None
        for atom in monomial:
            term = atom if term is None else term * atom
        coefficient = poly[monomial]
        term = expr.const(coefficient, INT64) if term is None else term * coefficient
        result = term if result is None else result + term
    return expr.const(0, INT64) if result is None else result


@lru_cache(maxsize=1 << 16)
def simplify(node: Expr) -> Expr:
    """An equal int64 expression in normal form."""
    return expr_of(_kept(node))


def same(a: Expr, b: Expr) -> bool:
    """Provably equal."""
    return a is b or not _plus(_kept(a), _kept(b), -1)


# Bounds ---------------------------------------------------------------------------------------------------------------


def _atom_nonnegative(atom: Expr, depth: int) -> bool:
    if atom.op == "size":
        return not atom.attr.startswith(expr.SCALAR)
    if atom.op == "axis":
        return True
    if atom.op == "alu" and atom.attr == "floormod":
        return True
    if atom.op == "alu" and atom.attr in ("floordiv", "min", "max"):
        return depth > 0 and all(_nonnegative(_kept(a), depth - 1) for a in atom.args)
    return atom.op == "cast" and atom.args[0].dtype.kind in "bu"


def nonnegative(node: Expr) -> bool:
    """Provably at least 0."""
    return _nonnegative(_kept(node))


_DEPTH = 32
"""Nested operations whose bounds are looked into; below, nothing is known."""


def _nonnegative(poly: Poly, depth: int = _DEPTH) -> bool:
    if all(c >= 0 for c in poly.values()):
        return all(_atom_nonnegative(a, depth) for m in poly for a in m)
    # sizes are at least 1: c * product(sizes) >= c, so negative constants may be covered
    rest = poly.get((), 0)
    for monomial, c in poly.items():
        if monomial:
            if c < 0 or not all(_atom_nonnegative(a, depth) for a in monomial):
                return False
            rest += c if all(a.op == "size" for a in monomial) else 0
    return rest >= 0


def upper_bound(poly: Poly, depth: int = _DEPTH) -> Poly | None:
    """A polynomial over sizes that no value exceeds, or None."""
    result: Poly = {}
    for monomial, c in poly.items():
        if len(monomial) > 1 and not all(_atom_nonnegative(a, depth) for a in monomial):
            return None  # bounds of factors multiply only where none is negative
        term: Poly = {(): c}
        for atom in monomial:
            if atom.op == "size" or (_over_sizes(atom) and _atom_nonnegative(atom, depth)):
                bound: Poly = {(atom,): 1}
            elif c < 0:
                if not _atom_nonnegative(atom, depth):
                    return None
                bound = {}  # the least it can be is 0
            elif atom.op == "axis":
                bound = _plus(_kept(atom.args[0]), {(): 1}, -1)
            elif atom.op == "alu" and atom.attr == "floormod":
                bound = _plus(_kept(atom.args[1]), {(): 1}, -1)
            elif atom.op == "alu" and atom.attr == "floordiv":
                quotient = _quotient_bound(atom, depth)
                if quotient is None:
                    return None
                bound = quotient
            else:
                return None
            term = _times(term, bound)
        result = _plus(result, term)
    return result


def _quotient_bound(atom: Expr, depth: int) -> Poly | None:
    """Upper bound of x // d: (ub(x) + 1) / d - 1 where d divides, or the quotient of constants."""
    top = upper_bound(_kept(atom.args[0]), depth - 1) if depth else None
    d = _kept(atom.args[1])
    if top is None or len(d) != 1:
        return None
    ((divisor, scale),) = d.items()
    if not divisor and set(top) <= {()}:
        value = top.get((), 0) // scale
        return {(): value} if value else {}
    result: Poly = {}
    for monomial, c in _plus(top, {(): 1}).items():
        exact = _divide_monomial(monomial, c, divisor, scale)
        if exact is None:
            return None
        result[exact[0]] = exact[1]
    return _plus(result, {(): 1}, -1)


def below(poly: Poly, limit: Poly) -> bool:
    """Provably 0 <= poly < limit."""
    if not _nonnegative(poly):
        return False
    bound = upper_bound(poly)
    return bound is not None and _nonnegative(_plus(_plus(limit, {(): 1}, -1), bound, -1))


# Quotients and remainders ---------------------------------------------------------------------------------------------


def _divide_monomial(monomial: Monomial, c: int, divisor: Monomial, d: int) -> tuple[Monomial, int] | None:
    if c % d:
        return None
    rest = list(monomial)
    for atom in divisor:
        if atom not in rest:
            return None
        rest.remove(atom)
    return tuple(rest), c // d


def _divide(p: Poly, d: Poly, operation: str) -> Poly:
    """p // d or p % d for d > 0: the terms that d divides are taken out, what stays is dropped when it is below d."""
    quotient: Poly = {}
    rest: Poly = {}
    if len(d) == 1:
        ((divisor, scale),) = d.items()
        for monomial, c in p.items():
            exact = _divide_monomial(monomial, c, divisor, scale)
            if exact is None:
                rest[monomial] = c
            else:
                quotient[exact[0]] = quotient.get(exact[0], 0) + exact[1]
    else:
        quotient, rest = _long_division(p, d)
    if below(rest, d):
        return quotient if operation == "floordiv" else rest
    if len(d) == 1 and operation == "floordiv" and not divisor and set(rest) != {()}:
        constant = rest.get((), 0)  # (a * x + c) // d with d, a sharing a factor g: divide both by it
        g = gcd(scale, *(c for m, c in rest.items() if m))
        if 1 < g and 0 <= constant:
            return _plus(quotient, _quotient_atom({m: c // g for m, c in rest.items() if c // g}, {(): scale // g}))
    shared = _divide_by_factor(rest, d, operation)
    if shared is not None:
        return _plus(quotient, shared) if operation == "floordiv" else shared
    if operation == "floordiv":
        return _plus(quotient, _quotient_atom(rest, d))
    # (x % (a * b)) % b is x % b
    if len(rest) == 1:
        ((m, c),) = rest.items()
        if c == 1 and len(m) == 1 and m[0].op == "alu" and m[0].attr == "floormod":
            outer = _kept(m[0].args[1])
            if len(outer) == 1 and len(d) == 1:
                ((om, oc),) = outer.items()
                if _divide_monomial(om, oc, divisor, scale) is not None:
                    return _divide(_kept(m[0].args[0]), d, "floormod")
    return {(expr.binary("floormod", expr_of(rest), expr_of(d)),): 1}


def _long_division(p: Poly, d: Poly) -> tuple[Poly, Poly]:
    """(q, r) with p = q * d + r, by the leading monomial of a divisor of several terms."""
    top = max(d, key=lambda m: (len(m), [_sort_key(a) for a in m]))
    quotient: Poly = {}
    rest = dict(p)
    for _ in range(len(p) * len(d)):
        exact = next((e for m, c in rest.items() if (e := _divide_monomial(m, c, top, d[top])) is not None), None)
        if exact is None:
            return quotient, rest
        step = {exact[0]: exact[1]}
        quotient = _plus(quotient, step)
        rest = _plus(rest, _times(step, d), -1)
    return {}, p  # it does not come to an end: the leading term comes back


def _divide_by_factor(p: Poly, d: Poly, operation: str) -> Poly | None:
    """With d = f * b, p = f * a + r and 0 <= r < f: p // d is a // b, and p % d is f * (a % b) + r."""
    if len(d) != 1:
        return None
    ((divisor, scale),) = d.items()
    factors: list[tuple[Monomial, int]] = [((), scale)] if scale > 1 and divisor else []
    factors += [((a,), 1) for a in dict.fromkeys(divisor) if len(divisor) > 1 or scale > 1]
    factors += [(divisor, 1)] if len(divisor) > 1 and scale > 1 else []
    if not divisor:
        shared = {gcd(scale, c) for c in p.values()}
        factors += [((), g) for g in sorted(shared, reverse=True) if 1 < g < scale]
    for f_monomial, f_scale in factors:
        whole: Poly = {}
        rest: Poly = {}
        for monomial, c in p.items():
            exact = _divide_monomial(monomial, c, f_monomial, f_scale)
            if exact is None:
                rest[monomial] = c
            else:
                whole[exact[0]] = exact[1]
        factor: Poly = {f_monomial: f_scale}
        other = _divide_monomial(divisor, scale, f_monomial, f_scale)
        if whole and other is not None and below(rest, factor):
            inner = _divide(whole, {other[0]: other[1]}, operation)
            return inner if operation == "floordiv" else _fuse_div_mod(_plus(_times(inner, factor), rest))
    return None


def _quotient_atom(p: Poly, d: Poly) -> Poly:
    if d == {(): 1}:
        return p
    numerator, divisor = expr_of(p), expr_of(d)
    # (x // a) // b is x // (a * b)
    if numerator.op == "alu" and numerator.attr == "floordiv":
        inner = expr_of(_times(_kept(numerator.args[1]), d))
        return _kept(expr.binary("floordiv", numerator.args[0], inner))
    node = expr.binary("floordiv", numerator, divisor)
    return {(): node.attr} if node.op == "const" and node.attr else {} if node.op == "const" else {(node,): 1}


def _fuse_div_mod(p: Poly) -> Poly:
    """k * d * (x // d) + k * (x % d) = k * x."""
    for monomial, c in p.items():
        for position, atom in enumerate(monomial):
            if atom.op != "alu" or atom.attr != "floormod":
                continue
            x, d = atom.args
            others = monomial[:position] + monomial[position + 1 :]
            scale = _times({others: c}, _kept(d))
            target = _times(scale, _kept(expr.binary("floordiv", x, d)))
            if target and all(p.get(m) == v for m, v in target.items()):
                rest = {m: v for m, v in p.items() if m not in target and m != monomial}
                return _fuse_div_mod(_plus(rest, _times({others: c}, _kept(x))))
    return p


# Linear offsets -------------------------------------------------------------------------------------------------------


def linear(indices: tuple[Expr, ...], shape: tuple[Expr, ...]) -> Expr:
    """Row-major offset of ``indices`` in ``shape``."""
    offset = expr.const(0, INT64)
    for i, extent in zip(indices, shape, strict=True):
        offset = offset * extent + i
    return simplify(offset)


def delinear(offset: Expr, shape: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """Indices in ``shape`` of a row-major ``offset``; the inverse of `linear`."""
    result: list[Expr] = []
    stride = expr.const(1, INT64)
    for position in range(len(shape) - 1, -1, -1):
        extent = shape[position]
        if expr.is_const(extent, 1):
            result.append(expr.const(0, INT64))
            continue
        quotient = offset // stride
        last = all(expr.is_const(e, 1) for e in shape[:position])
        result.append(simplify(quotient if last else quotient % extent))
        stride = simplify(stride * extent)
    return tuple(reversed(result))


def affine(node: Expr, axes: tuple[Expr, ...]) -> tuple[Expr, tuple[Expr, ...]] | None:
    """(offset, stride per axis) when ``node`` is affine in ``axes`` with coefficients free of any axis; else None."""
    strides: dict[Expr, Poly] = {a: {} for a in axes}
    offset: Poly = {}
    for monomial, c in _kept(node).items():
        bound = [atom for atom in monomial if atom.op != "size"]
        if not bound:
            offset[monomial] = c
        elif len(bound) == 1 and bound[0] in strides:
            rest = tuple(a for a in monomial if a is not bound[0])
            strides[bound[0]] = _plus(strides[bound[0]], {rest: c})
        elif all(a.op == "alu" and not expr.free_axes(a) and _over_sizes(a) for a in bound):
            offset[monomial] = c
        else:
            one = [a for a in bound if a in strides]
            rest_atoms = [a for a in bound if a not in strides]
            if len(one) != 1 or not all(_over_sizes(a) for a in rest_atoms):
                return None
            rest = tuple(a for a in monomial if a is not one[0])
            strides[one[0]] = _plus(strides[one[0]], {rest: c})
    return expr_of(offset), tuple(expr_of(strides[a]) for a in axes)


def _over_sizes(node: Expr) -> bool:
    return all(n.op in ("const", "size", "alu", "select", "cast") for n in expr.walk(node))
