"""What validation asks of a real engine: serve these sessions under this system, and tell what happened.

The torch backend (``profiler.serving.torch_engine``) is one such engine. Another server becomes one with a class of one
method: its client sends each call when it is due, notes a `CallTiming` for each, and `record_of` makes the tables. What
an engine cannot tell stays out of its `RealRun`; validation then compares the rest and names what is missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sim.results.run_record import CALL_COLUMNS, SESSION_COLUMNS, Columns, RunRecord
from traces.session import Pause, Session

if TYPE_CHECKING:
    import pandas as pd

POOLS = ("gpu_blocks", "host_blocks", "block_size")
"""Totals that say how large the memory pools were."""
PARTS = {
    "first tokens": "TTFT and TPOT",
    "memory pools": "whether both sides had equal pools",
    "memory use": "wasted memory",
    "iterations": "where errors come from",
    "tokens": "tokens against those of each session alone",
}
"""What an engine may leave out, and what validation cannot compare without it."""


@dataclass(frozen=True)
class RealRun:
    """What a real engine tells of a run.

    Attributes:
        record: at least the tables ``sessions`` and ``calls``, and ``end_time`` among the totals. An engine that knows
            how its memory was used adds the timeline and the other totals of `RunRecord`.
        iterations: what each iteration computed and took, with the columns `profiler.serving.iterations.KEPT`.
        token_match: how many sessions had the tokens that they have alone, as `profiler.serving.token_match` counts.
        provenance: machine, versions, and whatever else a reader may want to know of the run.
    """

    record: RunRecord
    iterations: pd.DataFrame | None = None
    token_match: dict[str, Any] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)


class RealEngine(Protocol):
    """Serves sessions by the wall clock."""

    def serve(self, sessions: Sequence[Session], rules: Mapping[str, Any], horizon: float | None) -> RealRun:
        """Serve each session at its arrival time, until all have left.

        An engine serves several runs, one after the other; each begins with empty pools.

        Args:
            sessions: the workload. Each pause lasts as long as the workload says.
            rules: policy, order and engine settings as plain data, as a recorded run keeps them. An engine with rules
                of its own serves by those that come closest; the replay follows ``rules``.
            horizon: seconds after which the run is cut; None serves to the end.
        """
        ...


@dataclass(frozen=True, slots=True)
class CallTiming:
    """What a client sees of one call. Times are seconds from the run's start; NaN stands for what did not happen.

    Attributes:
        session: the session's id.
        call: the call's index in its session.
        ready_at: when the call could begin: the session's arrival, or the end of the pause before it.
        first_token_at: when its first token came; NaN, too, where the engine does not stream its tokens.
        finished_at: when its last token came.
        output_tokens: tokens generated; of a session of several samples, those of one sample.
    """

    session: str
    call: int
    ready_at: float
    first_token_at: float
    finished_at: float
    output_tokens: int


def record_of(sessions: Sequence[Session], timings: Iterable[CallTiming], end: float) -> RunRecord:
    """The record of a run that a client watched: tables of sessions and calls without what only an engine knows.

    Args:
        sessions: the workload; sessions without a timing had not arrived when the run ended, and have no row.
        timings: of every call that was sent, in any order.
        end: seconds from the run's start to its end.

    Raises:
        ValueError: a timing is of no call of the workload, a call has two, or one before it has none or did not end; or
            a prompt streams in, for which a client must make the tables itself.
    """
    by_session: dict[str, dict[int, CallTiming]] = {}
    for timing in timings:
        calls = by_session.setdefault(timing.session, {})
        if timing.call in calls:
            raise ValueError(f"session {timing.session}: call {timing.call} has two timings")
        calls[timing.call] = timing
    session_rows, call_rows = [], []
    for session in sorted(sessions, key=lambda session: session.arrival):
        if session.id in by_session:
            calls = by_session.pop(session.id)
            _check(session, calls)
            session_rows.append(_session_row(session, calls, end))
            call_rows += _call_rows(session, calls)
    if by_session:
        raise ValueError(f"session {min(by_session)} has timings and is not in the workload")
    return RunRecord(
        sessions=_columns(session_rows, _SESSION_NAMES),
        calls=_columns(call_rows, _CALL_NAMES),
        timeline={},
        totals={"end_time": end},
    )


def missing_parts(
    record: RunRecord, iterations: pd.DataFrame | None, token_match: Mapping[str, Any] | None
) -> tuple[str, ...]:
    """Which of `PARTS` a run does not have."""
    finished = [status == "finished" for status in record.sessions["status"]]
    firsts = [at for at, done in zip(record.sessions["first_token_at"], finished, strict=True) if done]
    has = {
        "first tokens": not firsts or not all(map(math.isnan, firsts)),
        "memory pools": all(name in record.totals for name in POOLS),
        "memory use": tells_memory_use(record),
        "iterations": iterations is not None,
        "tokens": token_match is not None,
    }
    return tuple(part for part in PARTS if not has[part])


def tells_memory_use(record: RunRecord) -> bool:
    """Whether a record says what the memory was used for, in all and over time."""
    return bool(record.timeline) and "memory_token_s" in record.totals


_SESSION_NAMES = (
    *("id", "kind", "status", "reason", "arrival", "first_token_at", "finished_at", "input_ended_at", "prompt_tokens"),
    *("samples", "output_tokens", "inference_tokens", "returned_tokens", "calls", "pauses", "pause_s"),
)
_CALL_NAMES = (
    *("session", "call", "ready_at", "first_token_at", "finished_at", "context_tokens", "output_tokens"),
    *("tool", "waits_for", "pause_s"),
)
assert {*_SESSION_NAMES} <= SESSION_COLUMNS.keys() and {*_CALL_NAMES} <= CALL_COLUMNS.keys()


def _check(session: Session, calls: Mapping[int, CallTiming]) -> None:
    if session.stream or any(pause.not_before is not None for pause in session.pauses):
        raise ValueError(f"session {session.id} has a prompt that streams in; make its tables where it was served")
    last = max(calls)
    if last >= len(session.calls):
        raise ValueError(f"session {session.id} has {len(session.calls)} calls, and a timing of call {last}")
    for index in range(last):
        if index not in calls or math.isnan(calls[index].finished_at):
            raise ValueError(f"session {session.id}: call {last} has a timing, and call {index} did not end")


def _session_row(session: Session, calls: Mapping[int, CallTiming], end: float) -> dict[str, Any]:
    last = calls[max(calls)]
    ended = not math.isnan(last.finished_at)
    begun = len(calls)
    pauses, answered = session.pauses[: begun if ended else begun - 1], session.pauses[: begun - 1]
    finished_at = math.nan
    if ended and begun == len(session.calls):
        trailing = session.calls[-1].pause
        finished_at = last.finished_at + (trailing.duration if trailing is not None else 0.0)
        finished_at = finished_at if finished_at <= end else math.nan
    return {
        "id": session.id,
        "kind": session.kind,
        "status": "unfinished" if math.isnan(finished_at) else "finished",
        "reason": "",
        "arrival": session.arrival,
        "first_token_at": calls[0].first_token_at,
        "finished_at": finished_at,
        "input_ended_at": session.arrival,
        "prompt_tokens": session.prompt,
        "samples": session.samples,
        "output_tokens": sum(timing.output_tokens for timing in calls.values()),
        "inference_tokens": 0,
        "returned_tokens": sum(pause.returned for pause in answered),
        "calls": len(session.calls),
        "pauses": len(pauses),
        "pause_s": float(sum(pause.duration for pause in pauses)),
    }


def _call_rows(session: Session, calls: Mapping[int, CallTiming]) -> list[dict[str, Any]]:
    contexts = [before for before, _ in session.call_contexts()]
    rows = []
    for index in sorted(calls):
        timing, pause = calls[index], session.calls[index - 1].pause if index else None
        rows.append(
            {
                **{name: getattr(timing, name) for name in CallTiming.__dataclass_fields__},
                "context_tokens": contexts[index],
                **_waited_for(pause),
            }
        )
    return rows


def _waited_for(pause: Pause | None) -> dict[str, Any]:
    if pause is None:
        return {"tool": "", "waits_for": "", "pause_s": 0.0}
    return {"tool": pause.tool, "waits_for": pause.waits_for, "pause_s": pause.duration}


def _columns(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Columns:
    return {name: [row[name] for row in rows] for name in names}
