"""From a profile to seconds, worked by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.costs import CostModel
from sim.plan import Batch, Direction
from sim.profile import HostCost, PhysicalForward, Profile, SwapCost
from tests.sim.worlds import profile


def batch(decoding: int = 0, context: int = 0, *chunks: tuple[int, int]) -> Batch:
    """``decoding`` sessions over ``context`` tokens in all, and chunks of (start, tokens)."""
    made = Batch(decode_sessions=decoding, decode_context=context)
    for start, tokens in chunks:
        made.add_chunk(start, tokens)
    return made


def physical(**parts: Any) -> CostModel:
    nothing = {"overhead_s": 0.0, "weights_s": 0.0, "per_token_s": 1e-12, "decode_read_s": 0.0, "pair_s": 0.0}
    return CostModel(profile(forward=PhysicalForward(**nothing | parts)))


def with_swap(**swap: float) -> CostModel:
    """One byte a token."""
    return CostModel(Profile(**profile().model_dump() | {"swap": SwapCost(**swap)}))


def test_the_linear_cost_is_that_of_infercept_s_profile() -> None:
    """0.0463 ms a token + 10 ms: 100 tokens take 14.63 ms, whatever their contexts."""
    costs = CostModel(profile(fixed=0.010, per_token=4.63e-5))
    assert costs.iteration_time(batch(0, 0, (0, 100))) == pytest.approx(0.01463)
    assert costs.iteration_time(batch(40, 5000, (900, 60))) == pytest.approx(0.01463)
    assert costs.forward_time(100) == costs.forward_time(100, 2000) == pytest.approx(0.01463)


@pytest.mark.parametrize("costs", [CostModel(profile()), physical(overhead_s=1.0)])
def test_an_empty_iteration_takes_no_time(costs: CostModel) -> None:
    assert costs.iteration_time(Batch()) == 0.0
    assert costs.forward_time(0) == 0.0


def test_the_physical_cost_is_a_sum_of_its_parts() -> None:
    """Two decode over 100 + 50 tokens; a chunk of 3 after 2: contexts of 5, and 3 + 4 + 5 = 12 query-key pairs.

    overhead 1 + 0.1 * 3 sessions + (weights 2 + 0.5 * 5 tokens) + 0.01 * 150 + 0.02 * 5 + 0.03 * 12 = 7.76
    """
    costs = physical(
        overhead_s=1.0,
        per_session_s=0.1,
        weights_s=2.0,
        per_token_s=0.5,
        knee=1.0,
        decode_read_s=0.01,
        prefill_read_s=0.02,
        pair_s=0.03,
    )
    assert costs.iteration_time(batch(2, 150, (2, 3))) == pytest.approx(1 + 0.3 + 4.5 + 1.5 + 0.1 + 0.36)


def test_the_knee_joins_weights_and_matrix_work_as_a_norm() -> None:
    """Weights 3 s, 4 tokens of 1 s, p = 2: (9 + 16)^(1/2) = 5."""
    assert physical(weights_s=3.0, per_token_s=1.0, knee=2.0).forward_time(4) == pytest.approx(5.0)


def test_with_a_sharp_knee_the_larger_hides_the_smaller() -> None:
    """p = 64: 1000 tokens of work hide the weights, 1 token hides behind them."""
    costs = physical(weights_s=3.0, per_token_s=0.1, knee=64.0)
    assert costs.forward_time(1) == pytest.approx(3.0)
    assert costs.forward_time(1000) == pytest.approx(100.0)


def test_chunks_and_the_host_add_their_own() -> None:
    """A chunk of 3: 0.1 + 0.5 (any chunks) + 0.2 (each chunk) + 3 * 1.0, and the host's 0.01 + 0.02 a session."""
    costs = physical(overhead_s=0.1, chunks_overhead_s=0.5, per_chunk_s=0.2, per_token_s=1.0)
    assert costs.iteration_time(batch(0, 0, (0, 3))) == pytest.approx(3.8)
    assert costs.iteration_time(batch(3, 30)) == pytest.approx(3.1)
    hosted = CostModel(profile().model_copy(update={"host": HostCost(per_iteration_s=0.01, per_session_s=0.02)}))
    assert hosted.iteration_time(batch(2, 20, (0, 8))) == pytest.approx(1 + 0.1 + 0.01 + 3 * 0.02)


def test_a_pass_with_chunks_cannot_end_before_its_kernels_are_launched() -> None:
    """2 s to launch: a chunk of 1 waits for it, a chunk of 5 does not, decoding alone runs from a graph."""
    costs = physical(per_token_s=1.0, launch_s=2.0)
    assert costs.forward_time(1) == pytest.approx(2.0)
    assert costs.forward_time(5) == pytest.approx(5.0)
    assert costs.iteration_time(batch(1, 10)) == pytest.approx(1.0)


@pytest.mark.parametrize(("sessions", "counted"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (9, 9)])
def test_decoding_sessions_are_padded_to_the_next_size(sessions: int, counted: int) -> None:
    assert physical(per_token_s=1.0, decode_sizes=(1, 2, 4, 8)).iteration_time(batch(sessions, 50)) == pytest.approx(
        counted
    )


@pytest.mark.parametrize(("tokens", "factor"), [(1, 2.0), (10, 2.0), (15, 1.5), (20, 1.0), (99, 1.0)])
def test_matrix_factors_are_linear_between_their_knots(tokens: int, factor: float) -> None:
    costs = physical(per_token_s=1.0, matrix_factors=((10, 2.0), (20, 1.0)))
    assert costs.forward_time(tokens) == pytest.approx(tokens * factor)


@pytest.mark.parametrize(
    ("sessions", "context", "pieces"),
    [
        (4, 40, 4),  # 40 / 100 whole ones and 4 / 2: one a session is more
        (3, 550, 7.5),  # padded to 4: 5.5 and 4 / 2
        (4, 9000, 12),  # no more than 10 whole ones
        (30, 9000, 30),  # 15 and 10 would be fewer than one a session
    ],
)
def test_pieces_of_cut_contexts_cost_their_own(sessions: int, context: int, pieces: float) -> None:
    """0.5 s a piece, at most 10 whole ones of at least 100 tokens; a chunk beside them is not cut."""
    costs = physical(per_piece_s=0.5, most_pieces=10, piece_tokens=100, decode_sizes=(2, 4, 30))
    assert costs.iteration_time(batch(sessions, context)) == pytest.approx(0.5 * pieces)
    assert costs.iteration_time(batch(sessions, context, (900, 60))) == pytest.approx(0.5 * pieces)
    assert costs.iteration_time(batch(0, 0, (900, 60))) == pytest.approx(0.0, abs=1e-9)


def test_attention_that_is_not_cut_has_no_pieces() -> None:
    assert physical(per_piece_s=0.5).iteration_time(batch(4, 9000)) == pytest.approx(0.0, abs=1e-9)


def of_contexts(*contexts: int) -> Batch:
    """Decoding sessions of these contexts."""
    n, whole = len(contexts), sum(contexts)
    return Batch(n, whole, decode_spread=n * sum(context * context for context in contexts) - whole * whole)


def test_unequal_contexts_cost_more_than_their_sum() -> None:
    """10 and 30 tokens: mean 20, mean of the squares 500, so 1 - 400 / 500 of 0.5 s for each of 40 tokens. Equal ones,
    or a single one, cost nothing more; one of a million beside one token nearly (1 - 1 / 2) of 0.5 s a token."""
    costs = physical(unequal_read_s=0.5)
    assert costs.iteration_time(of_contexts(10, 30)) == pytest.approx(0.5 * 0.2 * 40)
    assert max(costs.iteration_time(of_contexts(*equal)) for equal in ((20, 20), (40,))) < 1e-9
    assert costs.iteration_time(of_contexts(1, 10**6)) == pytest.approx(0.25 * 10**6, rel=1e-5)
    assert physical().iteration_time(of_contexts(10, 30)) < 1e-9


def test_decoding_sessions_may_cost_more_beside_chunks() -> None:
    """0.5 s for each of 40 tokens, only where a chunk is computed in the same pass."""
    costs = physical(mixed_read_s=0.5)
    assert costs.iteration_time(batch(2, 40, (5, 3))) == pytest.approx(20.0)
    assert costs.iteration_time(batch(2, 40)) < 1e-9
    assert costs.iteration_time(batch(0, 0, (5, 3))) < 1e-9


@pytest.mark.parametrize(
    ("chunks", "seconds"),
    [
        (((10, 2),), 0.5 * 12),  # 11 + 12 pairs of 0.1 s are over before 12 tokens have been read
        (((900, 2),), 0.1 * (901 + 902)),  # the pairs take longer than a stretch of 100
        (((1000, 1),), 0.1 * 1001),
        (((10, 2), (20, 1)), 0.5 * 33 / 2),  # 23 + 21 pairs; contexts of 12 and 21 tokens
    ],
)
def test_a_chunk_s_attention_takes_as_long_as_its_longest_stretch(
    chunks: tuple[tuple[int, int], ...], seconds: float
) -> None:
    """0.1 s a pair, and 0.5 s for each token of a context, or of the 100 that are read in one go."""
    costs = physical(pair_s=0.1, path_s=0.5, path_tokens=100)
    assert costs.iteration_time(batch(0, 0, *chunks)) == pytest.approx(seconds)


def test_costs_that_a_profile_does_not_have_change_no_bit() -> None:
    """Zero is what profiles measured before these were known have."""
    parts: dict[str, Any] = {"overhead_s": 0.003, "per_token_s": 1e-4, "decode_read_s": 1.7e-6, "pair_s": 1.3e-9}
    without = physical(**parts).profile.forward
    assert isinstance(without, PhysicalForward)
    assert (without.mixed_read_s, without.unequal_read_s, without.path_s) == (0.0, 0.0, 0.0)
    spread = of_contexts(700, 3, 45)
    for one in (spread, batch(3, 748)):
        one.add_chunk(311, 77)
        expected = 0.003 + 0.0 + 0.0 + 1e-4 * 80 + 0.0 + 1.3e-9 * one.prefill_pairs + 0.0
        assert physical(**parts).iteration_time(one) == expected + 1.7e-6 * 748


CUT = {"per_piece_s": 1.3e-5, "most_pieces": 30, "piece_tokens": 20, "decode_sizes": (1, 2, 4, 8, 16, 24)}


@given(
    st.integers(1, 50),
    st.integers(0, 5000) | st.integers(0, 700),
    st.integers(1, 60),
    st.floats(0, 1e4),
    st.sampled_from(["linear", "physical", "cut"]),
    st.integers(0, 10**7),
)
def test_a_leap_ends_to_the_bit_where_single_iterations_end(
    sessions: int, context: int, iterations: int, begin: float, kind: str, spread: int
) -> None:
    """With contexts that are cut further with every token, that are cut no further, and that become so on the way; all
    equal, and unequal ones, whose spread stays as it is when each grows by a token."""
    parts: dict[str, Any] = {"overhead_s": 0.003, "per_token_s": 1e-4, "decode_read_s": 1.7e-6}
    parts |= {"unequal_read_s": 2.3e-7 if spread % 2 else 0.0}
    cut = CUT if kind == "cut" else {}
    costs = CostModel(profile()) if kind == "linear" else physical(**parts, **cut)
    now, ends = begin, []
    for done in range(iterations):
        now += costs.iteration_time(Batch(sessions, context + done * sessions, decode_spread=spread))
        ends.append(now)
    assert costs.ends(Batch(sessions, context, decode_spread=spread), begin, iterations) == ends


@given(st.integers(0, 300), st.integers(1, 300), st.integers(1, 300))
def test_pairs_of_a_prompt_do_not_depend_on_its_chunks(start: int, first: int, second: int) -> None:
    """Each token attends to all before it and itself, however the tokens are cut into chunks."""
    whole, cut = batch(0, 0, (start, first + second)), batch(0, 0, (start, first), (start + first, second))
    assert whole.prefill_pairs == cut.prefill_pairs == sum(range(start + 1, start + first + second + 1))


def test_a_copy_takes_its_latency_and_its_bytes() -> None:
    """0.5 s + 10 tokens at 20 tokens/s out, at 5 tokens/s in; T_swap is the slower way; nothing takes nothing."""
    costs = with_swap(out_bytes_per_s=20.0, in_bytes_per_s=5.0, latency_s=0.5)
    assert costs.copy_time(10, Direction.OUT) == pytest.approx(1.0)
    assert costs.copy_time(10, Direction.IN) == pytest.approx(2.5)
    assert costs.swap_time(10) == pytest.approx(2.5)
    assert costs.copy_time(0, Direction.OUT) == costs.swap_time(0) == 0.0


def test_bytes_per_token_scale_a_copy() -> None:
    """1 MB a token at 100 MB/s: 10 ms a token."""
    big = Profile(
        **profile().model_dump()
        | {"kv_bytes_per_token": 1_000_000, "swap": SwapCost(out_bytes_per_s=1e8, in_bytes_per_s=1e8)}
    )
    assert CostModel(big).copy_time(7, Direction.OUT) == pytest.approx(0.07)


@pytest.mark.parametrize(
    ("beside", "seconds"),
    [
        ({}, 2.0),
        ({Direction.OUT: 0.5}, 2.1),  # 0.5 s of it at 1.2
        ({Direction.OUT: 9.0}, 2.4),  # the copy outlasts the pass: all of it at 1.2
        ({Direction.IN: 1.0}, 2.5),
        ({Direction.OUT: 0.5, Direction.IN: 1.0}, 2.6),
    ],
)
def test_a_copy_beside_the_pass_lengthens_it_while_it_runs(beside: dict[Direction, float], seconds: float) -> None:
    costs = with_swap(out_bytes_per_s=1.0, in_bytes_per_s=1.0, slowdown_out=0.2, slowdown_in=0.5)
    assert costs.slowed(2.0, beside) == pytest.approx(seconds)


@pytest.mark.parametrize(("seconds", "tokens"), [(0.0, 0), (0.49, 0), (0.7, 1), (1.5, 5), (1.69, 5)])
def test_the_hidden_budget_is_what_a_pass_can_hide(seconds: float, tokens: int) -> None:
    """0.5 s of latency and 0.2 s a token the slower way."""
    costs = with_swap(out_bytes_per_s=100.0, in_bytes_per_s=5.0, latency_s=0.5)
    assert costs.tokens_within(seconds) == tokens


@given(st.floats(0, 100), st.floats(1e-6, 1.0), st.floats(0, 0.5))
def test_the_hidden_budget_is_the_most_tokens_whose_copy_is_no_longer(
    seconds: float, per_token: float, latency: float
) -> None:
    costs = with_swap(out_bytes_per_s=1 / per_token, in_bytes_per_s=2 / per_token, latency_s=latency)
    most = costs.tokens_within(seconds)
    assert most == 0 or costs.swap_time(most) <= seconds * (1 + 1e-9)
    assert costs.swap_time(most + 1) > seconds * (1 - 1e-9)


def test_the_tokens_of_a_pass_with_chunks_are_padded_after_its_decoding_sessions() -> None:
    """3 decoding sessions are padded to 4; with a chunk of 5 the pass has 9 tokens, padded to 16; of 30: 34, beyond the
    last size, so as they are. Without chunks there is nothing more to pad."""
    costs = physical(per_token_s=1.0, knee=1.0, decode_sizes=(1, 2, 4), pass_sizes=(8, 16, 32))
    assert costs.iteration_time(batch(3, 9, (0, 5))) == pytest.approx(16)
    assert costs.iteration_time(batch(3, 9, (0, 30))) == pytest.approx(34)
    assert costs.iteration_time(batch(3, 9)) == pytest.approx(4)


def test_a_pass_of_both_kinds_runs_two_attentions() -> None:
    """0.5 s more than the sum, only where decoding sessions and chunks share a pass."""
    costs = physical(mixed_s=0.5, per_session_s=1.0)
    assert costs.iteration_time(batch(2, 20, (0, 5))) == pytest.approx(3.5)
    assert costs.iteration_time(batch(2, 20)) == pytest.approx(2.0)
    assert costs.iteration_time(batch(0, 0, (0, 5))) == pytest.approx(1.0)


def test_what_copies_hide_is_a_part_of_the_host_s_work() -> None:
    """After the plan 0.2 s, and 0.4 s where there are chunks."""
    works = HostCost(per_iteration_s=0.3, executor_s=0.2, chunked_s=0.5, executor_chunked_s=0.4, per_chunk_s=0.1)
    costs = CostModel(profile().model_copy(update={"host": works}))
    assert costs.behind_copies(batch(3, 30)) == pytest.approx(0.2)
    assert costs.behind_copies(batch(3, 30, (0, 8), (0, 4))) == pytest.approx(0.6)
    for parts in ({"executor_s": 0.4}, {"executor_chunked_s": 0.4}):
        with pytest.raises(ValueError, match=r"0\.4 is more than 0"):
            HostCost(per_iteration_s=0.3, chunked_s=0.3, **parts)


def test_a_session_s_first_call_costs_its_arrival_too() -> None:
    """1 s, 0.01 s a token, 0.05 s for each of two calls, 0.3 s for the one that is a session's first."""
    costs = CostModel(profile().model_copy(update={"host": HostCost(per_call_s=0.05, per_arrival_s=0.3)}))
    both = batch(0, 0, (0, 3), (10, 5))
    both.begun, both.opened = 2, 1
    assert costs.iteration_time(both) == pytest.approx(1.08 + 0.1 + 0.3)
    assert costs.outside_device(both, later=True) == pytest.approx(1.0)
