"""Orders that let nobody starve: who has waited too long goes first."""

from __future__ import annotations

from collections.abc import Iterator

from policies.contract import NEVER, EngineView, Key, Queued, QueueOrder


class PromotingOrder(QueueOrder):
    """Keys are (1, rank...); a session that still waits when it is ``due`` gets (0, since when it waits)."""

    def __init__(self) -> None:
        self._promoted: set[str] = set()

    def rank(self, queued: Queued, view: EngineView) -> tuple[float, ...]:
        """Where a session stands among those that need not be promoted."""
        raise NotImplementedError

    def due(self, queued: Queued) -> float:
        """When a waiting session is promoted if it still waits, s."""
        raise NotImplementedError

    def key(self, queued: Queued, view: EngineView) -> Key:
        self._promoted.discard(queued.id)
        return (1.0, *self.rank(queued, view))

    def rerank(self, view: EngineView) -> Iterator[tuple[Queued, Key]]:
        for queued in view.waiting:
            if queued.id not in self._promoted and view.now >= self.due(queued):
                self._promoted.add(queued.id)
                yield queued, (0.0, queued.waits_since)

    def review_at(self, view: EngineView) -> float:
        waiting = (queued for queued in view.waiting if queued.id not in self._promoted)
        return min((self.due(queued) for queued in waiting), default=NEVER)
