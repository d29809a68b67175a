"""omniop's own errors.

A user's mistake ends in one of these, in one sentence that names what was wrong and what would have worked.
They live in the lowest room so that every room can raise them; users import them from ``omniop``.
"""

from __future__ import annotations

from collections.abc import Iterable


class OmniopError(Exception):
    """Base of every error that omniop raises on purpose."""


class ModelError(OmniopError):
    """The model cannot be read or is not valid: the file, the graph, a node or an attribute."""


class FeedError(OmniopError):
    """A feed is missing, unknown, of the wrong dtype, or of a shape that the model cannot take."""


class PlacementError(OmniopError):
    """No allowed device can run a node; the message lists each candidate and why it was rejected."""


class DeviceError(OmniopError):
    """A device is missing, failed to build or launch a kernel, or ran out of memory."""


class UnsupportedError(OmniopError):
    """An operator, attribute or dtype that no lowering covers. The dispatcher turns it into a decision."""


class ExecutionError(OmniopError):
    """The run itself found bad data: an index outside its tensor, a shape that does not multiply out."""


def meant(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'Relu'?`` for a name close to one that there is, else nothing."""
    from difflib import get_close_matches

    by_lower = {other.lower(): other for other in known}
    close = get_close_matches(name.lower(), by_lower, 1, cutoff=0.7)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""


MISFITS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What code for an op, being ordinary Python, raises of itself on an invalid node that no check of its own foresaw.

It is turned into an error that names the node, in one place for lowerings and in one for host steps.
"""
