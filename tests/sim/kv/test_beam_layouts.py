"""KV of several beams or samples of one prompt, by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.costs.cost_model import CostModel
from sim.kv.beam_layouts import BeamRequests, batch_seconds, largest_batch, tokens_held
from tests.sim.worlds import profile


def test_four_beams_of_1024_and_128_tokens_hold_a_third_of_contiguous_buffers() -> None:
    """4 * (1024 + 128) = 4,608 against 1024 + 4 * 128 = 1,536; in a pool of 100,000 tokens 21 requests and 65."""
    requests = BeamRequests(1024, 128, 4)
    assert tokens_held("contiguous", requests) == 4608
    assert tokens_held("segment", requests) == tokens_held("paged-sharing", requests) == 1536
    assert tokens_held("contiguous", requests, reserved=2048) == 8192
    assert [largest_batch(100_000, held) for held in (4608, 1536, 8192)] == [21, 65, 12]


def test_a_response_takes_whole_steps_and_a_part_full_prompt_block_is_copied_for_each_sample() -> None:
    """Prompt 20, response 17, three beams: 20 + 3 * 32; paged: one whole block shared, 37 tokens are 3 blocks, so two
    more for each of three: 7 blocks of 16."""
    requests = BeamRequests(20, 17, 3)
    assert tokens_held("segment", requests) == 116
    assert tokens_held("paged-sharing", requests) == 112


def test_a_request_that_outgrows_its_reserved_buffer_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"buffers of 100 tokens are too short for 90 \+ 11"):
        tokens_held("contiguous", BeamRequests(90, 11, 2), reserved=100)


def test_a_shared_prompt_is_computed_once_and_others_once_a_beam() -> None:
    """1 s + 0.01 s a token: prompts of 10 take 1.10 s, once or 3 times each; then 4 steps of 2 * 3 beams, 1.06 s."""
    costs, requests = CostModel(profile()), BeamRequests(10, 5, 3)
    assert batch_seconds(costs, requests, 2, shared_prompt=True) == pytest.approx(2 * 1.10 + 4 * 1.06)
    assert batch_seconds(costs, requests, 2, shared_prompt=False) == pytest.approx(6 * 1.10 + 4 * 1.06)


@given(st.integers(1, 3000), st.integers(1, 500), st.integers(1, 8), st.integers(1, 64))
def test_no_layout_holds_less_than_the_tokens_there_are_nor_rounds_by_more_than_a_step_a_beam(
    prompt: int, response: int, beams: int, step: int
) -> None:
    requests = BeamRequests(prompt, response, beams)
    least = prompt + beams * response
    assert least <= tokens_held("segment", requests, step=step) < least + beams * step
    assert least <= tokens_held("paged-sharing", requests, step=step) < least + 2 * beams * step
