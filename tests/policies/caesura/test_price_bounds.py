"""The cheapest context found by bounds is the cheapest when every context is priced."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace
from operator import itemgetter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from policies.basic.fcfs import FirstCome
from policies.caesura.loss_model import LossModel
from policies.caesura.policy import Caesura, HostEvictor
from policies.caesura.price_bounds import PriceBounds
from policies.contract import Change, EngineView, Swap
from policies.learning.estimators import Empirical
from policies.registry import make_order, make_policy
from tests.policies.conftest import FakePaused, FakeView, LinearCosts, Tiles
from tests.sim.random_orders import PREEMPTIVE
from tests.sim.random_worlds import ESTIMATORS, LEARNED, Plot, examples, plots


class PricesEverybody(Caesura):
    """The rule as it is written down: every context is priced for every question."""

    def revise(self, view: EngineView) -> Iterator[Change]:
        lacking = math.ceil(self.headroom * view.gpu_blocks) - view.free_gpu_blocks
        if self._settled or lacking <= 0:
            self._settled = True
            return
        losses = self._losses(view)
        host = HostEvictor(self, losses, view)
        budget, candidates = view.swap_budget, 0
        for price, paused in self._cheapest_first(losses, view):
            held = paused.resident_tokens
            if self.estimator.remaining(paused, view.now) <= 2 * view.costs.swap_time(held):
                continue
            keep = int(max(0, held - min(budget, lacking * view.block_size)))
            if lacking > 0 and budget >= view.block_size:
                yield from host.ensure_free(paused, held - keep)
            if not host.free:
                continue
            candidates += 1
            if lacking <= 0 or budget < view.block_size:
                break
            host.allocate(held - keep)
            budget -= held - keep
            lacking -= (held - keep) // view.block_size
            yield paused, Swap(keep=keep, reasons={"price": price, "blocks_lacking": lacking})
        self._settled = candidates == 0

    def _cheapest_first(self, losses: LossModel, view: EngineView) -> Any:
        priced = [(self._price(paused, losses, view.now), paused) for paused in view.undecided]
        return sorted(priced, key=itemgetter(0))


ANY_ESTIMATOR = st.sampled_from([*ESTIMATORS, *LEARNED, {"name": "empirical", "enough": 2, "window": 100}])
CAESURA = st.builds(
    lambda estimator, headroom: {"name": "caesura", "estimator": estimator, "headroom": headroom},
    ANY_ESTIMATOR,
    st.sampled_from([0.1, 0.5, 0.9]),
)
IN_TURN = st.sampled_from([FirstCome, lambda: make_order({"name": "due-first", "patience": 10.0})])


@examples(60)
@given(plots(CAESURA, IN_TURN | st.sampled_from(PREEMPTIVE)))
def test_floors_change_no_decision_and_no_timestamp_by_a_single_bit(plot: Plot) -> None:
    plain = replace(plot, policy={**plot.policy, "name": f"{__name__}:PricesEverybody"})
    one, other = plot.run().record, plain.run().record
    assert repr(one.decisions) == repr(other.decisions)
    assert repr(one.sessions) == repr(other.sessions)
    assert repr(one.calls) == repr(other.calls)
    assert one.totals == other.totals


# ---- many contexts, as long runs have them


@examples(60)
@given(st.integers(0, 10**6), ANY_ESTIMATOR, st.sampled_from([LinearCosts(), Tiles(), Tiles(fixed=0.0, copy=1e-3)]))
def test_the_cheapest_are_those_that_pricing_everybody_finds(seed: int, estimator: Any, costs: LinearCosts) -> None:
    """Pauses begin and end, time passes, batches grow and shrink; half of each context that is taken goes away."""
    dice, policy = random.Random(seed), make_policy({"name": "caesura", "estimator": estimator})
    assert isinstance(policy, Caesura)
    contexts: list[FakePaused] = []
    ends: dict[str, float] = {}
    if policy.estimator.needs_truth:
        policy.estimator.truth = lambda paused: ends[paused.id]
    now, running, longest = 0.0, dice.choice([1, 3, 20, 500]), dice.choice([0.2, 5.0, 60.0])
    for serial in range(150):
        now += dice.choice([0.0, 0.01, 0.02, 0.3, longest / 20])
        for one in contexts:
            if one.moving and dice.random() < 0.7:
                one.moving = False
                _half_leaves(one)
        if len(contexts) < 25:
            one = FakePaused(f"s{serial}", dice.choice([dice.randint(1, 40), dice.randint(1, 900)]), paused_at=now)
            one.tool = dice.choice("xxy")
            ends[one.id] = now + dice.choice([1.0, 1.0, 2.0]) * dice.expovariate(4 / longest)
            contexts.append(one)
            policy.on_pause(one, FakeView(now=now))
        if dice.random() < 0.6:
            ended = min(contexts, key=lambda paused: ends[paused.id])
            contexts.remove(ended)
            policy.estimator.pause_ended(ended, max(0.0, now - ended.paused_at))
            policy.on_resume(ended, max(0.0, now - ended.paused_at), FakeView(now=now))
        running = max(0, running + dice.choice([-2, -1, 0, 0, 0, 1, 2]))
        here = FakeView(
            now=now,
            paused=contexts,
            costs=costs,
            running_sessions=running,
            running_query_tokens=running + dice.choice([0, 0, 5, 200, 600]),
            waiting_sessions=dice.choice([0, 0, 0, 1]),
        )
        losses = LossModel(here, queued_s=float(here.waiting_sessions))
        plain = sorted([(policy._price(one, losses, now), one) for one in here.undecided], key=itemgetter(0))
        cheapest = policy._cheapest_first(losses, here)
        for price, one in plain[: dice.choice([0, 0, 1, 1, 2, 4, 100])]:
            found = next(cheapest)
            assert (found[0], found[1].id) == (price, one.id)
            one.moving = dice.random() < 0.5
            if not one.moving:
                _half_leaves(one)


def _half_leaves(one: FakePaused) -> None:
    one.offloaded_tokens += one.resident_tokens // 2
    one.resident_tokens -= one.resident_tokens // 2


def test_what_is_learnt_can_make_another_the_cheapest(paused, view):
    """Pauses of a's tool last 10 s, those of b's 1 s. Half of a is on the host: 50 tokens are copied in 2 ms, over
    500 token-seconds. 100 tokens of b cost 4 + 16.2 ms, first over 100 and, when a pause has lasted 999 s, over 50,000.
    """
    policy, contexts = Caesura(Empirical(enough=1)), [paused(id="a", tool="a"), paused(id="b", tool="b")]

    def ended(tool, seconds):
        policy.estimator.pause_ended(paused(id="ended", tool=tool), seconds)
        policy.on_resume(paused(id="ended", tool=tool), seconds, view())

    def cheapest():
        here = view(paused=contexts)
        return next(policy._cheapest_first(LossModel(here), here))[1].id

    contexts[0].resident_tokens = contexts[0].offloaded_tokens = 50
    ended("a", 10.0)
    ended("b", 1.0)
    assert [cheapest(), cheapest()] == ["a", "a"]
    ended("b", 999.0)
    assert cheapest() == "b"


def test_few_are_priced_to_find_the_cheapest(paused, view, known):
    """Of 200 equal contexts whose pauses are expected to last 1, 2, ... 200 s, and are known not to last longer, the
    last is cheapest. Only its own price is asked for, and no other when the question comes again."""

    class Bounded(type(known())):
        def at_most(self, paused, now, until):
            return self.remaining(paused, now)

    contexts = [paused(id=str(number)) for number in range(1, 201)]
    here, priced = view(paused=contexts), []
    floors = PriceBounds(Bounded(**{one.id: float(one.id) for one in contexts}))

    def price(one):
        priced.append(one.id)
        return Caesura(floors._estimator).price(one, here)

    for _ in range(2):
        assert next(floors.cheapest_first(here, LossModel(here), price))[1].id == "200"
    assert set(priced) == {"200"}
