"""How the attention of a decoding batch is cut into pieces that the GPU's processors take one after another.

FlashInfer cuts long contexts only while the batch leaves processors idle. A batch large enough to fill the GPU goes
uncut, and then one long context among short ones holds all of them up: a single processor reads it. Here no piece is
longer than a fair share or, in a large batch, than the mean context, and the longest begin first, so that what a batch
costs follows from the sum of its contexts. The pieces are written down as FlashInfer's kernels read them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from profiler.backend.block_tables import Ints
from profiler.backend.kernel_plan import KernelPlan, sums_bytes

PIECES_A_PROCESSOR = 3
"""Pieces that each of the GPU's multiprocessors works on at a time, if all contexts are long."""
SHORTEST_PIECE = 128
"""Tokens: below, a piece costs more to begin than to read."""
SPARE_PIECES = 0.5
"""Pieces for each session beyond one, at most, in a large batch."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the parts of a schedule lie, in int32 from its beginning. ``end`` is where it ends."""

    requests: int
    query_tiles: int
    pieces: int
    row_starts: int
    merge_starts: int
    piece_tokens: int
    rows: int
    valid: int
    end: int


def cuts(kv_heads: int, processors: int) -> int:
    """Pieces that long contexts are cut into, those of all sessions together."""
    return -(-PIECES_A_PROCESSOR * processors // kv_heads)


def shortest_piece(block_size: int) -> int:
    """Blocks of the shortest piece that a context is cut into."""
    return -(-SHORTEST_PIECE // block_size)


class DecodeSchedule:
    """The schedule of ``size`` decoding sessions, padding included.

    Args:
        size: sessions.
        kv_heads: each of them reads its part of a context on its own.
        processors: multiprocessors of the GPU.
        block_size: tokens a block.
    """

    def __init__(self, size: int, kv_heads: int, processors: int, block_size: int) -> None:
        self.size, self._block_size = size, block_size
        self._cuts = cuts(kv_heads, processors)
        self.most_pieces = size + max(self._cuts, int(SPARE_PIECES * size))
        self._sessions: Ints = np.arange(size, dtype=np.int32)
        self._numbers: Ints = np.arange(self.most_pieces, dtype=np.int32)
        self.places = _places(size, self.most_pieces)

    def plan(self, heads: int, head_dim: int, tile: int) -> list[int]:
        """FlashInfer's plan: byte offsets in the schedule and in the workspace of its kernels.

        Args:
            heads, head_dim: of the queries.
            tile: query rows that a kernel takes at a time, as FlashInfer chose it.
        """
        at = self.places
        return KernelPlan(
            pieces=self.most_pieces,
            rows=self.size,
            rows_at=4 * at.rows,
            tile=tile,
            requests_at=4 * at.requests,
            query_tiles_at=4 * at.query_tiles,
            numbers_at=4 * at.pieces,
            merge_starts_at=4 * at.merge_starts,
            row_starts_at=4 * at.row_starts,
            piece_tokens_at=4 * at.piece_tokens,
            sums_at=0,
            weights_at=sums_bytes(self.most_pieces, 1, heads, head_dim),
            valid_at=4 * at.valid,
            graph=True,
            cut=True,
        ).numbers()

    def workspace_bytes(self, heads: int, head_dim: int) -> int:
        """Bytes for the pieces' sums and weights, before they are merged."""
        return 4 * self.most_pieces * heads * (head_dim + 1) + 32

    def write(self, schedule: Ints, blocks: Ints) -> None:
        """Cut sessions of ``blocks[i]`` blocks each, and write it into ``schedule``, int32 ``[places.end]``.

        The GPU begins the pieces of one KV head after those of another. So in a large batch the longest of the last
        head begin late: no context much longer than the mean is left whole, as far as there is room for its pieces.
        """
        at = self.places
        total, shortest = int(blocks.sum()), shortest_piece(self._block_size)
        longest = max(-(-total // max(self._cuts, self.size)), shortest)
        counts = -(-blocks // longest)
        if int(counts.sum()) > self.most_pieces:
            longest = max(-(-total // (self.most_pieces - self.size)), shortest)
            counts = -(-blocks // longest)
        starts = schedule[at.row_starts : at.row_starts + self.size + 1]
        starts[0] = 0
        np.cumsum(counts, out=starts[1:])
        pieces = int(starts[-1])
        assert pieces <= self.most_pieces, f"{pieces} pieces of {self.size} sessions; {self.most_pieces} have room"
        requests = np.repeat(self._sessions, counts)
        numbers = self._numbers[:pieces] - starts[requests]
        order = np.argsort(numbers * longest - blocks[requests], kind="stable")  # those cut short are read last
        schedule[at.requests : at.requests + pieces] = requests[order]
        schedule[at.query_tiles : at.query_tiles + pieces] = 0
        schedule[at.pieces : at.pieces + pieces] = numbers[order]
        schedule[at.merge_starts : at.merge_starts + self.size + 1] = starts
        schedule[at.piece_tokens] = longest * self._block_size
        schedule[at.rows] = self.size
        valid = schedule[at.valid : at.end].view(np.bool_)
        valid[:pieces], valid[pieces:] = True, False


def _places(size: int, pieces: int) -> Places:
    """Each part at a step of 16 bytes."""
    lengths = (pieces, pieces, pieces, size + 1, size + 1, 1, 1, -(-pieces // 4))
    at = [0]
    for length in lengths:
        at.append(-(-(at[-1] + length) // 4) * 4)
    return Places(*at)
