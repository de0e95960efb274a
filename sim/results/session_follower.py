"""Listens to one replica and writes what happens to one session into its log."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sim.costs.batch import Direction
from sim.engine.engine import Engine
from sim.engine.listeners import EngineListener
from sim.engine.plan import Outcome, Plan
from sim.kv.copy import Chunk, Copy
from sim.results.memory_accounting import MemoryAccounting
from sim.results.queue_place import QueuePlace, together
from sim.results.session_log import SessionLog
from sim.session import SessionState, Status

_OF_DECISION = ("asked", "verdict", "keep", "context", "needed_blocks", "needed_by", "because")


class SessionFollower(EngineListener):
    """Follows the session while it is on this replica.

    Args:
        session_log: what it writes into.
        engine: of the replica; the follower must be added to its listeners.
        accounting: the replica's.
        replica: its index.
    """

    def __init__(self, session_log: SessionLog, engine: Engine, accounting: MemoryAccounting, replica: int) -> None:
        self._log = session_log
        session_log.on_close.append(self.close)
        self._engine = engine
        self._accounting = accounting
        self._replica = replica
        self._place = QueuePlace(engine)
        self._state: SessionState | None = None
        self._gone: SessionState | None = None  # it went on elsewhere; its context may still be read from here
        self._read = 0  # decisions of the log that were looked at
        self._span: dict[str, Any] = {}  # iterations that compute for it, one after the other
        self._waited = 0.0  # of its time in the queue, what has been told
        self._first_token_at = math.nan
        self._preemptions = 0
        self._accounted = 0.0

    def follows(self, state: SessionState) -> bool:
        """Whether this is the session. It is known from its arrival on."""
        if self._state is None and state is not self._gone and state.session.id == self._log.session:
            self._state = state
        return state is self._state

    def note(self, at: float, what: str, state: SessionState, **details: Any) -> None:
        """Write down what happened, after what came before it."""
        self._end_span(state)
        self._read_decisions(state)
        self._log.add(at, what, state, self._replica, details)

    def close(self, at: float) -> None:
        """Nothing more will happen here; the run ended at ``at``."""
        if at > self._accounted:
            self.rested(at)
        if self._state is not None:
            self._end_span(self._state)
            self._read_decisions(self._state)

    # ---- coming and going

    def arrived(self, state: SessionState) -> None:
        """The session was submitted."""
        if not self.follows(state):
            return
        session = state.session
        if state.status is Status.REJECTED:
            self.note(session.arrival, "rejected", state, reason=state.reason)
        else:
            what = {"prompt_tokens": session.prompt, "calls": len(session.calls), "kind": session.kind}
            self.note(session.arrival, "arrived", state, **what)

    def moved_in(self, state: SessionState, now: float) -> None:
        """The session goes on here."""
        if not self.follows(state):
            return
        self._waited, self._preemptions = state.stats.queued_s, state.stats.preemptions
        if state.status is Status.FAILED:
            self.note(now, "rejected", state, reason=state.reason)
        else:
            self.note(now, "adopted", state, **_answer(state, state.call_index - 1, now))

    def moved_away(self, state: SessionState) -> None:
        """The session goes on elsewhere."""
        if self.follows(state):
            self.note(self._engine.now, "left_replica", state)
            self._gone, self._state = state, None

    def tool_returned(self, state: SessionState, now: float) -> None:
        """The answer came."""
        if self.follows(state):
            self.note(now, "answered", state, **_answer(state, state.call_index, now))

    def finished(self, state: SessionState, now: float) -> None:
        """The session is over. That its memory is free then goes without saying."""
        if not self.follows(state):
            return
        last = self._log.last
        if last is not None and last.what == "dropped" and last.time >= now:
            self._log.take_back(last.what)
        self.note(now, "finished", state, **(self._decoded(state, now) if state.call.pause is None else {}))

    def committed(self, outcome: Outcome, now: float) -> None:
        """An iteration is over: perhaps the session has its first token."""
        for state in outcome.first_tokens:
            if self.follows(state):
                self.note(now, "first_token", state)

    # ---- the policy

    def _read_decisions(self, state: SessionState) -> None:
        """Take down what the policy has decided about the session since; each pause begins with a verdict."""
        decisions = self._engine.policy_caller.decisions
        for one in decisions[self._read :]:
            if one["session"] == self._log.session:
                resident, offloaded = one["resident"], one["offloaded"]
                where = {"tokens_were": (resident, offloaded, one["context"] - resident - offloaded)}
                if one["asked"] == "pause" and state.call.pause is not None:
                    waits = {"waits_for": state.call.pause.waits_for, "tool": state.call.pause.tool}
                    ended = self._decoded(state, one["time"]) | waits | where
                    self._log.add(one["time"], "call_ended", state, self._replica, ended)
                decided = {name: one[name] for name in _OF_DECISION} | where
                self._log.add(one["time"], "decided", state, self._replica, decided)
        self._read = len(decisions)

    def _decoded(self, state: SessionState, at: float) -> dict[str, Any]:
        return {"output_tokens": state.emitted, "decode_s": at - self._first_token_at}

    # ---- the queue

    def ranked(self, state: SessionState, key: tuple[float, ...]) -> None:
        """A session becomes ready: this one, or another that may pass it."""
        if not self.follows(state):
            self.reranked([(state, key)])
        elif place := self._place.joined(state, key):
            self.note(self._engine.now, "queued", state, **place)

    def reranked(self, moved: list[tuple[SessionState, tuple[float, ...]]]) -> None:
        """Keys change; what happens in the queue while nothing else does is told in one entry."""
        state = self._state
        if state is None or not (passed := self._place.passed(state, moved)):
            return
        now, last = self._engine.now, self._log.last
        if last is not None and last.what == "passed" and last.replica == self._replica:
            self._log.take_back(last.what)
            passed, begun = together(last.details, passed), last.time
        else:
            begun = now
        self.note(begun, "passed", state, **passed, until=now)

    # ---- moves of the context

    def truncated(self, state: SessionState) -> None:
        """All but its present resident and offloaded tokens was forgotten."""
        if self.follows(state) and state.status is not Status.MOVED:
            self._notice_preemption(state)
            self._read_decisions(state)
            last = self._log.last
            if last is None or (last.resident, last.offloaded) != (state.resident, state.offloaded):
                self.note(self._engine.now, "dropped", state)

    def copy_began(self, copy: Copy) -> None:
        """A copy begins."""
        if self.follows(copy.state):
            self._notice_preemption(copy.state)
            if not copy.blocking:
                self.note(self._engine.now, "copy_began", copy.state, **self._copy(copy))

    def copy_ended(self, copy: Copy) -> None:
        """A copy has ended."""
        if self.follows(copy.state):
            self.note(self._engine.now, "swapped" if copy.blocking else "copied", copy.state, **self._copy(copy))

    def copy_cancelled(self, copy: Copy) -> None:
        """A copy that the batch would have waited for is not made."""
        if self.follows(copy.state):
            self._log.take_back("swapped")

    def _copy(self, copy: Copy) -> dict[str, Any]:
        seconds = {} if copy.from_replica else {"seconds": self._engine.costs.copy_time(copy.tokens, copy.direction)}
        what = {"direction": copy.direction.value, "tokens": copy.tokens, "blocks": copy.blocks}
        return what | seconds | {"from_replica": copy.from_replica}

    def _notice_preemption(self, state: SessionState) -> None:
        if state.stats.preemptions > self._preemptions:
            self._preemptions = state.stats.preemptions
            self.note(self._engine.now, "preempted", state)

    # ---- iterations, and what they waste

    def worked(self, plan: Plan, begin: float, stall: float, ends: Sequence[float]) -> None:
        """Iterations are over, which may have computed for the session, and may have wasted its memory."""
        self._accounted = ends[-1]
        seconds = ends[-1] - begin
        for state in self._here():
            self._add_memory_waste(state, seconds, resting=False)
            self._add_stall_waste(state, plan, stall)
        if self._state is not None:
            self._worked_for(self._state, plan, begin, stall, ends)

    def _worked_for(self, state: SessionState, plan: Plan, begin: float, stall: float, ends: Sequence[float]) -> None:
        self._notice_preemption(state)
        for chunk in plan.chunks:
            if chunk.state is state:
                self._computed(chunk, begin, ends)
                if chunk.recomputed:
                    self._add_recompute_waste(chunk, plan, ends[-1] - begin - stall, self._accounting.lengthened(plan))
        if plan.decoding and state.status is Status.DECODING and state.stats.queued_s > self._waited:
            self.note(begin, "went_on", state, waited_s=self._wait(state))

    def _wait(self, state: SessionState) -> float:
        """Seconds in the queue that have not been told yet."""
        seconds, self._waited = state.stats.queued_s - self._waited, state.stats.queued_s
        return seconds

    def rested(self, until: float) -> None:
        """Nothing was computed until ``until``."""
        for state in self._here():
            self._add_memory_waste(state, until - self._accounted, resting=True)
        self._accounted = until

    def _here(self) -> list[SessionState]:
        return [state for state in (self._state, self._gone) if state is not None]

    def _add_memory_waste(self, state: SessionState, seconds: float, resting: bool) -> None:
        kv, copy = self._engine.kv, state.copy
        held, copying = kv.blocks_held(state), copy.blocks if copy is not None else 0
        if state.status is Status.DEPARTING:
            held, copying = 0, held
        elif copy is not None and copy.direction is Direction.OUT:
            held -= copying
        self._add_waste(state, "swap", copying * seconds)
        if state.idle or resting:
            self._add_waste(state, "preserve", held * seconds)

    def _add_stall_waste(self, state: SessionState, plan: Plan, stall: float) -> None:
        copied = {copy: copy.tokens for copy in plan.copies if copy.blocking}
        mine = sum(tokens for copy, tokens in copied.items() if copy.state is state)
        if mine:
            gpu = self._engine.kv.gpu
            reads = min(gpu.free_blocks, sum(copy.blocks for copy in copied if copy.direction is Direction.OUT))
            self._add_waste(state, "swap", (self._running() + reads) * stall * mine / sum(copied.values()))

    def _add_recompute_waste(self, chunk: Chunk, plan: Plan, seconds: float, lengthened: float) -> None:
        recomputing = self._engine.kv.recomputing
        others = self._running() - sum(recomputing(one) for one in plan.chunks)
        share = chunk.recomputed / sum(one.recomputed for one in plan.chunks)
        self._add_waste(chunk.state, "recompute_own", recomputing(chunk) * seconds)
        self._add_waste(chunk.state, "recompute_others", others * lengthened * share * seconds)

    def _running(self) -> int:
        kv = self._engine.kv
        return kv.gpu.used - kv.idle_blocks - kv.copying_blocks

    def _add_waste(self, state: SessionState, cause: str, block_seconds: float) -> None:
        self._log.add_waste(state.call_index, cause, block_seconds * self._engine.kv.block_size)

    def _computed(self, chunk: Chunk, begin: float, ends: Sequence[float]) -> None:
        """Missing tokens are computed: in one entry with those of the iterations before, if nothing came between."""
        state, span, end = chunk.state, self._span, ends[-1]
        tokens = chunk.tokens * len(ends)
        if not span:
            self._read_decisions(state)
            span.update(begin=begin, waited_s=0.0, tokens=0, recomputed_tokens=0, iterations=0, computing_s=0.0)
        span["waited_s"] += self._wait(state)
        span["tokens"] += state.queries(chunk.start, tokens)
        span["recomputed_tokens"] += state.queries(chunk.start, chunk.recomputed)
        span["iterations"] += len(ends)
        span["computing_s"] += end - begin
        span["until"] = end
        span["tokens_were"] = chunk.start + tokens, state.offloaded, state.missing - tokens
        if state.missing == tokens and state.emitted == 0:
            self._first_token_at = end

    def _end_span(self, state: SessionState) -> None:
        if self._span:
            details, self._span = self._span, {}
            self._log.add(details.pop("begin"), "computed", state, self._replica, details)


def _answer(state: SessionState, call: int, at: float) -> dict[str, Any]:
    pause = state.session.calls[call].pause
    return {"pause_s": at - state.paused_at, "returned_tokens": pause.returned if pause is not None else 0}
