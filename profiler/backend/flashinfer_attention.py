"""Attention by FlashInfer's kernels on CUDA, for 16-bit dtypes.

Decoding sessions and chunks run in kernels of their own, each tiled for its kind, in mixed batches too: a decoding
session costs the same whether a chunk runs beside it or not. Decoding sessions always go through fixed buffers and
padded sizes, as CUDA graphs want it, with and without a graph.

FlashInfer's own plans send their numbers by the copy engine, behind all contexts on their way in. Ours go with the
index tensors (``decode_schedule``, ``chunk_schedule``); a wrapper plans once by itself, which loads its kernels.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from profiler.backend.batch import BatchBuffers, Sequences
from profiler.backend.block_tables import Ints
from profiler.backend.chunk_schedule import (
    MOST_PIECES_A_PROCESSOR,
    SHORTEST_PIECE,
    TILES,
    choose_stretch,
    cut_chunks,
    numbers_at_most,
)
from profiler.backend.decode_schedule import DecodeSchedule, cuts, shortest_piece
from profiler.backend.kernel_plan import KernelPlan, sums_bytes, tile_of
from profiler.backend.kv_cache import KVCache

WORKSPACE_BYTES = 256 << 20
STEP = 8


def padded_sizes(most: int) -> tuple[int, ...]:
    """The batch sizes that decoding sessions are padded to: 1, 2, 4, then every 8 up to ``most`` or just above."""
    sizes = (1, 2, 4, *range(STEP, most + STEP, STEP))
    return sizes[: bisect_left(sizes, most) + 1]


def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; 1 elsewhere."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def schedule_lengths(cache: KVCache, max_decodes: int, max_chunk_tokens: int) -> tuple[int, int]:
    """int32 numbers of the longest schedule, of decoding sessions and of chunks."""
    most = padded_sizes(max_decodes)[-1]
    decodes = DecodeSchedule(most, cache.config.kv_heads, processors(cache.device), cache.block_size).places.end
    return decodes, numbers_at_most(max_chunk_tokens, _most_chunk_pieces(cache))


def _processors_a_head(cache: KVCache) -> float:
    return processors(cache.device) / cache.config.kv_heads


def _most_chunk_pieces(cache: KVCache) -> int:
    """For each KV head, if contexts are cut: what they leave to be merged must fit into the workspace."""
    config, tile = cache.config, TILES[0][1]
    room = WORKSPACE_BYTES // (4 * tile * config.heads * (config.head_dim + 1)) - 1
    return max(1, min(room, int(MOST_PIECES_A_PROCESSOR * _processors_a_head(cache))))


@dataclass(frozen=True, slots=True)
class _DecodePlan:
    """FlashInfer's wrapper for one padded size, and what is computed for each batch of it."""

    wrapper: Any
    schedule: DecodeSchedule


def _blocks(sequences: Sequences) -> Ints:
    """Blocks of each sequence."""
    found: Ints = np.diff(sequences.block_starts.numpy())
    return found


class FlashInferAttention:
    """See the module.

    Args:
        cache: the pools.
        buffers: the index tensors, here and on the device.
        max_decodes: decoding sessions at most.
    """

    def __init__(self, cache: KVCache, buffers: BatchBuffers, max_decodes: int) -> None:
        import flashinfer

        self._lib = flashinfer
        self.cache, self._buffers = cache, buffers
        self.sizes = padded_sizes(max_decodes)
        self.most_pieces = cuts(cache.config.kv_heads, processors(cache.device))
        self.piece_tokens = shortest_piece(cache.block_size) * cache.block_size
        self._workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=cache.device)
        self._chunk_wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(self._workspace, "NHD", backend="fa2")
        self._chunk_wrapper_loaded = False
        self._processors_a_head, self._most_chunk_pieces = _processors_a_head(cache), _most_chunk_pieces(cache)
        self._decode_plans: dict[int, _DecodePlan] = {}
        self._decodes = 0

    def padded(self, decodes: int) -> int:
        return self.sizes[bisect_left(self.sizes, decodes)] if decodes else 0

    def plan(self, decode: Sequences | None, chunks: Sequences | None) -> None:
        config = self.cache.config
        shape = (config.heads, config.kv_heads, config.head_dim, self.cache.block_size)
        self._decodes = 0
        if decode is not None:
            self._decodes = len(decode)
            self._plan_decode(decode, shape)
        if chunks is not None:
            if not self._chunk_wrapper_loaded:
                self._load_chunk_wrapper(chunks, shape)
            self._plan_chunks(chunks)

    def _load_chunk_wrapper(self, chunks: Sequences, shape: tuple[int, int, int, int]) -> None:
        """Let FlashInfer plan once; what it planned is not used."""
        wrapper, dtype = self._chunk_wrapper, self.cache.dtype
        indices = (chunks.query_starts, chunks.block_starts, chunks.blocks_on_host, chunks.last_lengths)
        wrapper.plan(*indices, *shape, causal=True, q_data_type=dtype, kv_data_type=dtype)
        self._tile_of(wrapper)
        wrapper._int_workspace_buffer = self._buffers.device.view(torch.uint8)
        self._chunk_wrapper_loaded = True

    def _plan_chunks(self, chunks: Sequences) -> None:
        """Write the chunks' schedule beside the index tensors, and tell the wrapper where all that will lie."""
        wrapper, config, size = self._chunk_wrapper, self.cache.config, self.cache.block_size
        blocks = _blocks(chunks)
        queries, group = np.diff(chunks.query_starts.numpy()), config.heads // config.kv_heads
        shortest = max(1, SHORTEST_PIECE // size)
        stretch = choose_stretch(queries, blocks, group, self._processors_a_head, shortest, self._most_chunk_pieces)
        schedule = cut_chunks(queries, blocks, group, stretch)
        sums = sums_bytes(schedule.pieces, schedule.tile, config.heads, config.head_dim)
        assert not schedule.cut or sums * (config.head_dim + 1) // config.head_dim < WORKSPACE_BYTES
        put = self._buffers.put
        wrapper._plan_info = KernelPlan(
            pieces=schedule.pieces,
            rows=chunks.queries,
            rows_at=0,
            tile=schedule.tile,
            requests_at=4 * put(schedule.requests).start,
            query_tiles_at=4 * put(schedule.query_tiles).start,
            numbers_at=4 * put(schedule.numbers).start,
            merge_starts_at=4 * put(schedule.merge_starts).start,
            row_starts_at=4 * put(schedule.row_starts).start,
            piece_tokens_at=4 * put(np.array([schedule.piece_blocks * size], dtype=np.int32)).start,
            sums_at=0,
            weights_at=sums,
            valid_at=0,
            graph=False,
            cut=schedule.cut,
        ).numbers()
        wrapper._qo_indptr_buf = self._buffers.on_device(chunks.query_starts)
        wrapper._paged_kv_indptr_buf = self._buffers.on_device(chunks.block_starts)
        wrapper._paged_kv_indices_buf = chunks.blocks
        wrapper._paged_kv_last_page_len_buf = self._buffers.on_device(chunks.last_lengths)

    def _plan_decode(self, decode: Sequences, shape: tuple[int, int, int, int]) -> None:
        """Plan for a padded batch: write its schedule beside the index tensors, which are sent later."""
        planned = self._decode_plans.get(len(decode))
        if planned is None:
            planned = self._decode_plans[len(decode)] = self._first_plan(decode, shape)
        planned.schedule.write(self._buffers.schedule, _blocks(decode))

    def _first_plan(self, decode: Sequences, shape: tuple[int, int, int, int]) -> _DecodePlan:
        """A wrapper for a padded size. Its own first plan loads the kernels; ours takes that one's place."""
        heads, kv_heads, head_dim, block_size = shape
        wrapper = self._make_decode_wrapper(len(decode))
        indices = (decode.block_starts, decode.blocks_on_host, decode.last_lengths)
        wrapper.plan(*indices, *shape, q_data_type=self.cache.dtype, kv_data_type=self.cache.dtype)
        schedule = DecodeSchedule(len(decode), kv_heads, processors(self.cache.device), block_size)
        assert schedule.workspace_bytes(heads, head_dim) <= WORKSPACE_BYTES
        wrapper._plan_info = schedule.plan(heads, head_dim, self._tile_of(wrapper))
        wrapper._int_workspace_buffer = self._buffers.schedule_on_device.view(torch.uint8)
        return _DecodePlan(wrapper, schedule)

    def _tile_of(self, wrapper: Any) -> int:
        """Query rows of a piece in the plan that a wrapper made itself."""
        tile = tile_of(wrapper._plan_info)
        if tile is None:
            raise RuntimeError(
                f"FlashInfer {self._lib.__version__} plans in another form; install flashinfer-python==0.6.3"
            )
        return tile

    def _make_decode_wrapper(self, size: int) -> Any:
        starts, blocks, lengths = self._buffers.graph_inputs(size)
        return self._lib.BatchDecodeWithPagedKVCacheWrapper(
            self._workspace,
            "NHD",
            use_cuda_graph=True,
            use_tensor_cores=True,
            paged_kv_indptr_buffer=starts,
            paged_kv_indices_buffer=blocks,
            paged_kv_last_page_len_buffer=lengths,
            backend="fa2",
        )

    def run(self, layer: int, q: torch.Tensor, out: torch.Tensor) -> None:
        views = self.cache.views[layer]
        n, out = self._decodes, out.view(q.shape)
        if n:
            self._decode_plans[n].wrapper.run(q[:n], views, out=out[:n])
        if n < len(q):
            self._chunk_wrapper.run(q[n:], views, out=out[n:])
