"""A session inside an engine: where it is, and where the tokens of its context are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from typing import Any, Protocol

from sim.costs.batch import Direction
from sim.session_stats import SessionStats
from traces.session import Call, Session


class StepCounter(Protocol):
    """A decode batch as its members see it: ``sim.engine.decode_batch.DecodeBatch``."""

    step: int


class CopyUnderWay(Protocol):
    """A copy as its session sees it: ``sim.kv.copy.Copy``."""

    direction: Direction
    blocks: int


class SharedBlocks(Protocol):
    """The prefix cache as a session sees it: ``sim.kv.prefix_cache.PrefixCache``."""

    block_size: int

    def common(self, state: SessionState) -> int: ...
    def holders(self, key: Any) -> int: ...


class Status(Enum):
    """Where a session is. Exactly one at a time; the first six are inside, the last four final."""

    WAITING = "waiting"
    """Ready; part of its context must be computed before it can decode."""
    SWAPPED = "swapped"
    """Ready; part of its context must be copied back from the host first."""
    PREFILLING = "prefilling"
    """Admitted: computes missing tokens, iteration by iteration."""
    DECODING = "decoding"
    """Emits one token an iteration."""
    PAUSED = "paused"
    """Waits for a tool, a service or a person."""
    DEPARTING = "departing"
    """Goes on elsewhere; its context is still being read."""
    FINISHED = "finished"
    REJECTED = "rejected"
    FAILED = "failed"
    MOVED = "moved"


RUNNING = (Status.PREFILLING, Status.DECODING)
READY = (Status.WAITING, Status.SWAPPED, *RUNNING)


class SessionState:
    """State of one session. Its context is ``resident`` leading tokens on the GPU, then ``offloaded`` tokens on the
    host, then ``missing`` tokens to compute.

    While the session decodes, its lengths follow from the decode group's counter and nothing is written here. In a call
    of several samples, lengths are those of one of its branches: all have as many tokens (``sim.kv.sample_layout``).
    """

    __slots__ = (
        "_emitted",
        "_resident",
        "answered",
        "call_index",
        "carried",
        "copy",
        "decode_batch",
        "entered",
        "fork",
        "idle",
        "joined_at_step",
        "joining",
        "key",
        "leaving",
        "lost_at",
        "missing",
        "offloaded",
        "paused_at",
        "peak",
        "pinned",
        "place",
        "prefix_cache",
        "prefix_keys",
        "ready_at",
        "reason",
        "resumed",
        "runs_since",
        "samples",
        "scheduled_at",
        "serial",
        "session",
        "shared_blocks",
        "stats",
        "status",
        "unused_since",
        "unwritten",
        "view",
        "waits_since",
    )

    def __init__(self, session: Session, serial: int, now: float) -> None:
        self.session = session
        self.serial = serial
        self.status = Status.WAITING
        self.stats = SessionStats()
        self.call_index = 0
        self.missing = session.prompt
        self.offloaded = 0
        self._resident = 0
        self._emitted = 0
        self.carried = 0  # context tokens with which it came from another replica
        self.samples = session.samples
        self.fork = 0  # while a call of several samples computes: the context tokens that they share
        self.decode_batch: StepCounter | None = None
        self.joined_at_step = 0  # the group's tick then
        self.joining = 0  # the group's number for it
        self.copy: CopyUnderWay | None = None
        self.idle = True  # holds memory without computing
        self.answered = False  # the answer came while a copy of the context was under way
        self.lost_at = (-1, 0)  # its progress when it last lost context
        self.peak = 0  # context tokens that were computed before: computing them again is recomputation
        self.key: tuple[float, ...] = (now, serial)
        self.ready_at = now
        self.scheduled_at = math.nan  # first iteration that computed for the current call
        self.entered = now
        self.paused_at = math.nan
        self.waits_since = now  # NaN from the first iteration that computes for it until it stops
        self.runs_since = math.nan
        self.resumed = False
        self.reason = ""
        self.place = serial  # among the arrivals of the whole workload
        self.leaving = False  # it goes on elsewhere
        self.pinned = False  # until its context has been read from here
        self.prefix_cache: SharedBlocks | None = None  # knows the keys of its leading blocks
        self.prefix_keys: Sequence[Any] = ()
        self.shared_blocks = 0  # leading blocks that it holds by reference
        self.unwritten = session.prompt  # leading tokens that are still those of the first prompt
        self.unused_since = 0  # by the count of ``KVCacheManager``
        self.view = SessionView(self)

    def forget_view(self) -> None:
        """The session has left and no policy will see it: without the reference cycle its memory is free at once."""
        del self.view

    @property
    def resident(self) -> int:
        """Leading context tokens whose KV is on the GPU."""
        group = self.decode_batch
        return self._resident if group is None else self._resident + group.step - self.joined_at_step

    @resident.setter
    def resident(self, tokens: int) -> None:
        assert self.decode_batch is None, "a decoding session's length follows from its group"
        self._resident = tokens

    @property
    def emitted(self) -> int:
        """Tokens emitted in the current call."""
        group = self.decode_batch
        return self._emitted if group is None else self._emitted + group.step - self.joined_at_step

    @emitted.setter
    def emitted(self, tokens: int) -> None:
        assert self.decode_batch is None, "a decoding session's length follows from its group"
        self._emitted = tokens

    def settle(self) -> None:
        """Write down the lengths that the decode group's counter implies, and leave the group."""
        self._resident, self._emitted = self.resident, self.emitted
        self.decode_batch = None

    def begin_service(self, now: float) -> None:
        """An iteration computes for it: it waits no longer."""
        self.stats.queued_s += now - self.waits_since
        self.waits_since = math.nan
        self.runs_since = now

    def end_service(self, now: float) -> None:
        """Nothing is computed for it any more."""
        self.stats.served_s = self.served(now)
        self.runs_since = math.nan

    def interrupt(self, now: float) -> None:
        """Its service ends before its call does: it waits again."""
        self.end_service(now)
        self.waits_since = now

    def served(self, now: float) -> float:
        """Seconds for which it has run, in all its calls."""
        served = self.stats.served_s
        return served if math.isnan(self.runs_since) else served + (now - self.runs_since)

    @property
    def call(self) -> Call:
        """The call being generated, or the one whose pause is under way."""
        return self.session.calls[self.call_index]

    @property
    def context(self) -> int:
        """All context tokens."""
        group = self.decode_batch
        resident = self._resident if group is None else self._resident + group.step - self.joined_at_step
        return resident + self.offloaded + self.missing

    def kept(self) -> int:
        """Context tokens that survive the pause under way."""
        pause = self.call.pause
        assert pause is not None
        return self.context if pause.keeps is None else min(self.context, pause.keeps)

    def next_call(self, now: float) -> tuple[int, int]:
        """Where the session goes on when its answer is there at ``now``: the call's index, and the tokens that join.

        Calls whose pause for the next part of the prompt would be over at once are passed over.
        """
        calls, index = self.session.calls, self.call_index
        pause = calls[index].pause
        assert pause is not None and not self.last_call
        returned = pause.returned
        while (after := calls[index + 1].pause) is not None and after.not_before is not None:
            if self.session.arrival + after.not_before > now:
                break
            returned += after.returned
            index += 1
        return index + 1, returned

    def context_when_resumed(self, now: float) -> int:
        """Context tokens once the answer to the pause under way has joined at ``now``."""
        return self.kept() + self.next_call(now)[1]

    def queries(self, start: int, tokens: int) -> int:
        """Tokens computed when each branch computes ``tokens`` after its first ``start``; shared ones count once."""
        if not self.fork:
            return tokens
        shared = max(0, min(start + tokens, self.fork) - start)
        return shared + self.samples * (tokens - shared)

    @property
    def infers(self) -> bool:
        """Whether the call is an inference from a prompt that is not complete."""
        pause = self.call.pause
        return pause is not None and pause.not_before is not None

    @property
    def progress(self) -> tuple[int, int]:
        """Calls before this one, and the tokens emitted in it: grows with every token."""
        return self.call_index, self.emitted

    @property
    def last_call(self) -> bool:
        """Whether nothing is generated after the current call."""
        return self.call_index + 1 == len(self.session.calls)

    def __repr__(self) -> str:
        where = f"{self.resident}+{self.offloaded}+{self.missing}"
        return f"<{self.session.id} {self.status.value} call {self.call_index}: {where}>"


class SessionView:
    """A session as policies see it, without its future. Implements ``policies.contract.Paused`` and ``Queued``."""

    __slots__ = ("_state", "arrival", "id", "kind")

    def __init__(self, state: SessionState) -> None:
        self._state = state
        self.id = state.session.id
        self.kind = state.session.kind
        self.arrival = state.session.arrival

    @property
    def tool(self) -> str:
        """Name of the tool waited for, if known; else what is waited for."""
        state = self._state
        pause = state.session.calls[state.call_index].pause
        return (pause.tool or pause.waits_for) if pause is not None else ""

    @property
    def waits_for(self) -> str:
        """What is waited for: ``tool``, ``user``, ..."""
        state = self._state
        pause = state.session.calls[state.call_index].pause
        return pause.waits_for if pause is not None else ""

    @property
    def paused_at(self) -> float:
        """When the pause began, s."""
        return self._state.paused_at

    @property
    def ready_at(self) -> float:
        """When the session arrived or its answer came, s."""
        return self._state.ready_at

    @property
    def entered(self) -> float:
        """The time by which the session queues: its arrival or its return, as the engine's ``requeue_at`` says."""
        return self._state.entered

    @property
    def calls_done(self) -> int:
        """Calls generated to their end."""
        state = self._state
        return state.call_index + (1 if state.status in (Status.PAUSED, Status.FINISHED) else 0)

    @property
    def resumed(self) -> bool:
        """Whether the answer has come and the session only waits to be served."""
        return self._state.resumed

    @property
    def context_tokens(self) -> int:
        """All context tokens so far."""
        return self._state.context

    @property
    def resident_tokens(self) -> int:
        """Context tokens on the GPU."""
        state = self._state
        return state._resident if state.decode_batch is None else state.resident

    @property
    def shared_tokens(self) -> int:
        """Leading context tokens on the GPU that other contexts hold too."""
        state = self._state
        if state.prefix_cache is None or not state.shared_blocks:
            return 0
        return state.prefix_cache.common(state) * state.prefix_cache.block_size

    @property
    def offloaded_tokens(self) -> int:
        """Context tokens on the host."""
        return self._state.offloaded

    @property
    def missing_tokens(self) -> int:
        """Context tokens to compute before the next one can be emitted."""
        return self._state.missing

    @property
    def emitted_tokens(self) -> int:
        """Tokens emitted in the current call."""
        return self._state.emitted

    @property
    def emitted_before(self) -> int:
        """Tokens emitted in the calls that are done."""
        return self._state.stats.emitted

    @property
    def paused_s(self) -> float:
        """Seconds of the pauses that have ended."""
        return self._state.stats.time_paused_s

    @property
    def ready(self) -> bool:
        """Whether it runs or waits to run."""
        return self._state.status in READY

    @property
    def running(self) -> bool:
        """Whether it decodes or computes missing tokens."""
        return self._state.status in RUNNING

    @property
    def waits_since(self) -> float:
        """Since when it is ready and nothing is computed for it, s; NaN while it runs."""
        return self._state.waits_since

    def served(self, now: float) -> float:
        """Seconds for which it has run by ``now``, in all its calls."""
        return self._state.served(now)

    def waited(self, now: float) -> float:
        """Seconds for which it was ready by ``now`` and nothing was computed for it, in all its calls."""
        state = self._state
        queued = state.stats.queued_s
        return queued if math.isnan(state.waits_since) else queued + (now - state.waits_since)

    @property
    def moving(self) -> bool:
        """Whether a copy of this context is under way."""
        return self._state.copy is not None
