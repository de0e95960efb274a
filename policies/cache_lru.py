"""Keep while there is room: what an engine with a prefix cache does today."""

from __future__ import annotations

from collections.abc import Iterable

from policies.contract import Change, Discard, EngineView, InterceptPolicy


class CacheLru(InterceptPolicy):
    """Paused contexts stay until their blocks are needed; the least recently used loses its last blocks first.

    A returning session finds whatever prefix of its context is left and computes the rest.
    """

    def gives_way(self, blocks: int, view: EngineView) -> Iterable[Change]:
        for paused in view.paused:  # the longest unused first
            held = -(-paused.resident_tokens // view.block_size)
            dropped = min(held, blocks)
            yield paused, Discard(keep=(held - dropped) * view.block_size, because={"blocks_needed": blocks})
            blocks -= dropped
            if blocks == 0:
                return
