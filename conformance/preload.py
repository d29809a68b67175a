"""What every worker needs, imported once by the process that they are forked from.

No device is touched here: drivers and their threads do not survive a fork. For the same reason, and because workers
share the cores already, BLAS keeps to one thread.
"""

# ruff: noqa: E402, F401

from __future__ import annotations

import os

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import onnx.reference

import omniop.conformance.own
import omniop.conformance.pool
import omniop.dispatcher.session
import omniop.opset.lower
from omniop.conformance.samples.catalogue import catalogue

catalogue()
