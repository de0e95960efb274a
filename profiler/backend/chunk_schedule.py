"""How the attention of chunks is cut into pieces: a tile of queries over a stretch of one context each.

Written in our own numbers, which go to the GPU with those of the batch. FlashInfer's plan says the same, but sends it
by the copy engine, where it waits behind every context on its way in.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from profiler.backend.block_tables import Ints, running_sum

PIECES_A_PROCESSOR = 2
SHORTEST_PIECE = 128
"""Tokens: contexts are not cut into shorter stretches."""
TILES = ((64, 128), (16, 64), (0, 16))
"""Query rows that a piece takes, where the chunks have on average more rows than the first number."""


@dataclass(frozen=True, slots=True)
class ChunkSchedule:
    """The pieces of some chunks. All arrays are int32.

    Attributes:
        tile: query rows of a piece, a query head of the group each.
        requests, query_tiles, numbers: of each piece: its request, the tile of its queries, the stretch of its context.
        row_starts: for each chunk, where its rows of sums begin.
        merge_starts: for each query token, where its sums begin.
        piece_blocks: blocks of a stretch.
        cut: whether some context is read in more than one stretch.
    """

    tile: int
    requests: Ints
    query_tiles: Ints
    numbers: Ints
    row_starts: Ints
    merge_starts: Ints
    piece_blocks: int
    cut: bool

    @property
    def pieces(self) -> int:
        """The number of pieces."""
        return len(self.requests)


def cut_chunks(queries: Ints, blocks: Ints, group: int, most_pieces: int, shortest: int, whole: bool) -> ChunkSchedule:
    """Cut chunks so that there are ``most_pieces`` pieces at most, or leave every context whole.

    Args:
        queries: query tokens of each chunk.
        blocks: blocks of its context, its own tokens included.
        group: query heads for each KV head.
        most_pieces: for one KV head; more if the tiles alone are more.
        shortest: blocks that a stretch has at least, if its context has as many.
        whole: cut no context.
    """
    rows = queries * group
    tile = next(size for above, size in TILES if int(rows.sum()) // len(rows) > above)
    tiles = -(-rows // tile)
    longest = int(blocks.max())
    if not whole and longest > shortest:
        wanted = list(zip(tiles.tolist(), blocks.tolist(), strict=True))

        def fits(length: int) -> bool:
            return bool(sum(n * -(-size // length) for n, size in wanted) <= most_pieces)

        longest = shortest + bisect_left(range(shortest, longest), True, key=fits)
    stretches = -(-blocks // longest)
    counts = tiles * stretches
    requests = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    places = np.arange(len(requests), dtype=np.int32) - (np.cumsum(counts, dtype=np.int32) - counts)[requests]
    of = stretches[requests]
    return ChunkSchedule(
        tile=tile,
        requests=requests,
        query_tiles=places // of,
        numbers=places % of,
        row_starts=running_sum(queries * stretches),
        merge_starts=running_sum(np.repeat(stretches, queries)),
        piece_blocks=longest,
        cut=bool(stretches.max() > 1),
    )


def numbers_at_most(tokens: int, most_pieces: int) -> int:
    """int32 numbers that the schedule of chunks of ``tokens`` tokens needs at most, each part at a step of four.

    Tiles are as large as an average chunk, or a quarter of it, or many in a chunk: they are fewer than two a token.
    """
    pieces = max(2 * tokens, most_pieces)
    return 3 * pieces + 2 * tokens + 3 + 6 * 4
