"""Continuum: how long a context is pinned, which session goes first, and how a deadlock is broken."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.basic.fixed import PreserveAlways
from policies.contract import NEVER
from policies.papers.continuum import Continuum, PinnedFirst, ServedAndLeft
from traces.session import Call, Pause, Session


def learnt(policy, paused, view, *seconds, tool="tool"):
    for duration in seconds:
        policy.on_resume(paused(id="other", tool=tool), duration, view())
    return policy


@pytest.mark.parametrize(("reload", "pin"), [(8.0, 3.0), (3.9, 0.0), (41.0, 10.0)])
def test_the_pin_is_worth_most(paused, view, reload, pin):
    """Pauses of 1, 2, 3 and 10 s, no delay. The best of 0 and P(tau) * reload - tau:

    reload 8:    1/4 * 8 - 1 = 1;      2/4 * 8 - 2 = 2;      3/4 * 8 - 3 = 3;      8 - 10 = -2
    reload 3.9:  0.975 - 1 < 0;        1.95 - 2 < 0;         2.925 - 3 < 0;        3.9 - 10 < 0
    reload 41:   10.25 - 1 = 9.25;     20.5 - 2 = 18.5;      30.75 - 3 = 27.75;    41 - 10 = 31
    """
    policy = learnt(Continuum(enough=4), paused, view, 3.0, 10.0, 1.0, 2.0)
    assert policy.time_to_live("tool/tool", 0.0, reload) == pin


@given(st.lists(st.floats(0, 50), min_size=4, max_size=30), st.floats(0, 100))
def test_no_pause_of_the_tool_is_worth_a_longer_or_shorter_pin(durations, reload):
    """All samples are candidates, and 0, the first of the best: the search may stop early only if nothing is lost."""
    policy, ordered = Continuum(enough=4), sorted(durations)
    for duration in durations:
        policy._durations.add("tool/tool", duration)
    worths = {tau: sum(one <= tau for one in ordered) / len(ordered) * reload - tau for tau in (0.0, *ordered)}
    assert policy.time_to_live("tool/tool", 0.0, reload) == max(worths, key=worths.__getitem__)


def test_a_delay_counts_by_how_much_the_past_tells_of_the_future(paused, view):
    """eta = 1/4 (below) and T = 8 s are worth 2 s; with 6 s of reload it is the 8 s of the test above: 3 s."""
    policy = learnt(Continuum(enough=4), paused, view, 3.0, 10.0, 1.0, 2.0)
    for calls in (2, 2, 4):
        policy.on_finish(paused(calls_done=calls), view())
    assert policy.time_to_live("tool/tool", 8.0, 6.0) == 3.0


def test_eta_is_one_for_equal_sessions_and_less_for_unequal_ones():
    """All of 5 calls: k + left = 5, a correlation of -1. Of 2, 2 and 4 calls: (1,1), (1,1), (1,3), (2,2), (3,1);

    n = 5, sums 8 and 8, squares 16 and 16, products 12: (5 * 12 - 64) / (5 * 16 - 64) = -1/4.
    """
    equal, unequal = ServedAndLeft(), ServedAndLeft()
    assert equal.eta == 1.0
    for calls in (5, 5, 5):
        equal.add(calls)
    for calls in (2, 2, 4):
        unequal.add(calls)
    assert equal.eta == pytest.approx(1.0)
    assert unequal.eta == pytest.approx(0.25)


def test_before_enough_pauses_the_pin_is_that_of_exponential_durations(paused, view):
    """Delay + reload = e^2: 2 s. Below 1 s none. After 2 pauses of 9 s and K = 2 the tool is known: 20 - 9 > 0."""
    policy = Continuum(enough=2)
    assert policy.time_to_live("tool/tool", math.e**2 - 1.0, 1.0) == pytest.approx(2.0)
    assert policy.time_to_live("tool/tool", 0.0, 0.99) == 0.0
    learnt(policy, paused, view, 9.0, 9.0)
    assert policy.time_to_live("tool/tool", 0.0, 20.0) == 9.0


def test_a_tool_that_was_seen_too_seldom_is_taken_for_any_tool(paused, view):
    """Two pauses of 1 s by one tool, one of 9 s by another; K = 2. Of all three: 2/3 * 4 - 1 > 0 > 4 - 9.

    After a second one of 9 s the tool is known by its own: 20 - 9 > 0, and there is no shorter candidate.
    """
    policy = learnt(Continuum(enough=2), paused, view, 1.0, 1.0, tool="quick")
    learnt(policy, paused, view, 9.0, tool="slow")
    assert policy.time_to_live("tool/slow", 0.0, 4.0) == 1.0
    learnt(policy, paused, view, 9.0, tool="slow")
    assert policy.time_to_live("tool/slow", 0.0, 20.0) == 9.0


def pinned_for(policy, one, view, seconds):
    """Pin a context from its pause on."""
    policy._pinned_until[one.id] = one.paused_at + seconds
    return one


def test_a_pinned_context_does_not_give_way_and_one_whose_pin_ended_does_from_its_end(paused, view):
    """a is pinned until 12, b was until 9. At 10 b gives its last 4 of 10 blocks; at 12 a gives its own first."""
    policy = Continuum()
    a = pinned_for(policy, paused(id="a", paused_at=2.0), view, 10.0)
    b = pinned_for(policy, paused(id="b", paused_at=4.0), view, 5.0)
    before, after = view(now=10.0, paused=[a, b]), view(now=12.0, paused=[a, b])
    assert [(one.id, verdict.keep) for one, verdict in policy.evict(4, before)] == [("b", 60)]
    assert [one.id for one, _ in policy.evict(25, before)] == ["b"]
    assert [one.id for one, _ in policy.evict(20, after)] == ["a", "b"]
    assert policy.review_at(before) == 12.0
    assert policy.review_at(after) == NEVER


def test_when_nothing_runs_pins_are_broken_the_latest_arrival_first(paused, view):
    policy = Continuum()
    pinned = [pinned_for(policy, paused(id=name, arrival=at), view, 99.0) for name, at in (("a", 3.0), ("b", 5.0))]
    free = paused(id="c", arrival=9.0)
    stuck = view(now=10.0, paused=[*pinned, free], running_sessions=0)
    assert [one.id for one, _ in policy.evict(30, stuck)] == ["c", "b", "a"]


def test_an_answer_in_time_keeps_its_pin_until_the_session_runs(paused, view, queued):
    policy = Continuum()
    one = pinned_for(policy, paused(id="a", paused_at=0.0), view, 5.0)
    policy.on_resume(one, 4.0, view(now=4.0))
    assert policy.pinned(one, 100.0)
    policy.on_start(queued(id="a"), view(now=100.0))
    assert not policy.pinned(one, 100.0)


def test_only_evicted_sessions_tell_how_long_the_queue_is(paused, view, queued):
    """a is whole but for its last token, b lost 20 tokens: b's 6 s from its answer to its start count, a's 9 s do not.

    T = 6 s and K = 1: with eta = 1 a pause of 5 s is worth 6 + T_fwd - 5 > 0.
    """
    policy = Continuum(enough=1)
    policy.on_resume(paused(id="a"), 5.0, view(now=1.0))
    policy.on_resume(paused(id="b", resident_tokens=80, missing_tokens=21), 5.0, view(now=1.0))
    policy.on_start(queued(id="a", ready_at=1.0), view(now=10.0))
    policy.on_start(queued(id="b", ready_at=1.0), view(now=7.0))
    verdict = policy.on_pause(paused(id="c"), view(now=20.0))
    assert verdict.reasons["delay_s"] == 6.0
    assert verdict.reasons["pin_s"] == 5.0


def test_pinned_sessions_go_first_then_by_the_arrival_of_the_session(paused, view, queued):
    policy, order = Continuum(), PinnedFirst()
    order.policy = policy
    pinned_for(policy, paused(id="a"), view, 50.0)
    here = view(now=10.0)
    sessions = [queued(id="n", arrival=1.0), queued(id="a", arrival=9.0), queued(id="o", arrival=0.5)]
    assert sorted((order.key(one, here), one.id) for one in sessions) == [
        ((0.0, 9.0), "a"),
        ((1.0, 0.5), "o"),
        ((1.0, 1.0), "n"),
    ]
    order.policy = PreserveAlways()
    assert order.key(sessions[1], here) == (1.0, 9.0)


W = Session("w", 0.0, 10, (Call(1, Pause(4.0)), Call(1)))
A = Session("a", 7.0, 399, (Call(1, Pause(60.0)), Call(1)))
B = Session("b", 15.5, 200, (Call(1),))
C = Session("c", 15.0, 10, (Call(20),))


def test_a_pin_keeps_others_waiting_until_it_ends(replay):
    """W's pause teaches that pauses last 4 s. A's 399 tokens take 3 * 2 + 1.99 s: it pauses at 14.99. Its context of
    400 would take T_fwd = 5 s, so it is pinned for 4 s (5 - 4 > 0), until 18.99. C runs from 15.0 on, iterations
    ending at 16.10, 17.11, 18.12, 19.13. B needs 20 of 50 blocks, of which A has 40: it begins at 19.13.
    """
    world = replay([W, A, B, C], Continuum(enough=1), order=PinnedFirst(), gpu_tokens=500, resume_on_gpu="queue")
    assert world.calls("b", "scheduled_at") == [pytest.approx(19.13)]


def test_without_anybody_running_the_pin_is_broken_at_once(replay):
    """As above without C: at 15.5 nothing runs, and B begins."""
    world = replay([W, A, B], Continuum(enough=1), order=PinnedFirst(), gpu_tokens=500, resume_on_gpu="queue")
    assert world.calls("b", "scheduled_at") == [pytest.approx(15.5)]
