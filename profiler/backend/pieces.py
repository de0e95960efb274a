"""Passes with chunks, without the host's delay: all but attention replays from CUDA graphs, one between every two
attentions.

A pass of a few hundred tokens takes the device less time than the host needs to launch its kernels one by one, and a
longer one no more than a host needs that something else slows down. What attention does differs from pass to pass and
is launched as ever; the matrix products and what lies between them are the same for the same number of tokens, so
passes are padded to one of a few numbers. That also keeps the library from choosing, and loading, a kernel for a number
of tokens that it has not seen before, which takes it some milliseconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from profiler.backend.attention import Attention
from profiler.backend.batch import TokenBatch
from profiler.backend.kv_cache import KVCache
from profiler.backend.model import Llama
from profiler.backend.ops import Places

STEPS = ((512, 16), (1024, 32), (2560, 64), (4096, 128))
"""Up to how many tokens passes are padded to a multiple of what. A longer pass is launched kernel by kernel."""


def pass_sizes(most: int) -> tuple[int, ...]:
    """Numbers of tokens that passes with chunks are padded to, up to ``most`` or just above."""
    sizes, last = [], 0
    for up_to, step in STEPS:
        sizes += range(last + step, up_to + 1, step)
        last = up_to
    return tuple(sizes[: bisect_left(sizes, most) + 1])


@dataclass(frozen=True, slots=True)
class _Pieces:
    """The pieces of a pass over a padded number of tokens."""

    begin: Callable[[], None]
    between: tuple[Callable[[], None], ...]


class PiecewiseForward:
    """Computes passes like ``Llama.forward``.

    Args:
        model: the decoder.
        cache: where keys and values go; those of padding to its scratch block.
        sizes: numbers of tokens, ascending.
    """

    def __init__(self, model: Llama, cache: KVCache, sizes: tuple[int, ...]) -> None:
        self._model, self._cache, self.sizes = model, cache, sizes
        self._work = model.working(sizes[-1])
        for part in (self._work.qkv, self._work.attended):
            part.zero_()  # padding is computed too, and must stay finite
        self._ids = torch.zeros(sizes[-1], dtype=torch.int64, device=model.device)
        self._positions = torch.zeros_like(self._ids)
        self._offsets = torch.zeros(sizes[-1], dtype=torch.int32, device=model.device)
        self._blocks = torch.full_like(self._offsets, cache.scratch_block)
        self._pieces: dict[int, _Pieces] = {}

    def capture(self, memory: tuple[int, int] | None = None) -> None:
        """Capture every size; elsewhere than on a GPU the pieces are called as they are.

        Args:
            memory: the pool that graphs share.
        """
        with torch.inference_mode():
            for size in reversed(self.sizes):
                self._pieces[size] = self._captured(size, memory)

    def takes(self, tokens: int) -> bool:
        """Whether a pass over ``tokens`` tokens can be computed."""
        return bool(self._pieces) and tokens <= self.sizes[-1]

    def forward(self, ids: torch.Tensor, tokens: TokenBatch, attention: Attention) -> torch.Tensor:
        """As ``Llama.forward``."""
        n = len(ids)
        size = self.sizes[bisect_left(self.sizes, n)]
        pieces = self._pieces[size]
        self._ids[:n].copy_(ids)
        self._positions[:n].copy_(tokens.positions)
        self._blocks[:n].copy_(tokens.blocks)
        self._blocks[n:size].fill_(self._cache.scratch_block)
        self._offsets[:n].copy_(tokens.offsets)
        work = self._work.first(n)
        queries = self._model.queries(work)
        pieces.begin()
        for index, go_on in enumerate(pieces.between):
            attention.run(index, queries, work.attended)
            go_on()
        return self._model.logits(work, tokens.sampled)

    def _captured(self, size: int, memory: tuple[int, int] | None) -> _Pieces:
        model, work, ids = self._model, self._work.first(size), self._ids[:size]
        positions = self._positions[:size]
        places = Places(self._cache, self._blocks[:size], self._offsets[:size])
        layers = range(model.config.layers)

        def begin() -> None:
            model.begin(ids, model.ops.angles(positions), places, work)

        def between(index: int) -> Callable[[], None]:
            return lambda: model.go_on(index, model.ops.angles(positions), places, work)

        steps = [begin, *(between(index) for index in layers)]
        if model.device.type == "cuda":
            steps = captured_all(steps, memory)
        return _Pieces(steps[0], tuple(steps[1:]))


def captured_all(steps: list[Callable[[], None]], memory: tuple[int, int] | None) -> list[Callable[[], None]]:
    """Each of ``steps`` as the replay of a CUDA graph. All are run once before, so that libraries are warm.

    ``torch.cuda.graph`` empties caches around every capture, which for a thousand graphs takes minutes; here it is done
    by hand.
    """
    cuda: Any = torch.cuda
    stream = cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    graphs = []
    with torch.cuda.stream(stream):
        for step in steps:
            step()
        torch.cuda.synchronize()
        for step in steps:
            graph = torch.cuda.CUDAGraph()
            graph.capture_begin(*(() if memory is None else (memory,)))
            step()
            graph.capture_end()
            graphs.append(graph)
    torch.cuda.current_stream().wait_stream(stream)
    return [graph.replay for graph in graphs]
