"""MORI: idleness, and which contexts leave at a tick."""

from __future__ import annotations

import pytest

from policies.contract import Swap
from policies.papers.mori import Mori
from traces.session import Call, Pause, Session


def test_idleness_is_the_share_of_time_away_over_the_last_cycles(paused, view):
    """Cycles of 2 s busy and 6 s away, then 1 s busy and 1 s away so far: 7 / 10. With k = 1 only the latter: 1 / 2."""
    now = paused(id="a", ready_at=18.0, paused_at=19.0)
    for cycles, idleness in ((5, 0.7), (1, 0.5)):
        policy = Mori(cycles=cycles)
        policy.on_resume(paused(id="a", ready_at=10.0, paused_at=12.0), 6.0, view())
        assert policy.idleness(now, 20.0) == pytest.approx(idleness)


def test_cycles_at_other_replicas_count_as_their_mean(paused, view):
    """Three cycles by 20 s, 9 s of them away: 3 and 3.67 busy each. Then 10 s of work and 5 away: of the last two
    cycles 8 / 21.67, of all four 14 / 35. A session that leaves is forgotten: 5 / 15."""
    joined = paused(id="a", ready_at=20.0, paused_s=9.0, calls_done=3)
    now = paused(id="a", ready_at=20.0, paused_at=30.0)
    for cycles, idleness in ((2, 8 / (8 + 11 / 3 + 10)), (5, 14 / 35)):
        policy = Mori(cycles=cycles)
        policy.on_join(joined, view())
        assert policy.idleness(now, 35.0) == pytest.approx(idleness)
        policy.on_leave(now, view())
        assert policy.idleness(now, 35.0) == pytest.approx(5 / 15)


def test_a_session_that_is_back_is_not_idle(paused):
    assert Mori().idleness(paused(paused_at=1.0, resumed=True), 100.0) == 0.0


def contexts(paused):
    """30 blocks each. At 5 s: a was busy 0.5 and away 4.5 s, b 1.5 and 3.5, c 4.5 and 0.5: idle 0.9, 0.7 and 0.1."""
    return [paused(id=name, resident_tokens=300, paused_at=at) for name, at in (("a", 0.5), ("b", 1.5), ("c", 4.5))]


def test_at_a_tick_the_idlest_leave_until_the_headroom_is_free(paused, view):
    """A tenth of 1000 blocks; 60 are free, 40 lack: a brings 30, b the rest. c stays, and so do all until 10 s."""
    policy = Mori()
    here = view(now=5.0, paused=contexts(paused), free_gpu_blocks=60)
    assert [(one.id, type(verdict)) for one, verdict in policy.revise(here)] == [("a", Swap), ("b", Swap)]
    here.now = 9.9
    assert list(policy.revise(here)) == []
    assert policy.review_at(here) == 10.0


def test_with_enough_memory_free_nobody_moves(paused, view):
    assert list(Mori().revise(view(now=5.0, paused=contexts(paused), free_gpu_blocks=100))) == []


def test_the_idlest_makes_room_first(paused, view):
    gone = Mori().evict(10, view(now=5.0, paused=contexts(paused)))
    assert [one.id for one, _ in gone] == ["a", "b", "c"]


def test_a_context_that_left_comes_back_when_its_session_does(replay):
    """50 blocks of 10. A (300 tokens: 3 iterations of 2 s) pauses at 6.00 for 6 s with 30 blocks: 20 are free, which is
    what is wanted. B (100 tokens) comes at 6.5, so 10 are free at the tick of 10.0; the iteration under way ends at
    8.50 + 2 * 1.01 = 10.52, and A leaves. It is back at 12.0, comes in and runs to its end without computing a context
    again.
    """
    a = Session("a", 0.0, 300, (Call(1, Pause(6.0)), Call(1)))
    b = Session("b", 6.5, 100, (Call(6),))
    world = replay([a, b], Mori(headroom=0.4), gpu_tokens=500)
    assert world.changes() == [(10.52, "a", "swap", 0)]
    assert world.of("recomputed_tokens") == {"a": 0, "b": 0}


def test_impossible_parameters_are_refused():
    with pytest.raises(ValueError, match="cycles is at least 1"):
        Mori(cycles=0)
