"""What a run of the suite may be asked for: levels and kinds of cases, how many of them, oracles, fallback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

ONNX = ("node", "simple", "pytorch-converted", "pytorch-operator", "light")
"""The kinds that are ONNX's; all others are ours."""

LEVELS: Mapping[str, tuple[str, ...]] = {
    "L0": ("memory", "prim"),
    "L1": (*ONNX, "edge", "own"),
    "L2": ("tuned",),
    "L3": ("trained",),
}
"""What is asked of a device, from the bottom up, by the kinds of cases that ask it. L0: its memory, and every operation
of its kernels, at their edges. L1: every operator. L2: its tuned kernels, beside its lowerings. L3: trained nets."""

HARVESTED = "harvested"
"""The kind of the nodes of a user's model (`omniop.conformance.harvest`), which belong to no level."""

KINDS = (*(kind for kinds in LEVELS.values() for kind in kinds), HARVESTED)
"""Every kind of case, in the order in which they are listed."""

OWN = tuple(kind for kind in KINDS if kind not in ONNX)

Extent = Literal["quick", "usual", "full"]
QUICK, USUAL = 900, 2000
"""Cases of a quick run, of all kinds; and of our own (kind ``own``) in one that is neither quick nor full."""

Oracle = Literal["reference", "onnxruntime"]
"""What may run in omniop's place."""

Fallback = Literal["warn", "error", "silent"]
"""What becomes of a node that the device declines."""
