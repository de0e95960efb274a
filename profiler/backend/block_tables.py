"""Which physical blocks hold which context. The engine counts blocks; the block tables assign their ids.

A context is a row: its leading blocks on the GPU, then blocks on the host. Blocks leave the GPU from the tail and come
back from the head of the host part, so the order of a context's tokens never changes.

Leading blocks may stand in several rows, counted by reference. A block with a name can be found by it, and keeps its
tokens after its last holder has freed it, until the name is forgotten.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiler.backend.free_lists import FreeRuns, FreeStack, OutOfBlocks

Ints = npt.NDArray[np.int32]


def running_sum(lengths: Ints) -> Ints:
    """The running sum of lengths, from 0: where each part begins, and where the last one ends; int32 ``[n + 1]``."""
    starts: Ints = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=starts[1:])
    return starts


class CountsDisagree(RuntimeError):
    """The engine's block counts and the ids handed out differ: a rule was broken on one of the two sides."""


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """Blocks of one context that a copy moves. ``gpu[i]`` and ``host[i]`` hold the same tokens.

    The ids on both sides stay in use until ``BlockTables.finish``.
    """

    key: Hashable
    out: bool
    gpu: tuple[int, ...]
    host: tuple[int, ...]

    @property
    def blocks(self) -> int:
        """Blocks moved."""
        return len(self.gpu)


class BlockTables:
    """Block ids of every context.

    Args:
        gpu_blocks, host_blocks: sizes of the pools.
        block_size: tokens a block.
        rows: contexts that may be open at once.
        max_context: tokens of the longest context.

    Attributes:
        gpu: ``[rows, blocks of the longest context]`` int32, the GPU block ids of each row; valid up to ``gpu_count``.
        gpu_count: ``[rows]`` int32, GPU blocks of each row.
        rows: the row of each open context.
    """

    def __init__(self, gpu_blocks: int, host_blocks: int, block_size: int, rows: int, max_context: int) -> None:
        self.gpu_blocks, self.host_blocks, self.block_size = gpu_blocks, host_blocks, block_size
        self.max_context = max_context
        self.gpu: Ints = np.zeros((rows, -(-max_context // block_size)), dtype=np.int32)
        self.gpu_count: Ints = np.zeros(rows, dtype=np.int32)
        self.rows: dict[Hashable, int] = {}
        self._host: list[list[int]] = [[] for _ in range(rows)]
        self._references: Ints = np.zeros(gpu_blocks, dtype=np.int32)
        self._free_gpu = FreeStack(gpu_blocks)
        self._free_host = FreeRuns(host_blocks)
        self._free_rows = list(range(rows - 1, -1, -1))
        self._flying: dict[Move, None] = {}
        self._named: dict[Hashable, int] = {}
        self._has_name = np.zeros(gpu_blocks, dtype=np.bool_)
        self._cached = 0

    @property
    def gpu_used(self) -> int:
        """GPU blocks in use, those that a copy reads or fills among them; a shared block counts once, and one that is
        only remembered by its name does not count."""
        return self.gpu_blocks - len(self._free_gpu) - self._cached

    @property
    def host_used(self) -> int:
        """Host blocks in use, those that a copy reads or fills among them."""
        return self.host_blocks - len(self._free_host)

    def blocks(self, tokens: int) -> int:
        """Blocks that hold ``tokens`` tokens of one context."""
        return -(-tokens // self.block_size)

    def open(self, key: Hashable) -> int:
        """Give a context a row, with no blocks yet.

        Raises:
            OutOfBlocks: every row is taken.
        """
        assert key not in self.rows, f"{key!r} is open already"
        if not self._free_rows:
            raise OutOfBlocks(f"all {len(self._host)} rows are taken; make the backend with more")
        row = self.rows[key] = self._free_rows.pop()
        return row

    def close(self, key: Hashable) -> None:
        """Free all that a context holds, and its row. No copy of it may be under way."""
        assert all(move.key != key for move in self._flying), f"{key!r} is being copied"
        self.keep(key, 0, 0)
        self._free_rows.append(self.rows.pop(key))

    def gpu_ids(self, key: Hashable) -> list[int]:
        """GPU blocks of a context, in the order of its tokens."""
        row = self.rows[key]
        return [int(block) for block in self.gpu[row, : self.gpu_count[row]]]

    def host_ids(self, key: Hashable) -> list[int]:
        """Host blocks of a context, in the order of its tokens."""
        return list(self._host[self.rows[key]])

    def grow(self, rows: Ints, tokens: Ints) -> None:
        """Allocate GPU blocks until each of ``rows`` has enough for ``tokens[i]`` tokens.

        Raises:
            OutOfBlocks: the pool is empty.
        """
        needed = -(-tokens // self.block_size)
        for index in np.flatnonzero(needed > self.gpu_count[rows]):
            self._append(int(rows[index]), self._take_gpu(int(needed[index] - self.gpu_count[rows[index]])))

    def keep(self, key: Hashable, resident: int, offloaded: int) -> None:
        """Free what a context holds beyond ``resident`` tokens on the GPU and ``offloaded`` tokens on the host.

        Raises:
            CountsDisagree: it holds less than that.
        """
        row = self.rows[key]
        held, host = int(self.gpu_count[row]), self._host[row]
        keep_gpu, keep_host = self.blocks(resident), self.blocks(offloaded)
        if keep_gpu > held or keep_host > len(host):
            raise CountsDisagree(
                f"{key!r} should keep {keep_gpu} GPU and {keep_host} host blocks; it has {held} and {len(host)}"
            )
        self._release_gpu(self.gpu[row, keep_gpu:held])
        self.gpu_count[row] = keep_gpu
        self._free_host.free(host[keep_host:])
        del host[keep_host:]

    def share(self, key: Hashable, source: Hashable, blocks: int) -> None:
        """Let an empty context begin with the first ``blocks`` GPU blocks of another. Full blocks only: they are read,
        never written."""
        row, lender = self.rows[key], self.rows[source]
        assert self.gpu_count[row] == 0 and not self._host[row], f"{key!r} holds blocks already"
        assert blocks <= self.gpu_count[lender], f"{source!r} has no {blocks} blocks to share"
        ids = self.gpu[lender, :blocks]
        self.gpu[row, :blocks] = ids
        self.gpu_count[row] = blocks
        self._references[ids] += 1

    def name(self, key: Hashable, end: int, names: Sequence[Hashable]) -> None:
        """Name the last blocks before the ``end``-th of a context, full ones, which are never written again. Where a
        name has a block already the context takes it, for it holds the same, and gives its own back."""
        row = self.rows[key]
        for place, name in enumerate(names, end - len(names)):
            own = int(self.gpu[row, place])
            known = self._named.setdefault(name, own)
            if known == own:
                self._has_name[own] = True
            else:
                self.gpu[row, place] = self._hold(known)
                self._release_gpu(np.array([own], dtype=np.int32))

    def find(self, key: Hashable, names: Sequence[Hashable]) -> None:
        """Let a context without host blocks go on with the blocks of these names.

        Raises:
            CountsDisagree: a name has no block.
        """
        unknown = [name for name in names if name not in self._named]
        if unknown:
            raise CountsDisagree(f"{key!r} should find {len(names)} blocks; {len(unknown)} of them have no ids")
        self._append(self.rows[key], [self._hold(self._named[name]) for name in names])

    def forget(self, names: Iterable[Hashable]) -> None:
        """Forget these names: their blocks cannot be found any more, and those that no context holds are free."""
        for name in names:
            block = self._named.pop(name)
            self._has_name[block] = False
            if self._references[block] == 0:
                self._cached -= 1
                self._free_gpu.free([block])

    def forget_all(self) -> None:
        """Forget all names."""
        self.forget(list(self._named))

    def begin_out(self, key: Hashable, blocks: int) -> Move:
        """Begin to move the last ``blocks`` GPU blocks of a context to the host: takes the host blocks.

        Raises:
            OutOfBlocks: the host pool has fewer.
            CountsDisagree: the context has fewer.
        """
        row = self.rows[key]
        held = int(self.gpu_count[row])
        if blocks > held:
            raise CountsDisagree(f"{key!r} has {held} GPU blocks, {blocks} are to leave")
        host = self._free_host.allocate(blocks)
        move = Move(key, True, tuple(self.gpu[row, held - blocks : held].tolist()), tuple(host))
        self.gpu_count[row] = held - blocks
        self._host[row][:0] = host
        self._flying[move] = None
        return move

    def begin_in(self, key: Hashable, blocks: int) -> Move:
        """Begin to move the first ``blocks`` host blocks of a context to the GPU: takes the GPU blocks.

        Raises:
            OutOfBlocks: the GPU pool has fewer.
            CountsDisagree: the context has fewer.
        """
        row = self.rows[key]
        host = self._host[row]
        if blocks > len(host):
            raise CountsDisagree(f"{key!r} has {len(host)} host blocks, {blocks} are to come back")
        gpu = self._take_gpu(blocks)
        move = Move(key, False, tuple(gpu), tuple(host[:blocks]))
        del host[:blocks]
        self._append(row, gpu)
        self._flying[move] = None
        return move

    def finish(self, move: Move) -> None:
        """Free the blocks that a copy has left. It has ended, or all work that could touch them is ordered after it."""
        del self._flying[move]
        if move.out:
            self._release_gpu(np.asarray(move.gpu, dtype=np.int32))
        else:
            self._free_host.free(move.host)

    def check(self, gpu_used: int, host_used: int) -> None:
        """Compare with the engine's counts.

        Raises:
            CountsDisagree: they differ.
        """
        if (self.gpu_used, self.host_used) != (gpu_used, host_used):
            raise CountsDisagree(
                f"the engine counts {gpu_used} GPU and {host_used} host blocks in use; "
                f"{self.gpu_used} and {self.host_used} ids are handed out"
            )

    def _take_gpu(self, blocks: int) -> list[int]:
        ids = self._free_gpu.allocate(blocks)
        self._references[ids] = 1
        return ids

    def _append(self, row: int, ids: Sequence[int]) -> None:
        held = int(self.gpu_count[row])
        assert held + len(ids) <= self.gpu.shape[1], f"a context beyond {self.max_context} tokens"
        self.gpu[row, held : held + len(ids)] = ids
        self.gpu_count[row] = held + len(ids)

    def _hold(self, block: int) -> int:
        self._cached -= int(self._references[block] == 0)
        self._references[block] += 1
        return block

    def _release_gpu(self, ids: Ints) -> None:
        self._references[ids] -= 1
        let_go = ids[self._references[ids] == 0]
        free = let_go[~self._has_name[let_go]]
        self._cached += len(let_go) - len(free)
        self._free_gpu.free(free.tolist())
