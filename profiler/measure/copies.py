"""Copies between device and host: whole contexts, out and in again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from profiler.backend.backend import Backend
from profiler.backend.swap import Job

FIRST, SECOND = "copied first", "copied second"


@dataclass(frozen=True, slots=True)
class Flight:
    """One copy: its direction, device seconds, and host seconds to submit it (and to launch it, if it flies alone)."""

    out: bool
    seconds: float
    submit_s: float


class CopyRunner:
    """Two contexts that are copied to where they are not.

    Args:
        backend: has two rows and the blocks free.
        blocks: size of each context.
        scattered: its blocks do not lie side by side on the device, as after a while of serving; else as they come.
    """

    def __init__(self, backend: Backend, blocks: int, scattered: bool) -> None:
        self._backend, self.blocks = backend, blocks
        tables = backend.tables
        for key in (FIRST, SECOND):
            backend.executor.open(key, 1)
        for held in range(1, blocks + 1) if scattered else (blocks,):
            for key in (FIRST, SECOND):
                row = np.array([tables.rows[key]], dtype=np.int32)
                tables.grow(row, np.array([held * tables.block_size], dtype=np.int32))

    def close(self) -> None:
        """End the two sessions."""
        for key in (FIRST, SECOND):
            self._backend.executor.close(key)

    def stretches(self) -> int:
        """Runs of neighbouring blocks on the device of the first context, which is there."""
        ids = self._backend.tables.gpu_ids(FIRST)
        return 1 + sum(1 for one, other in pairwise(ids) if other != one + 1)

    def fly(self, keys: Sequence[str], iterate: Callable[[], None] | None = None) -> list[Flight]:
        """Copy the contexts at once, each to the other side, and wait for all.

        Args:
            iterate: carries out an iteration beside the copies; the executor launches them once the device has it.
        """
        jobs, submitted = [], []
        for key in keys:
            begun = time.perf_counter()
            jobs.append(self._submit(key))
            if iterate is None:
                self._backend.swapper.launch()
            submitted.append(time.perf_counter() - begun)
        if iterate is not None:
            iterate()
        self._wait(len(jobs))
        for job in jobs:
            self._backend.tables.finish(job.move)
        return [Flight(job.move.out, job.seconds(), spent) for job, spent in zip(jobs, submitted, strict=True)]

    def _submit(self, key: str) -> Job:
        tables = self._backend.tables
        on_device = int(tables.gpu_count[tables.rows[key]]) > 0
        begin = tables.begin_out if on_device else tables.begin_in
        return self._backend.swapper.submit(begin(key, self.blocks))

    def _wait(self, jobs: int) -> None:
        swapper, ended = self._backend.swapper, 0
        while ended < jobs:
            swapper.wait_for_one()
            ended += len(swapper.poll())
