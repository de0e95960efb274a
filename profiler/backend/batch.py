"""The index tensors of one iteration: built in one page-locked host buffer, sent by one kernel.

The tokens of an iteration are flat: first one a decoding session (padded to a number that has a CUDA graph), then the
chunks, one after another. A *row* is a session's line in the token store and in the block tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from profiler.backend.block_tables import BlockTables, Ints, running_sum
from profiler.backend.mapped import MappedCopy


@dataclass(frozen=True, slots=True)
class RowChunk:
    """Missing tokens of one session to compute: ``tokens`` of them after the first ``start``, which are resident.

    ``ends`` says whether they reach the end of the context, so that the next token is sampled; then the rows ``also``
    sample from the same logits.
    """

    row: int
    start: int
    tokens: int
    ends: bool
    also: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Sequences:
    """The index tensors that attention reads for n sequences of one kind, decoding sessions or chunks. All are int32.

    Attributes:
        query_starts: host ``[n + 1]``: where each sequence's queries begin among those of its kind.
        block_starts: host ``[n + 1]``: where each sequence's blocks begin in ``blocks``.
        last_lengths: host ``[n]``: tokens in each sequence's last block, those computed now included.
        blocks: device: the block ids of all sequences, one after another.
        blocks_on_host: these ids on the host.
        queries: query tokens in all.
    """

    query_starts: torch.Tensor
    block_starts: torch.Tensor
    last_lengths: torch.Tensor
    blocks: torch.Tensor
    blocks_on_host: torch.Tensor
    queries: int

    def __len__(self) -> int:
        return len(self.last_lengths)


@dataclass(frozen=True, slots=True)
class ChunkPart:
    """The chunks of an iteration.

    Attributes:
        sequences: for attention.
        tokens: device, int32 ``[4, T]``: rows, positions, blocks and offsets as in ``TokenBatch``.
        sampled: device, int32 ``[2, S]``: the flat tokens to sample from, those of the decoding sessions first, and the
            row that each is sampled for.
    """

    sequences: Sequences
    tokens: torch.Tensor
    sampled: torch.Tensor


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """The flat tokens of an iteration on the device.

    Attributes:
        rows, positions: int64 ``[T]``: each token's row, and its position in the context.
        blocks, offsets: int32 ``[T]``: where in the pool its keys and values go.
        sampled: int64 ``[S]``: the tokens whose logits are wanted; None for all.
        drawing: int64 ``[S]``: the row that gets the token sampled from each of these; ``rows`` for all.
    """

    rows: torch.Tensor
    positions: torch.Tensor
    blocks: torch.Tensor
    offsets: torch.Tensor
    sampled: torch.Tensor | None
    drawing: torch.Tensor


class BatchBuffers:
    """The index tensors of one iteration after another. What a CUDA graph reads lies at fixed places; chunks follow,
    packed anew each iteration.

    Args:
        tables: block ids.
        max_decodes: decoding sessions at most, padding included.
        max_tokens: tokens of all chunks of an iteration at most.
        device: where the copy goes.
        scratch_row, scratch_block: what padding reads and writes.
        schedule: int32 numbers that attention may write for the decoding sessions.
        chunk_schedule: and for the chunks.

    Attributes:
        schedule: where it writes them, on the host.
    """

    def __init__(
        self,
        tables: BlockTables,
        max_decodes: int,
        max_tokens: int,
        device: torch.device,
        scratch_row: int,
        scratch_block: int,
        schedule: int = 0,
        chunk_schedule: int = 0,
    ) -> None:
        self.tables, self.max_tokens = tables, max_tokens
        self.scratch_row, self.scratch_block = scratch_row, scratch_block
        width = tables.gpu.shape[1]
        self._columns: Ints = np.arange(width, dtype=np.int32)
        self._ones: Ints = np.arange(max_decodes + 1, dtype=np.int32)
        self._query_starts = torch.arange(max_decodes + 1, dtype=torch.int32)
        self._flat_end = 4 * max_decodes
        self._lengths_at = self._flat_end
        self._starts_at = _aligned(self._lengths_at + max_decodes)
        self._schedule_at = _aligned(self._starts_at + max_decodes + 1)
        self._blocks_at = _aligned(self._schedule_at + schedule)
        fixed_end = _aligned(self._blocks_at + max_decodes * width)
        capacity = fixed_end + 8 * max_tokens + max_decodes * (width + 4) + chunk_schedule + 64
        cuda = device.type == "cuda"
        self.host = torch.zeros(capacity, dtype=torch.int32, pin_memory=cuda)
        self.device = torch.zeros(capacity, dtype=torch.int32, device=device) if cuda else self.host
        self._copy = MappedCopy(self.host, self.device) if cuda else None
        self._numbers: Ints = self.host.numpy()
        self._flat = self._numbers[: self._flat_end].reshape(4, max_decodes)
        self._flat_on_device = self.device[: self._flat_end].view(4, max_decodes)
        self.schedule: Ints = self._numbers[self._schedule_at : self._schedule_at + schedule]
        self._used = 0

    def graph_inputs(self, padded: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """``block_starts``, ``blocks`` and ``last_lengths`` of ``padded`` decoding sessions, as views of the device's
        buffer."""
        starts = self.device[self._starts_at : self._starts_at + padded + 1]
        lengths = self.device[self._lengths_at : self._lengths_at + padded]
        return starts, self.device[self._blocks_at : self._blocks_at + padded * len(self._columns)], lengths

    @property
    def schedule_on_device(self) -> torch.Tensor:
        """``schedule`` as a view of the device's buffer, filled once it is sent."""
        return self.device[self._schedule_at : self._schedule_at + len(self.schedule)]

    def fill_decodes(self, rows: Ints, positions: Ints, padded: int) -> Sequences | None:
        """Write the decoding sessions, which have blocks for their tokens at ``positions``, padded to ``padded``."""
        self._used = self._blocks_at
        if padded == 0:
            return None
        n, size = len(rows), self.tables.block_size
        counts = positions // size + 1
        self._flat[:, n:padded] = ((self.scratch_row,), (0,), (self.scratch_block,), (0,))
        self._flat[0, :n], self._flat[1, :n] = rows, positions
        self._flat[2, :n], self._flat[3, :n] = self.tables.gpu[rows, counts - 1], positions % size
        lengths = self._numbers[self._lengths_at : self._lengths_at + padded]
        lengths[:n], lengths[n:] = positions % size + 1, 1
        starts = self._numbers[self._starts_at : self._starts_at + padded + 1]
        starts[0] = 0
        np.cumsum(counts, out=starts[1 : n + 1])
        filled = int(starts[n])
        starts[n + 1 :] = filled + self._ones[1 : padded - n + 1]
        total = filled + padded - n
        end = self._blocks_at + total
        self._numbers[self._blocks_at : end - (padded - n)] = self._blocks_of(rows, counts)
        self._numbers[end - (padded - n) : end] = self.scratch_block
        self._used = end
        return Sequences(
            query_starts=self._query_starts[: padded + 1],
            block_starts=self.host[self._starts_at : self._starts_at + padded + 1],
            last_lengths=self.host[self._lengths_at : self._lengths_at + padded],
            blocks=self.device[self._blocks_at : end],
            blocks_on_host=self.host[self._blocks_at : end],
            queries=padded,
        )

    def fill_chunks(self, chunks: Sequence[RowChunk], padded: int) -> ChunkPart | None:
        """Write the chunks, which have blocks for all their tokens, after ``padded`` decoding sessions."""
        if not chunks:
            return None
        size = self.tables.block_size
        rows = np.array([chunk.row for chunk in chunks], dtype=np.int32)
        tokens = np.array([chunk.tokens for chunk in chunks], dtype=np.int32)
        ends = np.array([chunk.start + chunk.tokens for chunk in chunks], dtype=np.int32)
        counts = -(-ends // size)
        query_starts = running_sum(tokens)
        queries = int(query_starts[-1])
        assert queries <= self.max_tokens, f"{queries} tokens in chunks; the backend was made for {self.max_tokens}"
        flat = np.empty((4, queries), dtype=np.int32)
        flat[0] = np.repeat(rows, tokens)
        flat[1] = np.arange(queries, dtype=np.int32) + np.repeat(ends - query_starts[1:], tokens)
        flat[2], flat[3] = self.tables.gpu[flat[0], flat[1] // size], flat[1] % size
        last = padded + query_starts[1:] - 1
        drawing = [(index, row) for index, one in enumerate(chunks) if one.ends for row in (one.row, *one.also)]
        places, drawn = np.array(drawing, dtype=np.int32).reshape(-1, 2).T
        sampled = np.concatenate((self._ones[:padded], last[places], self._flat[0, :padded], drawn))
        blocks = self.put(self._blocks_of(rows, counts))
        return ChunkPart(
            Sequences(
                query_starts=self.host[self.put(query_starts)],
                block_starts=self.host[self.put(running_sum(counts))],
                last_lengths=self.host[self.put((ends - 1) % size + 1)],
                blocks=self.device[blocks],
                blocks_on_host=self.host[blocks],
                queries=queries,
            ),
            tokens=self.device[self.put(flat.reshape(-1))].view(4, queries),
            sampled=self.device[self.put(sampled)].view(2, -1),
        )

    def on_device(self, numbers: torch.Tensor) -> torch.Tensor:
        """A part of ``host`` as a view of the device's buffer, filled once it is sent."""
        start = numbers.storage_offset()
        return self.device[start : start + len(numbers)]

    def send(self) -> None:
        """Copy what has been filled in to the device."""
        if self._copy is not None:
            self._copy(self._used)

    def tokens(self, padded: int, chunks: ChunkPart | None) -> TokenBatch:
        """The flat tokens as they have been sent."""
        flat = self._flat_on_device[:, :padded]
        if chunks is not None:
            flat = torch.cat((flat, chunks.tokens), dim=1)
        rows, positions = flat[:2].long().unbind()
        if chunks is None:
            return TokenBatch(rows, positions, flat[2], flat[3], None, rows)
        sampled, drawing = chunks.sampled.long().unbind()
        return TokenBatch(rows, positions, flat[2], flat[3], sampled, drawing)

    def _blocks_of(self, rows: Ints, counts: Ints) -> Ints:
        """The first ``counts[i]`` block ids of each row, one row after another."""
        widest = int(counts.max(initial=0))
        found: Ints = self.tables.gpu[rows, :widest][self._columns[:widest] < counts[:, None]]
        return found

    def put(self, numbers: Ints) -> slice:
        """Add ``numbers`` to what is sent; where they lie, on both sides, at a step of 16 bytes."""
        start = _aligned(self._used)
        self._used = start + len(numbers)
        self._numbers[start : self._used] = numbers
        return slice(start, self._used)


def _aligned(place: int) -> int:
    """The next place at a step of 16 bytes."""
    return -(-place // 4) * 4
