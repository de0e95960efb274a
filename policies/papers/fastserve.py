"""FastServe's skip-join MLFQ, and the orders that its paper compares it with (arXiv 2305.05920, sections 4 and 6)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from policies.contract import NEVER, EngineView, Key, PreemptiveOrder, Queued
from policies.papers.mlfq import FeedbackQueue


class SkipJoinMLFQ(FeedbackQueue):
    """Skip-join multi-level feedback queue. Queue i has the quantum q_i = q_1 · ratio^(i - 1); lower i goes first.

        join      p = min { i : q_i >= t_init }, t_init being the time of computing the session's missing tokens
        fall      from p to p + falls_by, when it has run for q_p in its queue
        rise      to 1, when it has waited for promote_after seconds

    Within a queue sessions are served by the time at which they joined it; see ``FeedbackQueue`` for ENST.

    Args:
        skip_join: whether sessions skip queues; otherwise all join queue 1: the naive multi-level feedback queue.
        quantum: q_1, s; by default the shortest iteration of the profile.
        ratio: of one quantum to the one before.
        falls_by: queues that a session falls at the end of its quantum.
        promote_after: alpha, s; infinite for no promotion.
        queues: how many there are; in the last one a quantum never ends.
        resumed: after a pause a session ``joins`` like a new one, by its missing tokens, or ``keeps`` its queue.
    """

    def __init__(
        self,
        skip_join: bool = True,
        quantum: float | None = None,
        ratio: float = 2.0,
        falls_by: int = 2,
        promote_after: float = 0.3,
        queues: int = 24,
        resumed: Literal["joins", "keeps"] = "joins",
    ) -> None:
        if not (ratio > 1 and falls_by >= 1 and promote_after > 0 and queues >= 1 and (quantum is None or quantum > 0)):
            raise ValueError("ratio is above 1, falls_by and queues are at least 1, times are above 0")
        if resumed not in ("joins", "keeps"):
            raise ValueError("resumed is 'joins' or 'keeps'")
        super().__init__(queues, falls_by)
        self.skip_join = skip_join
        self.quantum = quantum
        self.ratio = ratio
        self.promote_after = promote_after
        self.resumed = resumed
        self._quanta: list[float] = []

    def quantum_of(self, level: int, view: EngineView) -> float:
        if not self._quanta:
            first = self.quantum if self.quantum is not None else view.costs.forward_time(1)
            self._quanta = [first * self.ratio**i for i in range(self.queues)]
        return self._quanta[level - 1]

    def key(self, queued: Queued, view: EngineView) -> Key:
        if self.resumed == "keeps" and self.has_place(queued):
            return self.stay(queued, view)
        return super().key(queued, view)

    def joins(self, queued: Queued, view: EngineView) -> int:
        if not self.skip_join:
            return 1
        there = queued.resident_tokens + queued.offloaded_tokens
        needs = view.costs.forward_time(queued.missing_tokens, there)
        return next((i for i in range(1, self.queues) if self.quantum_of(i, view) >= needs), self.queues)

    def due(self, queued: Queued, now: float) -> float:
        waits_since = queued.waits_since
        return (now if math.isnan(waits_since) else waits_since) + self.promote_after


class FixedPriority(PreemptiveOrder):
    """The shortest prefill first, for good: a priority given at the arrival, that neither falls nor rises.

    One of FastServe's rivals; the paper does not say what the priority was made from.
    """

    key_names = ("prefill_s", "arrival")
    lazy_rerank = True

    def __init__(self) -> None:
        self._given: dict[str, float] = {}

    def key(self, queued: Queued, view: EngineView) -> Key:
        prefill = self._given.setdefault(queued.id, view.costs.forward_time(queued.missing_tokens))
        return prefill, queued.arrival

    def on_finish(self, finished: Queued, view: EngineView) -> None:
        self._given.pop(finished.id, None)


class ShortestRemaining(PreemptiveOrder):
    """Shortest remaining processing time first, by an oracle that knows how many tokens each call will generate.

    What remains is the time of computing the missing tokens, and an iteration for each token after the first. Running
    sessions come ever closer to their end, so a waiting session never passes them; only a new one can.
    """

    needs_truth = True
    key_names = ("seconds left",)
    lazy_rerank = True
    keys_drift = True

    def key(self, queued: Queued, view: EngineView) -> Key:
        assert self.truth is not None, "the engine hands an oracle the truth before the run"
        there = queued.resident_tokens + queued.offloaded_tokens
        prefill = view.costs.forward_time(queued.missing_tokens, there)
        return prefill + (self.truth(queued) - 1) * view.costs.forward_time(1)

    def rerank(self, view: EngineView) -> Iterable[tuple[Queued, Key]]:
        return [(queued, self.key(queued, view)) for queued in view.running]

    def review_at(self, view: EngineView) -> float:
        return NEVER
