"""The cuts of decoding batches: everything is read once, and no piece is much longer than the others."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from profiler.backend.decode_schedule import DecodeSchedule, cuts, shortest_piece
from profiler.backend.kernel_plan import tile_of


def pieces_of(schedule: DecodeSchedule, blocks: list[int]) -> tuple[list[tuple[int, int]], int]:
    """(session, piece) of each valid piece, and tokens a piece."""
    at = schedule.places
    numbers = np.full(at.end, -1, dtype=np.int32)
    schedule.write(numbers, np.array(blocks, dtype=np.int32))
    valid = numbers[at.valid : at.end].view(np.bool_)[: schedule.most_pieces]
    requests, kv = numbers[at.requests :][: schedule.most_pieces], numbers[at.pieces :][: schedule.most_pieces]
    return list(zip(requests[valid].tolist(), kv[valid].tolist(), strict=True)), int(numbers[at.piece_tokens])


def test_one_long_context_is_cut_for_all_processors() -> None:
    """3 pieces for each of 132 processors, over 8 KV heads: ceil(396/8) = 50 cuts. 512 + 3 x 8 blocks are 536, so a
    piece has ceil(536/50) = 11 blocks, 176 tokens: ceil(512/11) = 47 pieces for the long one, one for each of the
    others. The last piece of the long one has 6 blocks and comes after the three short ones of 8."""
    pieces, tokens = pieces_of(DecodeSchedule(4, 8, 132, 16), [512, 8, 8, 8])
    assert (cuts(8, 132), tokens) == (50, 176)
    assert pieces == [*((0, piece) for piece in range(46)), (1, 0), (2, 0), (3, 0), (0, 46)]


def test_pieces_are_not_made_shorter_than_is_worth_it() -> None:
    """64 blocks over 50 cuts would be 2 blocks a piece; 128 tokens are 8."""
    pieces, tokens = pieces_of(DecodeSchedule(1, 8, 132, 16), [64])
    assert (len(pieces), tokens) == (8, 128)
    assert [shortest_piece(size) for size in (16, 100, 256)] == [8, 2, 1]


def test_a_large_batch_leaves_no_context_whole_that_is_much_longer_than_the_mean() -> None:
    """99 contexts of 10 blocks and one of 1,010 are 2,000, 20 in the mean: the long one is cut into 51. 100 equal ones
    are cut nowhere. With 50 sessions, which all begin at once, it is a fair share: 1,500 / 50 blocks."""
    schedule = DecodeSchedule(100, 8, 132, 16)
    pieces, tokens = pieces_of(schedule, [10] * 99 + [1010])
    assert (tokens, len(pieces)) == (20 * 16, 99 + 51)
    assert len(pieces_of(schedule, [20] * 100)[0]) == 100
    pieces, tokens = pieces_of(DecodeSchedule(50, 8, 132, 16), [10] * 49 + [1010])
    assert (tokens, len(pieces)) == (30 * 16, 49 + 34)


def test_where_most_contexts_are_longer_than_the_mean_pieces_are_as_long_as_there_is_room() -> None:
    """60 contexts of 11 blocks and 40 of 9 are 1,020: 100 pieces of 11. 60 of 201 and 40 of 100 are 16,060, or
    161 in the mean: 60 more; there is room for 50, so pieces of ceil(16,060 / 50) = 322 leave all whole."""
    schedule = DecodeSchedule(100, 8, 132, 16)
    assert schedule.most_pieces == 150
    assert len(pieces_of(schedule, [11] * 60 + [9] * 40)[0]) == 100
    pieces, tokens = pieces_of(schedule, [201] * 60 + [100] * 40)
    assert (tokens, len(pieces)) == (322 * 16, 100)


@given(st.lists(st.integers(1, 600), min_size=1, max_size=64), st.integers(1, 200), st.sampled_from([1, 8, 40]))
def test_pieces_cover_each_context_once_and_have_room(blocks: list[int], processors: int, kv_heads: int) -> None:
    schedule = DecodeSchedule(len(blocks), kv_heads, processors, 16)
    pieces, tokens = pieces_of(schedule, blocks)
    expected = [(index, piece) for index, count in enumerate(blocks) for piece in range(-(-count * 16 // tokens))]
    assert sorted(pieces) == expected
    assert len(pieces) <= schedule.most_pieces


def test_parts_do_not_overlap_and_stay_aligned() -> None:
    at = DecodeSchedule(7, 2, 3, 4).places
    places = list(dataclasses.astuple(at))
    assert places == sorted(set(places))
    assert all(place % 4 == 0 for place in places), "16 bytes are 4 numbers"


def test_a_plan_of_another_form_is_noticed() -> None:
    assert tile_of([1, 2, 3, 16, *[0] * 11]) == 16
    assert tile_of([1, 2, 3]) is None
