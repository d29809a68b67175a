"""A piece of work on its way to the compiler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from omniop.backends.base import Runnable
from omniop.backends.opencl.launch import BoundKernel
from omniop.backends.opencl.programs import Text


@dataclass(frozen=True)
class Printed:
    """``bind`` gets the compiled kernels of ``text`` by name and gives what runs the work."""

    text: Text
    bind: Callable[[Mapping[str, BoundKernel]], Runnable]
