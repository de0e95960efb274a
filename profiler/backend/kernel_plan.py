"""The plan that FlashInfer's ``fa2`` kernels are called with, as its version 0.6.3 writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass


@dataclass(frozen=True, slots=True)
class KernelPlan:
    """The numbers of a plan, in their order. ``..._at`` are byte offsets: of index numbers in the buffer that the
    kernels read them from, of sums and weights in their workspace.

    A *piece* is the work of one processor at a time for one KV head: a tile of query rows over a stretch of a context.

    Attributes:
        pieces: of them all, invalid ones included.
        rows: query tokens.
        rows_at: their number again, where a CUDA graph may find another one.
        tile: query rows, a query head of the group each, of a piece.
        requests_at, query_tiles_at, numbers_at: of each piece: its request, its tile and its stretch.
        merge_starts_at: for each query token, where its sums begin; they are merged if ``cut``.
        row_starts_at: for each request, where its rows of sums begin.
        piece_tokens_at: length of a stretch.
        sums_at, weights_at: what pieces leave to be merged.
        valid_at: which pieces exist, for a graph.
        graph: whether a CUDA graph may replay it.
        cut: whether contexts are cut into stretches.
    """

    pieces: int
    rows: int
    rows_at: int
    tile: int
    requests_at: int
    query_tiles_at: int
    numbers_at: int
    merge_starts_at: int
    row_starts_at: int
    piece_tokens_at: int
    sums_at: int
    weights_at: int
    valid_at: int
    graph: bool
    cut: bool

    def numbers(self) -> list[int]:
        """The plan as the list of numbers that the kernels take."""
        return [int(number) for number in astuple(self)]


FIELDS = len(KernelPlan.__slots__)
_TILE = KernelPlan.__slots__.index("tile")


def tile_of(plan: Sequence[int]) -> int | None:
    """Query rows that FlashInfer's kernels take at a time, by a plan of its own; None if that has another form."""
    return int(plan[_TILE]) if len(plan) == FIELDS else None


def sums_bytes(pieces: int, rows: int, heads: int, head_dim: int) -> int:
    """Bytes for what pieces of ``rows`` query tokens each leave to be merged, before their weights; whole 16 bytes."""
    return -(-4 * pieces * rows * heads * head_dim // 16) * 16
