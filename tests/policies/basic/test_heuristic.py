"""Thresholds on the expected duration: InferCept's H-S, H-D and H-B."""

from __future__ import annotations

import math

import pytest

from policies.basic.heuristic import Heuristic
from policies.contract import Discard, Preserve, Swap
from policies.learning.estimators import Elapsed, ToolMean
from traces.session import Call, Pause, Session

H_S = {"swap_above": 4.0}
H_D = {"discard_above": 7.0}
H_B = {"swap_above": 4.0, "discard_above": 7.0}


@pytest.mark.parametrize(
    ("thresholds", "expected", "verdict"),
    [
        (H_S, 3.99, Preserve),
        (H_S, 4.0, Swap),
        (H_S, 60.0, Swap),
        (H_D, 6.99, Preserve),
        (H_D, 7.0, Discard),
        (H_B, 3.99, Preserve),
        (H_B, 4.0, Swap),
        (H_B, 6.99, Swap),
        (H_B, 7.0, Discard),
        ({}, 1e6, Preserve),
    ],
)
def test_a_threshold_belongs_to_the_longer_pause(paused, view, known, thresholds, expected, verdict):
    policy = Heuristic(known(a=expected), **thresholds)
    assert policy.on_pause(paused(), view()) == verdict(reasons={"expected_s": expected})


def test_it_decides_once(paused, view, known):
    policy = Heuristic(known(a=5.0), **H_B)
    here = view(paused=[paused()], now=1000.0)
    assert list(policy.revise(here)) == []
    assert list(policy.evict(5, here)) == []


def test_with_elapsed_time_it_preserves_everything(paused, view):
    """At the pause nothing has elapsed, so nothing is expected: an estimator that needs time is no use to it."""
    policy = Heuristic(Elapsed(), **H_B)
    assert policy.on_pause(paused(paused_at=3.0), view(now=3.0)) == Preserve(reasons={"expected_s": 0.0})


@pytest.mark.parametrize("threshold", [-1.0, math.nan])
@pytest.mark.parametrize("name", ["swap_above", "discard_above"])
def test_thresholds_are_seconds(known, name, threshold):
    with pytest.raises(ValueError, match="are seconds, >= 0"):
        Heuristic(known(), **{name: threshold})


@pytest.mark.parametrize(
    ("expected", "a", "b"),
    [(0.0, 13.1, 4.02), (5.0, 13.3, 4.22), (8.0, 13.5, 4.02)],
    ids=["preserves", "swaps", "discards"],
)
def test_each_side_of_the_thresholds_fares_like_the_fixed_answer(replay, expected, a, b):
    """The world of test_fixed: A leaves at 13.1 preserved, 13.3 swapped (and B is late by 0.2 s), 13.5 discarded."""
    sessions = [
        Session("a", 0.0, 40, (Call(1, Pause(10.0, returned=9)), Call(1))),
        Session("b", 0.0, 60, (Call(3),)),
    ]
    policy = Heuristic(ToolMean(default=expected), **H_B)
    world = replay(sessions, policy, swap="blocking", swap_budget="unlimited")
    assert world.finished == pytest.approx({"a": a, "b": b}, rel=1e-9)


def test_it_learns_the_tool_from_one_pause_to_the_next(replay):
    """Pauses of 8 s, nothing known at first: preserve the first, then expect 8 s >= 7 s and discard.

    19 tokens 1.19; back at 9.19, 1 + 9 = 10 tokens: 10.29; discarded (29), back at 18.29, 29 + 1 + 9 = 39: 19.68;
    discarded (39), back at 27.68, 39 + 1 + 9 = 49: 29.17. Recomputed: 29 + 39 = 68.
    """
    pause = Pause(8.0, returned=9)
    session = Session("a", 0.0, 19, (Call(1, pause), Call(1, pause), Call(1, pause), Call(1)))
    world = replay([session], Heuristic(ToolMean(), discard_above=7.0))
    assert world.calls("a", "resident_tokens") == [0, 19, 0, 0]
    assert world.calls("a", "finished_at") == pytest.approx([1.19, 10.29, 19.68, 29.17], rel=1e-9)
    assert world.of("recomputed_tokens") == {"a": 68}
    verdicts = [decision["verdict"] for decision in world.record.decisions]
    assert verdicts == ["preserve", "discard", "discard"]
