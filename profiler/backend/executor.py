"""Execute iterations: take the sessions that decode and the chunks, launch the work, name the sessions that emit.

``run`` returns as soon as the work is queued. Host time and device time of an iteration are measured apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from profiler.backend.attention import Attention, TorchPagedAttention
from profiler.backend.batch import BatchBuffers, ChunkPart, RowChunk, TokenBatch
from profiler.backend.block_tables import BlockTables, Ints
from profiler.backend.cuda_events import CudaEvent, DeviceEvent, record_event
from profiler.backend.flashinfer_attention import FlashInferAttention, padded_sizes, schedule_lengths
from profiler.backend.graph_pieces import PiecewiseForward, pass_sizes
from profiler.backend.kv_cache import KVCache
from profiler.backend.model import Llama
from profiler.backend.tokens import Sampling, Stretch, TokenStore, seed_of


@dataclass(frozen=True, slots=True)
class ChunkWork:
    """``tokens`` missing tokens of session ``key`` to compute after its first ``start``, which are resident.

    Where they end the context, the sessions ``also`` draw their next token from the same logits: they have the same
    context, and none of its blocks yet.
    """

    key: Hashable
    start: int
    tokens: int
    also: tuple[Hashable, ...] = ()


@dataclass(frozen=True, slots=True)
class Emitted:
    """The tokens that an iteration samples: for session ``keys[i]``, at position ``positions[i]`` of its context."""

    keys: tuple[Hashable, ...]
    rows: Ints
    positions: Ints


@dataclass(frozen=True, slots=True)
class Iteration:
    """One iteration, queued or done.

    Attributes:
        emitted: the tokens that were sampled, one for each session that has no missing token left.
        begun, ended: events around its work on the device.
        host_s: seconds that the host worked to queue it.
        waited_s: seconds that the host waited before it could: for the buffers of the iteration before.
        padded: decoding sessions, padding included; the batch was ``padded`` of them plus the chunks.
    """

    emitted: Emitted
    begun: DeviceEvent
    ended: DeviceEvent
    host_s: float
    waited_s: float
    padded: int

    def done(self) -> bool:
        """Whether it has ended."""
        return self.ended.passed()

    def wait(self) -> None:
        """Block the calling thread until the iteration has ended."""
        self.ended.wait()

    def device_s(self) -> float:
        """Device seconds from ``begun`` to ``ended``. The iteration has ended."""
        return self.ended.seconds_since(self.begun)


class BatchExecutor:
    """Runs one model over one cache.

    The engine decides; the executor trusts it. ``tables`` must know the blocks of all tokens before those that are
    computed, and have free ones for these: they are taken here.

    Args:
        model: the decoder.
        cache: its pools.
        tables: block ids, opened and closed here.
        max_decodes: decoding sessions of an iteration at most.
        max_chunk_tokens: tokens of all chunks of an iteration at most.
        sampling, margins: see ``TokenStore``.
        flashinfer: attention by FlashInfer, and CUDA graphs for iterations without chunks; by default on a GPU with a
            16-bit cache.

    Attributes:
        context: int32 ``[rows]``, the known tokens of each open session, the missing ones among them.
        on_launch: called in ``run`` once the device has its work, for what the host can do meanwhile.
    """

    def __init__(
        self,
        model: Llama,
        cache: KVCache,
        tables: BlockTables,
        max_decodes: int = 256,
        max_chunk_tokens: int = 8192,
        sampling: Sampling | None = None,
        margins: bool = False,
        flashinfer: bool | None = None,
    ) -> None:
        self.model, self.cache, self.tables = model, cache, tables
        self.device = cache.device
        on_gpu = self.device.type == "cuda"
        rows = len(tables.gpu_count)
        self.store = TokenStore(rows, tables.max_context, model.config.vocab, self.device, sampling, margins)
        use_flashinfer = on_gpu and cache.dtype.itemsize == 2 if flashinfer is None else flashinfer
        self.buffers = BatchBuffers(
            tables,
            padded_sizes(max_decodes)[-1],
            max_chunk_tokens,
            self.device,
            self.store.scratch_row,
            cache.scratch_block,
            *(schedule_lengths(cache, max_decodes, max_chunk_tokens) if use_flashinfer else (0, 0)),
        )
        self.attention: Attention = (
            FlashInferAttention(cache, self.buffers, max_decodes) if use_flashinfer else TorchPagedAttention(cache)
        )
        self.context: Ints = np.zeros(rows, dtype=np.int32)
        self.on_launch: Callable[[], None] | None = None
        self._sent: CudaEvent | None = None
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._pieces = PiecewiseForward(model, cache, pass_sizes(self.attention.padded(max_decodes) + max_chunk_tokens))

    # ---- sessions

    def open(
        self, key: Hashable, prompt_tokens: int, seed: int | None = None, begins_with: Sequence[Stretch] = ()
    ) -> None:
        """Open a session. After what its prompt ``begins_with``, its ids follow from ``seed``, by default from the key.

        Raises:
            OutOfBlocks: there are as many sessions as rows.
        """
        row = self.tables.open(key)
        self.context[row] = prompt_tokens
        self.store.fill(row, seed_of(key) if seed is None else seed)
        if begins_with:
            self.store.begin_with(row, begins_with)

    def open_branch(self, key: Hashable, source: Hashable, tokens: int) -> None:
        """Open a further continuation of the first ``tokens`` tokens of ``source``. It has their ids and no blocks yet,
        and samples by its own key.

        Raises:
            OutOfBlocks: there are as many sessions as rows.
        """
        lender, row = self.tables.rows[source], self.tables.open(key)
        self.context[row] = tokens
        self.store.follow(row, lender, tokens, seed_of(key))

    def extend(self, key: Hashable, tokens: int) -> None:
        """Add the ``tokens`` tokens of a tool's answer to the context."""
        self.context[self.tables.rows[key]] += tokens

    def cut(self, key: Hashable, keep: int, seed: int | None = None) -> None:
        """Truncate a context that the client rewrote to its first ``keep`` tokens. What follows comes from ``seed``
        again."""
        row = self.tables.rows[key]
        if keep < self.context[row]:
            self.context[row] = keep
            self.store.fill(row, seed_of(key) if seed is None else seed, keep)

    def close(self, key: Hashable) -> None:
        """Close a session and free its blocks and its row."""
        self.tables.close(key)

    def tokens(self, key: Hashable) -> list[int]:
        """All token ids of a context. Waits for the device."""
        row = self.tables.rows[key]
        return [int(token) for token in self.store.ids[row, : int(self.context[row])].cpu()]

    def margins(self, key: Hashable) -> list[float]:
        """The lead of each token's logit over the second; 0 for tokens not sampled. Waits for the device."""
        assert self.store.margins is not None, "the executor was made without margins"
        row = self.tables.rows[key]
        return [float(margin) for margin in self.store.margins[row, : int(self.context[row])].cpu()]

    def sampled_ids(self, iteration: Iteration) -> dict[Hashable, int]:
        """The token ids that an iteration emitted, while their sessions are open. Waits for the device."""
        rows, positions = (torch.from_numpy(n).long() for n in (iteration.emitted.rows, iteration.emitted.positions))
        ids = self.store.ids[rows.to(self.device), positions.to(self.device)]
        return dict(zip(iteration.emitted.keys, ids.tolist(), strict=True))

    @property
    def pass_sizes(self) -> tuple[int, ...]:
        """The numbers of tokens that short passes with chunks are padded to; empty before ``capture``."""
        return self._pieces.sizes if self._pieces.takes(1) else ()

    # ---- one iteration

    def run(self, decode: Sequence[Hashable], chunks: Sequence[ChunkWork] = ()) -> Iteration:
        """Queue one iteration.

        Args:
            decode: sessions that compute their one missing token.
            chunks: missing tokens of other sessions. One that reaches the end of its context emits a token.
        """
        called = time.perf_counter()
        if self._sent is not None:
            self._sent.wait()  # the buffers below are still being read; the GPU has at most one more iteration queued
        free = time.perf_counter()
        rows = np.fromiter((self.tables.rows[key] for key in decode), dtype=np.int32, count=len(decode))
        work = [self._look_up(chunk) for chunk in chunks]
        padded = self.attention.padded(len(decode))
        part = self._prepare(rows, work, padded)
        begun = record_event(self.device)
        self._send()
        graph = self._graphs.get(padded) if part is None else None
        if graph is not None:
            graph.replay()
        else:
            self._compute(padded, part)
        ended = record_event(self.device)
        emitted = self._emit(decode, chunks, rows, work)
        iteration = Iteration(emitted, begun, ended, time.perf_counter() - free, free - called, padded)
        if self.on_launch is not None:
            self.on_launch()
        return iteration

    def _look_up(self, chunk: ChunkWork) -> RowChunk:
        row = self.tables.rows[chunk.key]
        end = chunk.start + chunk.tokens
        assert chunk.tokens > 0 and end <= self.context[row], f"{chunk} reaches beyond {self.context[row]} tokens"
        also = tuple(self.tables.rows[key] for key in chunk.also)
        return RowChunk(row, chunk.start, chunk.tokens, end == self.context[row], also)

    def _prepare(self, rows: Ints, work: Sequence[RowChunk], padded: int) -> ChunkPart | None:
        """Take blocks, fill the index tensors, plan attention."""
        self.tables.grow(rows, self.context[rows])
        if work:
            ends = np.array([chunk.start + chunk.tokens for chunk in work], dtype=np.int32)
            self.tables.grow(np.array([chunk.row for chunk in work], dtype=np.int32), ends)
        sequences = self.buffers.fill_decodes(rows, self.context[rows] - 1, padded)
        part = self.buffers.fill_chunks(work, padded)
        self.attention.plan(sequences, None if part is None else part.sequences)
        return part

    def _send(self) -> None:
        """Send the index tensors."""
        self.buffers.send()
        if self.device.type == "cuda":
            self._sent = CudaEvent(timed=False)

    def _compute(self, padded: int, part: ChunkPart | None) -> None:
        """Everything on the device, from index tensors to stored token ids; also what a graph captures."""
        with torch.inference_mode():
            tokens: TokenBatch = self.buffers.tokens(padded, part)
            rows, positions = tokens.rows, tokens.positions
            pieces = self._pieces if part is not None and self._pieces.takes(len(rows)) else None
            forward = self.model.forward if pieces is None else pieces.forward
            logits = forward(self.store.read(rows, positions), tokens, self.attention)
            if tokens.sampled is not None:
                rows, positions = tokens.drawing, positions[tokens.sampled]
            if len(rows):
                self.store.sample(logits, rows, positions)

    def _emit(
        self, decode: Sequence[Hashable], chunks: Sequence[ChunkWork], rows: Ints, work: Sequence[RowChunk]
    ) -> Emitted:
        done = [index for index, chunk in enumerate(work) if chunk.ends]
        drawing = [row for index in done for row in (work[index].row, *work[index].also)]
        all_rows = np.concatenate((rows, np.array(drawing, dtype=np.int32)))
        positions = self.context[all_rows]
        self.context[all_rows] += 1
        keys = [key for index in done for key in (chunks[index].key, *chunks[index].also)]
        return Emitted((*decode, *keys), all_rows, positions)

    # ---- CUDA graphs

    def capture(self, sizes: Sequence[int] | None = None) -> None:
        """Capture one CUDA graph for each padded number of decoding sessions, and the pieces of short passes with
        chunks. Does nothing without FlashInfer.

        Args:
            sizes: padded sizes; by default all that the attention pads to.
        """
        if not isinstance(self.attention, FlashInferAttention):
            return
        no_rows: Ints = np.zeros(0, dtype=np.int32)
        memory = torch.cuda.graph_pool_handle()
        for padded in sorted(sizes or self.attention.sizes, reverse=True):
            for _ in range(2):  # the first time kernels are loaded and libraries make their workspaces
                torch.cuda.synchronize(self.device)
                self._prepare(no_rows, (), padded)
                self._send()
                self._compute(padded, None)
            torch.cuda.synchronize(self.device)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=memory):
                self._compute(padded, None)
            self._graphs[padded] = graph
        self._pieces.capture(memory)
        torch.cuda.synchronize(self.device)
