"""Retention by priority and duration, as TensorRT-LLM's ``KvCacheRetentionConfig`` lets a client ask for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from policies.basic.cache_lru import last_blocks
from policies.contract import Change, EngineView, InterceptPolicy, Paused

DEFAULT_PRIORITY = 35
"""Priority of blocks without a wish, and of those whose wish has expired; 0 to 100."""


@dataclass(frozen=True)
class Wish:
    """``priority`` for ``duration`` seconds from the pause on."""

    priority: float = DEFAULT_PRIORITY
    duration: float = math.inf

    def __post_init__(self) -> None:
        if not (0 <= self.priority <= 100 and self.duration >= 0):
            raise ValueError("priority is 0 to 100, and duration in seconds, >= 0")


class Retention(InterceptPolicy):
    """Contexts stay until their blocks are needed; then the lowest priority goes first, and within one the least
    recently used, last blocks first. When a priority's duration is over the default priority holds again.

    The client must state its wishes; here they go by what a pause waits for.

    Args:
        wishes: tool, or ``waits_for`` -> {priority, duration}; the tool's own wish counts first.
    """

    def __init__(self, wishes: Mapping[str, Mapping[str, float]]) -> None:
        self._wishes = {name: Wish(**wish) for name, wish in wishes.items()}

    def priority(self, paused: Paused, now: float) -> float:
        """The priority of a context's blocks at ``now``."""
        wish = self._wishes.get(paused.tool) or self._wishes.get(paused.waits_for) or Wish()
        return wish.priority if now - paused.paused_at < wish.duration else DEFAULT_PRIORITY

    def evict(self, blocks: int, view: EngineView) -> Iterator[Change]:
        ranked = sorted(view.paused, key=lambda paused: self.priority(paused, view.now))
        return last_blocks(ranked, blocks, view)
