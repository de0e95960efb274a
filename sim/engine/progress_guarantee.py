"""Progress under a preemptive order: a session that lost context and gets a turn again goes first until it emits."""

from __future__ import annotations

import math

from sim.session import READY, SessionState


class ProgressGuarantee:
    """Turns that no order takes back.

    An order may change its mind faster than a context comes back: two sessions could then take each other's memory in
    turn, and none would ever emit. So a session that lost context since its last token goes before all others from the
    moment at which it gets a slot, or its copy in begins, until it has emitted; among such sessions the first come
    goes first, whatever the order says of them meanwhile.

    Hence every world moves on. Suppose no session emits any more. Each session that loses context and gets a turn again
    is then owed it for good, in a rank that never changes; so there is a first of them, from which no session takes a
    slot or a block, and which computes in every iteration until it emits. If there is none, what is computed is lost
    once at most; and copies ahead of need take no memory that the first in the queue lacks
    (``PreemptiveScheduler.swap_ahead``).
    """

    def __init__(self) -> None:
        self._keys: dict[
            SessionState, tuple[float, ...]
        ] = {}  # of sessions that are owed a token: the keys that the order gave them
        self._turns = 0

    def __bool__(self) -> bool:
        return bool(self._keys)

    def grant(self, state: SessionState) -> None:
        """A session that stands in no queue by its key gets its turn."""
        if state.lost_at == state.progress and state not in self._keys:
            self._turns += 1
            self._keys[state] = state.key
            state.key = (-math.inf, -math.inf, self._turns)

    def set_key(self, state: SessionState, key: tuple[float, ...]) -> None:
        """The order wants a session elsewhere: at once, or when it has emitted."""
        if state in self._keys:
            self._keys[state] = key
        else:
            state.key = key

    def settle(self) -> None:
        """Sessions that have emitted return to the order's keys."""
        for state in [one for one in self._keys if one.lost_at != one.progress or one.status not in READY]:
            key = self._keys.pop(state)
            if state.decode_batch is not None:
                state.key = key
