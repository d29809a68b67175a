"""Gelu, as exporters spell it before opset 20: exact, by erf, and approximate, by tanh.

    x * 0.5 * (1 + erf(x / sqrt(2)))
    x * 0.5 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3)))

The factors come in any order and association.
"""

from __future__ import annotations

from math import pi, sqrt

from omniop.opset.rewrite.pattern import Pattern, anything, one_of, op, product
from omniop.opset.rewrite.rule import Composite, Match, Rule

_CUBIC = 0.044715


def _exact(x: Pattern) -> Pattern:
    scaled = one_of(x / sqrt(2), x * sqrt(0.5))
    return product(x, 0.5, op("Erf", scaled) + 1.0)


def _tanh(x: Pattern) -> Pattern:
    cubic = one_of(product(_CUBIC, x**3.0), product(_CUBIC, x, x, x))
    expanded = product(sqrt(2 / pi), x + cubic)
    factored = product(sqrt(2 / pi), x, product(_CUBIC, x, x) + 1.0)
    return product(x, 0.5, op("Tanh", one_of(expanded, factored)) + 1.0)


def _rule(name: str, approximate: str) -> Rule:
    x = anything()
    pattern = _exact(x) if approximate == "none" else _tanh(x)

    def build(match: Match) -> Composite | None:
        if not match.constants_fit(match[x]):
            return None
        return Composite("Gelu", (match[x],), {"approximate": approximate})

    return Rule(name, pattern, build)


RULES = (_rule("gelu", "none"), _rule("gelu by tanh", "tanh"))
