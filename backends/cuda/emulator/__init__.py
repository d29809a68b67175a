"""``cuda:emu``: compiles CUDA C with g++ and runs it on the CPU, so that the CUDA backend works and is tested without a GPU."""

from .driver import EmuDriver, why_unavailable

__all__ = ["EmuDriver", "why_unavailable"]
