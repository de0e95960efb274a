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


def find_alike(engine: Engine, plan: Plan) -> None:
    """Let a plan stand for all the iterations that will be like it, itself included.

    They end before the first in which a call begins to emit or ends, blocks run out, paused contexts are asked to make
    room, or the policy wants to be asked. Sessions that could not be admitted now cannot be while contexts only grow;
    where memory was freed in the course of this plan, the next one may admit somebody, and is not alike.
    """
    if plan.copies or engine.contexts.flying or engine.room.unsettled:
        return
    if plan.chunks:
        _find_chunks(engine, plan)
    elif plan.decoding and not engine.queues.prefilling:
        _find_decodes(engine, plan)


def _find_decodes(engine: Engine, plan: Plan) -> None:
    """The same sessions decode, each context one token longer."""
    settings, queues, contexts, room = engine.settings, engine.queues, engine.contexts, engine.room
    if queues.swapped and (settings.recompute_swapped_when_idle or not room.has_budget(Direction.IN)):
        return
    if room.concerns_policy:
        plan.review_at = engine.counsel.next_review()
    if engine.turns is not None and (queues.waiting or queues.swapped):
        plan.review_at = min(plan.review_at, engine.turns.next_review())
    if plan.review_at <= engine.now:
        return
    most, untouched = float(LONGEST_LEAP), room.untouched_blocks()
    if engine.seating is not None and engine.precedence is not None:
        if engine.seating.unsettled:
            return
        if not engine.seating.calm:
            review = engine.precedence.next_review()
            if review <= engine.now:
                return
            plan.review_at = min(plan.review_at, review)
            most = min(most, engine.precedence.iterations())
        untouched = max(untouched, engine.seating.untouched_blocks())
    plan.growth = queues.decoding.growth(int(most), contexts.gpu.free - untouched)
    plan.iterations = len(plan.growth)


def _find_chunks(engine: Engine, plan: Plan) -> None:
    """One session also computes chunk after chunk, each as large as the decoding ones leave it of the token budget.

    So nobody is admitted meanwhile. Its last chunk, after which it emits, is not alike; nor are chunks of what had been
    computed before, or chunks of which others may find blocks. Whoever is asked every iteration may mind how far the
    prefill is, so nobody must be.
    """
    queues, contexts, chunk = engine.queues, engine.contexts, plan.chunks[0]
    asked = engine.turns or engine.seating or (engine.room.concerns_policy and engine.counsel.revises)
    if (
        contexts.prefixes is not None
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
    blocks = contexts.gpu.free - engine.room.untouched_blocks()
    first = contexts.growth(state, tokens)
    growth = []
    for index, decodes in enumerate(queues.decoding.growth(most, blocks)):
        grown = decodes + contexts.growth(state, tokens * (index + 1)) - first
        if grown > blocks:
            break
        growth.append(grown)
    if growth:
        plan.growth, plan.iterations = growth, len(growth)
