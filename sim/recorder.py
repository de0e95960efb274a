"""What a run leaves behind: a row for each session, call and step of time, and totals. Plain data, no opinions.

A session is forgotten when it has left: its row and those of its calls are packed numbers by then, so that a run of
millions of sessions fits in memory.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import Any

from sim.engine import Engine
from sim.ledger import Ledger
from sim.live import LiveSession, State
from sim.plan import Outcome
from sim.rows import Columns, Rows
from traces.session import Session


@dataclass(slots=True)
class RunRecord:
    """Everything that a run produced.

    Attributes:
        sessions: a row for each session, in the order of the workload.
        calls: a row for each call that began.
        timeline: a row for each step of time: means of sessions by state and of GPU blocks by use.
        totals: sums over the run; ``..._token_s`` are token-seconds of GPU memory and add up to ``memory_token_s``.
        facts: what a reader of the results must know, such as whether an oracle was used.
        decisions: the policy's decisions with their reasons, if they were asked for.
    """

    sessions: Columns
    calls: Columns
    timeline: Columns
    totals: dict[str, float]
    facts: dict[str, Any] = field(default_factory=dict)
    decisions: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class _OpenCall:
    """A call from the moment it is ready; what is known before it ends.

    ``resident``, ``offloaded`` and ``missing`` are what is left of the context then; a tool's answer comes on top.
    """

    index: int
    ready_at: float
    context: int
    resident: int
    offloaded: int
    missing: int
    tool: str = ""
    waits_for: str = ""
    pause_s: float = 0.0
    first_token_at: float = math.nan


class Recorder:
    """Collects rows while a replica runs.

    Args:
        ledger: accounts for memory and time.
        bytes_per_token: of KV, by which copies are counted.
    """

    def __init__(self, ledger: Ledger, bytes_per_token: int) -> None:
        self.ledger = ledger
        self._bytes_per_token = bytes_per_token
        self._inside: dict[int, LiveSession] = {}
        self._open: dict[int, _OpenCall] = {}
        self._first_token: dict[int, float] = {}
        self._sessions = Rows(SESSION_COLUMNS)
        self._serials = array("q")  # of the sessions in their rows
        self._calls = Rows(CALL_COLUMNS)
        self._recomputed = self._preemptions = 0

    def arrived(self, live: LiveSession) -> None:
        """A session was submitted."""
        if live.state is State.REJECTED:
            self._write(live, math.nan)
        else:
            self._inside[live.serial] = live
            self._open[live.serial] = _OpenCall(0, live.session.arrival, live.context, 0, 0, live.missing)

    def answered(self, live: LiveSession, now: float) -> None:
        """A pause is over; called before the engine hears of it."""
        pause = live.call.pause
        assert pause is not None
        if not live.last_call:
            kept = live.context if pause.keeps is None else min(live.context, pause.keeps)
            resident = min(live.resident, kept)
            offloaded = min(live.offloaded, kept - resident)
            self._open[live.serial] = _OpenCall(
                live.call_index + 1,
                now,
                kept + pause.returned,
                resident,
                offloaded,
                kept - resident - offloaded,
                pause.tool,
                pause.waits_for,
                pause.duration,
            )

    def committed(self, outcome: Outcome, now: float) -> None:
        """An iteration is over: first tokens of calls, and calls that have ended."""
        for live in outcome.first_tokens:
            self._open[live.serial].first_token_at = now
            self._first_token.setdefault(live.serial, now)
        for live in outcome.ended:
            self._close(live, now)

    def finished(self, live: LiveSession, now: float) -> None:
        """The session is over."""
        del self._inside[live.serial]
        self._write(live, now)

    def _close(self, live: LiveSession, now: float) -> None:
        call = self._open.pop(live.serial)
        begun = live.call_index == call.index  # not while the answer waits for a copy of the context
        self._calls.append(
            (
                live.session.id,
                call.index,
                call.ready_at,
                live.scheduled_at if begun else math.nan,
                call.first_token_at,
                now,
                call.context,
                live.emitted if begun else 0,
                call.tool,
                call.waits_for,
                call.pause_s,
                call.resident,
                call.offloaded,
                call.missing,
            )
        )

    def record(self, engine: Engine, end: float) -> RunRecord:
        """The run is over at ``end``: put the rows together. Calls still open are rows without an end.

        The recorder is empty afterwards.
        """
        for live in self._inside.values():
            if live.serial in self._open:
                self._close(live, math.nan)
            self._write(live, math.nan)
        self._inside.clear()
        totals = self.ledger.totals(end)
        totals["emitted_tokens"] = engine.emitted_tokens
        totals["recomputed_tokens"] = self._recomputed
        totals["preemptions"] = self._preemptions
        serials = self._serials
        return RunRecord(
            sessions=self._sessions.take(sorted(range(len(serials)), key=serials.__getitem__)),
            calls=self._calls.take(),
            timeline=self.ledger.timeline(end),
            totals=totals,
            facts={"uses_oracle": engine.counsel.uses_oracle},
            decisions=engine.counsel.decisions,
        )

    def _write(self, live: LiveSession, finished_at: float) -> None:
        """The session's row is what it will be."""
        self._serials.append(live.serial)
        self._recomputed += live.recomputed
        self._preemptions += live.preemptions
        self._sessions.append(self._session_row(live, finished_at))

    def _session_row(self, live: LiveSession, finished_at: float) -> tuple[Any, ...]:
        session: Session = live.session
        begun = live.call_index + 1
        over = begun if live.state in (State.FINISHED, State.PAUSED) else begun - 1
        pauses = [call.pause for call in session.calls[:over] if call.pause is not None]
        answered = [call.pause for call in session.calls[: begun - 1] if call.pause is not None]
        status = live.state.value if live.state in _FINAL else "unfinished"
        return (
            session.id,
            session.kind,
            status,
            live.reason,
            session.arrival,
            self._first_token.pop(live.serial, math.nan),
            finished_at,
            session.prompt,
            live.emitted_total if live.state in (State.FINISHED, State.PAUSED) else live.emitted_total + live.emitted,
            sum(pause.returned for pause in answered),
            len(session.calls),
            len(pauses),
            sum(pause.duration for pause in pauses),
            live.queued_s,
            live.recomputed,
            live.swapped_out * self._bytes_per_token,
            live.swapped_in * self._bytes_per_token,
            live.preemptions,
        )


_FINAL = (State.FINISHED, State.REJECTED, State.FAILED)

SESSION_COLUMNS = {
    "id": str,
    "kind": str,
    "status": str,
    "reason": str,
    "arrival": float,
    "first_token_at": float,
    "finished_at": float,
    "prompt_tokens": int,
    "output_tokens": int,
    "returned_tokens": int,
    "calls": int,
    "pauses": int,
    "pause_s": float,
    "queued_s": float,
    "recomputed_tokens": int,
    "swapped_out_bytes": int,
    "swapped_in_bytes": int,
    "preemptions": int,
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
