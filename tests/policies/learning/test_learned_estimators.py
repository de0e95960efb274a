"""Estimators that learn a quantile, a moving average or the whole distribution of a tool's pauses."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.estimation import DurationEstimator
from policies.learning.empirical import PerTool, Samples
from policies.learning.estimators import Elapsed, NoisyOracle, Oracle, ToolMean
from policies.learning.learned_estimators import Empirical, Ewma, ToolQuantile
from tests.policies.conftest import FakePaused


def learnt(estimator, paused, **pauses):
    for tool, seconds in pauses.items():
        for duration in seconds:
            estimator.pause_ended(paused(tool=tool), duration)
    return estimator


def test_a_quantile_of_the_tools_pauses_less_what_has_elapsed(paused):
    """Wiki pauses of 1 to 10 s: nine in ten are at most 9 s, half at most 5 s; 2 s have passed."""
    wiki = paused(tool="wiki", paused_at=10.0)
    pauses = [4.0, 1.0, 10.0, 7.0, 2.0, 9.0, 3.0, 8.0, 5.0, 6.0]
    assert learnt(ToolQuantile(), paused, wiki=pauses).remaining(wiki, 12.0) == 7.0
    assert learnt(ToolQuantile(share=0.5), paused, wiki=pauses).remaining(wiki, 12.0) == 3.0
    assert learnt(ToolQuantile(share=1.0), paused, wiki=pauses).remaining(wiki, 25.0) == 0.0


def test_a_quantile_of_all_tools_for_a_new_one_and_the_default_before_any_pause_has_ended(paused):
    new = paused(tool="browser")
    assert ToolQuantile(default=3.0).remaining(new, 1.0) == 2.0
    assert learnt(ToolQuantile(default=3.0), paused, wiki=[8.0]).remaining(new, 1.0) == 7.0


def test_a_moving_average_leans_towards_the_newest_pause(paused):
    """Weight 1/4: 8 s, then 8 + (4 - 8) / 4 = 7, then 7 + (3 - 7) / 4 = 6; 1 s has passed."""
    estimator = learnt(Ewma(weight=0.25), paused, wiki=[8.0, 4.0, 3.0])
    assert estimator.remaining(paused(tool="wiki"), 1.0) == 5.0
    assert estimator.remaining(paused(tool="wiki"), 9.0) == 0.0


def test_a_moving_average_over_all_tools_for_a_new_one(paused):
    """Weight 1/2: 8 s, then 2 s of another tool: 5 s."""
    estimator = learnt(Ewma(weight=0.5, default=100.0), paused, wiki=[8.0], calculator=[2.0])
    assert estimator.remaining(paused(tool="browser"), 1.0) == 4.0
    assert Ewma(default=100.0).remaining(paused(), 1.0) == 99.0


@pytest.mark.parametrize(("elapsed", "remaining"), [(0.0, 4.0), (2.0, 3.5), (5.0, 3.0), (9.0, 9.0)])
def test_residual_life_is_the_mean_of_the_longer_pauses_less_what_has_elapsed(paused, elapsed, remaining):
    """Pauses of 1, 3 and 8 s. At once (1 + 3 + 8) / 3 = 4; after 2 s (3 + 8) / 2 - 2 = 3.5; after 5 s 8 - 5 = 3.

    After 9 s it has outlasted them all: as long again.
    """
    estimator = learnt(Empirical(enough=3), paused, wiki=[3.0, 8.0, 1.0])
    assert estimator.remaining(paused(tool="wiki", paused_at=10.0), 10.0 + elapsed) == remaining


def test_residual_life_can_grow_while_a_pause_lasts(paused):
    """Nine pauses of 1 s and one of 100 s: 10.9 s at first; once 1 s has passed it is the long one, 99 s."""
    estimator = learnt(Empirical(), paused, people=[1.0] * 9 + [100.0])
    assert estimator.remaining(paused(tool="people"), 0.0) == pytest.approx(10.9)
    assert estimator.remaining(paused(tool="people"), 1.0) == 99.0


def test_a_distribution_is_trusted_from_enough_pauses_on(paused):
    """Two wiki pauses are too few of 3, so all three pauses count: (2 + 4 + 9) / 3 = 5. Before that, elapsed time."""
    estimator = learnt(Empirical(enough=3), paused, wiki=[2.0, 4.0])
    assert estimator.remaining(paused(tool="wiki"), 1.5) == 1.5
    assert learnt(estimator, paused, calculator=[9.0]).remaining(paused(tool="wiki"), 0.0) == 5.0


def test_a_pause_under_way_is_judged_by_what_is_learnt_meanwhile_and_the_next_one_by_its_own_tool(paused):
    """Expected 2 s, then (2 + 6) / 2 = 4 s. The same session's next pause is one of people: 30 s."""
    estimator = learnt(Empirical(enough=1), paused, wiki=[2.0], people=[30.0])
    assert estimator.remaining(paused(tool="wiki"), 0.0) == 2.0
    estimator.pause_ended(paused(id="other", tool="wiki"), 6.0)
    assert estimator.remaining(paused(tool="wiki"), 0.0) == 4.0
    assert estimator.remaining(paused(tool="people", paused_at=7.0), 7.0) == 30.0


def test_what_is_older_than_the_window_is_forgotten(paused):
    """Of 50, 2, 2 and 4 s the last three count: the mean is 8/3 s."""
    estimator = learnt(Empirical(enough=1, window=3), paused, wiki=[50.0, 2.0, 2.0, 4.0])
    assert estimator.remaining(paused(tool="wiki"), 0.0) == pytest.approx(8 / 3)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60), st.integers(1, 20), st.floats(0, 100))
def test_samples_say_what_a_list_of_the_last_ones_says(drawn, window, at):
    samples = Samples(window)
    for seconds in drawn:
        samples.add(seconds)
    last = sorted(drawn[-window:])
    beyond = [seconds for seconds in last if seconds > at]
    assert samples.ordered == last
    assert samples.share_within(at) == (len(last) - len(beyond)) / len(last)
    mean = samples.mean_beyond(at)
    assert mean is None if not beyond else mean == pytest.approx(sum(beyond) / len(beyond))
    assert samples.share_within(samples.quantile(0.5)) >= 0.5


@given(st.lists(st.floats(0, 100) | st.none(), min_size=1, max_size=60), st.integers(1, 20), st.floats(0, 100))
def test_a_mean_is_the_same_to_the_bit_whenever_it_was_asked_before(drawn, window, at):
    """None stands for a question: the sums that it leaves behind are gone on with."""
    asked, seen = Samples(window), [seconds for seconds in drawn if seconds is not None]
    for seconds in drawn:
        if seconds is None:
            asked.mean_beyond(at)
        else:
            asked.add(seconds)
    last = sorted(seen[-window:])
    sums, beyond = list(accumulate(last, initial=0.0)), [seconds for seconds in last if seconds > at]
    assert asked.mean_beyond(at) == ((sums[-1] - sums[len(last) - len(beyond)]) / len(beyond) if beyond else None)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 100) | st.none()), max_size=60), st.integers(1, 20))
def test_samples_of_all_tools_are_the_last_of_them_whenever_they_are_asked_for(drawn, window):
    """None stands for a question."""
    tools, seen = PerTool(window), [seconds for _, seconds in drawn if seconds is not None]
    for tool, seconds in drawn:
        if seconds is None:
            tools.of_all(enough=1)
        else:
            tools.add(tool, seconds)
    every = tools.of("new", enough=1)
    assert (every.ordered if every is not None else []) == sorted(seen[-window:])


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


# ---- the truth, misjudged


def believed(paused, noise, seed=0, **fields):
    estimator = NoisyOracle(noise, seed)
    estimator.truth = lambda _: 110.0
    return estimator.remaining(paused(paused_at=100.0, **fields), 100.0)


def test_without_noise_it_is_the_oracle(paused):
    """The pause lasts from 100 to 110: 4 s are left at 106."""
    noisy, oracle = NoisyOracle(0.0), Oracle()
    noisy.truth = oracle.truth = lambda _: 110.0
    at = paused(paused_at=100.0)
    assert noisy.remaining(at, 106.0) == oracle.remaining(at, 106.0) == 4.0


def test_a_pause_is_misjudged_once_and_the_same_way_whoever_asks(paused):
    """What is left falls second by second from the one belief; another seed, session or call is misjudged otherwise."""
    estimator = NoisyOracle(0.3, seed=1)
    estimator.truth = lambda _: 110.0
    at = paused(id="x", paused_at=100.0)
    first = estimator.remaining(at, 100.0)
    assert estimator.remaining(at, 101.0) == pytest.approx(first - 1.0)
    assert first == believed(paused, 0.3, seed=1, id="x")
    others = [believed(paused, 0.3, seed=2, id="x"), believed(paused, 0.3, seed=1, id="y")]
    others.append(believed(paused, 0.3, seed=1, id="x", calls_done=2))
    assert len({first, *others}) == 4


def test_errors_have_the_mean_and_the_spread_that_was_asked_for(paused):
    """10 s with p = 0.2: a mean of 10 s and a standard deviation of 2 s, over 2,000 pauses within 0.2 s."""
    beliefs = [believed(paused, 0.2, id=str(n)) for n in range(2000)]
    mean = sum(beliefs) / len(beliefs)
    spread = (sum((one - mean) ** 2 for one in beliefs) / len(beliefs)) ** 0.5
    assert mean == pytest.approx(10.0, abs=0.2)
    assert spread == pytest.approx(2.0, abs=0.2)


def test_nobody_is_believed_to_be_back_before_the_pause_began(paused):
    """With p = 5 nearly half of all errors exceed the duration: those pauses are taken to end at once."""
    beliefs = [believed(paused, 5.0, id=str(n)) for n in range(200)]
    assert min(beliefs) == 0.0
    assert 40 < beliefs.count(0.0) < 130
