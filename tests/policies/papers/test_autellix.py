"""Autellix: least attained service, in levels, and promotion."""

from __future__ import annotations

import math

import pytest

from policies.basic.fixed import DiscardAlways
from policies.papers.autellix import AttainedService, LeastAttained, queue_of
from traces.session import Call, Pause, Session


@pytest.mark.parametrize(
    ("served", "queue"), [(0.0, 1), (0.49, 1), (0.5, 2), (0.99, 2), (1.0, 3), (2.0, 4), (31.9, 7), (1e6, 8)]
)
def test_each_queue_takes_twice_as_much_service_as_the_one_before(served, queue):
    """Queues end at 0.5, 1, 2, 4, 8, 16 and 32 s; the eighth is the last."""
    assert queue_of(served, quantum=0.5, queues=8) == queue


def test_within_a_queue_the_first_to_be_ready_goes_first(queued, view):
    order, here = LeastAttained(), view()
    sessions = [queued(id="old", had_service=3.0, ready_at=1.0), queued(id="b", had_service=0.4, ready_at=3.0)]
    sessions.append(queued(id="new", ready_at=2.0))
    assert [one.id for one in sorted(sessions, key=lambda one: order.key(one, here))] == ["new", "b", "old"]


def test_who_has_waited_beta_times_as_long_as_it_was_served_is_promoted(queued, view):
    """Served 0.4 s, waited 1 s before and since 10: beta = 10 is reached at 10 + 4 - 1 = 13."""
    order = LeastAttained(beta=10.0)
    long, new = queued(id="a", waits_since=10.0, had_service=0.4, had_to_wait=1.0), queued(id="b", waits_since=9.0)
    for session in (long, new):
        order.key(session, view(now=session.waits_since))
    assert order.review_at(view()) == 13.0
    assert list(order.rerank(view(now=12.9))) == []
    assert list(order.rerank(view(now=13.0))) == [(long, (0.0, 10.0))]
    assert order.review_at(view(now=13.0)) == math.inf


def test_who_was_preempted_waits_anew_and_who_runs_is_not_promoted(queued, view):
    """Due at 10 * 0.4 = 4 it runs. Preempted at 5, served 1 s and having waited 2 s, it is due at 5 + 10 - 2."""
    order = LeastAttained(beta=10.0)
    session = queued(had_service=0.4)
    order.key(session, view())
    session.running, session.waits_since = True, math.nan
    assert list(order.rerank(view(now=4.0))) == []
    session.running, session.waits_since, session.had_service, session.had_to_wait = False, 5.0, 1.0, 2.0
    order.on_preempt(session, view(now=5.0))
    assert order.review_at(view(now=5.0)) == 13.0
    assert list(order.rerank(view(now=13.0))) == [(session, (0.0, 5.0))]


def test_an_order_forgets_who_was_promoted_and_has_left(queued, view):
    order, session = LeastAttained(beta=1.0), queued(had_service=1.0)
    order.key(session, view())
    assert list(order.rerank(view(now=1.0))) == [(session, (0.0, 0.0))]
    order.on_finish(session, view(now=2.0))
    assert not order._promoted


A = Session("a", 0.0, 10, (Call(1, Pause(0.5)), Call(1)))
B = Session("b", 0.2, 50, (Call(1),))
C = Session("c", 1.7, 50, (Call(1),))


@pytest.mark.parametrize(("beta", "a", "c"), [(math.inf, 5.21, 4.1), (0.9, 3.71, 5.21)])
def test_a_newcomer_overtakes_unless_the_other_has_waited_too_long(replay, beta, a, c):
    """One at a time. A runs 0 to 1.1 and is back at 1.6; B runs 1.1 to 2.6. Then A, served 1.1 s, is in queue 2 and C,
    which came later, in queue 0: C 2.6 to 4.1, A (11 tokens again) to 5.21.

    With beta = 0.9 A is promoted at 1.6 + 0.99 = 2.59: A 2.6 to 3.71, C to 5.21.
    """
    world = replay([A, B, C], DiscardAlways(), order=LeastAttained(beta=beta), max_running=1)
    assert world.finished == pytest.approx({"a": a, "b": 2.6, "c": c}, rel=1e-9)


def test_a_quantum_is_as_long_as_its_queue_is_wide(view):
    """Queues end at 0.5, 1, 2 and 4 s."""
    assert [AttainedService().quantum_of(queue, view()) for queue in (1, 2, 3, 4)] == [0.5, 0.5, 1.0, 2.0]


LONG = Session("long", 0.0, 10, (Call(6),))
SHORT = Session("short", 1.2, 10, (Call(2),))


def test_a_newcomer_stops_a_call_whose_quantum_is_over(replay):
    """One at a time: 10 tokens of prompt take 1.1 s, each further token 1.01 s.

    LONG emits at 1.1 and 2.11, when it has run for more than the 2 s of queue 1 and falls to queue 2. SHORT, there
    since 1.2 and in queue 1, has it stop: 1.1 + 1.01 s, to 4.22. LONG goes on without a prefill: 4 tokens, to 8.26.
    """
    world = replay([LONG, SHORT], DiscardAlways(), order=AttainedService(quantum=2.0), max_running=1)
    assert world.finished == pytest.approx({"long": 8.26, "short": 4.22}, rel=1e-9)


@pytest.mark.parametrize(("beta", "late"), [(math.inf, 5.32), (0.5, 7.34)])
def test_who_has_waited_beta_times_as_long_as_it_was_served_rises_to_the_first_queue(replay, beta, late):
    """As above, and LATE comes at 3.5: queue 1, before LONG in queue 2. So it runs from 4.22 to 5.32, and LONG's last
    four tokens take until 9.36.

    With beta = 0.5 LONG, served 2.11 s by 2.11, rises at 2.11 + 1.055, taken up at 3.21: it stands in queue 1 before
    LATE, emits at 5.23 and 6.24, and has again run for more than 2 s. LATE: 6.24 to 7.34. LONG's last two tokens: 9.36.
    """
    order = AttainedService(quantum=2.0, beta=beta)
    world = replay([LONG, SHORT, Session("late", 3.5, 10, (Call(1),))], DiscardAlways(), order=order, max_running=1)
    assert world.finished == pytest.approx({"long": 9.36, "short": 4.22, "late": late}, rel=1e-9)


@pytest.mark.parametrize("order", [AttainedService, LeastAttained])
def test_impossible_parameters_are_refused(order):
    with pytest.raises(ValueError, match="quantum is in seconds"):
        order(quantum=0.0)


@pytest.mark.parametrize(("had_to_wait", "queue"), [(0.5, 2), (0.7, 1)])
def test_at_the_end_of_its_quantum_a_call_falls_unless_it_has_waited_long_enough_before(
    queued, view, had_to_wait, queue
):
    """beta = 1, served 0.6 s of a quantum of 0.5: it falls having waited 0.5 s; having waited 0.7 s it is due."""
    order, session = AttainedService(quantum=0.5, beta=1.0), queued()
    order.key(session, view())
    session.running, session.waits_since, session.had_to_wait = True, math.nan, had_to_wait
    order.on_run(session, view(now=had_to_wait))
    session.had_service = 0.6
    assert list(order.rerank(view(now=2.0))) == [(session, (queue, 2.0))]


def test_a_call_that_must_stop_is_promoted_when_it_has_waited_long_enough(queued, view):
    """beta = 1: it ran for 0.6 s, fell, and stops at 2.0: it is due at 2.6."""
    order, session = AttainedService(quantum=0.5, beta=1.0), queued()
    order.key(session, view())
    session.running, session.waits_since = True, math.nan
    order.on_run(session, view())
    session.had_service = 0.6
    assert list(order.rerank(view(now=2.0))) == [(session, (2, 2.0))]
    session.running, session.waits_since = False, 2.0
    order.on_preempt(session, view(now=2.0))
    assert order.review_at(view(now=2.0)) == pytest.approx(2.6)
    assert list(order.rerank(view(now=2.5))) == []
    assert list(order.rerank(view(now=2.7))) == [(session, (1, 2.7))]
