"""Paused contexts that wait for an answer: the ones about which there is still something to decide."""

from __future__ import annotations

from policies.contract import EngineView, Paused


def unanswered(view: EngineView) -> list[Paused]:
    """Contexts with resident tokens whose answer has not come and that are not being copied, longest unused first."""
    return [paused for paused in view.paused if not (paused.moving or paused.resumed)]
