"""All host ops: each module's ops enter the tables of `host_ops` when it is imported."""

from __future__ import annotations

from omniop.dispatcher import host_ml, host_random, host_strings
from omniop.dispatcher.host_ops import HOST_FORMS, HOST_OPS, by_reference

__all__ = ["HOST_FORMS", "HOST_OPS", "by_reference", "host_ml", "host_random", "host_strings"]
