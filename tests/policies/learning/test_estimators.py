"""Estimators of how long a pause still lasts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.basic.fixed import PreserveAlways
from policies.contract import EVERY_ITERATION, NEVER
from policies.estimation import DurationEstimator
from policies.learning.estimators import Elapsed, Oracle, ToolMean
from tests.policies.conftest import FakePaused
from traces.session import Call, Pause, Session


def test_elapsed_expects_as_long_again(paused):
    """Paused at 90, now 97.5: 7.5 s have passed, so 7.5 s more are expected; at the pause itself none."""
    assert Elapsed().remaining(paused(paused_at=90.0), 97.5) == 7.5
    assert Elapsed().remaining(paused(paused_at=90.0), 90.0) == 0.0


def test_tool_mean_expects_the_default_before_any_pause_has_ended(paused):
    """Default 3 s: 2 s are left after 1 s, none after 4."""
    estimator = ToolMean(default=3.0)
    assert estimator.remaining(paused(paused_at=10.0), 11.0) == 2.0
    assert estimator.remaining(paused(paused_at=10.0), 14.0) == 0.0
    assert ToolMean().remaining(paused(paused_at=10.0), 10.0) == 0.0


def test_tool_mean_takes_the_mean_of_the_tool_less_what_has_elapsed(paused):
    """Wiki pauses of 1 and 3 s: mean 2 s; 1.5 s are left after 0.5 s. A calculator's pause does not change that."""
    estimator = ToolMean(default=100.0)
    estimator.pause_ended(paused(tool="wiki"), 1.0)
    estimator.pause_ended(paused(tool="wiki"), 3.0)
    estimator.pause_ended(paused(tool="calculator"), 8.0)
    assert estimator.remaining(paused(tool="wiki", paused_at=10.0), 10.5) == 1.5
    assert estimator.remaining(paused(tool="wiki", paused_at=10.0), 13.0) == 0.0
    assert estimator.remaining(paused(tool="calculator", paused_at=10.0), 10.0) == 8.0


def test_tool_mean_takes_the_mean_of_all_pauses_for_an_unknown_tool(paused):
    """Pauses of 1, 3 and 8 s: mean 4 s; 3 s are left after 1 s."""
    estimator = ToolMean(default=100.0)
    for tool, seconds in (("wiki", 1.0), ("wiki", 3.0), ("calculator", 8.0)):
        estimator.pause_ended(paused(tool=tool), seconds)
    assert estimator.remaining(paused(tool="browser", paused_at=10.0), 11.0) == 3.0


def test_tool_mean_tells_pauses_apart_by_who_is_waited_for(paused):
    """The same name asked of a tool (1 s) and of a user (9 s) are two things."""
    estimator = ToolMean()
    estimator.pause_ended(paused(tool="review", waits_for="tool"), 1.0)
    estimator.pause_ended(paused(tool="review", waits_for="user"), 9.0)
    assert estimator.remaining(paused(tool="review", waits_for="user"), 0.0) == 9.0


def test_tool_mean_does_not_learn_from_being_asked(paused):
    estimator = ToolMean(default=2.0)
    estimator.remaining(paused(tool="wiki"), 50.0)
    assert estimator.remaining(paused(tool="wiki", paused_at=50.0), 50.0) == 2.0


def test_tool_mean_refuses_a_negative_default():
    with pytest.raises(ValueError, match="default is in seconds"):
        ToolMean(default=-1.0)


def test_oracle_knows_the_end(paused):
    """The pause really ends at 104: 3 s are left at 101, none at 105."""
    oracle = Oracle()
    oracle.truth = lambda _: 104.0
    assert oracle.remaining(paused(), 101.0) == 3.0
    assert oracle.remaining(paused(), 105.0) == 0.0


def test_oracle_without_the_truth_says_so(paused):
    with pytest.raises(AssertionError, match="hands an oracle the truth"):
        Oracle().remaining(paused(), 0.0)


class Watching(PreserveAlways):
    """Preserves, and notes at every pause what its estimator expects."""

    def __init__(self, estimator):
        self.estimator = estimator
        self.expected = []

    def on_pause(self, paused, view):
        self.expected.append(self.estimator.remaining(paused, view.now))
        return super().on_pause(paused, view)


def test_only_an_oracle_sees_the_truth_and_the_run_says_so(replay):
    """Pauses of 8 s then 2 s of one tool. Elapsed expects 0 and 0; the mean 5 (its default), then the 8 it has seen;
    the oracle 8 and 2. The engine hands the truth to the oracle only, and the record notes it."""
    session = Session("a", 0.0, 20, (Call(1, Pause(8.0)), Call(1, Pause(2.0)), Call(1)))
    seen = {}
    for estimator in (Elapsed(), ToolMean(default=5.0), Oracle()):
        policy = Watching(estimator)
        record = replay([session], policy).record
        seen[type(estimator).__name__] = policy.expected
        assert record.facts["uses_oracle"] is isinstance(estimator, Oracle)
        assert (estimator.truth is not None) is isinstance(estimator, Oracle)
    assert seen == {
        "Elapsed": [0, 0],
        "ToolMean": [5, pytest.approx(8)],
        "Oracle": [pytest.approx(8), pytest.approx(2)],
    }


def test_a_pause_is_learnt_from_as_it_was_even_when_its_end_is_noticed_late(replay):
    """A's pause of 1.5 s ends in the middle of B's iterations of 1.01 s, but it lasted 1.5 s."""
    policy = Watching(ToolMean(default=math.pi))
    a = Session("a", 0.0, 20, (Call(1, Pause(1.5)), Call(1, Pause(3.0)), Call(1)))
    b = Session("b", 0.0, 20, (Call(20),))
    replay([a, b], policy)
    assert policy.expected == [math.pi, pytest.approx(1.5)]


# ---- when the estimate could exceed a bound


def test_elapsed_exceeds_a_bound_when_the_pause_has_lasted_it(paused):
    """Paused at 90: above 7.5 s only after 97.5; the answer may be early by rounding and never late."""
    at = Elapsed().exceeds_at(paused(paused_at=90.0), 7.5, now=91.0)
    assert 97.5 - 1e-9 < at <= 97.5


@pytest.mark.parametrize(("seconds", "at"), [(2.0, NEVER), (1.9, EVERY_ITERATION)])
def test_an_estimate_that_only_shrinks_exceeds_a_bound_now_or_never(paused, seconds, at):
    """Default 3 s, 1 s has passed: 2 s are left, and ever fewer."""
    assert ToolMean(default=3.0).exceeds_at(paused(paused_at=10.0), seconds, now=11.0) == at


@given(st.lists(st.tuples(st.floats(0, 90), st.floats(0, 50)), max_size=8), st.floats(90, 200))
def test_many_pauses_at_once_are_judged_as_each_by_itself(begun: list[tuple[float, float]], now: float) -> None:
    for estimator in (Elapsed(), ToolMean(default=30.0)):
        contexts, bounds = [FakePaused(paused_at=at) for at, _ in begun], [seconds for _, seconds in begun]
        assert list(estimator.remaining_of(contexts, now)) == [estimator.remaining(one, now) for one in contexts]
        each = [estimator.exceeds_at(one, most, now) for one, most in zip(contexts, bounds, strict=True)]
        assert estimator.one_exceeds_at(contexts, bounds, now) == min(each, default=NEVER)


def test_an_estimator_that_says_nothing_is_asked_every_iteration(paused):
    assert DurationEstimator().exceeds_at(paused(), 1.0, now=0.0) == EVERY_ITERATION
