"""Attention over the paged cache: planned once an iteration, run once a layer.

``run`` lets every query attend to its context up to itself; the keys and values are in the cache by then. The flat
tokens are those of ``TokenBatch``: decoding sessions first, then chunks.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch

from profiler.backend.batch import Sequences
from profiler.backend.kv_cache import KVCache


class Attention(Protocol):
    """One way to compute attention.

    Attributes:
        cache: what it reads.
        sizes: numbers of decoding sessions that batches are padded to, ascending; empty: no padding.
        most_pieces: pieces that long contexts of decoding sessions are cut into, all together; 0 if they are not cut.
        piece_tokens: the shortest piece.
        chunk_tiles: tokens of the tiles that chunks are taken in, ascending; none where they are not padded.
    """

    cache: KVCache
    sizes: tuple[int, ...]
    most_pieces: int
    piece_tokens: int
    chunk_tiles: tuple[int, ...]

    def padded(self, decodes: int) -> int:
        """The number of decoding sessions that a batch of ``decodes`` is padded to."""
        ...

    def plan(self, decode: Sequences | None, chunks: Sequences | None) -> None:
        """Prepare on the host for the shapes of the next iteration."""
        ...

    def run(self, layer: int, q: torch.Tensor, out: torch.Tensor) -> None:
        """From ``q`` ``[T, heads, head_dim]`` to ``out`` ``[T, heads * head_dim]``."""
        ...


class TorchPagedAttention:
    """The reference: sequence by sequence, exact softmax in the dtype of its inputs; any device, any dtype."""

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self.sizes: tuple[int, ...] = ()
        self.most_pieces, self.piece_tokens = 0, 1
        self.chunk_tiles: tuple[int, ...] = ()
        self._decode: Sequences | None = None
        self._chunks: Sequences | None = None

    def padded(self, decodes: int) -> int:
        return decodes

    def plan(self, decode: Sequences | None, chunks: Sequences | None) -> None:
        self._decode, self._chunks = decode, chunks

    def run(self, layer: int, q: torch.Tensor, out: torch.Tensor) -> None:
        out, start = out.view(q.shape), 0
        for sequences in (self._decode, self._chunks):
            if sequences is not None:
                end = start + sequences.queries
                self._attend(layer, q[start:end], sequences, out[start:end])
                start = end

    def _attend(self, layer: int, q: torch.Tensor, sequences: Sequences, out: torch.Tensor) -> None:
        keys, values = self.cache.views[layer]
        config, size = self.cache.config, self.cache.block_size
        queries, blocks = sequences.query_starts.tolist(), sequences.block_starts.tolist()
        for index, last in enumerate(sequences.last_lengths.tolist()):
            mine = slice(queries[index], queries[index + 1])
            ids = sequences.blocks[blocks[index] : blocks[index + 1]].long()
            context = (len(ids) - 1) * size + last
            k = keys[ids].flatten(0, 1)[:context]  # [context, kv_heads, head_dim]
            v = values[ids].flatten(0, 1)[:context]
            mine_q = q[mine].view(-1, config.kv_heads, config.heads // config.kv_heads, config.head_dim)
            scores = torch.einsum("qhgd,khd->hgqk", mine_q, k) / math.sqrt(config.head_dim)
            n = mine.stop - mine.start
            later = torch.ones(n, context, dtype=torch.bool, device=q.device).triu(context - n + 1)
            weights = scores.masked_fill(later, -math.inf).softmax(dim=-1)
            out[mine] = torch.einsum("hgqk,khd->qhgd", weights, v).flatten(1, 2)
