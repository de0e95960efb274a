"""ThunderAgent: overload at the ticks, which sessions are set aside, and which are admitted."""

from __future__ import annotations

import pytest

from policies.basic.fixed import DiscardAlways
from policies.contract import NEVER, Discard, Preserve
from policies.papers.thunderagent import ActiveFirst, ThunderAgent, decay


def test_a_context_counts_half_after_each_second():
    assert [decay(seconds) for seconds in (0.0, 1.0, 2.0, 3.0)] == [1.0, 0.5, 0.25, 0.125]


def acting(paused):
    contexts = [
        paused(id="a", resident_tokens=3000, paused_at=5.0),
        paused(id="b", resident_tokens=1000, paused_at=3.0),
    ]
    return [*contexts, paused(id="c", resident_tokens=400, paused_at=4.0)]


def test_under_overload_the_shortest_acting_sessions_are_set_aside(paused, view):
    """10,000 tokens at 5 s: 7000 + 3000 + 1000 / 4 + 400 / 2 = 10,450, 450 too many. c frees 200, b the other 250."""
    policy = ThunderAgent()
    here = view(now=5.0, running_context_tokens=7000, paused=acting(paused))
    changes = [(one.id, type(verdict), verdict.reasons["overflow_tokens"]) for one, verdict in policy.revise(here)]
    assert changes == [("c", Discard, 450.0), ("b", Discard, 250.0)]


def test_between_ticks_nothing_changes(paused, view):
    policy = ThunderAgent()
    assert list(policy.revise(view(now=5.0, running_context_tokens=6000, paused=acting(paused)))) == []
    later = view(now=9.9, running_context_tokens=9999, paused=acting(paused))
    assert list(policy.revise(later)) == []
    assert policy.review_at(later) == 10.0
    later.now = 10.0
    assert [one.id for one, _ in policy.revise(later)] == ["c", "b", "a"]


def test_reasoning_sessions_are_set_aside_at_their_next_pause(paused, view, queued):
    """11,000 tokens are running, 1000 too many: the shorter of the two loses its context when it pauses."""
    policy = ThunderAgent()
    running = [queued(id="long", context_tokens=7000), queued(id="short", context_tokens=4000)]
    assert list(policy.revise(view(now=5.0, running_context_tokens=11_000, running=running))) == []
    assert isinstance(policy.on_pause(paused(id="long"), view()), Preserve)
    assert isinstance(policy.on_pause(paused(id="short"), view()), Discard)
    assert isinstance(policy.on_pause(paused(id="short"), view()), Preserve)


def test_new_sessions_are_let_in_while_there_is_memory_to_spare(view, queued):
    """2000 tokens are to spare at the tick: 1500 are let in, 600 more must wait; asking again changes nothing."""
    policy = ThunderAgent()
    here = view(now=5.0, running_context_tokens=8000)
    asked = [("x", 1500), ("y", 600), ("x", 1500), ("y", 600), ("z", 500)]
    answers = [policy.admits(queued(id=name, context_tokens=tokens), here) for name, tokens in asked]
    assert answers == [True, False, True, False, True]


def test_an_active_session_goes_on_and_one_that_was_set_aside_waits(view, queued, paused):
    """x is let in at 5 s and set aside at 10 s; there are 500 tokens to spare then, and at 15 s 2000."""
    policy, x = ThunderAgent(), queued(id="x", context_tokens=1500)
    assert policy.admits(x, view(now=5.0, running_context_tokens=8000))
    assert policy.admits(x, view(now=9.0, running_context_tokens=9900))
    gone = paused(id="x", resident_tokens=1500, paused_at=10.0)
    assert len(list(policy.revise(view(now=10.0, running_context_tokens=9000, paused=[gone])))) == 1
    assert not policy.admits(x, view(now=14.0, running_context_tokens=8000))
    assert policy.admits(x, view(now=15.0, running_context_tokens=8000))


def test_with_nobody_running_or_acting_the_first_is_let_in(view, queued):
    policy = ThunderAgent()
    here = view(now=5.0, running_context_tokens=0, running_sessions=0, gpu_blocks=10)
    assert policy.admits(queued(context_tokens=10_000), here)


def test_sessions_under_way_come_before_new_ones_and_short_ones_before_long(view, queued):
    order = ActiveFirst()
    sessions = [queued(id="new", context_tokens=5), queued(id="long", calls_done=1, context_tokens=900)]
    sessions.append(queued(id="short", calls_done=2, context_tokens=100))
    assert [one.id for one in sorted(sessions, key=lambda one: order.key(one, view()))] == ["short", "long", "new"]


def test_beside_another_policy_everybody_is_let_in(view, queued):
    order = ActiveFirst()
    order.policy = DiscardAlways()
    assert order.admits(queued(context_tokens=10**6), view(running_context_tokens=10**6))
    assert order.review_at(view()) == NEVER


def test_impossible_parameters_are_refused():
    with pytest.raises(ValueError, match="tick is in seconds"):
        ThunderAgent(tick=0.0)
