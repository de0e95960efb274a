"""Keep contexts while there is room, evict the least recently used: an engine with a prefix cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from policies.contract import Change, Discard, EngineView, InterceptPolicy, Paused


class CacheLru(InterceptPolicy):
    """Paused contexts stay until their blocks are needed; the least recently used loses its last blocks first.

    A returning session reuses the prefix of its context that is left and computes the rest. Cached blocks that no
    context holds stand in one order with the contexts.
    """

    unified_lru = True

    def evict(self, blocks: int, view: EngineView) -> Iterable[Change]:
        return last_blocks(view.paused, blocks, view)  # the least recently used first


def last_blocks(contexts: Iterable[Paused], blocks: int, view: EngineView) -> Iterator[Change]:
    """Discard the last blocks of ``contexts``, one context after the other, until ``blocks`` blocks are found.

    Blocks that several contexts share go last: they come free only when all of these have left them.
    """
    sharing = []
    for paused in contexts:
        held, shared = -(-paused.resident_tokens // view.block_size), paused.shared_tokens // view.block_size
        if shared:
            sharing.append(paused)
        if held == shared > 0:
            continue
        dropped = min(held - shared, blocks)
        yield paused, Discard(keep=(held - dropped) * view.block_size, reasons={"blocks_needed": blocks})
        blocks -= dropped
        if blocks == 0:
            return
    for paused in sharing:
        yield paused, Discard(reasons={"blocks_needed": blocks})
