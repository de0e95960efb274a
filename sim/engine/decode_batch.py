"""The sessions that decode: one counter tells all their lengths.

Every iteration lengthens every decoding context by one token. So no iteration touches the members one by one: a
member's length is its length when it joined plus the iterations since; the top of a heap is the member that ends next;
and how many blocks an iteration needs is the number of members that stand at the end of a block.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import accumulate, cycle, islice

from sim.kv.sample_layout import SampleLayout
from sim.session import SessionState


class DecodeBatch:
    """Sessions that emit one token an iteration. Joining and leaving cost O(log n), an iteration O(1).

    A session of several samples counts with its weight: as many members that are all alike.

    Args:
        block_size: tokens of a block.
        branches: the blocks of several samples.

    Attributes:
        step: iterations so far.
        num_sequences: tokens that an iteration emits: one of each branch.
    """

    def __init__(self, block_size: int, branches: SampleLayout | None = None) -> None:
        self.step = 0
        self.block_size = block_size
        self.num_sequences = 0
        self._branches = branches or SampleLayout("paged-sharing", block_size)
        self._copied = 0  # blocks that branch sets take in the next iteration because they write for the first time
        self._shared_again = 0  # tokens that branches share, once for each branch but the first
        self._members: dict[int, SessionState] = {}
        self._length_sum = 0  # sum of tokens that are read, less steps times sequences
        self._square_sum = 0  # sum of squares of tokens that are read, each less steps
        self._at_edge = [0] * block_size  # members by (resident - tick) modulo the block size
        self._ends: list[tuple[int, int, int, SessionState]] = []  # tick, serial and number of joining; some have left
        self._joins = 0

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[SessionState]:
        return iter(self._members.values())

    @property
    def read_tokens(self) -> int:
        """Resident tokens that an iteration's attention reads: each branch its whole context."""
        return self._length_sum + self.num_sequences * self.step

    @property
    def spread(self) -> int:
        """How unequal the contexts are that attention reads: ``sim.costs.batch.Batch.decode_spread``."""
        return self.num_sequences * self._square_sum - self._length_sum * self._length_sum

    @property
    def resident_tokens(self) -> int:
        """Resident tokens, those that branches share once."""
        return self._length_sum + self.num_sequences * self.step - self._shared_again

    def join(self, state: SessionState, tokens_left: int) -> None:
        """Add a session that will emit ``tokens_left`` more tokens in its call, one in each iteration from the next."""
        assert state.missing == 1 and state.offloaded == 0 and tokens_left >= 1
        base = state.resident - self.step
        self._members[state.serial] = state
        if state.samples == 1:
            self.num_sequences += 1
            self._length_sum += base
            self._square_sum += base * base
            self._at_edge[base % self.block_size] += 1
        else:
            self._count_set(state, base, state.samples)
        state.decode_batch, state.joined_at_step = self, self.step
        self._joins += 1
        state.joining = self._joins
        heappush(self._ends, (self.step + tokens_left, state.serial, self._joins, state))

    def leave(self, state: SessionState) -> None:
        """Take a session out; its lengths are written down."""
        del self._members[state.serial]
        base = state.resident - self.step
        if state.samples == 1:
            self.num_sequences -= 1
            self._length_sum -= base
            self._square_sum -= base * base
            self._at_edge[base % self.block_size] -= 1
        else:
            self._count_set(state, base, -state.samples)
        state.settle()

    def _count_set(self, state: SessionState, base: int, sequences: int) -> None:
        """Count the branches of a session of several samples, or with negative ``num_sequences`` no longer."""
        sign = 1 if sequences > 0 else -1
        self.num_sequences += sequences
        self._length_sum += sequences * base
        self._square_sum += sequences * base * base
        steps = self._branches.steps_at(state)
        if steps is not None:
            self._at_edge[(base - steps) % self.block_size] += sequences
        self._copied += sign * self._branches.copied_at_fork(state)
        if self._branches.layout != "contiguous":
            self._shared_again += (sequences - sign) * state.fork

    def blocks_needed(self) -> int:
        """GPU blocks that the next iteration adds: one for each branch whose last block is full, or is shared."""
        return self._at_edge[-self.step % self.block_size] + self._copied

    def blocks_per_step(self, most: int, blocks: int) -> list[int]:
        """For each of the next iterations, the blocks that contexts have grown by since the first of them.

        It ends before ``most`` iterations when one would need more than ``blocks``, or when a call ends.
        """
        if self._members:
            self._forget_left()
            most = min(most, self._ends[0][0] - self.step)
        edges, next_edge = self._at_edge, (-self.step - 1) % self.block_size
        in_turn = cycle(edges[next_edge::-1] + edges[:next_edge:-1])
        grown = list(accumulate(islice(in_turn, max(0, most - 1)), initial=0))
        if grown[-1] > blocks:
            del grown[max(1, bisect_right(grown, blocks)) :]
        return grown

    def _forget_left(self) -> None:
        """Drop heap entries of sessions that left before their end."""
        while self._ends[0][3].decode_batch is not self or self._ends[0][3].joining != self._ends[0][2]:
            heappop(self._ends)

    def advance(self, iterations: int = 1) -> list[SessionState]:
        """Iterations have passed, no call having ended before the last of them.

        Removes and returns the members whose call has ended, in order of submission.
        """
        self.step += iterations
        self._copied = 0
        ended = []
        while self._ends and self._ends[0][0] <= self.step:
            _, _, joining, state = heappop(self._ends)
            if state.decode_batch is self and state.joining == joining:
                self.leave(state)
                ended.append(state)
        return ended
