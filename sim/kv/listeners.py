"""What can be told of the blocks of contexts, while it happens, so that real blocks can follow the counts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from sim.kv.copy import Copy
from sim.session import SessionState


class BlockTableListener:
    """Is told of every change of the blocks that contexts hold. Sub-classes override what they need."""

    def truncated(self, state: SessionState) -> None:
        """All but the context's present resident and offloaded tokens was forgotten."""

    def samples_joined(self, state: SessionState) -> None:
        """A call of several samples has ended: all but the first is forgotten."""

    def copy_began(self, copy: Copy) -> None:
        """A copy begins. A blocking one has ended for the accounts before anything else is done."""

    def copy_ended(self, copy: Copy) -> None:
        """A copy has ended."""

    def copy_cancelled(self, copy: Copy) -> None:
        """A blocking copy was not worth making: its session has ended at the instant at which it ended."""

    def prefix_reused(self, state: SessionState, keys: Sequence[Hashable]) -> None:
        """After its own blocks a context now holds those of ``keys``."""

    def blocks_cached(self, state: SessionState, keys: Sequence[Hashable]) -> None:
        """The last of a context's shared blocks are found by ``keys`` from now on. Where one could be found before, the
        context holds that one and has given back its own."""

    def blocks_uncached(self, keys: Sequence[Hashable]) -> None:
        """These blocks are not found any more: one context has them to itself, or their memory is taken."""
