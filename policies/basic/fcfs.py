"""First come, first served."""

from __future__ import annotations

from policies.contract import EngineView, Key, Queued, QueueOrder


class FirstCome(QueueOrder):
    """First come, first served; the engine's ``requeue_at`` says whether a resumed session keeps its arrival."""

    key_names = ("entered",)

    def key(self, queued: Queued, view: EngineView) -> Key:
        return queued.entered
