"""A backend for omniop in one file: kernels printed as C, compiled by the system's compiler, called through ctypes."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from omniop.backends.base import Backend, Buffer, Caps, Device, Fingerprint, KernelTable, Runnable
from omniop.backends.codegen.c_like import Source
from omniop.backends.codegen.plain_c import PLAIN_C
from omniop.opset import dtype as dtypes
from omniop.opset.errors import DeviceError
from omniop.opset.kernel import Kernel, Work

FLAGS = ("-std=c99", "-O1", "-ffp-contract=off", "-shared", "-fPIC")  # no fused multiply-add: results are exact
WHOLE = {d for d in dtypes.ALL if d.kind in "biu" and d.bits >= 8}


class ToyDevice(Device):
    """Host memory, one thread. Narrow floats and small integers are rewritten into these Caps before they come here."""

    def __init__(self, compiler: str) -> None:
        self.name = "toy"
        dtype = frozenset(WHOLE | {dtypes.FLOAT32, dtypes.FLOAT64})
        self.caps = Caps(storage=dtype, compute=dtype, max_buffers=64, loops=True)
        self.fingerprint = Fingerprint("C", "toy", platform.machine(), compiler)
        self.kernels = KernelTable()
        self._compiler = compiler

    def alloc(self, nbytes: int) -> Buffer:
        return np.empty(nbytes, np.uint8)

    def h2d(self, buffer: Buffer, array: np.ndarray) -> None:
        buffer[: array.nbytes] = array.reshape(-1).view(np.uint8)

    def d2h(self, array: np.ndarray, buffer: Buffer) -> None:
        array.reshape(-1).view(np.uint8)[...] = buffer[: array.nbytes]

    def build(self, works: Sequence[Work]) -> list[Runnable]:
        """All of a model's kernels in one text. There are no calls among them: `accepts` takes no prim whole."""
        kernels = [work for work in works if isinstance(work, Kernel)]
        sources = [PLAIN_C.print_kernel(k, f"k{n}", index_bits=64) for n, k in enumerate(kernels)]
        library = self._compile(PLAIN_C.unit(sources))
        return [launcher(library, source) for source in sources]

    def _compile(self, text: str) -> ctypes.CDLL:
        with tempfile.TemporaryDirectory() as folder:
            source, binary = Path(folder, "kernels.c"), Path(folder, "kernels.so")
            source.write_text(text)
            command = [self._compiler, *FLAGS, "-o", str(binary), str(source), "-lm"]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                raise DeviceError(f"{self.name}: {self._compiler} failed:\n{result.stderr}")
            return ctypes.CDLL(str(binary))


def launcher(library: ctypes.CDLL, source: Source) -> Runnable:
    """A printed kernel as a function of buffers and sizes, run over all points of its grid."""
    function = library[source.name]
    function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    function.restype = None

    def run(buffers: Sequence[Buffer], sizes: Sequence[int]) -> None:
        pointers = (ctypes.c_void_p * len(buffers))(*[b.ctypes.data for b in buffers])
        numbers = (ctypes.c_int64 * max(1, len(sizes)))(*sizes)
        function(pointers, numbers, 0, source.points(sizes))

    return run


class ToyBackend(Backend):
    name = "toy"

    def devices(self) -> list[Device]:
        compiler = shutil.which("cc")
        if compiler is None:
            raise DeviceError("toy needs a C compiler, and there is no cc on PATH")
        return [ToyDevice(compiler)]


BACKEND = ToyBackend()
