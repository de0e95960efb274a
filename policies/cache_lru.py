"""Keep while there is room: what an engine with a prefix cache does today."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from policies.contract import Change, Discard, EngineView, InterceptPolicy, Paused


class CacheLru(InterceptPolicy):
    """Paused contexts stay until their blocks are needed; the least recently used loses its last blocks first.

    A returning session finds whatever prefix of its context is left and computes the rest.
    """

    def gives_way(self, blocks: int, view: EngineView) -> Iterable[Change]:
        return last_blocks(view.paused, blocks, view)  # the longest unused first


def last_blocks(contexts: Iterable[Paused], blocks: int, view: EngineView) -> Iterator[Change]:
    """Discard the last blocks of ``contexts``, one context after the other, until ``blocks`` blocks are found."""
    for paused in contexts:
        held = -(-paused.resident_tokens // view.block_size)
        dropped = min(held, blocks)
        yield paused, Discard(keep=(held - dropped) * view.block_size, because={"blocks_needed": blocks})
        blocks -= dropped
        if blocks == 0:
            return
