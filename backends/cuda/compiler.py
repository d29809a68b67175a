"""Compiling: kernels go through the compiler in batches, each one source, and stay loaded while something runs them.

A kernel is named by its content, so that equal kernels of all models are one, and the same batch is found in the
driver's cache on disk.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from weakref import WeakValueDictionary

from omniop.backends.codegen.cuda_c import CUDA_C
from omniop.backends.cuda.driver import Driver, LoadedKernel
from omniop.opset.errors import DeviceError

NAME = "KERNEL_NAME"
"""Stands for the kernel's name in a body that is not named yet."""


@dataclass(frozen=True)
class Text:
    """CUDA C of one kernel.

    ``label`` names the work in errors. ``uses`` are the dialect's helpers that it calls. ``headers``: texts that other
    kernels may need as well; each enters a source once.
    """

    label: str
    name: str
    body: str
    uses: frozenset[str] = frozenset()
    headers: tuple[str, ...] = ()


def named(kind: str, label: str, body: str, uses: frozenset[str], headers: tuple[str, ...] = ()) -> Text:
    """A Text whose name is ``kind`` and a digest of ``body``."""
    name = f"{kind}_{hashlib.sha256(body.encode()).hexdigest()[:16]}"
    return Text(label, name, body.replace(NAME, name), uses, headers)


def join(texts: Sequence[Text]) -> str:
    """One source of several kernels, of different names."""
    uses = frozenset[str]().union(*(text.uses for text in texts))
    headers = dict.fromkeys(header for text in texts for header in text.headers)
    return "\n".join((CUDA_C.prelude(uses), *headers, *(text.body for text in texts)))


class Compiler:
    """Compiles for one driver, at most ``batch`` kernels to a source, sources side by side. Threads may share it."""

    def __init__(self, driver: Driver, batch: int) -> None:
        self._driver = driver
        self._batch = batch
        self._loaded: WeakValueDictionary[str, LoadedKernel] = WeakValueDictionary()
        self._lock = threading.Lock()

    def build(self, texts: Sequence[Text]) -> Mapping[str, LoadedKernel]:
        """The kernels of ``texts`` by name. Raises DeviceError naming the one that does not compile, with the log."""
        with self._lock:
            found = {t.name: kernel for t in texts if (kernel := self._loaded.get(t.name)) is not None}
            missing = {text.name: text for text in texts if text.name not in found}
            if missing:
                made = self._load([missing[name] for name in sorted(missing)])
                self._loaded.update(made)
                found.update(made)
            return found

    def _load(self, texts: Sequence[Text]) -> Mapping[str, LoadedKernel]:
        batches = [texts[first : first + self._batch] for first in range(0, len(texts), self._batch)]
        with ThreadPoolExecutor(min(len(batches), os.cpu_count() or 1)) as pool:
            return {name: kernel for made in pool.map(self._load_batch, batches) for name, kernel in made.items()}

    def _load_batch(self, texts: Sequence[Text]) -> Mapping[str, LoadedKernel]:
        try:
            return self._driver.load(join(texts), [text.name for text in texts])
        except DeviceError as error:
            for text in texts:
                self._load_alone(text)
            raise DeviceError(f"{len(texts)} kernels compile one by one, but not together: {error}") from None

    def _load_alone(self, text: Text) -> None:
        try:
            self._driver.load(join([text]), [text.name])
        except DeviceError as error:
            raise DeviceError(f"{text.label} does not compile: {error}\n{_numbered(join([text]))}") from None


def _numbered(source: str) -> str:
    return "\n".join(f"{number:4} {line}" for number, line in enumerate(source.splitlines(), 1))
