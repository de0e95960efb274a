"""Attention by FlashInfer's kernels on CUDA, for 16-bit dtypes.

Decoding sessions and chunks run in kernels of their own, each tiled for its kind, in mixed batches too: a decoding
session costs the same whether a chunk runs beside it or not. Decoding sessions always go through fixed buffers and
padded sizes, as CUDA graphs want it, with and without a graph.

The pinned workspace of a wrapper is read by an asynchronous copy that ``plan`` starts: whoever plans again must first
have waited for that copy. The executor does, once for all its buffers.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import torch

from profiler.backend.batch import BatchBuffers, Sequences, TokenBatch
from profiler.backend.kv_cache import KVCache

WORKSPACE_BYTES = 256 << 20
STEP = 8


def padded_sizes(most: int) -> tuple[int, ...]:
    """The batch sizes that decoding sessions are padded to: 1, 2, 4, then every 8 up to ``most`` or just above."""
    sizes = (1, 2, 4, *range(STEP, most + STEP, STEP))
    return sizes[: bisect_left(sizes, most) + 1]


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
        self._decode_wrappers: dict[int, Any] = {}
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
            )

    def _plan_decode(self, decode: Sequences, shape: tuple[int, int, int, int]) -> None:
        """Plan for a padded batch. All index tensors are on the device already, at the wrapper's own buffers, so that
        only the schedule is computed and sent; a wrapper's first plan, which also loads its kernels, does all of it."""
        indices = (decode.block_starts, decode.blocks_on_host, decode.last_lengths)
        dtype = self.cache.dtype
        wrapper = self._decode_wrappers.get(len(decode))
        if wrapper is None:
            wrapper = self._decode_wrappers[len(decode)] = self._make_decode_wrapper(len(decode))
            wrapper.plan(*indices, *shape, q_data_type=dtype, kv_data_type=dtype)
            return
        self._lib.decode.fast_decode_plan(
            wrapper,
            *indices,
            *shape,
            q_data_type=dtype,
            kv_data_type=dtype,
            global_override_indptr_cpu=decode.block_starts,
        )

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

    def run(self, layer: int, q: torch.Tensor, kv: torch.Tensor, tokens: TokenBatch) -> torch.Tensor:
        self.cache.write(layer, kv, tokens.blocks, tokens.offsets)
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        n, views = self._decodes, self.cache.views[layer]
        if n:
            self._decode_wrappers[n].run(q[:n], views, out=out[:n])
        if n < len(q):
            self._chunk_wrapper.run(q[n:], views, out=out[n:])
        return out.flatten(1)
