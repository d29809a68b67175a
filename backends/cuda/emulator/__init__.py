"""``cuda:emu``: CUDA C compiled with g++ and run on the CPU, so that the CUDA backend works without a GPU."""

from omniop.backends.cuda.emulator.driver import EmuDriver
from omniop.backends.cuda.emulator.toolchain import why_unavailable

__all__ = ["EmuDriver", "why_unavailable"]
