"""Estimators of how long a pause still lasts: a tool's mean, quantile, moving average, distribution; the truth."""

from __future__ import annotations

import math

import pytest

from policies.basic.fixed import PreserveAlways
from policies.learning.estimators import Elapsed, Empirical, Ewma, NoisyOracle, Oracle, ToolMean, ToolQuantile
from tests.policies.conftest import learnt
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
    """One name, of a tool (1 s) and of a user (9 s): two things."""
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


# ---- a quantile, a moving average, the distribution


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
