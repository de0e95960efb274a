"""FastServe's rules, each by hand: q_1 = 1 s, so the quanta are 1, 2, 4, 8 s; x tokens take 1 s + x / 100 s."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from policies.basic.fixed import PreserveAlways
from policies.papers.fastserve import FixedPriority, ShortestRemaining, SkipJoinMLFQ
from traces.session import Call, Pause, Session


class Costs:
    saturation_tokens = 100

    def forward_time(self, query_tokens, context_tokens=0):
        return 1.0 + query_tokens / 100


class Ready(SimpleNamespace):
    """A ready session that waits since 0, unless told otherwise."""

    def __init__(self, id, missing=1, **more):
        given = {"arrival": 0.0, "ready": True, "running": False, "waits_since": 0.0, "ran": 0.0, "calls_done": 0}
        super().__init__(id=id, missing_tokens=missing, resident_tokens=0, offloaded_tokens=0, **given | more)

    def served(self, now):
        return self.ran


def at(now, *running, waiting=(), max_running=2):
    return SimpleNamespace(now=now, costs=Costs(), running=running, waiting=waiting, max_running=max_running)


def test_quanta_double_from_the_shortest_iteration():
    """T_fwd(1) = 1.01 s is the first quantum of the profile; 1 s when it is given."""
    assert [SkipJoinMLFQ().quantum_of(i, at(0)) for i in (1, 2, 3)] == pytest.approx([1.01, 2.02, 4.04])
    assert [SkipJoinMLFQ(quantum=1, ratio=3).quantum_of(i, at(0)) for i in (1, 2, 3)] == [1, 3, 9]


@pytest.mark.parametrize(("missing", "queue"), [(0, 1), (1, 2), (100, 2), (101, 3), (300, 3), (301, 4)])
def test_a_session_joins_the_first_queue_whose_quantum_covers_its_prefill(missing, queue):
    """1 s + missing/100 against 1, 2, 4 and 8 s: 100 tokens take 2 s and just fit queue 2."""
    assert SkipJoinMLFQ(quantum=1).key(Ready("a", missing), at(7.0)) == (queue, 7.0)


def test_the_naive_queue_is_joined_at_the_top():
    assert SkipJoinMLFQ(skip_join=False, quantum=1).key(Ready("a", 500), at(7.0)) == (1, 7.0)


@pytest.mark.parametrize(("falls_by", "queue"), [(1, 3), (2, 4)])
def test_who_has_used_up_its_quantum_falls(falls_by, queue):
    """100 tokens join queue 2, q = 2 s: after 1.99 s nothing happens, after 2 s it falls and stands at the tail."""
    order = SkipJoinMLFQ(quantum=1, falls_by=falls_by)
    a = Ready("a", 100)
    order.key(a, at(0.0))
    a.running, a.waits_since = True, math.nan
    order.on_run(a, at(0.0))
    a.ran = 1.99
    assert list(order.rerank(at(1.99, a))) == []
    a.ran = 2.0
    assert list(order.rerank(at(2.0, a))) == [(a, (queue, 2.0))]
    assert list(order.rerank(at(2.1, a))) == []


def test_the_last_queue_has_no_end():
    order = SkipJoinMLFQ(quantum=1, queues=2)
    a = Ready("a", 500)
    assert order.key(a, at(0.0)) == (2, 0.0)
    a.running, a.waits_since, a.ran = True, math.nan, 1e9
    assert list(order.rerank(at(1e9, a))) == []


def test_who_has_waited_long_enough_rises_to_the_first_queue():
    """alpha = 5 s. a waits since 0 and rises at 5. b ran until 3, so it rises at 8."""
    order = SkipJoinMLFQ(quantum=1, promote_after=5.0)
    a, b = Ready("a", 300), Ready("b", 300, waits_since=3.0)
    order.key(a, at(0.0))
    order.key(b, at(0.0))
    assert order.review_at(at(0.0)) == 5.0
    assert list(order.rerank(at(4.9, waiting=[a, b]))) == []
    assert list(order.rerank(at(5.0, waiting=[a, b]))) == [(a, (1, 5.0))]
    assert order.review_at(at(5.0)) == 8.0
    assert list(order.rerank(at(8.0, waiting=[a, b]))) == [(b, (1, 8.0))]


def test_the_order_is_asked_again_when_a_quantum_ends():
    """a joined queue 2 (2 s) and has run 0.5 s at 10.0: 11.5, less a millionth of the quantum against rounding."""
    order = SkipJoinMLFQ(quantum=1, promote_after=math.inf)
    a = Ready("a", 100)
    order.key(a, at(0.0))
    a.running, a.ran = True, 0.5
    order.on_run(a, at(10.0, a))
    assert order.review_at(at(10.0, a)) == pytest.approx(11.5, abs=1e-5)


def test_execution_is_expected_when_those_before_have_fallen_as_far():
    """B = 2, quanta 1, 2, 4. Two sessions in queue 1, one in 2, one in 3.

    T_execute of queue 2: both of queue 1 run for q_1: 2 * 1 / 2 = 1 s. Of queue 3: both for q_1 + q_2, and the one of
    queue 2 for q_2: (2 * 3 + 2) / 2 = 4 s.
    """
    order = SkipJoinMLFQ(quantum=1)
    ready = [Ready("a", 0), Ready("b", 0), Ready("c", 100), Ready("d", 300)]
    for one in ready:
        order.key(one, at(0.0))
    assert order.execution_times(at(0.0, waiting=ready)) == {1: 0.0, 2: 1.0, 3: 4.0}


def test_the_next_turn_comes_by_execution_or_by_promotion_whichever_is_sooner():
    """As above at 4.5 s, alpha = 5 s: d has waited since 0 and rises in 0.5 s; c, which waits since 4 s, has its
    turn in 1 s. With alpha = 50 s the turns go by queue."""
    for alpha, turns in ((5.0, "abdc"), (50.0, "abcd")):
        order = SkipJoinMLFQ(quantum=1, promote_after=alpha)
        ready = [Ready("a", 0), Ready("b", 0), Ready("c", 100, waits_since=4.0), Ready("d", 300)]
        for one in ready:
            order.key(one, at(0.0))
        assert "".join(one.id for one in order.by_expected_turn(ready, at(4.5, waiting=ready))) == turns


@pytest.mark.parametrize(("resumed", "key"), [("joins", (1, 9.0)), ("keeps", (3, 0.0))])
def test_after_a_pause_a_session_joins_anew_or_keeps_its_queue(resumed, key):
    """300 tokens joined queue 3; preserved, nothing is missing after the pause, and it would join queue 1."""
    order = SkipJoinMLFQ(quantum=1, resumed=resumed)
    a = Ready("a", 300)
    order.key(a, at(0.0))
    a.missing_tokens = 0
    assert order.key(a, at(9.0)) == key


def test_nonsense_is_refused():
    for wrong in ({"ratio": 1}, {"falls_by": 0}, {"promote_after": 0}, {"quantum": 0}, {"resumed": "dies"}):
        with pytest.raises(ValueError, match=r"is above|is 'joins'"):
            SkipJoinMLFQ(**wrong)


A, B = Session("a", 0.0, 50, (Call(5),)), Session("b", 0.5, 10, (Call(1),))
"""One runs at a time: a's prefill ends at 1.5, when b has come; a's other four tokens take 4.04 s, b's one 1.1 s."""


def test_a_short_prompt_passes_a_long_answer(replay):
    """q = 1, 2, 4: both join queue 2. a has run 1.5 s of its 2; with its next token, at 2.51, it falls: b, then a."""
    order = SkipJoinMLFQ(quantum=1, falls_by=1, promote_after=math.inf)
    world = replay([A, B], PreserveAlways(), order=order, max_running=1)
    assert world.finished == pytest.approx({"b": 2.51 + 1.1, "a": 3.61 + 3 * 1.01}, rel=1e-9)


def test_a_promotion_stops_who_runs(replay):
    """With alpha = 1 s b has waited 1 s at 1.5, where the iteration ends, and joins queue 1."""
    order = SkipJoinMLFQ(quantum=1, falls_by=1, promote_after=1.0)
    world = replay([A, B], PreserveAlways(), order=order, max_running=1)
    assert world.finished["b"] == pytest.approx(1.5 + 1.1, rel=1e-9)


def test_a_promotion_that_is_due_when_there_is_room_for_all_counts_for_the_sessions_that_come_later(replay):
    """alpha = 2 s: b is due at 2.5, and when a has ended, at 1.9 + 1.01, it joins queue 1. It falls by two after its
    prefill of 4 s, to queue 3: before d, which joined queue 4 at 5.0. From queue 3 it would have fallen behind d."""
    a, b, d = Session("a", 0.0, 90, (Call(2),)), Session("b", 0.5, 300, (Call(2),)), Session("d", 5.0, 301, (Call(1),))
    order = SkipJoinMLFQ(quantum=1, promote_after=2.0)
    world = replay([a, b, d], PreserveAlways(), order=order, max_running=1, chunked_prefill=False)
    assert world.finished == pytest.approx({"a": 2.91, "b": 6.91 + 1.01, "d": 7.92 + 4.01}, rel=1e-9)


def test_orders_forget_sessions_that_have_left(replay):
    for order in (SkipJoinMLFQ(quantum=1), FixedPriority()):
        replay([A, B], PreserveAlways(), order=order, max_running=1)
        assert not vars(order).get("_places") and not vars(order).get("_given")


def test_who_left_and_came_back_is_promoted_like_a_new_one():
    """It would have been promoted at 0.3 s, but left; back since 0.2 s it is due at 0.5 s."""
    order, before, back = SkipJoinMLFQ(quantum=1), Ready("a"), Ready("a", waits_since=0.2)
    order.key(before, at(0.0))
    before.ready = False
    order.on_finish(before, at(0.1))
    order.key(back, at(0.2))
    assert order.review_at(at(0.2)) == 0.5


def test_the_oracle_serves_the_shortest_remaining_first(replay):
    """At 1.5 a needs 4 tokens more, its key is 1.01 + 3 * 1.01 = 4.04 s; b needs 1.1 s. Results say oracle."""
    world = replay([A, B], PreserveAlways(), order=ShortestRemaining(), max_running=1)
    assert world.finished == pytest.approx({"b": 2.6, "a": 2.6 + 4 * 1.01}, rel=1e-9)
    assert world.record.facts["uses_oracle"]


def test_a_fixed_priority_is_that_of_the_first_prefill(replay):
    """b (10 tokens) before a (50), though b's second call has 70 more to compute: b stops a twice."""
    b = Session("b", 0.5, 10, (Call(1, Pause(0.5, returned=70)), Call(1)))
    world = replay([A, b], PreserveAlways(), order=FixedPriority(), max_running=1)
    assert world.finished["b"] == pytest.approx(2.6 + 1.01 + 1.71, rel=1e-9)
    assert world.of("preemptions")["a"] == 2
