"""What a shell completes: the names of devices."""

from __future__ import annotations

GROUP = "omniop.backends"
"""`omniop.dispatcher.registry.GROUP`, which takes too long to import while somebody types."""


def device_names(incomplete: str) -> list[str]:
    """Registered backends by name, whether they work or not: to try them would take seconds."""
    from importlib.metadata import entry_points

    return sorted(name for name in entry_points(group=GROUP).names if name.startswith(incomplete))
