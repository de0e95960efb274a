"""What a run leaves behind: a row for each session, call and step of time, and totals. Plain data, no opinions."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sim.session_stats import stat_columns

if TYPE_CHECKING:
    from sim.results.memory_accounting import MemoryAccounting


Columns = dict[str, list[Any]]

_AT_ONCE = 1024
"""Rows that wait as tuples: packing them together costs less than one by one."""


class Rows:
    """A table that grows by rows.

    Args:
        columns: the type of each column by its name: float, int or str.
    """

    def __init__(self, columns: Mapping[str, type]) -> None:
        self.names = tuple(columns)
        self._packed: list[Any] = [_column(kind) for kind in columns.values()]
        self._loose: list[tuple[Any, ...]] = []

    def __len__(self) -> int:
        return len(self._packed[0]) + len(self._loose)

    def append(self, row: tuple[Any, ...]) -> None:
        """Add a row: a value for each column, in their order."""
        self._loose.append(row)
        if len(self._loose) == _AT_ONCE:
            self._pack()

    def _pack(self) -> None:
        for column, values in zip(self._packed, zip(*self._loose, strict=True), strict=False):
            column.extend(values)
        self._loose.clear()

    def take(self, order: Sequence[int] | None = None) -> Columns:
        """Every column as a list, the rows in the given order; the table is empty afterwards."""
        self._pack()
        columns: Columns = {}
        for place, name in enumerate(self.names):
            packed, self._packed[place] = self._packed[place], self._packed[place][:0]
            values = packed if isinstance(packed, list) else packed.tolist()
            columns[name] = values if order is None else [values[index] for index in order]
        return columns


def _column(kind: type) -> Any:
    if kind is str:
        return []
    return array("d") if kind is float else array("q")


@dataclass(slots=True)
class RunRecord:
    """Everything that a run produced. ``replica`` counts the replicas of a cluster from 0; one alone is 0.

    Attributes:
        sessions: a row for each session, in the order of the workload; ``replica`` is where it was last. ``samples`` is
            there if any session has several; lengths are those of one sample.
        calls: a row for each call that began, replica after replica.
        timeline: a row for each replica and step of time: means of sessions by state and of GPU blocks by use.
        totals: sums over the run; ``..._token_s`` are token-seconds of GPU memory and add up to ``memory_token_s``.
        replicas: a row for each replica: its profile, how many sessions and calls ended there, and its totals.
        facts: what a reader of the results must know: whether an oracle was used (``uses_oracle``), and how far the
            run went beyond what its profile was measured over (``beyond_measured``: ``sim.costs.measured_range`` of
            each replica that did; None where no profile says what it was measured over).
        decisions: the policy's decisions with their reasons, if they were asked for.
    """

    sessions: Columns
    calls: Columns
    timeline: Columns
    totals: dict[str, float]
    replicas: Columns = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    decisions: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class ReplicaResult:
    """What one replica leaves behind while the end of the run is not known yet. It can go from process to process.

    Attributes:
        replica: its index in its cluster.
        profile, gpu: names.
        sessions, calls: rows as in the record, without ``replica``; sessions in the order in which they left.
        places: of each session, its place among the arrivals.
        accounting: kept up to ``accounted`` seconds; from then on ``at_rest`` holds.
        sums: totals that the accounts do not know.
        uses_oracle, decisions: as in the record.
    """

    replica: int
    profile: str
    gpu: str
    sessions: Rows
    places: array[int]
    calls: Rows
    accounting: MemoryAccounting
    accounted: float
    at_rest: tuple[float, ...]
    sums: dict[str, int]
    uses_oracle: bool
    decisions: list[dict[str, Any]]


def merge(results: Iterable[ReplicaResult], end: float) -> RunRecord:
    """The record of a run that ended at ``end``, from the parts of all its replicas, in any order. They are used up."""
    results = sorted(results, key=lambda result: result.replica)
    for result in results:
        if end > result.accounted:
            result.accounting.spread(result.accounted, end, result.at_rest)
    totals = [result.accounting.totals(end) | result.sums for result in results]
    replicas = _replicas(results, totals)
    places = [place for result in results for place in result.places]
    sessions = _joined(results, [result.sessions.take() for result in results])
    if max(sessions["samples"], default=1) == 1:
        del sessions["samples"]
    return RunRecord(
        sessions=_ordered(sessions, sorted(range(len(places)), key=places.__getitem__)),
        calls=_joined(results, [result.calls.take() for result in results]),
        timeline=_joined(results, [result.accounting.timeline(end) for result in results]),
        replicas=replicas,
        totals=_summed(totals),
        facts={
            "uses_oracle": any(result.uses_oracle for result in results),
            "beyond_measured": _beyond_measured(results),
        },
        decisions=[{**decision, "replica": result.replica} for result in results for decision in result.decisions],
    )


def _joined(results: Sequence[ReplicaResult], tables: Sequence[Columns]) -> Columns:
    """The rows of one replica after the other's, each with its index."""
    replica = [
        result.replica for result, table in zip(results, tables, strict=True) for _ in next(iter(table.values()))
    ]
    joined, *others = tables
    for table in others:
        for name, column in joined.items():
            column.extend(table.pop(name))
    joined["replica"] = replica
    return joined


def _ordered(table: Columns, order: Sequence[int]) -> Columns:
    return {name: [column[row] for row in order] for name, column in table.items()}


def _replicas(results: Sequence[ReplicaResult], totals: Sequence[Mapping[str, float]]) -> Columns:
    rows = [
        {
            "replica": result.replica,
            "profile": result.profile,
            "gpu": result.gpu,
            "sessions": len(result.sessions),
            "calls": len(result.calls),
            **total,
        }
        for result, total in zip(results, totals, strict=True)
    ]
    return {name: [row[name] for row in rows] for name in rows[0]}


def _beyond_measured(results: Sequence[ReplicaResult]) -> list[dict[str, Any]] | None:
    reaches = [
        (result.replica, result.accounting.reach.beyond()) for result in results if result.accounting.reach is not None
    ]
    return [{"replica": replica, **beyond} for replica, beyond in reaches if beyond] if reaches else None


def _summed(totals: Sequence[dict[str, float]]) -> dict[str, float]:
    """Totals of a cluster: those of its replicas added up. The block size is 0 where theirs differ."""
    if len(totals) == 1:
        return totals[0]
    summed = {name: sum(total[name] for total in totals) for name in totals[0]}
    summed["end_time"] = totals[0]["end_time"]
    sizes = {total["block_size"] for total in totals}
    summed["block_size"] = sizes.pop() if len(sizes) == 1 else 0
    return summed


STAT_COLUMNS = tuple(stat_columns())
SESSION_COLUMNS = {
    "id": str,
    "kind": str,
    "status": str,
    "reason": str,
    "arrival": float,
    "first_token_at": float,
    "finished_at": float,
    "input_ended_at": float,
    "prompt_tokens": int,
    "samples": int,
    "output_tokens": int,
    "inference_tokens": int,
    "returned_tokens": int,
    "calls": int,
    "pauses": int,
    "pause_s": float,
    **{one.name: one.kind for one in STAT_COLUMNS},
}
CALL_COLUMNS = {
    "session": str,
    "call": int,
    "ready_at": float,
    "scheduled_at": float,
    "first_token_at": float,
    "finished_at": float,
    "context_tokens": int,
    "output_tokens": int,
    "tool": str,
    "waits_for": str,
    "pause_s": float,
    "resident_tokens": int,
    "offloaded_tokens": int,
    "missing_tokens": int,
}
