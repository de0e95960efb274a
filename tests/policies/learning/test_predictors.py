"""Predictors of what a call will do: the means of its kind, and an oracle with and without errors."""

from __future__ import annotations

import pytest

from policies.estimation import NextCall
from policies.learning.predictors import CallOracle, KindMean
from policies.papers.lamps import Lamps
from traces.session import Call, Pause, Session


def test_a_call_is_expected_to_be_like_those_of_its_kind(queued):
    """Chat: 10 and 30 tokens, pauses of 4 s and none, answers of 2 tokens and none; math: 50 tokens."""
    predictor = KindMean(output=7.0)
    chat, math = queued(kind="chat"), queued(kind="math")
    assert predictor.predict(chat) == NextCall(7.0)
    predictor.call_ended(chat, NextCall(10, 4.0, 2))
    predictor.call_ended(chat, NextCall(30))
    predictor.call_ended(math, NextCall(50))
    assert predictor.predict(chat) == NextCall(20.0, 2.0, 1.0)
    assert predictor.predict(queued(kind="new")) == NextCall(30.0, 4 / 3, 2 / 3)


def test_an_oracle_is_misjudged_the_same_way_however_often_it_is_asked(queued):
    call = NextCall(100, 10.0, 40)
    exact, noisy, other = CallOracle(), CallOracle(0.3), CallOracle(0.3, seed=1)
    for oracle in (exact, noisy, other):
        oracle.truth = lambda _: call
    assert exact.predict(queued()) == call
    assert noisy.predict(queued()) == noisy.predict(queued()) != call
    assert other.predict(queued()) != noisy.predict(queued()) != noisy.predict(queued(calls_done=1))


def learning(replay, policy):
    """A: 2 tokens, a pause of 1.5 s, an answer of 5 tokens; then 3 tokens."""
    replay([Session("a", 0.0, 20, (Call(2, Pause(1.5, returned=5)), Call(3)), "chat")], policy)
    return policy.predictor


def test_calls_are_learnt_when_their_pause_is_over_and_at_the_end(replay, queued):
    """(2, 1.5, 5) and (3, 0, 0): means of 2.5 tokens, 0.75 s and 2.5 tokens."""
    predictor = learning(replay, Lamps(KindMean()))
    call = predictor.predict(queued(kind="chat"))
    assert (call.output, call.pause, call.returned) == (2.5, pytest.approx(0.75), 2.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KindMean(output=0.0), "output is in tokens"),
        (lambda: CallOracle(noise=-1.0), "noise is a share"),
    ],
)
def test_impossible_parameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
