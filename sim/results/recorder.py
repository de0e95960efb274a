"""Notes what happens on one replica: a row for each session and call.

A session is forgotten when it has left: its row and those of its calls are packed numbers by then, so that a run of
millions of sessions fits in memory.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from typing import Any

from sim.engine.engine import Engine
from sim.engine.plan import Outcome
from sim.results.memory_accounting import Ledger
from sim.results.rows import Rows
from sim.results.run_record import CALL_COLUMNS, SESSION_COLUMNS, Part, RunRecord, merge
from sim.session import LiveSession, State
from traces.session import Pause, Session


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
        replica: the replica's index in its cluster.
    """

    def __init__(self, ledger: Ledger, bytes_per_token: int, replica: int = 0) -> None:
        self.ledger = ledger
        self._bytes_per_token = bytes_per_token
        self._replica = replica
        self._inside: dict[int, LiveSession] = {}
        self._open: dict[int, _OpenCall] = {}
        self._first_token: dict[int, float] = {}
        self._sessions = Rows(SESSION_COLUMNS)
        self._places = array("q")  # of the sessions in their rows, among all arrivals
        self._calls = Rows(CALL_COLUMNS)
        self._sums = dict.fromkeys(SUMS, 0)

    def arrived(self, live: LiveSession) -> None:
        """A session was submitted."""
        if live.state is State.REJECTED:
            self._write(live, math.nan)
        else:
            self._inside[live.serial] = live
            self._open[live.serial] = _OpenCall(0, live.session.arrival, live.context, 0, 0, live.missing)

    def adopted(self, live: LiveSession, now: float, first_token_at: float) -> None:
        """A session that paused elsewhere goes on here: its next call, with nothing of its context here."""
        if not math.isnan(first_token_at):
            self._first_token[live.serial] = first_token_at
        if live.state is State.FAILED:
            self._write(live, math.nan)
            return
        pause = live.session.calls[live.call_index - 1].pause
        assert pause is not None
        lasted = _lasted(pause, live, now)
        self._inside[live.serial] = live
        self._open[live.serial] = _OpenCall(
            live.call_index, now, live.context, 0, 0, live.carried, pause.tool, pause.waits_for, lasted
        )

    def withdrawn(self, live: LiveSession) -> None:
        """A session goes on elsewhere, and is that replica's to tell of."""
        del self._inside[live.serial]
        self._first_token.pop(live.serial, None)

    def first_token_at(self, live: LiveSession) -> float:
        """When the session emitted its first token, s; NaN if it has not."""
        return self._first_token.get(live.serial, math.nan)

    def answered(self, live: LiveSession, now: float) -> None:
        """A pause is over; called before the engine hears of it."""
        pause = live.call.pause
        assert pause is not None
        if not live.last_call:
            kept, (index, joined) = live.kept(), live.next_call(now)
            resident = min(live.resident, kept)
            offloaded = min(live.offloaded, kept - resident)
            self._open[live.serial] = _OpenCall(
                index,
                now,
                kept + joined,
                resident,
                offloaded,
                kept - resident - offloaded,
                pause.tool,
                pause.waits_for,
                _lasted(pause, live, now),
            )

    def committed(self, outcome: Outcome, now: float) -> None:
        """An iteration is over: first tokens of calls, and calls that have ended."""
        for live in outcome.first_tokens:
            self._open[live.serial].first_token_at = now
            if not live.infers:
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
        if self.ledger.reach is not None and begun and live.emitted:
            self.ledger.reach.called(call.context + live.emitted)
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

    def part(self, engine: Engine, accounted: float) -> Part:
        """What the replica leaves behind, with its ledger kept up to ``accounted`` and at rest from then on.

        Calls still open are rows without an end. The recorder is empty afterwards.
        """
        for live in self._inside.values():
            if live.serial in self._open:
                self._close(live, math.nan)
            self._write(live, math.nan)
        self._inside.clear()
        return Part(
            replica=self._replica,
            profile=self.ledger.costs.profile.name,
            gpu=self.ledger.costs.profile.gpu,
            sessions=self._sessions,
            places=self._places,
            calls=self._calls,
            ledger=self.ledger,
            accounted=accounted,
            at_rest=self.ledger.at_rest(engine),
            sums={"emitted_tokens": engine.emitted_tokens, **self._sums},
            uses_oracle=engine.counsel.uses_oracle,
            decisions=engine.counsel.decisions,
        )

    def record(self, engine: Engine, end: float) -> RunRecord:
        """The record of a run that ended at ``end`` with this replica alone. The recorder is empty afterwards."""
        return merge([self.part(engine, end)], end)

    def _write(self, live: LiveSession, finished_at: float) -> None:
        """The session's row is what it will be."""
        self._places.append(live.place)
        row = self._session_row(live, finished_at)
        self._sessions.append(row)
        for name, column in SUMS.items():
            self._sums[name] += row[column]

    def _session_row(self, live: LiveSession, finished_at: float) -> tuple[Any, ...]:
        session: Session = live.session
        begun = live.call_index + 1
        ended = live.state in (State.FINISHED, State.PAUSED)
        every = session.pauses  # each but the last call has one
        pauses, answered = every[: begun if ended else begun - 1], every[: begun - 1]
        status = live.state.value if live.state in _FINAL else "unfinished"
        return (
            session.id,
            session.kind,
            status,
            live.reason,
            session.arrival,
            self._first_token.pop(live.serial, math.nan),
            finished_at,
            session.input_ended,
            session.prompt + sum([pause.returned for pause in every if pause.not_before is not None]),
            session.samples,
            live.emitted_total + (0 if ended else live.emitted),
            live.inferred + (0 if ended or not live.infers else live.emitted),
            sum([pause.returned for pause in answered if pause.not_before is None]),
            len(session.calls),
            len(pauses),
            sum([pause.duration for pause in pauses]),
            live.queued_s,
            live.prefix_hits,
            live.recomputed,
            live.swapped_out * self._bytes_per_token,
            live.swapped_in * self._bytes_per_token,
            live.preemptions,
            live.moves,
            live.received * self._bytes_per_token,
            live.left_behind,
        )


def _lasted(pause: Pause, live: LiveSession, now: float) -> float:
    """Seconds for which a pause has lasted when its answer is there at ``now``."""
    return pause.duration if pause.not_before is None else now - live.paused_at


_FINAL = (State.FINISHED, State.REJECTED, State.FAILED)

_SUMMED = (
    "prefix_hit_tokens",
    "recomputed_tokens",
    "preemptions",
    "moves",
    "transferred_bytes",
    "move_recomputed_tokens",
)
SUMS = {name: list(SESSION_COLUMNS).index(name) for name in _SUMMED}
