"""Attention by FlashInfer's kernels on CUDA, for 16-bit dtypes.

Decoding sessions and chunks run in kernels of their own, each tiled for its kind, in mixed batches too: a decoding
session costs the same whether a chunk runs beside it or not. Decoding sessions always go through fixed buffers and
padded sizes, as CUDA graphs want it, with and without a graph.

The pinned workspace of the chunks' wrapper is read by an asynchronous copy that ``plan`` starts: whoever plans again
must first have waited for that copy. The executor does, once for all its buffers. The decoding sessions' schedule is
our own (see ``decode_schedule``) and goes with the index tensors.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from profiler.backend.batch import BatchBuffers, Sequences
from profiler.backend.decode_schedule import DecodeSchedule, tile_of
from profiler.backend.kv_cache import KVCache

WORKSPACE_BYTES = 256 << 20
STEP = 8
WORTH_CUTTING = 12
"""Tokens of the longest context for each query token of the chunks: up to here contexts are read in one go. On an H200
that was faster at 5 (256 after 1,024 tokens, 512 after 2,048), slower at 17 and 65 (256 and 64 after 4,096); 512 after
8,192, also 17, were level within 2 %."""


def padded_sizes(most: int) -> tuple[int, ...]:
    """The batch sizes that decoding sessions are padded to: 1, 2, 4, then every 8 up to ``most`` or just above."""
    sizes = (1, 2, 4, *range(STEP, most + STEP, STEP))
    return sizes[: bisect_left(sizes, most) + 1]


def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; 1 elsewhere."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def schedule_length(cache: KVCache, max_decodes: int) -> int:
    """int32 numbers of the longest schedule."""
    most = padded_sizes(max_decodes)[-1]
    return DecodeSchedule(most, cache.config.kv_heads, processors(cache.device), cache.block_size).places.end


@dataclass(frozen=True, slots=True)
class _DecodePlan:
    """FlashInfer's wrapper for one padded size, and what is computed for each batch of it."""

    wrapper: Any
    schedule: DecodeSchedule


def _longest(sequences: Sequences) -> int:
    """Blocks of the longest sequence."""
    return int(np.diff(sequences.block_starts.numpy()).max())


class FlashInferAttention:
    """See the module.

    Args:
        cache: the pools.
        buffers: where the decoding sessions' index tensors lie on the device.
        max_decodes: decoding sessions at most.
    """

    def __init__(self, cache: KVCache, buffers: BatchBuffers, max_decodes: int) -> None:
        import flashinfer

        self._lib = flashinfer
        self.cache, self._buffers = cache, buffers
        self.sizes = padded_sizes(max_decodes)
        self._workspace = torch.zeros(WORKSPACE_BYTES, dtype=torch.uint8, device=cache.device)
        self._chunk_wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(self._workspace, "NHD", backend="fa2")
        self._decode_plans: dict[int, _DecodePlan] = {}
        self._decodes = 0

    def padded(self, decodes: int) -> int:
        return self.sizes[bisect_left(self.sizes, decodes)] if decodes else 0

    def plan(self, decode: Sequences | None, chunks: Sequences | None) -> None:
        config, dtype = self.cache.config, self.cache.dtype
        shape = (config.heads, config.kv_heads, config.head_dim, self.cache.block_size)
        self._decodes = 0
        if decode is not None:
            self._decodes = len(decode)
            self._plan_decode(decode, shape)
        if chunks is not None:
            self._chunk_wrapper.plan(
                chunks.query_starts,
                chunks.block_starts,
                chunks.blocks,
                chunks.last_lengths,
                *shape,
                causal=True,
                q_data_type=dtype,
                kv_data_type=dtype,
                disable_split_kv=_longest(chunks) * self.cache.block_size <= WORTH_CUTTING * chunks.queries,
            )

    def _plan_decode(self, decode: Sequences, shape: tuple[int, int, int, int]) -> None:
        """Plan for a padded batch: write its schedule beside the index tensors, which are sent later."""
        planned = self._decode_plans.get(len(decode))
        if planned is None:
            planned = self._decode_plans[len(decode)] = self._first_plan(decode, shape)
        blocks = np.diff(decode.block_starts.numpy())
        planned.schedule.write(self._buffers.schedule, blocks)

    def _first_plan(self, decode: Sequences, shape: tuple[int, int, int, int]) -> _DecodePlan:
        """A wrapper for a padded size. Its own first plan loads the kernels; ours takes that one's place."""
        heads, kv_heads, head_dim, block_size = shape
        wrapper = self._make_decode_wrapper(len(decode))
        indices = (decode.block_starts, decode.blocks_on_host, decode.last_lengths)
        wrapper.plan(*indices, *shape, q_data_type=self.cache.dtype, kv_data_type=self.cache.dtype)
        tile = tile_of(wrapper._plan_info)
        if tile is None:
            raise RuntimeError(
                f"FlashInfer {self._lib.__version__} plans in another form; install flashinfer-python==0.6.3"
            )
        schedule = DecodeSchedule(len(decode), kv_heads, processors(self.cache.device), block_size)
        assert schedule.workspace_bytes(heads, head_dim) <= WORKSPACE_BYTES
        wrapper._plan_info = schedule.plan(heads, head_dim, tile)
        wrapper._int_workspace_buffer = self._buffers.schedule_on_device.view(torch.uint8)
        return _DecodePlan(wrapper, schedule)

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
