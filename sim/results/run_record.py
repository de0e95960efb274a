"""What a run leaves behind: a row for each session, call and step of time, and totals. Plain data, no opinions."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sim.results.rows import Columns, Rows
from sim.session_stats import stat_columns

if TYPE_CHECKING:
    from sim.results.memory_accounting import Ledger


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
            each replica that
            did; None where no profile says what it was measured over).
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
class Part:
    """What one replica leaves behind while the end of the run is not known yet. It can go from process to process.

    Attributes:
        replica: its index in its cluster.
        profile, gpu: names.
        sessions, calls: rows as in the record, without ``replica``; sessions in the order in which they left.
        places: of each session, its place among the arrivals.
        ledger: kept up to ``accounted`` seconds; from then on ``at_rest`` holds.
        sums: totals that the ledger does not know.
        uses_oracle, decisions: as in the record.
    """

    replica: int
    profile: str
    gpu: str
    sessions: Rows
    places: array[int]
    calls: Rows
    ledger: Ledger
    accounted: float
    at_rest: tuple[float, ...]
    sums: dict[str, int]
    uses_oracle: bool
    decisions: list[dict[str, Any]]


def merge(parts: Iterable[Part], end: float) -> RunRecord:
    """The record of a run that ended at ``end``, from the parts of all its replicas, in any order. They are used up."""
    parts = sorted(parts, key=lambda part: part.replica)
    for part in parts:
        if end > part.accounted:
            part.ledger.spread(part.accounted, end, part.at_rest)
    totals = [part.ledger.totals(end) | part.sums for part in parts]
    replicas = _replicas(parts, totals)
    places = [place for part in parts for place in part.places]
    sessions = _joined(parts, [part.sessions.take() for part in parts])
    if max(sessions["samples"], default=1) == 1:
        del sessions["samples"]
    return RunRecord(
        sessions=_ordered(sessions, sorted(range(len(places)), key=places.__getitem__)),
        calls=_joined(parts, [part.calls.take() for part in parts]),
        timeline=_joined(parts, [part.ledger.timeline(end) for part in parts]),
        replicas=replicas,
        totals=_summed(totals),
        facts={
            "uses_oracle": any(part.uses_oracle for part in parts),
            "beyond_measured": _beyond_measured(parts),
        },
        decisions=[{**decision, "replica": part.replica} for part in parts for decision in part.decisions],
    )


def _joined(parts: Sequence[Part], tables: Sequence[Columns]) -> Columns:
    """The rows of one replica after the other's, each with its index."""
    replica = [part.replica for part, table in zip(parts, tables, strict=True) for _ in next(iter(table.values()))]
    joined, *others = tables
    for table in others:
        for name, column in joined.items():
            column.extend(table.pop(name))
    joined["replica"] = replica
    return joined


def _ordered(table: Columns, order: Sequence[int]) -> Columns:
    return {name: [column[row] for row in order] for name, column in table.items()}


def _replicas(parts: Sequence[Part], totals: Sequence[Mapping[str, float]]) -> Columns:
    rows = [
        {
            "replica": part.replica,
            "profile": part.profile,
            "gpu": part.gpu,
            "sessions": len(part.sessions),
            "calls": len(part.calls),
            **total,
        }
        for part, total in zip(parts, totals, strict=True)
    ]
    return {name: [row[name] for row in rows] for name in rows[0]}


def _beyond_measured(parts: Sequence[Part]) -> list[dict[str, Any]] | None:
    reaches = [(part.replica, part.ledger.reach.beyond()) for part in parts if part.ledger.reach is not None]
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
