"""What was decided for a node: its device, its route, and what was rejected with the reason."""

from __future__ import annotations

from dataclasses import dataclass, field

from omniop.backends.base import No


@dataclass
class Decision:
    """Where one node runs. ``rejected``: (candidate, reason) in the order they were asked."""

    origin: int
    label: str
    op: str
    device: str
    route: str
    rejected: list[tuple[str, No]] = field(default_factory=list)
    fallback: bool = False
    """It runs on another device than the session's first."""
