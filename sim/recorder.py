"""What a run leaves behind: a row for each session, call and step of time, and totals. Plain data, no opinions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sim.engine import Engine
from sim.ledger import Ledger
from sim.live import LiveSession, State
from sim.plan import Outcome
from traces.session import Session

Columns = dict[str, list[Any]]


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
    """A call from the moment it is ready; what is known before it ends."""

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
    """Collects rows while a replica runs."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.live: list[LiveSession] = []
        self._open: dict[int, _OpenCall] = {}
        self._calls: list[tuple[Any, ...]] = []
        self._first_token: dict[int, float] = {}
        self._finished: dict[int, float] = {}

    def arrived(self, live: LiveSession) -> None:
        """A session was submitted."""
        self.live.append(live)
        if live.state is not State.REJECTED:
            self._open[live.serial] = _OpenCall(0, live.session.arrival, live.context, 0, 0, live.missing)

    def answered(self, live: LiveSession, now: float) -> None:
        """A pause is over; called before the engine hears of it."""
        pause = live.call.pause
        assert pause is not None
        if not live.last_call:
            kept = live.context if pause.keeps is None else min(live.context, pause.keeps)
            context = kept + pause.returned
            self._open[live.serial] = _OpenCall(
                live.call_index + 1,
                now,
                context,
                live.resident,
                live.offloaded,
                live.missing,
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
        self._finished[live.serial] = now

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

    def record(self, engine: Engine, bytes_per_token: int, end: float) -> RunRecord:
        """The run is over at ``end``: put the rows together. Calls still open are rows without an end."""
        for live in self.live:
            if live.serial in self._open:
                self._close(live, math.nan)
        totals = self.ledger.totals(end)
        totals["emitted_tokens"] = engine.emitted_tokens
        totals["recomputed_tokens"] = sum(live.recomputed for live in self.live)
        totals["preemptions"] = sum(live.preemptions for live in self.live)
        rows = [self._session_row(live, bytes_per_token) for live in self.live]
        return RunRecord(
            sessions=_columns(SESSION_COLUMNS, rows),
            calls=_columns(CALL_COLUMNS, self._calls),
            timeline=self.ledger.timeline(end),
            totals=totals,
            facts={"uses_oracle": engine.counsel.uses_oracle},
            decisions=engine.counsel.decisions,
        )

    def _session_row(self, live: LiveSession, bytes_per_token: int) -> tuple[Any, ...]:
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
            self._first_token.get(live.serial, math.nan),
            self._finished.get(live.serial, math.nan),
            session.prompt,
            live.emitted_total if live.state in (State.FINISHED, State.PAUSED) else live.emitted_total + live.emitted,
            sum(pause.returned for pause in answered),
            len(session.calls),
            len(pauses),
            sum(pause.duration for pause in pauses),
            live.queued_s,
            live.recomputed,
            live.swapped_out * bytes_per_token,
            live.swapped_in * bytes_per_token,
            live.preemptions,
        )


_FINAL = (State.FINISHED, State.REJECTED, State.FAILED)

SESSION_COLUMNS = (
    "id",
    "kind",
    "status",
    "reason",
    "arrival",
    "first_token_at",
    "finished_at",
    "prompt_tokens",
    "output_tokens",
    "returned_tokens",
    "calls",
    "pauses",
    "pause_s",
    "queued_s",
    "recomputed_tokens",
    "swapped_out_bytes",
    "swapped_in_bytes",
    "preemptions",
)
CALL_COLUMNS = (
    "session",
    "call",
    "ready_at",
    "scheduled_at",
    "first_token_at",
    "finished_at",
    "context_tokens",
    "output_tokens",
    "tool",
    "waits_for",
    "pause_s",
    "resident_tokens",
    "offloaded_tokens",
    "missing_tokens",
)


def _columns(names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> Columns:
    return {name: [row[index] for row in rows] for index, name in enumerate(names)}
