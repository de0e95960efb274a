"""LAMPS: handling predicted before the call, and the rank by memory over time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.basic.fixed import PreserveAlways
from policies.contract import Discard, Preserve, Swap
from policies.estimation import NextCall
from policies.learning.predictors import CallOracle, KindMean
from policies.papers.lamps import Handling, Lamps, SmallestMemory, SmallestRemainingMemory, memory_over_time
from tests.policies.conftest import FakeQueued, FakeView, LinearCosts
from traces.session import Call, Pause, Session


class Told(KindMean):
    """Predicts what a test writes down, by session."""

    def __init__(self, **calls: NextCall) -> None:
        super().__init__()
        self.calls = calls

    def predict(self, queued):
        return self.calls[queued.id]


@pytest.mark.parametrize(
    ("context", "pause", "handling"),
    [(900, 0.2, Handling.PRESERVE), (900, 0.3, Handling.DISCARD), (0, 1.0, Handling.SWAP), (0, 0.3, Handling.PRESERVE)],
)
def test_the_smallest_predicted_waste_wins(queued, view, context, pause, handling):
    """100 tokens are predicted, C_other = 4000.

    C = 1000: preserve 0.2 * 1000 = 200 or 300; swap 2 * 0.04 * 5000 = 400; discard 0.0563 * 5000 = 281.5
    C =  100: preserve 100 or 30; swap 2 * 0.004 * 4100 = 32.8; discard 0.01463 * 4100 = 59.98
    """
    policy = Lamps(Told(a=NextCall(100.0, pause)))
    assert policy.decide(queued(context_tokens=context), view())[1] is handling


def test_it_keeps_to_what_it_decided_before_the_call(queued, paused, view):
    predictor = Told(a=NextCall(100.0, 0.3))
    policy = Lamps(predictor)
    policy.decide(queued(context_tokens=900), view())
    predictor.calls["a"] = NextCall(100.0, 0.0)
    verdict = policy.on_pause(paused(), view())
    assert isinstance(verdict, Discard)
    assert verdict.reasons == pytest.approx({"preserve": 300.0, "swap": 400.0, "discard": 281.5})


def test_beside_another_order_the_decision_falls_when_the_call_begins(queued, paused, view):
    policy = Lamps(Told(a=NextCall(100.0, 0.2)))
    policy.on_start(queued(context_tokens=900), view())
    assert isinstance(policy.on_pause(paused(), view()), Preserve)


@pytest.mark.parametrize(
    ("handling", "pause"), [(Handling.PRESERVE, 1020.0), (Handling.SWAP, 20.808), (Handling.DISCARD, 32.3625)]
)
def test_the_area_under_memory_over_time(queued, view, handling, pause):
    """500 tokens to compute in 2 chunks of 250, T_fwd(250) = 0.021575 s: 0.021575 * 250 * 3 = 16.18125. 10 tokens,
    each in an iteration of 135, T_fwd(135) = 0.0162505: 0.0162505 * (500 * 10 + 55) = 82.1462775. C = 510. The pause:

    preserve 2 * 510 = 1020;  swap 2 * 0.0204 * 510 = 20.808;  discard, 3 chunks: 0.021575 * 250 * 6 = 32.3625
    """
    area = memory_over_time(queued(context_tokens=500), NextCall(10.0, 2.0), handling, view())
    assert area == pytest.approx(16.18125 + 82.1462775 + pause, rel=1e-9)


def test_what_is_on_the_gpu_already_is_held_while_the_rest_is_computed(queued, view):
    """250 of 500 tokens are missing: one chunk, 0.021575 * 250 for them and as much again for those that are there."""
    one = queued(context_tokens=500, resident_tokens=250)
    area = memory_over_time(one, NextCall(10.0, 2.0), Handling.PRESERVE, view())
    assert area == pytest.approx(2 * 0.021575 * 250 + 82.1462775 + 1020.0, rel=1e-9)


def test_the_smallest_area_goes_first_and_who_has_waited_too_long_before_all(queued, view):
    policy, order = Lamps(Told(a=NextCall(10.0, 60.0), b=NextCall(10.0, 0.0))), SmallestMemory(starving_after=3.0)
    order.policy = policy
    a, b = queued(id="a", waits_since=1.0), queued(id="b", waits_since=2.0)
    assert order.key(b, view()) < order.key(a, view())
    assert order.review_at(view(waiting=[a, b])) == 4.0
    assert list(order.rerank(view(now=4.0, waiting=[a, b]))) == [(a, (0.0, 1.0))]
    assert order.key(b, view()) > (0.0, 1.0)
    assert list(order.rerank(view(now=4.5, waiting=[a, b]))) == []


def test_the_order_goes_with_the_policy(queued, view):
    order = SmallestMemory()
    order.policy = PreserveAlways()
    with pytest.raises(ValueError, match="goes with the policy 'lamps'"):
        order.key(queued(), view())


X = Session("x", 0.0, 50, (Call(1),))
LONG = Session("long", 0.1, 50, (Call(1, Pause(60.0)), Call(1)))
SHORT = Session("short", 0.2, 50, (Call(1),))


@pytest.mark.parametrize(("starving", "long"), [(100.0, 4.5), (1.3, 3.0)])
def test_a_short_request_overtakes_one_with_a_long_pause_until_it_starves(replay, starving, long):
    """One at a time, 1.5 s each. X runs 0 to 1.5. Then SHORT is ranked before LONG, whose pause of 60 s holds memory:
    SHORT to 3.0, LONG to 4.5. Starving after 1.3 s LONG, waiting since 0.1, is first at 1.5: to 3.0.
    """
    order = SmallestMemory(starving_after=starving)
    world = replay([X, LONG, SHORT], Lamps(CallOracle()), order=order, max_running=1)
    assert world.calls("long", "finished_at")[0] == pytest.approx(long)


A, B = Session("a", 0.0, 50, (Call(5),)), Session("b", 0.5, 10, (Call(1),))


@pytest.mark.parametrize(
    ("order", "finished"),
    [(SmallestMemory, {"a": 5.54, "b": 6.64}), (SmallestRemainingMemory, {"a": 6.64, "b": 2.6})],
)
def test_only_the_preempting_order_stops_a_call_whose_remaining_area_is_larger(replay, order, finished):
    """One at a time. At 1.5 a has 51 tokens, 4 of 5 to come: 1.02 * (51 * 4 + 10) = 218.28. b's prefill and its token:
    1.99 * 99 + 1.02 * (10 + 1) = 208.23. So b has a stop, from 1.5 to 2.6, and a's last four tokens take until 6.64.
    """
    world = replay([A, B], Lamps(CallOracle()), order=order(starving_after=100.0), max_running=1)
    assert world.finished == pytest.approx(finished, rel=1e-9)


def test_a_call_that_was_stopped_starves_like_one_that_never_ran(replay):
    """A prompt of 5 and two tokens: 1.99 * 99 + 1.02 * (5 * 2 + 3) = 210.27 < 218.28, so b has a stop at 1.5.

    a has waited 1 s at 2.5 and goes first from 2.55 on, when b has its first token; b's second comes after a's four.
    """
    b = Session("b", 1.0, 5, (Call(2),))
    order = SmallestRemainingMemory(starving_after=1.0)
    world = replay([A, b], Lamps(CallOracle()), order=order, max_running=1)
    assert world.finished == pytest.approx({"a": 6.59, "b": 7.60}, rel=1e-9)


def test_the_handling_is_what_happens(replay):
    """Predicted rightly, alone: preserve 60 * 51 = 3060; swap 2 * 51 / 200 * 51 = 26.01; discard 1.51 * 51 = 77.01."""
    world = replay([LONG], Lamps(CallOracle()), order=SmallestMemory(), swap_budget="unlimited")
    decided = [one for one in world.record.decisions if one["asked"] == "pause"]
    assert [one["verdict"] for one in decided] == ["swap"]
    assert decided[0]["because"] == pytest.approx({"preserve": 3060.0, "swap": 26.01, "discard": 77.01})
    assert world.record.facts["uses_oracle"]


def test_impossible_parameters_are_refused():
    with pytest.raises(ValueError, match="starving_after is in seconds"):
        SmallestMemory(starving_after=0.0)


def test_a_swap_that_is_decided_carries_its_reasons(queued, paused, view):
    policy = Lamps(Told(a=NextCall(100.0, 1.0)))
    policy.decide(queued(context_tokens=0), view())
    assert isinstance(policy.on_pause(paused(), view()), Swap)


@given(
    st.integers(0, 3000), st.integers(1, 3000), st.floats(0.01, 500), st.floats(0, 100), st.floats(0, 200),
    st.sampled_from(Handling), st.integers(0, 600),
)  # fmt: skip
def test_what_areas_have_in_common_is_computed_once_without_changing_a_bit(
    resident, missing, output, pause, returned, handling, running
):
    """The formula of ``memory_over_time``, term by term."""
    costs, chunk, context = LinearCosts(), max(384 - running, 1), resident + missing
    build, at_pause = costs.forward_time(chunk) * chunk, round(context + output)
    area = build * triangle(missing / chunk)
    area += costs.forward_time(chunk) * math.ceil(missing / chunk) * (context - missing)
    area += costs.forward_time(running + 1) * (context * output + output * (output + 1) / 2)
    held = {
        Handling.PRESERVE: pause * at_pause,
        Handling.SWAP: 2.0 * costs.swap_time(at_pause) * at_pause,
        Handling.DISCARD: build * triangle((at_pause + returned) / chunk),
    }
    one = FakeQueued(context_tokens=context, resident_tokens=resident)
    call = NextCall(output, pause, returned)
    assert memory_over_time(one, call, handling, FakeView(running_query_tokens=running)) == area + held[handling]


def triangle(chunks: float) -> float:
    whole = math.ceil(chunks)
    return whole * (whole + 1) / 2
