"""Queue orders for random worlds: some overtake, some preempt, one does whatever it likes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from policies.basic.fcfs import FirstCome
from policies.contract import EVERY_ITERATION, NEVER, EngineView, Key, PreemptiveOrder, Queued, QueueOrder
from policies.papers.autellix import AttainedService
from policies.papers.fastserve import FixedPriority, ShortestRemaining, SkipJoinMLFQ


class ShortestContext(QueueOrder):
    """The smallest context first: overtakes, and so preempts those that came before."""

    def key(self, queued: Queued, view: EngineView) -> Key:
        return queued.context_tokens


class LastCome(QueueOrder):
    """The latest first."""

    def key(self, queued: Queued, view: EngineView) -> Key:
        return -queued.ready_at


class LatestPreempts(PreemptiveOrder):
    """The latest first, at once; a session's rank is settled when it becomes ready."""

    def key(self, queued: Queued, view: EngineView) -> Key:
        return -queued.ready_at, queued.context_tokens


class LeastServed(PreemptiveOrder):
    """Falls behind by a level for every 1.5 s of service, and says when the next one will fall."""

    step = 1.5

    def key(self, queued: Queued, view: EngineView) -> Key:
        return math.floor(queued.served(view.now) / self.step), queued.arrival

    def rerank(self, view: EngineView) -> Iterable[tuple[Queued, Key]]:
        return [(queued, self.key(queued, view)) for queued in view.running]

    def review_at(self, view: EngineView) -> float:
        """A little before, as this is not computed as ``served`` is; the next iteration is asked about then."""
        ends = [view.now + (1 - queued.served(view.now) / self.step % 1) * self.step - 1e-6 for queued in view.running]
        return max(min(ends, default=NEVER), view.now + 1e-9)


class TurnsOfFourTokens(PreemptiveOrder):
    """A session that has emitted 4 tokens more stands behind the others; these come in reverse order of arrival."""

    def key(self, queued: Queued, view: EngineView) -> Key:
        return queued.emitted_tokens // 4, -queued.arrival

    def rerank(self, view: EngineView) -> Iterable[tuple[Queued, Key]]:
        return [(queued, self.key(queued, view)) for queued in view.running]

    def review_after(self, view: EngineView) -> float:
        return min((4 - queued.emitted_tokens % 4 for queued in view.running), default=NEVER)

    def review_at(self, view: EngineView) -> float:
        return NEVER

    def by_expected_turn(self, waiting: Sequence[Queued], view: EngineView) -> Sequence[Queued]:
        return sorted(waiting, key=lambda queued: (queued.context_tokens, queued.id))


class Slots(PreemptiveOrder):
    """Time comes in slots of 0.9 s: in even ones the first serve, two at most, in odd ones the last."""

    slot = 0.9

    def key(self, queued: Queued, view: EngineView) -> Key:
        return queued.arrival if self._even(view) else -queued.arrival

    def _even(self, view: EngineView) -> bool:
        return math.floor(view.now / self.slot) % 2 == 0

    def rerank(self, view: EngineView) -> Iterable[tuple[Queued, Key]]:
        for queued in (*view.running, *view.waiting):
            yield queued, self.key(queued, view)

    def review_at(self, view: EngineView) -> float:
        return (math.floor(view.now / self.slot) + 1) * self.slot

    def max_running(self, view: EngineView) -> float:
        return 2 if self._even(view) else NEVER


class WhimsicalOrder(PreemptiveOrder):
    """Any key for any session at any time, any limit, any order of turns."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def key(self, queued: Queued, view: EngineView) -> Key:
        return self._random.choice([0, self._random.random(), (self._random.random(), 1.0), math.inf])

    def rerank(self, view: EngineView) -> Iterable[tuple[Queued, Key]]:
        for queued in (*view.waiting, *view.running):
            if self._random.random() < 0.3:
                yield queued, self.key(queued, view)

    def review_at(self, view: EngineView) -> float:
        return self._random.choice([EVERY_ITERATION, NEVER, view.now + 0.5])

    def review_after(self, view: EngineView) -> float:
        return self._random.choice([1, 3, NEVER])

    def max_running(self, view: EngineView) -> float:
        return self._random.choice([1, 2, NEVER])

    def by_expected_turn(self, waiting: Sequence[Queued], view: EngineView) -> Sequence[Queued]:
        return self._random.sample(waiting, len(waiting))


FEEDBACK: list[Callable[[], PreemptiveOrder]] = [
    partial(SkipJoinMLFQ, promote_after=2.0),
    partial(SkipJoinMLFQ, skip_join=False, quantum=0.4, falls_by=1, resumed="keeps"),
    partial(AttainedService, quantum=0.3, beta=0.7),
]
CATCHING_UP: list[Callable[[], PreemptiveOrder]] = [FixedPriority, ShortestRemaining, *FEEDBACK]
PREEMPTIVE: list[Callable[[], QueueOrder]] = [LatestPreempts, LeastServed, TurnsOfFourTokens, Slots, *CATCHING_UP]
ORDERS: list[Callable[[], QueueOrder]] = [FirstCome, FirstCome, FirstCome, ShortestContext, LastCome, *PREEMPTIVE]


def always_asked(make: Callable[[], PreemptiveOrder]) -> PreemptiveOrder:
    """The order, asked before every iteration that the engine plans."""
    order = make()
    order.lazy_rerank = False
    return order
