"""Compiling: the kernels of a batch go through the compiler together, and the binary is kept on disk, where each of
them is found again by itself.

The compiler's cost is mostly per program (60 ms alone, 13 ms in a batch, 0.4 ms from a binary, on a CPU device).
"""

from __future__ import annotations

import contextlib
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


def tag_of(name: str) -> str:
    """Of the text that a kernel's name comes from."""
    return name.rpartition("_")[2]


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
        found = self._kept(texts)
        known = {tag_of(name) for name in found}
        new = [text for text in texts if text.tag not in known]
        if new:
            found.update(self._compiled(new))
        return found

    def _kept(self, texts: Sequence[Text]) -> dict[str, Any]:
        """What binaries on disk hold, whichever texts were compiled together then."""
        wanted: dict[str, set[str]] = {}
        for text in texts:
            batch = self._cache.get(self._key(text))
            if batch is not None:
                wanted.setdefault(batch.decode(), set()).add(text.tag)
        found: dict[str, Any] = {}
        for key, tags in wanted.items():
            binary = self._cache.get(key)
            if binary is not None:
                # a driver may refuse it that kept its version and changed its format: then it is compiled again
                with contextlib.suppress(BuildError):
                    program = load_binary(self._context, binary, self._options)
                    found.update({n: kernel for n, kernel in kernels_of(program).items() if tag_of(n) in tags})
        return found

    def _compiled(self, texts: Sequence[Text]) -> dict[str, Any]:
        source = join(texts)
        try:
            program = compile_source(self._context, source, self._options)
        except BuildError as error:
            for text in texts:
                self._build_alone(text)
            raise DeviceError(f"{len(texts)} kernels compile one by one, but not together: {error}") from None
        binary = binary_of(program)
        if binary:
            key = cache_key(source, self._options, *self._identity)
            self._cache.put(key, binary)
            for text in texts:
                self._cache.put(self._key(text), key.encode())
        return kernels_of(program)

    def _key(self, text: Text) -> str:
        """Under which the key of the binary is kept that holds the text's kernels."""
        return cache_key("text", join([text]), self._options, *self._identity)

    def _build_alone(self, text: Text) -> None:
        try:
            compile_source(self._context, join([text]), self._options)
        except BuildError as error:
            raise DeviceError(f"{text.label} does not compile:\n{error}\n{_numbered(join([text]))}") from None


def _numbered(source: str) -> str:
    return "\n".join(f"{number:4} {line}" for number, line in enumerate(source.splitlines(), 1))
