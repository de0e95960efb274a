"""The cuts of chunks: every query meets every block of its context once, in no more pieces than the GPU takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from profiler.backend.chunk_schedule import ChunkSchedule, cut_chunks, numbers_at_most


def cut(queries: list[int], blocks: list[int], group: int = 4, most: int = 33, whole: bool = False) -> ChunkSchedule:
    numbers = (np.array(numbers, dtype=np.int32) for numbers in (queries, blocks))
    return cut_chunks(*numbers, group, most, 8, whole)


def pieces(schedule: ChunkSchedule) -> list[tuple[int, int, int]]:
    columns = (schedule.requests, schedule.query_tiles, schedule.numbers)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_a_short_chunk_after_a_long_context_is_cut_for_all_processors() -> None:
    """64 tokens of 4 heads a group are 256 rows, 2 tiles of 128. 33 pieces leave 16 stretches for each tile: of 1,000
    blocks, 63 each. Each token has 16 sums to merge."""
    schedule = cut([64], [1000])
    assert (schedule.tile, schedule.piece_blocks, schedule.cut) == (128, 63, True)
    assert pieces(schedule) == [(0, tile, stretch) for tile in range(2) for stretch in range(16)]
    assert schedule.row_starts.tolist() == [0, 64 * 16]
    assert schedule.merge_starts.tolist() == list(range(0, 64 * 16 + 1, 16))


def test_chunks_share_the_pieces() -> None:
    """8 and 4 tokens are 32 and 16 rows, 24 on average: tiles of 64, one each. 6 pieces: with 20 blocks a stretch they
    are 4 + 2, with 19 they would be 5 + 2."""
    schedule = cut([8, 4], [80, 30], most=6)
    assert (schedule.tile, schedule.piece_blocks) == (64, 20)
    assert pieces(schedule) == [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 0, 3), (1, 0, 0), (1, 0, 1)]
    assert schedule.row_starts.tolist() == [0, 32, 40]
    assert schedule.merge_starts.tolist() == [*range(0, 33, 4), *range(34, 41, 2)]


def test_contexts_stay_whole_where_that_is_asked_or_they_are_short() -> None:
    for schedule in (cut([512], [100], whole=True), cut([512], [8])):
        assert not schedule.cut
        assert pieces(schedule) == [(0, tile, 0) for tile in range(16)]


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 700)), min_size=1, max_size=40),
    st.sampled_from([1, 4, 8]),
    st.integers(1, 264),
    st.booleans(),
)
def test_every_query_meets_every_block_once(chunks: list[tuple[int, int]], group: int, most: int, whole: bool) -> None:
    queries = [tokens for tokens, _ in chunks]
    blocks = [-(-tokens // 16) + before for tokens, before in chunks]
    schedule = cut(queries, blocks, group, most, whole)
    expected = [
        (index, tile, stretch)
        for index in range(len(chunks))
        for tile in range(-(-queries[index] * group // schedule.tile))
        for stretch in range(-(-blocks[index] // schedule.piece_blocks))
    ]
    assert pieces(schedule) == expected
    assert schedule.cut == (max(stretch for _, _, stretch in expected) > 0)
    assert not schedule.cut or schedule.pieces <= most
    stretches = [-(-size // schedule.piece_blocks) for size in blocks]
    each = [n for tokens, n in zip(queries, stretches, strict=True) for _ in range(tokens)]
    assert np.diff(schedule.merge_starts).tolist() == each
    ends = np.cumsum(queries)
    assert schedule.row_starts.tolist() == [0, *schedule.merge_starts[ends].tolist()]
    parts = (schedule.requests, schedule.query_tiles, schedule.numbers, schedule.row_starts, schedule.merge_starts)
    assert sum(-(-len(part) // 4) * 4 for part in parts) + 4 <= numbers_at_most(sum(queries), most)
