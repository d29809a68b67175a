"""Talk to SmolLM2-135M-Instruct, token by token.

    python examples/smollm2/chat.py "What is the capital of France?"
    python examples/smollm2/chat.py --raw "The capital of France is" --max-tokens 20 --device opencl

The model is written as ONNX at the first use (``to_onnx.py``), and kept in the user's cache folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import onnx
import platformdirs
import typer
from bpe import Tokenizer
from generate import Generator
from gguf_file import GgufError
from rich.console import Console
from rich.markup import escape
from to_onnx import convert, model_path

import omniop

_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
_MARKERS = ("<|im_end|>", "<|endoftext|>")


def main(
    prompt: Annotated[str, typer.Argument(help="What to answer, or with --raw what to go on from.")],
    device: Annotated[str, typer.Option(help="Where to run.")] = "cpu",
    max_tokens: Annotated[int, typer.Option(min=1, help="When to stop at the latest.")] = 100,
    raw: Annotated[
        bool, typer.Option("--raw", help="Go on with the text, without the frame of a conversation.")
    ] = False,
    model: Annotated[Path | None, typer.Option(help="An ONNX file that to_onnx.py wrote.")] = None,
) -> None:
    """Talk to SmolLM2: the likeliest tokens, one by one."""
    console = Console(highlight=False)
    try:
        path = model or _converted(console)
        tokenizer = _tokenizer(path)
        with console.status(f"loading on {device}"):
            start = time.perf_counter()
            generator = Generator(omniop.load(path, device=device))
        tokens = tokenizer.encode(prompt if raw else _framed(prompt))
        console.print(f"[bold]{escape(prompt)}[/]", end="" if raw else "\n")
        times = [start]
        stop = tokenizer.encode("".join(_MARKERS))
        for text in tokenizer.stream(_timed(generator.greedy(tokens, stop, max_tokens), times)):
            console.print(escape(text), end="", soft_wrap=True)
        console.print(f"\n\n[dim]{_speed(times, len(tokens))}[/]")
    except (omniop.OmniopError, GgufError, OSError, ValueError) as error:
        raise SystemExit(f"{device}: {error}") from None


def _converted(console: Console) -> Path:
    """SmolLM2 as ONNX, written when it is not there yet."""
    path = Path(platformdirs.user_cache_dir("omniop")) / "examples" / "smollm2.onnx"
    if not path.exists():
        with console.status(f"writing {path}"):
            convert(model_path(), path)
    return path


def _tokenizer(path: Path) -> Tokenizer:
    properties = onnx.load(path, load_external_data=False).metadata_props
    return Tokenizer.of_metadata({p.key: json.loads(p.value) for p in properties})


def _framed(question: str) -> str:
    """A conversation, up to where the answer begins."""
    turns = (("system", _SYSTEM), ("user", question))
    return "".join(f"<|im_start|>{who}\n{what}<|im_end|>\n" for who, what in turns) + "<|im_start|>assistant\n"


def _timed(tokens: Iterator[int], times: list[float]) -> Iterator[int]:
    """``tokens``; notes when each came."""
    for token in tokens:
        times.append(time.perf_counter())
        yield token


def _speed(times: list[float], prompt: int) -> str:
    start, *came = times
    if not came:
        return f"{prompt} tokens read, and nothing to say"
    first = f"{prompt} tokens read, first token after {came[0] - start:.1f} s with loading"
    steps = [b - a for a, b in pairwise(came[1:])]  # the first step plans and compiles
    return first + (f", then {len(steps) / sum(steps):.1f} tokens/s" if steps else "")


if __name__ == "__main__":
    typer.run(main)
