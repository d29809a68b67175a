"""What sharing work among threads costs."""

from __future__ import annotations

import numpy as np

from benchmarks.fork_join import Work
from omniop.backends.cpu.memory import HostBuffer
from omniop.opset.dtype import FLOAT32


def test_jobs_are_done_on_any_number_of_threads() -> None:
    work = Work.of(20)
    points = len(work.buffers[0]) // FLOAT32.itemsize
    expected = work.buffers[0].typed(FLOAT32)[:points]
    for _ in range(4):
        expected = np.exp(expected * 0.5)
    for threads in (1, 2):
        made = Work(work.kernel, work.speed, (work.buffers[0], HostBuffer(len(work.buffers[0]))))
        assert made.job(1e6, threads, 2) > 0
        assert made.after_pause(1e6, threads) > 0
        np.testing.assert_allclose(made.buffers[1].typed(FLOAT32)[:points], expected, rtol=1e-5)
