"""How long it takes to bind a BERT-shaped encoder to a new shape: ``python benchmarks/binding.py [DEVICE]``."""

from __future__ import annotations

import statistics
import sys
import time
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import omniop
from tests.gate.models import bert, bert_feeds

SHAPES = list(product((1, 2, 3, 4, 5), (1, 2, 3, 5, 8, 9, 12, 16, 17, 24)))


def main(device: str = "cpu", layers: int = 12) -> None:
    """Print the median and the worst over 50 shapes, none of them seen before."""
    session = omniop.load(bert(layers), device=device, fallback="error")
    start = time.perf_counter()
    session.run(bert_feeds(2, 7))
    first = time.perf_counter() - start
    times = []
    for shape in SHAPES:
        session.run(bert_feeds(*shape))
        times.append(session.last_report.bind_seconds * 1e3)
    print(f"{device}, {layers} layers: the first run takes {first:.2f} s")
    print(f"binding to {len(times)} new shapes: median {statistics.median(times):.3f} ms, worst {max(times):.3f} ms")


if __name__ == "__main__":
    main(*sys.argv[1:2])
