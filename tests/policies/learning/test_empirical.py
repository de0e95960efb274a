"""The empirical distribution of the last durations of one thing, and of each tool."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.learning.empirical import EmpiricalDistribution, PerTool


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60), st.integers(1, 20), st.floats(0, 100))
def test_samples_say_what_a_list_of_the_last_ones_says(drawn, window, at):
    samples = EmpiricalDistribution(window)
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
    asked, seen = EmpiricalDistribution(window), [seconds for seconds in drawn if seconds is not None]
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
