"""The sessions that decode: one counter tells all their lengths.

Every iteration lengthens every decoding context by one token. So no iteration touches the members one by one: a
member's length is its length when it joined plus the iterations since; who ends next is the top of a heap; and how many
blocks an iteration needs is the number of members that stand at the end of a block.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import accumulate, cycle, islice

from sim.branches import BranchBlocks
from sim.live import LiveSession


class DecodeGroup:
    """Sessions that emit one token an iteration. Joining and leaving cost O(log n), an iteration O(1).

    A session of several samples counts with its weight: as many members that are all alike.

    Args:
        block_size: tokens of a block.
        branches: the blocks of several samples.

    Attributes:
        tick: iterations so far.
        seats: tokens that an iteration emits: one of each branch.
    """

    def __init__(self, block_size: int, branches: BranchBlocks | None = None) -> None:
        self.tick = 0
        self.block_size = block_size
        self.seats = 0
        self._branches = branches or BranchBlocks("paged-sharing", block_size)
        self._copied = 0  # blocks that branch sets take in the next iteration because they write for the first time
        self._shared_again = 0  # tokens that branches share, once for each branch but the first
        self._members: dict[int, LiveSession] = {}
        self._length_sum = 0  # sum of tokens that are read, less tick times seats
        self._square_sum = 0  # sum of squares of tokens that are read, each less tick
        self._at_edge = [0] * block_size  # members by (resident - tick) modulo the block size
        self._ends: list[tuple[int, int, int, LiveSession]] = []  # tick, serial and number of joining; some have left
        self._joins = 0

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[LiveSession]:
        return iter(self._members.values())

    @property
    def read_tokens(self) -> int:
        """Resident tokens that an iteration's attention reads: each branch its whole context."""
        return self._length_sum + self.seats * self.tick

    @property
    def spread(self) -> int:
        """How unequal the contexts are that attention reads: ``sim.plan.Batch.decode_spread``."""
        return self.seats * self._square_sum - self._length_sum * self._length_sum

    @property
    def resident_tokens(self) -> int:
        """Resident tokens, those that branches share once."""
        return self._length_sum + self.seats * self.tick - self._shared_again

    def join(self, live: LiveSession, tokens_left: int) -> None:
        """Add a session that will emit ``tokens_left`` more tokens in its call, one in each iteration from the next."""
        assert live.missing == 1 and live.offloaded == 0 and tokens_left >= 1
        base = live.resident - self.tick
        self._members[live.serial] = live
        if live.samples == 1:
            self.seats += 1
            self._length_sum += base
            self._square_sum += base * base
            self._at_edge[base % self.block_size] += 1
        else:
            self._count_set(live, base, live.samples)
        live.group, live.joined = self, self.tick
        self._joins += 1
        live.joining = self._joins
        heappush(self._ends, (self.tick + tokens_left, live.serial, self._joins, live))

    def leave(self, live: LiveSession) -> None:
        """Take a session out; its lengths are written down."""
        del self._members[live.serial]
        base = live.resident - self.tick
        if live.samples == 1:
            self.seats -= 1
            self._length_sum -= base
            self._square_sum -= base * base
            self._at_edge[base % self.block_size] -= 1
        else:
            self._count_set(live, base, -live.samples)
        live.settle()

    def _count_set(self, live: LiveSession, base: int, seats: int) -> None:
        """Count the branches of a session of several samples, or with negative ``seats`` no longer."""
        sign = 1 if seats > 0 else -1
        self.seats += seats
        self._length_sum += seats * base
        self._square_sum += seats * base * base
        steps = self._branches.steps_at(live)
        if steps is not None:
            self._at_edge[(base - steps) % self.block_size] += seats
        self._copied += sign * self._branches.copied_at_fork(live)
        if self._branches.layout != "contiguous":
            self._shared_again += (seats - sign) * live.fork

    def blocks_needed(self) -> int:
        """GPU blocks that the next iteration adds: one for each branch whose last block is full, or is shared."""
        return self._at_edge[-self.tick % self.block_size] + self._copied

    def growth(self, most: int, blocks: int) -> list[int]:
        """For each of the next iterations, the blocks that contexts have grown by since the first of them.

        It ends before ``most`` iterations when one would need more than ``blocks``, or when a call ends.
        """
        if self._members:
            self._forget_left()
            most = min(most, self._ends[0][0] - self.tick)
        edges, next_edge = self._at_edge, (-self.tick - 1) % self.block_size
        in_turn = cycle(edges[next_edge::-1] + edges[:next_edge:-1])
        grown = list(accumulate(islice(in_turn, max(0, most - 1)), initial=0))
        if grown[-1] > blocks:
            del grown[max(1, bisect_right(grown, blocks)) :]
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
        self._copied = 0
        ended = []
        while self._ends and self._ends[0][0] <= self.tick:
            _, _, joining, live = heappop(self._ends)
            if live.group is self and live.joining == joining:
                self.leave(live)
                ended.append(live)
        return ended
