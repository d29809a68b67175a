"""The prim ``contract``: matrix products by hand-written kernels, for devices of two kinds.

Where one core runs a work item after the other, vectors are written out and B is packed into panels; where lanes of a work group run
together, tiles lie in local memory. Few rows have a kernel of their own. Sizes are arguments, so one set of kernels serves
all shapes: it is made for the dtypes, and for what happens to a sum: a conversion, or the epilogue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from omniop.backends.base import YES, Answer, No, OpContext, Runnable
from omniop.backends.codegen.indexing import host_function
from omniop.backends.opencl.gemm_problem import FEW_ROWS, Matrix, Problem
from omniop.backends.opencl.gemm_text import gemm_text, loads_as, tile_of
from omniop.backends.opencl.launch import BoundKernel, Launch, PlannedWork, Scratch, numbers_from
from omniop.backends.opencl.printed import Printed
from omniop.backends.opencl.probe import Profile
from omniop.opset.kernel import Call
"""..."""
