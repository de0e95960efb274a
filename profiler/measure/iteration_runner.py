"""Run iterations of any shape on a backend, over contexts that were never computed."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from profiler.backend.backend import Backend
from profiler.backend.block_tables import Ints
from profiler.backend.executor import ChunkWork, Iteration
from profiler.measure.grid import Shape


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one iteration, carried out as ``profiler.serving.server`` does: queue it, wait for its end.

    Attributes:
        device_s: from its first to its last moment on the device.
        host_s: work of the host to queue it.
        waited_s: the host waited for the buffers of the iteration before.
        wall_s: from the call to the end of the wait.
        padded: decoding sessions, padding included.
    """

    device_s: float
    host_s: float
    waited_s: float
    wall_s: float
    padded: int


class IterationRunner:
    """Sessions with contexts that can be set to any length at once.

    Args:
        backend: its KV pool is filled with random numbers here: zeros would run faster.
        decodes, chunks: sessions of each kind.
    """

    def __init__(self, backend: Backend, decodes: int, chunks: int) -> None:
        self.backend = backend
        executor, tables = backend.executor, backend.tables
        fill_with_noise(backend.cache.pool)
        self._decoders = [f"decoder {index}" for index in range(decodes)]
        self._prefillers = [f"prefiller {index}" for index in range(chunks)]
        for key in (*self._decoders, *self._prefillers):
            executor.open(key, 1)
        self._decoder_rows = rows_of(tables.rows, self._decoders)
        self._prefiller_rows = rows_of(tables.rows, self._prefillers)
        self._rows: Ints = np.zeros(0, dtype=np.int32)
        self._contexts: Ints = np.zeros(0, dtype=np.int32)
        self._decode: list[str] = []
        self._work: list[ChunkWork] = []

    def close(self) -> None:
        """End the sessions: their blocks and rows are free."""
        for key in (*self._decoders, *self._prefillers):
            self.backend.executor.close(key)

    def set_up(self, shape: Shape) -> None:
        """Give the sessions blocks for ``shape``; those that it does not need keep none."""
        tables, n = self.backend.tables, len(shape.decodes)
        ends = [start + tokens for start, tokens in shape.chunks]
        wanted = {**dict(zip(self._decoders, shape.decodes, strict=False))}
        wanted |= dict(zip(self._prefillers, ends, strict=False))
        for key in (*self._decoders, *self._prefillers):
            held = int(tables.gpu_count[tables.rows[key]]) * tables.block_size
            tables.keep(key, min(held, wanted.get(key, 0)), 0)
        self._decode = self._decoders[:n]
        self._work = [
            ChunkWork(key, start, tokens) for key, (start, tokens) in zip(self._prefillers, shape.chunks, strict=False)
        ]
        prefillers = self._prefiller_rows[: len(ends)]
        self._rows = np.concatenate((self._decoder_rows[:n], prefillers))
        tables.grow(self._rows, np.array([*shape.decodes, *ends], dtype=np.int32))
        longer = [end if shape.ends else end + 1 for end in ends]
        self._contexts = np.array([*shape.decodes, *longer], dtype=np.int32)

    def run(self) -> Timing:
        """Carry out the iteration that was set up."""
        called = time.perf_counter()
        iteration = self.queue()
        iteration.wait()
        wall = time.perf_counter() - called
        return Timing(iteration.device_s(), iteration.host_s, iteration.waited_s, wall, iteration.padded)

    def queue(self) -> Iteration:
        """Queue it, with the contexts at their lengths again."""
        executor = self.backend.executor
        executor.context[self._rows] = self._contexts
        return executor.run(self._decode, self._work)

    def warm_up(self, shapes: list[Shape], seconds: float) -> None:
        """Run ``shapes`` in turn for about ``seconds``, each at least twice: kernels are loaded, clocks go up."""
        begun = time.perf_counter()
        rounds = 0
        while rounds < 2 or time.perf_counter() - begun < seconds:
            for shape in shapes:
                self.set_up(shape)
                self.run()
            rounds += 1


def fill_with_noise(pool: torch.Tensor) -> None:
    """Standard normal numbers, in place."""
    generator = torch.Generator(pool.device).manual_seed(0)
    step = max(1, (1 << 30) // pool[0].nbytes)
    for first in range(0, len(pool), step):
        pool[first : first + step].normal_(generator=generator)


def rows_of(rows: dict[object, int] | dict[str, int], keys: list[str]) -> Ints:
    """The rows of ``keys``."""
    return np.array([rows[key] for key in keys], dtype=np.int32)
