"""Notes what happens on one replica: a row for each session and call.

A session is forgotten when it has left: its row and those of its calls are packed numbers by then, so that a run of
millions of sessions fits in memory.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from sim.engine.engine import Engine
from sim.engine.plan import Outcome
from sim.engine.truth import Tools
from sim.results.memory_accounting import MemoryAccounting
from sim.results.run_record import CALL_COLUMNS, SESSION_COLUMNS, STAT_COLUMNS, ReplicaResult, Rows, RunRecord, merge
from sim.session import SessionState, Status
from traces.session import Session


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
        accounting: accounts for memory and time.
        bytes_per_token: of KV, by which copies are counted.
        replica: the replica's index in its cluster.
        tools: know how long recorded pauses last.
    """

    def __init__(self, accounting: MemoryAccounting, bytes_per_token: int, replica: int, tools: Tools) -> None:
        self.accounting = accounting
        self._units = [bytes_per_token if one.kv_bytes else 1 for one in STAT_COLUMNS]
        self._replica = replica
        self._tools = tools
        self._inside: dict[int, SessionState] = {}
        self._open: dict[int, _OpenCall] = {}
        self._first_token: dict[int, float] = {}
        self._sessions = Rows(SESSION_COLUMNS)
        self._places = array("q")  # of the sessions in their rows, among all arrivals
        self._calls = Rows(CALL_COLUMNS)
        self._sums = dict.fromkeys(SUMS, 0)

    def arrived(self, state: SessionState) -> None:
        """A session was submitted."""
        if state.status is Status.REJECTED:
            self._write(state, math.nan)
        else:
            self._inside[state.serial] = state
            self._open[state.serial] = _OpenCall(0, state.session.arrival, state.context, 0, 0, state.missing)

    def moved_in(self, state: SessionState, now: float, first_token_at: float) -> None:
        """A session that paused elsewhere goes on here: its next call, with nothing of its context here."""
        if not math.isnan(first_token_at):
            self._first_token[state.serial] = first_token_at
        if state.status is Status.FAILED:
            self._write(state, math.nan)
            return
        pause = state.session.calls[state.call_index - 1].pause
        assert pause is not None
        lasted = self._lasted(state, state.call_index - 1, now)
        self._inside[state.serial] = state
        self._open[state.serial] = _OpenCall(
            state.call_index, now, state.context, 0, 0, state.carried, pause.tool, pause.waits_for, lasted
        )

    def moved_away(self, state: SessionState) -> None:
        """A session goes on elsewhere, and is that replica's to tell of."""
        del self._inside[state.serial]
        self._first_token.pop(state.serial, None)

    def first_token_at(self, state: SessionState) -> float:
        """When the session emitted its first token, s; NaN if it has not."""
        return self._first_token.get(state.serial, math.nan)

    def tool_returned(self, state: SessionState, now: float) -> None:
        """A pause is over; called before the engine hears of it."""
        pause = state.call.pause
        assert pause is not None
        if not state.last_call:
            kept, (index, joined) = state.kept(), state.next_call(now)
            resident = min(state.resident, kept)
            offloaded = min(state.offloaded, kept - resident)
            self._open[state.serial] = _OpenCall(
                index,
                now,
                kept + joined,
                resident,
                offloaded,
                kept - resident - offloaded,
                pause.tool,
                pause.waits_for,
                self._lasted(state, state.call_index, now),
            )

    def committed(self, outcome: Outcome, now: float) -> None:
        """An iteration is over: first tokens of calls, and calls that have ended."""
        for state in outcome.first_tokens:
            self._open[state.serial].first_token_at = now
            if not state.infers:
                self._first_token.setdefault(state.serial, now)
        for state in outcome.ended:
            self._close(state, now)

    def finished(self, state: SessionState, now: float) -> None:
        """The session is over."""
        del self._inside[state.serial]
        self._write(state, now)

    def _close(self, state: SessionState, now: float) -> None:
        call = self._open.pop(state.serial)
        begun = state.call_index == call.index  # not while the answer waits for a copy of the context
        if self.accounting.reach is not None and begun and state.emitted:
            self.accounting.reach.called(call.context + state.emitted)
        self._calls.append(
            (
                state.session.id,
                call.index,
                call.ready_at,
                state.scheduled_at if begun else math.nan,
                call.first_token_at,
                now,
                call.context,
                state.emitted if begun else 0,
                call.tool,
                call.waits_for,
                call.pause_s,
                call.resident,
                call.offloaded,
                call.missing,
            )
        )

    def result(self, engine: Engine, accounted: float) -> ReplicaResult:
        """What the replica leaves behind, with its accounts kept up to ``accounted`` and at rest from then on.

        Calls still open are rows without an end. The recorder is empty afterwards.
        """
        for state in self._inside.values():
            if state.serial in self._open:
                self._close(state, math.nan)
            self._write(state, math.nan)
        self._inside.clear()
        return ReplicaResult(
            replica=self._replica,
            profile=self.accounting.costs.profile.name,
            gpu=self.accounting.costs.profile.gpu,
            sessions=self._sessions,
            places=self._places,
            calls=self._calls,
            accounting=self.accounting,
            accounted=accounted,
            at_rest=self.accounting.at_rest(engine),
            sums={"emitted_tokens": engine.emitted_tokens, **self._sums},
            uses_oracle=engine.policy_caller.uses_oracle,
            decisions=engine.policy_caller.decisions,
        )

    def record(self, engine: Engine, end: float) -> RunRecord:
        """The record of a run that ended at ``end`` with this replica alone. The recorder is empty afterwards."""
        return merge([self.result(engine, end)], end)

    def _lasted(self, state: SessionState, call: int, now: float) -> float:
        """Seconds for which the pause after a call has lasted when its answer is there at ``now``."""
        pause = state.session.calls[call].pause
        assert pause is not None
        return self._tools.duration(state.session, call) if pause.not_before is None else now - state.paused_at

    def _write(self, state: SessionState, finished_at: float) -> None:
        """The session's row is what it will be."""
        self._places.append(state.place)
        row = self._session_row(state, finished_at)
        self._sessions.append(row)
        for name, column in SUMS.items():
            self._sums[name] += row[column]

    def _session_row(self, state: SessionState, finished_at: float) -> tuple[Any, ...]:
        session: Session = state.session
        begun = state.call_index + 1
        ended = state.status in (Status.FINISHED, Status.PAUSED)
        every = session.pauses  # each but the last call has one
        pauses, answered = every[: begun if ended else begun - 1], every[: begun - 1]
        status = state.status.value if state.status in _FINAL else "unfinished"
        return (
            session.id,
            session.kind,
            status,
            state.reason,
            session.arrival,
            self._first_token.pop(state.serial, math.nan),
            finished_at,
            session.input_ended,
            session.prompt + sum([pause.returned for pause in every if pause.not_before is not None]),
            session.samples,
            state.stats.emitted + (0 if ended else state.emitted),
            state.stats.inferred + (0 if ended or not state.infers else state.emitted),
            sum([pause.returned for pause in answered if pause.not_before is None]),
            len(session.calls),
            len(pauses),
            sum([self._tools.duration(session, call) for call in range(len(pauses))]),
            *[value * unit for value, unit in zip(_counted(state.stats), self._units, strict=True)],
        )


_FINAL = (Status.FINISHED, Status.REJECTED, Status.FAILED)

_counted = attrgetter(*[one.counter for one in STAT_COLUMNS])
SUMS = {one.name: list(SESSION_COLUMNS).index(one.name) for one in STAT_COLUMNS if one.total}
