"""Compiling: the kernels of a batch go through the compiler together, and the binary is kept on disk.

The compiler's cost is mostly per program (60 ms alone, 13 ms in a batch, 0.4 ms from a binary, on a CPU device).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omniop.backends.codegen.opencl_c import OPENCL_C
from omniop.backends.compile_cache import CompileCache, cache_key
from omniop.backends.opencl.driver import BuildError, binary_of, compile_source, kernels_of, load_binary
from omniop.opset.errors import DeviceError


@dataclass(frozen=True)
class Text:
    """OpenCL C of one piece of work.

    ``tag`` ends the names of its kernels: each is the tag, or something, "_" and the tag. ``label`` names the work in
    errors. ``uses`` are the dialect's helpers that it calls.
    """

    tag: str
    label: str
    body: str
    uses: frozenset[str] = frozenset()


def join(texts: Sequence[Text]) -> str:
    """One source of several texts, whose kernels must have different names."""
    uses = frozenset[str]().union(*(text.uses for text in texts))
    return "\n".join((OPENCL_C.prelude(uses), *(text.body for text in texts), ""))


class Compiler:
    """Compiles for one device. Threads may share it."""

    def __init__(self, context: Any, options: str, identity: Sequence[str]) -> None:
        self._context = context
        self._options = options
        self._identity = tuple(identity)
        self._cache = CompileCache("opencl")

    def build(self, texts: Sequence[Text]) -> dict[str, Any]:
        """Every kernel of ``texts``, by name. Raises DeviceError naming the one that does not compile, with the log."""
        try:
            return kernels_of(self._program(join(texts)))
        except BuildError as error:
            for text in texts:
                self._build_alone(text)
            raise DeviceError(f"{len(texts)} kernels compile one by one, but not together: {error}") from None

    def _build_alone(self, text: Text) -> None:
        try:
            compile_source(self._context, join([text]), self._options)
        except BuildError as error:
            raise DeviceError(f"{text.label} does not compile:\n{error}\n{_numbered(join([text]))}") from None

    def _program(self, source: str) -> Any:
        key = cache_key(source, self._options, *self._identity)
        binary = self._cache.get(key)
        if binary is not None:
            try:
                return load_binary(self._context, binary, self._options)
            except BuildError:
                pass  # of a driver that kept its version and changed its format: compiled again below
        program = compile_source(self._context, source, self._options)
        binary = binary_of(program)
        if binary:
            self._cache.put(key, binary)
        return program


def _numbered(source: str) -> str:
    return "\n".join(f"{number:4} {line}" for number, line in enumerate(source.splitlines(), 1))
