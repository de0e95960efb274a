"""How far time may leap: a plan stands for all the iterations that will be like it.

This is a short cut, and can be switched off: without it every iteration is planned, with equal timestamps. Nothing
reaches the engine during a leap; a driver that hears of an event lowers ``plan.iterations``.
"""

from __future__ import annotations

from typing import Protocol

from sim.costs.batch import Direction
from sim.engine.eviction import Evictor
from sim.engine.order_calls import OrderCaller
from sim.engine.plan import Plan
from sim.engine.policy_calls import PolicyCaller
from sim.engine.preemptive import PreemptiveScheduler
from sim.engine.queues import Queues
from sim.engine.settings import EngineSettings
from sim.kv.kv_cache import KVCacheManager

LONGEST_LEAP = 1024
"""Iterations in one event: what a leap costs grows with them, if slowly."""


class LeapingEngine(Protocol):
    """What a leap reads of an engine."""

    now: float
    settings: EngineSettings
    kv: KVCacheManager
    queues: Queues
    evictor: Evictor
    policy_caller: PolicyCaller
    order_caller: OrderCaller | None
    preemptive: PreemptiveScheduler | None


class Leap:
    """Extends plans of one engine."""

    def __init__(self, engine: LeapingEngine) -> None:
        self._engine = engine

    def extend_to_next_event(self, plan: Plan) -> None:
        """Let a plan stand for all the iterations that will be like it, itself included.

        They end before the first in which a call begins to emit or ends, blocks run out, a context must be evicted, or
        the policy wants to be asked. A session that could not be admitted now cannot be while contexts only grow; where
        memory was freed in the course of this plan, the next one may admit a session, and is not alike.
        """
        engine = self._engine
        if plan.copies or engine.kv.in_flight or engine.evictor.unsettled:
            return
        if plan.chunks:
            self._extend_chunks(plan)
        elif plan.decoding and not engine.queues.prefilling:
            self._extend_decodes(plan)

    def _extend_decodes(self, plan: Plan) -> None:
        """An unchanged set of sessions decodes, each context one token longer in each iteration."""
        engine, evictor, queues = self._engine, self._engine.evictor, self._engine.queues
        if queues.swapped and (
            engine.settings.recompute_swapped_when_idle or not evictor.budget.covers_a_block(Direction.IN)
        ):
            return
        if evictor.concerns_policy:
            plan.review_at = engine.policy_caller.next_review()
        order, preemptive = engine.order_caller, engine.preemptive
        if order is not None and preemptive is None and (queues.waiting or queues.swapped):
            plan.review_at = min(plan.review_at, order.next_review())
        if plan.review_at <= engine.now:
            return
        most, untouched = float(LONGEST_LEAP), evictor.untouched_blocks()
        if preemptive is not None:
            if preemptive.unsettled:
                return
            most = min(most, preemptive.iterations_until_review(plan))
            if most < 1:
                return
            untouched = max(untouched, preemptive.untouched_blocks())
        plan.growth = queues.decoding.blocks_per_step(int(most), engine.kv.gpu.free_blocks - untouched)
        plan.iterations = len(plan.growth)

    def _extend_chunks(self, plan: Plan) -> None:
        """One session also computes chunk after chunk, each as large as the decoding ones leave it of the token budget.

        So no session is admitted meanwhile. Its last chunk, after which it emits, is not alike; nor are chunks of what
        had been computed before, or chunks of which other contexts may find blocks. A rule that is asked every
        iteration may depend on how far the prefill is, so there must be none.
        """
        engine, queues, kv, chunk = self._engine, self._engine.queues, self._engine.kv, plan.chunks[0]
        asked = engine.order_caller or (engine.evictor.concerns_policy and engine.policy_caller.revises)
        if asked or kv.prefixes is not None or queues.swapped:
            return
        if len(queues.prefilling) > 1 or not engine.settings.mixed_batches:
            return
        state, tokens = chunk.state, chunk.tokens
        if chunk.start < state.peak:
            return
        most = min(LONGEST_LEAP, (state.missing - 1) // tokens)
        blocks = kv.gpu.free_blocks - engine.evictor.untouched_blocks()
        first = kv.blocks_to_append(state, tokens)
        growth = []
        for index, decodes in enumerate(queues.decoding.blocks_per_step(most, blocks)):
            grown = decodes + kv.blocks_to_append(state, tokens * (index + 1)) - first
            if grown > blocks:
                break
            growth.append(grown)
        if growth:
            plan.growth, plan.iterations = growth, len(growth)
