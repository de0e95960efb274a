"""What is counted of a session. To declare a counter here is to have it as a column of the sessions table.

A counter's column has its name and the type of its annotation, int or float; ``counter`` says where that differs. A
session that moves to another replica takes all its counters along.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints


def counter(
    column: str | None = None, *, zero: float = 0, table: bool = True, kv_bytes: bool = False, total: bool = False
) -> Any:
    """A counter that differs from the plain ones in one of these.

    Args:
        column: its name in the sessions table.
        zero: where it begins, of the annotated type.
        table: whether it is a column at all.
        kv_bytes: it counts tokens, and the table gives the bytes of their KV.
        total: the totals of a run have its sum over the sessions, by the column's name.
    """
    return field(default=zero, metadata={"column": column, "table": table, "kv_bytes": kv_bytes, "total": total})


@dataclass(slots=True)
class SessionStats:
    """Counters of one session, over all its calls and all replicas that it was on."""

    queued_s: float = 0.0
    """Seconds for which it was ready and nothing was computed for it, less those of the stretch under way."""
    prefix_hits: int = counter("prefix_hit_tokens", total=True)
    """Tokens that were never computed for it: another context held their KV."""
    recomputed: int = counter("recomputed_tokens", total=True)
    """Tokens computed that had been computed before."""
    swapped_out: int = counter("swapped_out_bytes", kv_bytes=True)
    """Tokens copied from the GPU to the host."""
    swapped_in: int = counter("swapped_in_bytes", kv_bytes=True)
    """Tokens copied from the host to the GPU."""
    preemptions: int = counter(total=True)
    """How often it stopped before its call had ended."""
    moves: int = counter(total=True)
    """How often it went to another replica."""
    received: int = counter("transferred_bytes", kv_bytes=True, total=True)
    """Context tokens that other replicas sent."""
    left_behind: int = counter("move_recomputed_tokens", total=True)
    """Context tokens that had KV on another replica and were computed anew."""
    time_paused_s: float = 0.0
    """Seconds of the pauses that have ended."""
    served_s: float = counter(zero=0.0, table=False)
    """Seconds for which it ran, less those of the stretch under way."""
    emitted: int = counter(table=False)
    """Tokens emitted in the calls that have ended, in each sample."""
    inferred: int = counter(table=False)
    """Of them, those of inferences from a prompt that was not complete."""


@dataclass(frozen=True, slots=True)
class StatColumn:
    """A column of the sessions table that a counter fills.

    Attributes:
        name: of the column.
        counter: of the field of ``SessionStats``.
        kind: int or float.
        kv_bytes, total: as for ``counter``.
    """

    name: str
    counter: str
    kind: type
    kv_bytes: bool
    total: bool


def stat_columns(stats: type[SessionStats] | None = None) -> Iterator[StatColumn]:
    """The columns that the counters fill, in their order.

    Args:
        stats: where they are declared; None for ``SessionStats``.

    Raises:
        TypeError: a counter is neither an int nor a float.
    """
    stats = stats or SessionStats
    kinds = get_type_hints(stats)
    for one in fields(stats):
        kind = kinds[one.name]
        if kind not in (int, float):
            raise TypeError(f"{stats.__name__}.{one.name} is annotated {one.type}; a counter is an int or a float")
        if one.metadata.get("table", True):
            name = one.metadata.get("column") or one.name
            yield StatColumn(
                name, one.name, kind, one.metadata.get("kv_bytes", False), one.metadata.get("total", False)
            )
