"""How far time may leap: how many of the next iterations will do the same as the one that has been planned.

Nothing reaches the engine meanwhile; a driver that hears of something lowers ``plan.iterations``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.costs.batch import Direction
from sim.engine.plan import Plan

if TYPE_CHECKING:
    from sim.engine.engine import Engine

LONGEST_LEAP = 1024
"""Iterations in one event: what a leap costs grows with them, if slowly."""


def extend_to_next_event(engine: Engine, plan: Plan) -> None:
    """Let a plan stand for all the iterations that will be like it, itself included.

    They end before the first in which a call begins to emit or ends, blocks run out, paused contexts are asked to make
    room, or the policy wants to be asked. Sessions that could not be admitted now cannot be while contexts only grow;
    where memory was freed in the course of this plan, the next one may admit somebody, and is not alike.
    """
    if plan.copies or engine.kv.in_flight or engine.evictor.unsettled:
        return
    if plan.chunks:
        _find_chunks(engine, plan)
    elif plan.decoding and not engine.queues.prefilling:
        _find_decodes(engine, plan)


def _find_decodes(engine: Engine, plan: Plan) -> None:
    """The same sessions decode, each context one token longer."""
    settings, queues, kv, evictor = engine.settings, engine.queues, engine.kv, engine.evictor
    if queues.swapped and (settings.recompute_swapped_when_idle or not evictor.has_budget(Direction.IN)):
        return
    if evictor.concerns_policy:
        plan.review_at = engine.policy_caller.next_review()
    if engine.turns is not None and (queues.waiting or queues.swapped):
        plan.review_at = min(plan.review_at, engine.turns.next_review())
    if plan.review_at <= engine.now:
        return
    most, untouched = float(LONGEST_LEAP), evictor.untouched_blocks()
    if engine.preemptive is not None and engine.preemptive_order is not None:
        if engine.preemptive.unsettled:
            return
        if not engine.preemptive.order_is_moot:
            review = engine.preemptive_order.next_review()
            if review <= engine.now:
                return
            plan.review_at = min(plan.review_at, review)
            most = min(most, engine.preemptive_order.iterations())
        untouched = max(untouched, engine.preemptive.untouched_blocks())
    plan.growth = queues.decoding.blocks_per_step(int(most), kv.gpu.free_blocks - untouched)
    plan.iterations = len(plan.growth)


def _find_chunks(engine: Engine, plan: Plan) -> None:
    """One session also computes chunk after chunk, each as large as the decoding ones leave it of the token budget.

    So nobody is admitted meanwhile. Its last chunk, after which it emits, is not alike; nor are chunks of what had been
    computed before, or chunks of which others may find blocks. Whoever is asked every iteration may mind how far the
    prefill is, so nobody must be.
    """
    queues, kv, chunk = engine.queues, engine.kv, plan.chunks[0]
    asked = engine.turns or engine.preemptive or (engine.evictor.concerns_policy and engine.policy_caller.revises)
    if (
        kv.prefixes is not None
        or asked
        or queues.swapped
        or len(queues.prefilling) > 1
        or not engine.settings.mixed_batches
    ):
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
