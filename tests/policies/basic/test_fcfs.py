"""Queue orders."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from policies.basic.fcfs import FirstCome
from policies.basic.fixed import DiscardAlways
from policies.contract import QueueOrder
from traces.session import Call, Pause, Session


def test_first_come_serves_by_the_time_of_entry(view):
    assert FirstCome().key(SimpleNamespace(arrival=1.0, ready_at=9.0, entered=4.0), view()) == 4.0


@pytest.mark.parametrize(("requeue_at", "a", "c"), [("arrival", 4.51, 6.01), ("tail", 6.01, 4.5)])
def test_the_engine_says_whether_a_resumed_session_keeps_its_arrival(replay, requeue_at, a, c):
    """One session runs at a time. A (prompt 50) runs 0 to 1.5, is discarded and back at 2.0; B (arrives 1.0) runs 1.5
    to 3.0. Then C (arrives 1.2) waits, and A, whose 51 tokens take 1.51 s, 50 of them again.

    By arrival: A 3.0 to 4.51, C to 6.01. At the tail: C 3.0 to 4.5, A to 6.01.
    """
    sessions = [
        Session("a", 0.0, 50, (Call(1, Pause(0.5)), Call(1))),
        Session("b", 1.0, 50, (Call(1),)),
        Session("c", 1.2, 50, (Call(1),)),
    ]
    world = replay(sessions, DiscardAlways(), max_running=1, requeue_at=requeue_at)
    assert world.finished == pytest.approx({"a": a, "b": 3.0, "c": c}, rel=1e-9)
    assert world.of("recomputed_tokens") == {"a": 50, "b": 0, "c": 0}


class LongestContextFirst(QueueOrder):
    def key(self, queued, view):
        return -queued.context_tokens


def test_an_order_of_ones_own_decides_who_is_next(replay):
    """One at a time: A runs 0 to 1.1. B (10 tokens) and C (50) wait; C is longer, so C runs to 2.6 and B to 3.7."""
    sessions = [
        Session(name, at, prompt, (Call(1),)) for name, at, prompt in (("a", 0, 10), ("b", 0.5, 10), ("c", 0.6, 50))
    ]
    world = replay(sessions, DiscardAlways(), order=LongestContextFirst(), max_running=1)
    assert world.finished == pytest.approx({"a": 1.1, "c": 2.6, "b": 3.7}, rel=1e-9)
