"""When running sessions outgrow the pool. An iteration of x tokens takes 1 s + 0.01 s * x, a copied token 0.01 s."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from policies.contract import Change, Discard, EngineView, InterceptPolicy
from tests.sim.worlds import pause, run, session

TWINS = (session("a", 5, 10), session("b", 5, 10))
"""On 20 blocks both grow from 5 to 10 tokens in six iterations; the seventh needs two blocks and there is none."""


def test_the_latest_is_preempted_and_recomputes_its_context() -> None:
    """1.10 + 5 * 1.02 = 6.20: b loses 10 tokens and waits for its 11 while a needs more than 9.

    a ends after 4 * 1.01, at 10.24; b computes 11 tokens again, 1.11 s, and its last three, 3 * 1.01: 14.38.
    """
    world = run(*TWINS, gpu=20, preemption="recompute")
    assert world.chunks("a") == [5]
    assert world.chunks("b") == [5, 11]
    assert world.session("a")["finished_at"] == pytest.approx(10.24)
    assert world.session("b")["finished_at"] == pytest.approx(14.38)
    assert world.session("b")["recomputed_tokens"] == 10
    assert world.session("b")["preemptions"] == 1
    assert world.session("b")["queued_s"] == pytest.approx(10.24 - 6.20)


def test_the_latest_is_preempted_and_swapped_while_the_batch_waits() -> None:
    """At 6.20 b's 10 tokens leave in 0.10 s, and a decodes: 7.31. a ends at 7.31 + 3 * 1.01 = 10.34.

    There b's tokens come back in 0.10 s and its missing one is computed in the same iteration: 11.45; + 3 * 1.01.
    """
    world = run(*TWINS, gpu=20, preemption="swap", swap="blocking")
    assert world.copies("b") == [(pytest.approx(6.20), "out", 10), (pytest.approx(10.34), "in", 10)]
    assert world.chunks("b") == [5, 1]
    assert world.session("a")["finished_at"] == pytest.approx(10.34)
    assert world.session("b")["finished_at"] == pytest.approx(14.48)
    assert world.session("b")["recomputed_tokens"] == 0
    assert world.totals["swap_stall_s"] == pytest.approx(0.20)


def test_a_full_host_turns_preemption_by_swap_into_recompute() -> None:
    """The host holds 9 tokens, b has 10: a context goes whole or not at all."""
    world = run(*TWINS, gpu=20, host=9, preemption="swap", swap="blocking")
    assert world.copies("b") == []
    assert world.chunks("b") == [5, 11]


def test_paused_contexts_give_way_before_anybody_is_preempted() -> None:
    """20 blocks: a pauses with 8 tokens, b grows from 4 to 16, so a loses its last 4: 4 + its last + the answer."""
    world = run(
        session("a", 8, 1, pause(60.0, returned=1), 1),
        session("b", 4, 13),
        gpu=20,
        policy="cache-lru",
        preemption="swap",
    )
    assert world.totals["preemptions"] == 0
    assert world.chunks("a") == [8, 6]
    assert world.session("a")["recomputed_tokens"] == 4
    assert world.decided().count(("a", "room", "discard")) == 4


def test_a_preserved_context_is_never_taken_so_the_running_session_waits_for_its_end() -> None:
    """The same under ``preserve``: with 12 tokens b has no room, gives way itself and waits until a is back and gone.

    a: 1.12 + 60 = 61.12. b has emitted 9 tokens by then, so 4 + 9 = 13 are computed again.
    """
    world = run(session("a", 8, 1, pause(60.0, returned=1), 1), session("b", 4, 13), gpu=20, policy="preserve")
    assert world.session("b")["preemptions"] == 1
    assert world.chunks("b") == [4, 13]
    assert world.call("a", 1)["ready_at"] == pytest.approx(61.12)
    assert world.session("a")["recomputed_tokens"] == 0


class DropsWhenSomebodyWaits(InterceptPolicy):
    """Gives nothing when asked for room, and discards every paused context after each plan while a session waits."""

    def revise(self, view: EngineView) -> Iterable[Change]:
        return [(paused, Discard()) for paused in view.paused] if view.waiting_sessions else []


def test_room_that_a_change_of_mind_makes_is_used_though_nothing_else_happens() -> None:
    """20 blocks, a pauses with 10. b comes at 5.0 and needs 15: the queue is looked at before the policy, so b is not
    admitted at first; then a's context is gone. Nothing runs and nothing is under way, but b can begin at once."""
    world = run(session("a", 10, 1, pause(50.0)), session("b", 15, 1, at=5.0), gpu=20, policy=DropsWhenSomebodyWaits())
    assert world.call("b", 0)["scheduled_at"] == 5.0


def test_a_session_preempted_just_before_the_end_of_a_call_generates_its_next_call_to_the_end() -> None:
    """INV-6. 12 blocks: p pauses with 8, a prefills 4 and has one token of its call left, for which there is no block.

    a is preempted, p comes back and ends, a recomputes 5 and ends its call; no session has decoded since it first did.
    The end that was noted for its first call must not end the second one, of 5 tokens.
    """
    world = run(
        session("p", 8, 1, pause(5.0), 1), session("a", 4, 2, pause(0.0, returned=1), 5), gpu=12, policy="preserve"
    )
    assert world.session("a")["preemptions"] == 1
    assert world.call("a", 1)["output_tokens"] == 5
