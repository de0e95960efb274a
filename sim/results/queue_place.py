"""Where one session stands among those that are ready: which go before it, and by which numbers of the order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from policies.contract import QueueOrder
from sim.engine.engine import Engine
from sim.engine.order_calls import PreemptiveOrderCaller
from sim.engine.queues import by_key
from sim.session import READY, SessionState, Status

Numbers = Mapping[str, float]
OWED = "turn owed"
_WAITING = (Status.WAITING, Status.SWAPPED)


class QueuePlace:
    """Follows one session's place in the queue of one replica.

    Args:
        engine: the replica's.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._order: QueueOrder = engine.policy_caller.order

    def joined(self, state: SessionState, key: tuple[float, ...]) -> dict[str, Any]:
        """The session becomes ready with ``key``; empty if no other is ready."""
        others = self._others(state)
        if not others:
            return {}
        before = [one for one in others if one.key < key]
        next_before = max(before, key=lambda one: one.key) if before else None
        return self._place(key, len(before), len(others)) | {
            "next_before": {next_before.session.id: self._numbers(next_before.key)} if next_before else {}
        }

    def passed(self, state: SessionState, moved: list[tuple[SessionState, tuple[float, ...]]]) -> dict[str, Any]:
        """Which sessions pass it and which it passes when keys become those of ``moved``; empty for none.

        A session that becomes ready comes from behind all others. A running session is in the queue only
        where an order preempts.
        """
        preempts = self._engine.preemptive is not None
        if state.status not in (READY if preempts else _WAITING):
            return {}
        others, was = self._others(state), state.key
        keys = {one: key for one, key in moved if one.key[0] != -math.inf}
        key = keys.pop(state, was)
        before = {one for one in others if one.key < was}
        after = {one for one in {*others, *keys} if keys.get(one, one.key) < key}
        passes, passed_by = (
            {one.session.id: self._numbers(keys.get(one, one.key)) for one in sorted(those, key=by_key)}
            for those in (before - after, after - before)
        )
        if not (passes or passed_by):
            return {}
        numbers = {"was": self._numbers(was) if key != was else {}, "passes": passes, "passed_by": passed_by}
        return self._place(key, len(after), len({*others, *keys})) | numbers

    def _place(self, key: tuple[float, ...], before: int, others: int) -> dict[str, Any]:
        place = {"key": self._numbers(key), "before": before, "others": others}
        order = self._engine.order_caller
        if isinstance(order, PreemptiveOrderCaller) and order.keys_drift and order.asked_at < self._engine.now:
            place["running_ranked_at"] = order.asked_at
        return place

    def _numbers(self, key: tuple[float, ...]) -> dict[str, float]:
        """By name; all but the last, which only breaks ties."""
        return {OWED: key[-1]} if key[0] == -math.inf else dict(self._order.named(key[:-1]))

    def _others(self, state: SessionState) -> list[SessionState]:
        queues = self._engine.queues
        return [one for one in (*queues.decoding, *queues.ready()) if one is not state]


def together(one: Mapping[str, Any], next_one: Mapping[str, Any]) -> dict[str, Any]:
    """Two entries of ``passed`` as one."""
    both = {name: {**one[name], **next_one[name]} for name in ("passes", "passed_by")}
    return {**next_one, "was": one["was"] or next_one["was"], **both}
