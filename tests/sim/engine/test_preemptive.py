"""Orders that preempt. An iteration of x tokens takes 1 s + 0.01 s * x, a copied token 0.01 s, a block is a token."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from policies.contract import Change, Discard, EngineView, InterceptPolicy, Key, PreemptiveOrder, Queued
from sim.errors import PolicyError
from tests.sim.random_orders import LatestPreempts, TurnsOfFourTokens
from tests.sim.worlds import World, pause, run, session


class ByName(PreemptiveOrder):
    """Session z before y before x, whenever they come."""

    def key(self, queued: Queued, view: EngineView) -> Key:
        return -ord(queued.id)


def test_a_running_session_stops_for_one_before_it_and_goes_on_where_it_was() -> None:
    """One place. a's prompt ends at 1.10 with its first token; b came at 0.5 and is before it: 1.10 + 1.10 + 1.01.

    At 3.21 a decodes its last four tokens, 4 * 1.01, as if it had never stopped: nothing is computed again.
    """
    world = run(session("a", 10, 5), session("b", 10, 2, at=0.5), order=LatestPreempts(), max_running=1)
    assert world.session("b")["finished_at"] == pytest.approx(3.21)
    assert world.session("a")["finished_at"] == pytest.approx(3.21 + 4 * 1.01)
    assert world.chunks("a") == [10]
    assert world.session("a")["preemptions"] == 1
    assert world.session("a")["queued_s"] == pytest.approx(3.21 - 1.10)


def test_a_prompt_that_must_stop_keeps_what_it_has_computed() -> None:
    """S = 64: of a's 100 tokens 64 are done at 1.64, when b is before it; 36 follow at 1.64 + 1.10 = 2.74."""
    world = run(session("a", 100, 1), session("b", 10, 1, at=0.5), order=LatestPreempts(), max_running=1)
    assert world.chunks("a") == [64, 36]
    assert world.session("a")["finished_at"] == pytest.approx(2.74 + 1.36)


def test_a_session_takes_memory_only_when_it_needs_it() -> None:
    """Two places, b before a. 30 blocks hold both, so both run; 20 hold b's 16 and not a's 10 to 14 as well."""
    both = (session("a", 10, 5), session("b", 10, 6, at=0.5))
    assert run(*both, order=LatestPreempts(), max_running=2, gpu=30).session("a")["preemptions"] == 0
    tight = run(*both, order=LatestPreempts(), max_running=2, gpu=20)
    assert tight.session("b")["preemptions"] == 0
    assert tight.session("a")["preemptions"] == 1


def waits_for_b(**rules: Any) -> World:
    """One place and 20 blocks. At 1.10 b, with a prompt of 15, comes before a, which holds 10."""
    return run(session("a", 10, 5), session("b", 15, 2, at=0.5), order=LatestPreempts(), max_running=1, gpu=20, **rules)


def test_who_stopped_gives_way_by_recompute() -> None:
    """b: 1.10 + 1.15 + 1.01 = 3.26. a computes its 11 tokens again, 1.11, and decodes the last three."""
    world = waits_for_b(preemption="recompute")
    assert world.chunks("a") == [10, 11]
    assert world.session("a")["recomputed_tokens"] == 10
    assert world.session("b")["finished_at"] == pytest.approx(3.26)
    assert world.session("a")["finished_at"] == pytest.approx(3.26 + 1.11 + 3 * 1.01)


def test_who_stopped_gives_way_by_a_copy_that_the_batch_waits_for() -> None:
    """a's 10 tokens leave in 0.10 s before b begins, and come back in 0.10 s when it has ended, at 3.36."""
    world = waits_for_b(preemption="swap", swap="blocking")
    assert world.copies("a") == [(pytest.approx(1.10), "out", 10), (pytest.approx(3.36), "in", 10)]
    assert world.chunks("a") == [10]
    assert world.session("a")["finished_at"] == pytest.approx(3.36 + 0.10 + 4 * 1.01)
    assert world.totals["swap_stall_s"] == pytest.approx(0.20)


def test_a_full_host_turns_a_swap_into_a_recompute() -> None:
    assert waits_for_b(preemption="swap", swap="blocking", host=9).chunks("a") == [10, 11]


def test_with_overlapped_swaps_the_next_session_begins_when_the_copy_has_ended() -> None:
    """a's copy runs from 1.10 to 1.20 beside nothing, then b's prompt, from 1.20 to 2.35."""
    world = waits_for_b(preemption="swap", swap="overlapped")
    assert world.copies("a")[0] == (pytest.approx(1.10), "out", 10)
    assert world.call("b", 0)["scheduled_at"] == pytest.approx(1.20)
    assert world.totals["swap_stall_s"] == 0


def test_idle_contexts_leave_before_the_watermark_is_gone_and_come_back_before_their_turn() -> None:
    """One place, 40 blocks of which 16 are to stay free. z (9) stops x (10), and at 2.19 there are 40 - 10 - 9 = 21
    free; y (9) is in the middle and waits. z decodes, and the iteration at 2.19 + 5 * 1.01 takes the 16th last block: x
    leaves beside it. When z has ended y takes 9 of its blocks, and x is back before y has ended."""
    world = run(
        session("x", 10, 5), session("z", 9, 12, at=0.5), session("y", 9, 5, at=0.6),
        order=ByName(), max_running=1, gpu=40, watermark=0.4, preemption="swap", swap="overlapped",
    )  # fmt: skip
    (left, _, out), (came, _, back) = world.copies("x")
    assert out == back == 10
    assert left == pytest.approx(1.10 + 1.09 + 5 * 1.01)
    assert world.session("z")["finished_at"] < came + 1e-6
    assert came < world.session("y")["finished_at"]
    assert world.chunks("x") == [10]
    assert world.totals["swap_stall_s"] == 0


def test_memory_that_contexts_leave_for_the_first_in_the_queue_is_not_filled_again_before_all_have_left() -> None:
    """One place, 30 blocks: x (10) stops for y (10), and at 2.20 both must leave for z (25). When x has left, at 2.30,
    20 blocks are free, but z needs 25: x stays away, y has left at 2.40, and z begins."""
    world = run(
        session("x", 10, 5), session("y", 10, 5, at=0.5), session("z", 25, 2, at=1.5),
        order=ByName(), max_running=1, gpu=30, preemption="swap", swap="overlapped",
    )  # fmt: skip
    assert world.call("z", 0)["scheduled_at"] == pytest.approx(2.40)
    assert [way for _, way, _ in world.copies("x")] == ["out", "in"]
    assert world.session("z")["finished_at"] == pytest.approx(2.40 + 1.25 + 1.01)


class FurthestFirstName(ByName):
    """Expects the turn of the one with the largest context first."""

    def by_expected_turn(self, waiting: Sequence[Queued], view: EngineView) -> Sequence[Queued]:
        return sorted(waiting, key=lambda queued: -queued.context_tokens)


@pytest.mark.parametrize(("order", "loses"), [(ByName, "w"), (FurthestFirstName, "x")])
def test_of_idle_contexts_the_one_whose_turn_is_furthest_off_leaves_first(
    order: Callable[[], PreemptiveOrder], loses: str
) -> None:
    """One place, 30 blocks. w (12) runs, then x (8), then y (2), then z comes, which needs 12: w or x must go."""
    world = run(
        session("w", 12, 5), session("x", 8, 5, at=0.5), session("y", 2, 9, at=1.5), session("z", 12, 1, at=3.0),
        order=order(), max_running=1, gpu=30,
    )  # fmt: skip
    assert [name for name in "wx" if world.session(name)["recomputed_tokens"]] == [loses]


def test_who_holds_the_memory_already_goes_on_though_the_first_in_the_queue_finds_no_room() -> None:
    """One place, 40 blocks, a paused context of 20 that never gives way. y (8) stops for z; w, which came meanwhile,
    is before y and needs 30. When z has ended y goes on, and w begins when the paused session is back and gone."""

    class LargestFirst(PreemptiveOrder):
        def key(self, queued: Queued, view: EngineView) -> Key:
            return {"p": 0, "z": 1, "w": 2, "y": 3}[queued.id]

    world = run(
        session("p", 20, 1, pause(30.0), 1), session("y", 8, 5, at=0.5), session("z", 5, 3, at=2.0),
        session("w", 30, 1, at=2.1), order=LargestFirst(), max_running=1, gpu=40,
    )  # fmt: skip
    assert world.session("y")["finished_at"] < world.call("w", 0)["scheduled_at"]
    assert world.chunks("y") == [8]


class OneAtATime(ByName):
    def max_running(self, view: EngineView) -> float:
        return 1


def test_an_order_may_let_fewer_run_than_the_settings() -> None:
    world = run(session("a", 10, 3), session("b", 10, 3), order=OneAtATime(), max_running=8)
    assert world.session("b")["finished_at"] == pytest.approx(1.10 + 2 * 1.01)
    assert all(one.tokens in (1, 10) for one in world.iterations)


def test_a_leap_ends_where_the_order_wants_to_be_asked() -> None:
    """One place, turns of four tokens, 8 each: the prompt and 3 decodes, then the other's, then 4 decodes each.

    Two events for each first turn, one for each second one, instead of 16 iterations.
    """
    rules: dict[str, Any] = {"order": TurnsOfFourTokens(), "max_running": 1}
    world = run(session("a", 10, 8), session("b", 10, 8), leap=True, **rules)
    assert world.totals["iterations"] == 16
    assert world.totals["events"] == 6
    assert world.session("a")["preemptions"] == 1
    assert world.session("a")["finished_at"] == pytest.approx(2 * (1.10 + 3 * 1.01) + 4 * 1.01)


class TakesAnything(InterceptPolicy):
    """Discards whatever it sees when asked for room."""

    def evict(self, blocks: int, view: EngineView) -> Iterable[Change]:
        return [(paused, Discard()) for paused in view.paused]


def test_policies_see_paused_contexts_only() -> None:
    """One place, 40 blocks. p pauses with 10; a (10) stops for b, which needs 25: p's goes, and that is enough."""
    world = run(
        session("p", 10, 1, pause(30.0), 1), session("a", 10, 9, at=0.5), session("b", 25, 1, at=2.0),
        order=LatestPreempts(), policy=TakesAnything(), max_running=1, gpu=40,
    )  # fmt: skip
    assert world.session("p")["recomputed_tokens"] == 10
    assert world.chunks("a") == [10]


ODD_ANSWERS = [
    ("rerank", lambda self, view: [("a", 1.0)], "expected a session from view.running or view.waiting"),
    ("rerank", lambda self, view: [(one, "first") for one in view.waiting], "expected a number"),
    ("max_running", lambda self, view: 0, "expected at least 1"),
    ("review_after", lambda self, view: 0, "expected at least 1"),
    ("review_at", lambda self, view: math.nan, "expected a number"),
    ("by_expected_turn", lambda self, waiting, view: waiting[1:], "the sessions that were given"),
]


@pytest.mark.parametrize(("method", "answer", "message"), ODD_ANSWERS)
def test_an_impossible_answer_stops_the_run_and_names_the_order(method: str, answer: Any, message: str) -> None:
    odd = type("Odd", (ByName,), {method: answer})()
    sessions = (session("w", 12, 5), session("x", 8, 5, at=0.5), session("z", 12, 1, at=1.5))
    with pytest.raises(PolicyError, match=rf"Odd failed in {method} for session .+ at \d+\.\d+ s: .*{message}"):
        run(*sessions, order=odd, max_running=1, gpu=30, leap=True)
