"""Greedy decoding with a KV cache: one run a token, and what a run gives as present is the next run's past."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np

import omniop


class Generator:
    """A decoder model, written by ``to_onnx.py`` or by an exporter that uses the same names, and its cache."""

    def __init__(self, session: omniop.Session) -> None:
        self._session = session
        self._empty = {
            i.name: np.zeros(
                [d if isinstance(d, int) else 1 if k == 0 else 0 for k, d in enumerate(i.shape or ())], "f4"
            )
            for i in session.inputs
            if i.name.startswith("past_key_values.")
        }
        self.reset()

    def reset(self) -> None:
        """Forget all tokens."""
        self._past = self._empty

    def feed(self, tokens: Sequence[int]) -> np.ndarray:
        """Put tokens behind those fed so far. Gives the scores of the token that follows: [vocabulary]."""
        outputs = self._session.run({"input_ids": np.array([tokens], np.int64), **self._past})
        self._past = {name: outputs[name.replace("past_key_values", "present")] for name in self._past}
        return outputs["logits"][0, -1]

    def greedy(self, prompt: Sequence[int], stop: Collection[int] = (), limit: int = 100) -> Iterator[int]:
        """The likeliest token after the prompt, the likeliest after that, and so on: at most ``limit``, and up to one
        of ``stop``, which is not given.
        """
        tokens = prompt
        for _ in range(limit):
            token = int(self.feed(tokens).argmax())
            if token in stop:
                return
            yield token
            tokens = [token]
