"""What an estimator says for speed: bounds that hold for a while, and several answers at once."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.contract import EVERY_ITERATION, NEVER
from policies.estimation import DurationEstimator
from policies.learning.estimators import Elapsed, Empirical, Ewma, NoisyOracle, Oracle, ToolMean, ToolQuantile
from tests.policies.conftest import FakePaused, learnt

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


# ---- what an estimate does not exceed for a while

ENDS = st.tuples(st.sampled_from("xy"), st.sampled_from([0.0, 1e-4, 3.0]) | st.floats(0, 60))
MAKE = st.sampled_from(
    [
        lambda: Empirical(enough=1, window=3),
        lambda: Empirical(enough=2, window=100),
        lambda: Empirical(),
        lambda: ToolQuantile(share=0.5, window=5),
        Ewma,
        ToolMean,
        Elapsed,
        Oracle,
        lambda: NoisyOracle(0.5),
    ]
)


@given(
    MAKE, st.lists(ENDS, max_size=150), st.lists(st.tuples(ENDS, st.floats(0, 20)), max_size=40), st.floats(0.01, 30)
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_an_estimate_exceeds_no_bound_that_nothing_has_unsettled(make, before, after, ahead):
    """Four pauses are under way and others end. A bound holds for so long ahead, or until it is unsettled."""
    estimator, now = make(), 100.0
    estimator.truth = lambda paused: paused.paused_at + 40.0
    under_way = [FakePaused(id=f"{tool}{at}", tool=tool, paused_at=at) for tool in "xy" for at in (100.0, 70.0)]
    bounds = {}

    def end(tool, seconds):
        ended = FakePaused(id="ended", tool=tool, paused_at=now - seconds)
        estimator.pause_ended(ended, seconds)
        if estimator.unsettled(ended):
            for one in under_way:
                if one.tool == tool:
                    bounds.pop(one.id, None)

    for tool, seconds in before:
        end(tool, seconds)
    for (tool, seconds), passed in after:
        for one in under_way:
            if one.id not in bounds or now > bounds[one.id][1]:
                bounds[one.id] = estimator.at_most(one, now, now + ahead), now + ahead
        now += passed
        end(tool, seconds)
        for one in under_way:
            most, until = bounds.get(one.id, (math.inf, now))
            assert now > until or estimator.remaining(one, now) <= most * (1 + 1e-12)


def test_a_bound_outlives_a_few_pauses_more(paused):
    """A hundred pauses of 1 s and a hundred of 9 s. After 2 s the mean of the longer ones is 9 s: 7 s are left, and
    a fifth of a second more if 2 % of all seconds came on top, 20 s over 100 pauses. Two of 9 s are within these 20 s,
    a third is not."""
    estimator = learnt(Empirical(), paused, wiki=[1.0, 9.0] * 100)
    assert estimator.unsettled(paused(tool="wiki"))
    at = paused(id="at", tool="wiki", paused_at=10.0)
    assert estimator.at_most(at, 12.0, 12.0) == pytest.approx(7.0 + 20.0 / 100)
    for unsettled in (False, False, True):
        estimator.pause_ended(paused(tool="wiki"), 9.0)
        assert estimator.unsettled(paused(tool="wiki")) is unsettled


def test_nobody_knows_what_a_new_tool_may_be_expected_to_do(paused):
    for estimator in (Empirical(), ToolQuantile(), Ewma(), ToolMean(), DurationEstimator()):
        assert learnt(estimator, paused, wiki=[2.0] * 9).at_most(paused(tool="new"), 0.0, 1.0) == math.inf


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ToolQuantile(share=0.0), "share is a quantile"),
        (lambda: ToolQuantile(default=-1.0), "default is in seconds"),
        (lambda: ToolQuantile(window=0), "window is at least 1"),
        (lambda: Ewma(weight=1.5), "weight is above 0"),
        (lambda: Empirical(enough=0), "enough is at least 1"),
        (lambda: NoisyOracle(noise=-0.1), "noise is a share"),
    ],
)
def test_impossible_parameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
