"""How the attention of chunks is cut into pieces: a tile of queries over a stretch of one context each.

Written in our own numbers, which go to the GPU with those of the batch. FlashInfer's plan says the same, but sends it
by the copy engine, where it waits behind every context on its way in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from profiler.backend.block_tables import Ints, running_sum

SHORTEST_PIECE = 128
"""Tokens: contexts are not cut into shorter stretches."""
MOST_PIECES_A_PROCESSOR = 7
"""More bring next to nothing; more there are only if the tiles alone are more."""
SHARES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96)
"""Into how many stretches the longest context may be cut."""
TWO_AT_ONCE, BEGIN, MERGE, MERGE_A_TOKEN = 1.67, 6.0, 32.0, 0.032
"""What it takes, in the time that a processor needs for one block of one piece (0.47 us on an H200): a block of each of
two pieces at once, to begin a piece, to merge at all, and to merge each stretch of a query token."""
TILES = ((64, 128), (16, 64), (0, 16))
"""Query rows that a piece takes, where the chunks have on average more rows than the first number."""


@dataclass(frozen=True, slots=True)
class ChunkSchedule:
    """The pieces of some chunks. All arrays are int32.

    Attributes:
        tile: query rows of a piece, a query head of the group each.
        requests, query_tiles, numbers: of each piece: whose it is, which tile of its queries, which stretch of its
            context.
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
        """How many there are."""
        return len(self.requests)


def cut_chunks(queries: Ints, blocks: Ints, group: int, stretch: int) -> ChunkSchedule:
    """Cut chunks into pieces.

    Args:
        queries: query tokens of each chunk.
        blocks: blocks of its context, its own tokens included.
        group: query heads for each KV head.
        stretch: blocks of a context that a piece reads at most; see ``choose_stretch``.
    """
    rows = queries * group
    tile = tile_of(rows)
    tiles = -(-rows // tile)
    stretches = -(-blocks // stretch)
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
        piece_blocks=stretch,
        cut=bool(stretches.max() > 1),
    )


def choose_stretch(queries: Ints, blocks: Ints, group: int, processors: float, shortest: int, most: int) -> int:
    """Blocks that a piece should read at most, so that the chunks' attention is over soonest by what is expected.

    On an H200 it chose what was fastest or within a tenth of it in 22 of 24 cases from 500 to 100,000 tokens; where it
    did not, the kernels were shorter than their launch.

    Args:
        queries, blocks, group: as ``cut_chunks`` has them.
        processors: multiprocessors of the GPU for each KV head.
        shortest: blocks that a piece reads at least, if its context has as many.
        most: pieces for each KV head, if contexts are cut.
    """
    longest, tile = int(blocks.max()), tile_of(queries * group)
    chunks = [(-(-n * group // tile), n, size) for n, size in zip(queries.tolist(), blocks.tolist(), strict=True)]
    work = sum(tiles * size for tiles, _, size in chunks)
    best, chosen = math.inf, longest
    for share in SHARES:
        stretch = -(-longest // share)
        if share > 1 and stretch < shortest:
            break
        stretches = [-(-size // stretch) for _, _, size in chunks]
        pieces = sum(tiles * count for (tiles, _, _), count in zip(chunks, stretches, strict=True))
        if share > 1 and pieces > most:
            break
        took = _expected(pieces, work, stretch, processors)
        if share > 1:
            took += MERGE + MERGE_A_TOKEN * sum(n * count for (_, n, _), count in zip(chunks, stretches, strict=True))
        if took < best:
            best, chosen = took, stretch
    return chosen


def _expected(pieces: int, work: int, longest: int, processors: float) -> float:
    """Until ``pieces`` pieces are read, ``work`` blocks in all, ``longest`` in one of them. Each processor reads two at
    once; those that are left in the end are spread over all."""
    full, left = divmod(pieces, 2 * processors)
    last = 0.0 if not left else 1.0 if left <= processors else TWO_AT_ONCE
    together = 1.0 if pieces <= processors else TWO_AT_ONCE
    return max(work / pieces * (TWO_AT_ONCE * full + last), together * longest) + BEGIN * (full + 1)


def tile_of(rows: Ints) -> int:
    """Query rows that a piece takes, for chunks of ``rows`` rows."""
    return next(size for above, size in TILES if int(rows.sum()) // len(rows) > above)


def numbers_at_most(tokens: int, most_pieces: int) -> int:
    """int32 numbers that the schedule of chunks of ``tokens`` tokens needs at most, each part at a step of four.

    Tiles are as large as an average chunk, or a quarter of it, or many in a chunk: they are fewer than two a token.
    """
    pieces = max(2 * tokens, most_pieces)
    return 3 * pieces + 2 * tokens + 3 + 6 * 4
