"""What shares an iteration: chunks, budgets, admission, and who comes first.

An iteration of x tokens takes 1 s + 0.01 s * x; blocks hold one token (see ``worlds``).
"""

from __future__ import annotations

import pytest

from tests.sim.random_orders import ShortestContext
from tests.sim.worlds import pause, run, session


def test_discard_then_resume_costs_one_recompute_of_the_whole_context() -> None:
    """Context 90 + 10 = 100, returned 20, S = 64: chunks of 64 and 56; 99 tokens had been computed before.

    1.64 + 1.26 + 9 * 1.01 = 11.99: the pause begins; + 3 = 14.99; + 1.64 + 1.56 = 18.19: the next token.
    """
    world = run(session("a", 90, 10, pause(3.0, returned=20), 5), policy="discard", saturation=64)
    assert world.chunks("a") == [64, 26, 64, 56]
    assert world.session("a")["recomputed_tokens"] == 99
    assert world.call("a", 0)["finished_at"] == pytest.approx(11.99)
    assert world.call("a", 1)["ready_at"] == pytest.approx(14.99)
    assert world.call("a", 1)["first_token_at"] == pytest.approx(18.19)
    assert world.session("a")["finished_at"] == pytest.approx(18.19 + 4 * 1.01)


def test_a_preserved_context_computes_its_last_token_and_what_was_returned() -> None:
    """The last token of a call was emitted and not computed: 1 + 20 tokens are missing."""
    world = run(session("a", 90, 10, pause(3.0, returned=20), 5), policy="preserve", saturation=64)
    assert world.chunks("a") == [64, 26, 21]
    assert world.session("a")["recomputed_tokens"] == 0


def test_decoding_sessions_come_first_and_chunks_take_the_rest_of_the_budget() -> None:
    """S = 64: a's 10 and 54 of b's 100; then a decodes, and 46 of b's tokens go beside it."""
    world = run(session("a", 10, 5), session("b", 100, 1), saturation=64)
    first, second, *_ = world.iterations
    assert first.chunks == {"a": 10, "b": 54}
    assert (second.decoding, second.chunks) == (("a",), {"b": 46})
    assert world.times()[:2] == [(0.0, pytest.approx(1.64)), (pytest.approx(1.64), pytest.approx(3.11))]


def test_an_iteration_computes_up_to_the_budget_and_no_more() -> None:
    """A budget of 8 over prompts of 5, 5 and 5: 5 + 3, then (one decodes) 2 + 5, ..."""
    sessions = (session("a", 5, 3), session("b", 5, 3), session("c", 5, 3))
    world = run(*sessions, token_budget=8)
    assert [one.tokens for one in world.iterations[:2]] == [8, 8]
    assert world.iterations[0].chunks == {"a": 5, "b": 3}
    assert world.iterations[1].chunks == {"b": 2, "c": 5}


def test_without_chunking_a_prompt_longer_than_the_budget_is_computed_alone() -> None:
    """S = 64: 100 tokens go at once, b's 10 in the next iteration."""
    world = run(session("a", 100, 2), session("b", 10, 1), chunked_prefill=False)
    assert world.iterations[0].chunks == {"a": 100}
    assert (world.iterations[1].decoding, world.iterations[1].chunks) == (("a",), {"b": 10})


def test_without_chunking_whole_prompts_share_the_budget() -> None:
    """S = 64: 40 + 20 leave 4, too few for c's 10."""
    sessions = (session("a", 40, 1), session("b", 20, 1), session("c", 10, 1))
    world = run(*sessions, chunked_prefill=False)
    assert [one.chunks for one in world.iterations] == [{"a": 40, "b": 20}, {"c": 10}]


def test_prefill_apart_makes_decoding_sessions_wait() -> None:
    """b comes at 0.5 while a prefills until 1.10: b's prefill runs alone until 2.20, then both decode."""
    sessions = (session("a", 10, 3), session("b", 10, 2, at=0.5))
    apart = run(*sessions, mixed_batches=False, chunked_prefill=False)
    assert [(one.chunks, one.decoding) for one in apart.iterations[:3]] == [
        ({"a": 10}, ()),
        ({"b": 10}, ()),
        ({}, ("a", "b")),
    ]
    assert apart.session("a")["finished_at"] == pytest.approx(1.10 + 1.10 + 1.02 + 1.01)


def test_prefill_mixed_lets_decoding_sessions_go_on() -> None:
    """The same two: a's second token comes beside b's prefill, 11 tokens, 1.11 s."""
    world = run(session("a", 10, 3), session("b", 10, 2, at=0.5), mixed_batches=True)
    assert (world.iterations[1].chunks, world.iterations[1].decoding) == ({"b": 10}, ("a",))
    assert world.session("a")["finished_at"] == pytest.approx(1.10 + 1.11 + 1.02)


def test_max_running_bounds_the_sessions_that_compute() -> None:
    """One at a time: b begins when a's 1.10 + 1.01 are over."""
    world = run(session("a", 10, 2), session("b", 10, 1), max_running=1)
    assert world.call("b", 0)["scheduled_at"] == pytest.approx(2.11)


def test_more_sessions_never_run_than_the_budget_has_tokens_for() -> None:
    """A budget of 2 tokens: two sessions decode, the third waits though ``max_running`` is 8."""
    world = run(*(session(name, 1, 4) for name in "abc"), token_budget=2)
    assert world.iterations[1].decoding == ("a", "b")
    assert world.call("c", 0)["scheduled_at"] == world.session("a")["finished_at"]


@pytest.mark.parametrize(("prompt", "at_once"), [(40, True), (41, False)])
def test_admission_leaves_the_watermark_free(prompt: int, at_once: bool) -> None:
    """100 blocks, a tenth to stay free: beside a's 50 there is room for 40, not for 41."""
    world = run(session("a", 50, 2), session("b", prompt, 1), gpu=100, watermark=0.1, token_budget=200)
    assert (world.call("b", 0)["scheduled_at"] == 0.0) is at_once
    if not at_once:
        assert world.call("b", 0)["scheduled_at"] == world.session("a")["finished_at"]


def test_blocks_are_whole_a_context_of_5_holds_2_of_4_tokens() -> None:
    """Pool of 16 tokens = 4 blocks of 4. a's 5 take 2 blocks, b's 9 would take 3: b waits; b's 8 would not."""
    waits = run(session("a", 5, 2), session("b", 9, 1), gpu=16, block_size=4)
    goes = run(session("a", 5, 2), session("b", 8, 1), gpu=16, block_size=4)
    assert waits.call("b", 0)["scheduled_at"] == waits.session("a")["finished_at"]
    assert goes.call("b", 0)["scheduled_at"] == 0.0


def test_the_head_of_the_queue_is_not_overtaken() -> None:
    """20 blocks, 12 taken by a: b's 10 do not fit, and c's 1 would, but c came later."""
    world = run(session("a", 12, 2), session("b", 10, 1), session("c", 1, 1), gpu=20)
    assert world.call("c", 0)["scheduled_at"] == world.call("b", 0)["scheduled_at"] == world.session("a")["finished_at"]


@pytest.mark.parametrize(("requeue_at", "first", "second"), [("arrival", "a", "c"), ("tail", "c", "a")])
def test_a_resumed_session_queues_by_its_arrival_or_at_the_tail(requeue_at: str, first: str, second: str) -> None:
    """One at a time. a runs to 1.10 and is back at 2.10; c came at 0.6; b runs to 1.10 + 1.10 + 1.01 + 1.01 = 4.22."""
    world = run(
        session("a", 10, 1, pause(1.0, returned=5), 1),
        session("b", 10, 3, at=0.5),
        session("c", 10, 1, at=0.6),
        policy="discard",
        max_running=1,
        requeue_at=requeue_at,
    )
    order = {"a": world.call("a", 1)["scheduled_at"], "c": world.call("c", 0)["scheduled_at"]}
    assert order[first] == pytest.approx(4.22)
    assert order[second] > order[first]


def test_another_order_serves_another_session_first() -> None:
    """Three wait for one place; the shortest context goes first."""
    sessions = (session("a", 30, 1), session("b", 20, 1), session("c", 10, 1))
    world = run(*sessions, order=ShortestContext(), max_running=1)
    assert [tuple(one.chunks) for one in world.iterations] == [("c",), ("b",), ("a",)]


def test_equal_keys_fall_to_the_session_submitted_first() -> None:
    world = run(*(session(name, 10, 1) for name in ("z", "m", "a")), max_running=1)
    assert [tuple(one.chunks) for one in world.iterations] == [("z",), ("m",), ("a",)]
