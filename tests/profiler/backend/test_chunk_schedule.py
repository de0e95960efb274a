"""The cuts of chunks: every query meets every block of its context once, in no more pieces than the GPU takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from profiler.backend.chunk_schedule import ChunkSchedule, choose_stretch, cut_chunks, numbers_at_most


def cut(queries: list[int], blocks: list[int], stretch: int, group: int = 4) -> ChunkSchedule:
    numbers = (np.array(numbers, dtype=np.int32) for numbers in (queries, blocks))
    return cut_chunks(*numbers, group, stretch)


def chosen(chunks: list[tuple[int, int]], group: int = 4, most: int = 115) -> int:
    """The stretch for chunks of (tokens before, tokens) on 132 processors, 8 KV heads, blocks of 16 tokens, in parts of
    the longest context."""
    queries = np.array([tokens for _, tokens in chunks], dtype=np.int32)
    blocks = np.array([-(-(before + tokens) // 16) for before, tokens in chunks], dtype=np.int32)
    return -(-int(blocks.max()) // choose_stretch(queries, blocks, group, 132 / 8, 8, most))


def pieces(schedule: ChunkSchedule) -> list[tuple[int, int, int]]:
    columns = (schedule.requests, schedule.query_tiles, schedule.numbers)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_a_context_is_read_in_stretches_by_each_tile() -> None:
    """64 tokens of 4 heads a group are 256 rows, 2 tiles of 128. Of 1,000 blocks, 63 a stretch: 16 of them. Each token
    has 16 sums to merge."""
    schedule = cut([64], [1000], 63)
    assert (schedule.tile, schedule.piece_blocks, schedule.cut) == (128, 63, True)
    assert pieces(schedule) == [(0, tile, stretch) for tile in range(2) for stretch in range(16)]
    assert schedule.row_starts.tolist() == [0, 64 * 16]
    assert schedule.merge_starts.tolist() == list(range(0, 64 * 16 + 1, 16))


def test_each_chunk_is_cut_into_stretches_of_one_length() -> None:
    """8 and 4 tokens are 32 and 16 rows, 24 on average: tiles of 64, one each. With 20 blocks a stretch they are
    4 + 2."""
    schedule = cut([8, 4], [80, 30], 20)
    assert (schedule.tile, schedule.piece_blocks) == (64, 20)
    assert pieces(schedule) == [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 0, 3), (1, 0, 0), (1, 0, 1)]
    assert schedule.row_starts.tolist() == [0, 32, 40]
    assert schedule.merge_starts.tolist() == [*range(0, 33, 4), *range(34, 41, 2)]


def test_contexts_within_a_stretch_stay_whole() -> None:
    schedule = cut([512], [100], 100)
    assert not schedule.cut
    assert pieces(schedule) == [(0, tile, 0) for tile in range(16)]


@pytest.mark.parametrize(
    ("chunks", "parts"),
    [
        ([(0, 2048)], {1}),  # 64 tiles keep every processor at work
        ([(1024, 256)], {1}),  # on an H200 48 us whole, 47 in four
        ([(8192, 1024)], {1}),  # 452 whole, 539 in two
        ([(4096, 256)], {4}),  # 138 whole, 84 in four
        ([(32768, 256)], {4, 8, 12}),  # 960 whole, 424 in four
        ([(100000, 64)], {16, 24, 32}),  # 2,944 whole, 326 in sixteen
        ([(0, 872), (8192, 73), (0, 509)], {6, 8}),  # 340 whole, 144 in six: one long context among others
        ([(100000, 30), (0, 800)], {24, 32, 48, 64}),  # 2,921 whole, 241 in 64
    ],
)
def test_the_stretch_is_one_that_was_fast_on_an_h200(chunks: list[tuple[int, int]], parts: set[int]) -> None:
    assert chosen(chunks) in parts


def test_no_more_pieces_than_there_is_room_for() -> None:
    """2 tiles in 16 stretches are 32 pieces; where 12 have room, 6 stretches are left."""
    assert chosen([(100000, 64)], most=12) == 6


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 700)), min_size=1, max_size=40),
    st.sampled_from([1, 4, 8]),
    st.integers(1, 264),
    st.floats(0.5, 70),
)
def test_every_query_meets_every_block_once(
    chunks: list[tuple[int, int]], group: int, most: int, processors: float
) -> None:
    queries = [tokens for tokens, _ in chunks]
    blocks = [-(-tokens // 16) + before for tokens, before in chunks]
    numbers = (np.array(numbers, dtype=np.int32) for numbers in (queries, blocks))
    schedule = cut(queries, blocks, choose_stretch(*numbers, group, processors, 8, most), group)
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
