"""LayerNormalization over the last axis, as exporters spell it before opset 17.

    mean     = ReduceMean(x)
    centred  = x - mean
    variance = ReduceMean(centred ** 2)
    centred / sqrt(variance + epsilon) * scale + bias

with the reciprocal of the root, powers and casts in their variants. Scale and bias are taken along when they are
vectors; a normalization without them, or with others (a batch's own, in diffusion models), is one too.
"""

from __future__ import annotations

import onnx_ir as ir

from omniop.opset.rewrite.pattern import Pattern, anything, constant, constant_tensor, one_of, op
from omniop.opset.rewrite.rule import Composite, Match, Rule

_NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _keeps_dims(node: ir.Node) -> bool:
    keepdims = node.attributes.get("keepdims")
    return keepdims is None or (not keepdims.is_ref() and keepdims.value == 1)


def _over_last_axis(node: ir.Node) -> bool:
    axes = node.attributes.get("axes")
    return _keeps_dims(node) and axes is not None and not axes.is_ref() and tuple(axes.value) == (-1,)


def _mean(x: Pattern) -> Pattern:
    """ReduceMean over axis -1: an attribute before opset 18, an input since."""
    return one_of(op("ReduceMean", x, where=_over_last_axis), op("ReduceMean", x, -1, where=_keeps_dims))


def _is_vector(value: ir.Value) -> bool:
    """Rank 0 or 1, so that it broadcasts along the last axis alone. Of a computed value this is only declared."""
    tensor = value.const_value if value.is_initializer() else constant_tensor(value)
    return tensor is not None and len(tensor.shape) <= 1


def _normalized(x: Pattern, epsilon: Pattern) -> Pattern:
    centred = x - _mean(x)
    # Before opset 12 Pow needed both inputs of one type, and PyTorch put a Cast there, even of float to float. By the
    # types of the division below, this one changes nothing.
    base = one_of(centred, op("Cast", centred))
    spread = _mean(one_of(base**2.0, op("Mul", centred, centred))) + epsilon
    deviation = one_of(op("Sqrt", spread), spread**0.5)
    inverse = one_of(op("Reciprocal", deviation), 1.0 / deviation, spread**-0.5)
    return one_of(centred / deviation, centred * inverse)


def _rule(name: str, cast: bool, scaled: bool, biased: bool) -> Rule:
    source, epsilon = anything(), constant()
    scale, bias = anything(where=_is_vector), anything(where=_is_vector)
    inner_cast = op("Cast", source)
    pattern = _normalized(inner_cast if cast else source, epsilon)
    normalized = pattern = op("Cast", pattern) if cast else pattern
    if scaled:
        pattern = pattern * scale
    if biased:
        pattern = pattern + bias

    def build(match: Match) -> Composite | None:
        if not match.constants_fit(match[source], rank=1):
            return None
        attributes: dict[str, int | float | str] = {"axis": -1, "epsilon": match.number(epsilon)}
        if cast:
            wide, back = _cast_type(match[inner_cast]), _cast_type(match[normalized])
            # What is normalized must come back in the type it had, or the casts mean something else.
            if back not in _NARROW or match[source].dtype != back or wide != ir.DataType.FLOAT:
                return None
            attributes["stash_type"] = int(wide)
        inputs = [match[source], *([match[scale]] if scaled else []), *([match[bias]] if biased else [])]
        return Composite("LayerNormalization", tuple(inputs), attributes)

    return Rule(name, pattern, build)


def _cast_type(value: ir.Value) -> ir.DataType | None:
    node = value.producer()
    to = None if node is None else node.attributes.get("to")
    return None if to is None or to.is_ref() else ir.DataType(to.as_int())


RULES = tuple(
    _rule("layer-normalization" + (" in float32" if cast else ""), cast, scaled, biased)
    for cast in (True, False)
    for scaled, biased in ((True, True), (True, False), (False, False))
)
