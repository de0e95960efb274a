"""The sessions that decode: one counter tells all their lengths.

Every iteration lengthens every decoding context by one token. So no iteration touches the members one by one: a
member's length is its length when it joined plus the iterations since; who ends next is the top of a heap; and how many
blocks an iteration needs is the number of members that stand at the end of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from sim.live import LiveSession


class DecodeGroup:
    """Sessions that emit one token an iteration. Joining and leaving cost O(log n), an iteration O(1)."""

    def __init__(self, block_size: int) -> None:
        self.tick = 0
        self.block_size = block_size
        self._members: dict[int, LiveSession] = {}
        self._length_sum = 0  # sum of resident tokens, less tick times members
        self._at_edge = [0] * block_size  # members by (resident - tick) modulo the block size
        self._ends: list[tuple[int, int, int, LiveSession]] = []  # tick, serial and number of joining; some have left
        self._joins = 0

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[LiveSession]:
        return iter(self._members.values())

    @property
    def resident_tokens(self) -> int:
        """Sum of the members' resident tokens."""
        return self._length_sum + len(self._members) * self.tick

    def join(self, live: LiveSession, tokens_left: int) -> None:
        """Add a session that will emit ``tokens_left`` more tokens in its call, one in each iteration from the next."""
        assert live.missing == 1 and live.offloaded == 0 and tokens_left >= 1
        base = live.resident - self.tick
        self._members[live.serial] = live
        self._length_sum += base
        self._at_edge[base % self.block_size] += 1
        live.group, live.joined = self, self.tick
        self._joins += 1
        live.joining = self._joins
        heappush(self._ends, (self.tick + tokens_left, live.serial, self._joins, live))

    def leave(self, live: LiveSession) -> None:
        """Take a session out; its lengths are written down."""
        del self._members[live.serial]
        base = live.resident - self.tick
        self._length_sum -= base
        self._at_edge[base % self.block_size] -= 1
        live.settle()

    def blocks_needed(self) -> int:
        """GPU blocks that the next iteration adds: one for each member whose last block is full."""
        return self._at_edge[-self.tick % self.block_size]

    def growth(self, most: int, blocks: int) -> list[int]:
        """For each of the next iterations, the blocks that contexts have grown by since the first of them.

        It ends before ``most`` iterations when one would need more than ``blocks``, or when a call ends.
        """
        if self._members:
            self._forget_left()
            most = min(most, self._ends[0][0] - self.tick)
        grown = [0]
        edges, size, tick, total = self._at_edge, self.block_size, self.tick, 0
        for ahead in range(1, most):
            total += edges[-(tick + ahead) % size]
            if total > blocks:
                break
            grown.append(total)
        return grown

    def _forget_left(self) -> None:
        """Drop heap entries of sessions that left before their end."""
        while self._ends[0][3].group is not self or self._ends[0][3].joining != self._ends[0][2]:
            heappop(self._ends)

    def advance(self, iterations: int = 1) -> list[LiveSession]:
        """Iterations have passed, no call having ended before the last of them.

        Removes and returns the members whose call has ended, in order of submission.
        """
        self.tick += iterations
        ended = []
        while self._ends and self._ends[0][0] <= self.tick:
            _, _, joining, live = heappop(self._ends)
            if live.group is self and live.joining == joining:
                self.leave(live)
                ended.append(live)
        return ended
