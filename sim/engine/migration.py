"""Sessions that pause on one replica and go on at another.

    state = successor(old, now)                # the answer came: the session as its next replica sees it
    begin_leave(here, old, now, readable)        # it does not resume here; a readable context stays to be read
    copy = arrive_at(there, state, now, tokens)  # it queues there, and perhaps its first tokens are copied over
    release(here, old, now)                      # the copy has ended, or was not begun: the memory is free

Like all calls of an engine these come between its iterations.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from sim.engine.eviction import Evictor
from sim.engine.policy_calls import PolicyCaller
from sim.engine.queues import Queues
from sim.engine.scheduler import Scheduler
from sim.engine.settings import EngineSettings
from sim.kv.copy import Copy
from sim.kv.kv_cache import KVCacheManager
from sim.session import SessionState, Status
from traces.session import Session


class MigratingEngine(Protocol):
    """What a migration needs of an engine."""

    settings: EngineSettings
    kv: KVCacheManager
    queues: Queues
    policy_caller: PolicyCaller
    evictor: Evictor
    scheduler: Scheduler

    def advance_clock(self, at: float) -> None: ...
    def end_pause(self, state: SessionState, now: float) -> None: ...
    def next_serial(self) -> int: ...
    def too_large(self, session: Session) -> str: ...


def successor(old: SessionState, now: float) -> SessionState:
    """A paused session as another replica takes it up when the answer comes at ``now``: all of it missing."""
    state = SessionState(old.session, -1, now)
    state.call_index, joined = old.next_call(now)
    state.carried = old.kept()
    state.missing = state.carried + joined
    state.peak = min(old.peak, state.carried)
    state.unwritten = min(old.unwritten, state.carried)
    state.paused_at = old.paused_at
    state.resumed = True
    state.place = old.place
    state.stats = replace(old.stats)
    state.stats.time_paused_s += now - old.paused_at
    state.stats.moves += 1
    return state


def begin_leave(engine: MigratingEngine, state: SessionState, now: float, readable: bool) -> None:
    """The answer came, and the session goes on at another replica.

    Its memory is free at once or, if it is to be ``readable`` there, after ``release``; never before the end of a copy
    of it that is under way.
    """
    engine.end_pause(state, now)
    engine.policy_caller.session_left(state)
    engine.evictor.cancel_swap_out(state)
    state.leaving, state.pinned = True, readable
    if state.copy is None:
        depart(engine, state)


def depart(engine: MigratingEngine, state: SessionState) -> None:
    """Nothing copies the context within this replica any more: it is kept to be read, or freed."""
    engine.queues.unpause(state)
    if state.pinned:
        state.status = Status.DEPARTING
        engine.queues.departing[state] = None
        engine.kv.pin(state)
    else:
        _forget(engine, state)


def release(engine: MigratingEngine, state: SessionState, now: float) -> None:
    """The context of a session that leaves need not be read any more."""
    engine.advance_clock(now)
    state.pinned = False
    if state.status is Status.DEPARTING:
        del engine.queues.departing[state]
        engine.kv.unpin(state)
        _forget(engine, state)


def _forget(engine: MigratingEngine, state: SessionState) -> None:
    state.status = Status.MOVED
    engine.kv.release(state)


def arrive_at(engine: MigratingEngine, state: SessionState, now: float, tokens: int) -> Copy | None:
    """A session that paused elsewhere goes on here. It has failed if its context outgrows this replica.

    Args:
        engine: where it goes on.
        state: the successor of the session that leaves.
        now: when its answer came, s.
        tokens: leading context tokens that can be copied over; the copy begins if there is room for the whole context.

    Returns:
        The copy that has begun; without one the whole context is computed anew.
    """
    engine.advance_clock(now)
    state.serial = engine.next_serial()
    state.reason = engine.too_large(state.session)
    if state.reason:
        state.status = Status.FAILED
        state.reason = f"moved to a replica that is too small: {state.reason}"
        return None
    state.entered = now if engine.settings.requeue_at == "tail" else state.session.arrival
    state.key = engine.policy_caller.key(state)
    copy = engine.scheduler.take_over(state, tokens, now) if tokens else None
    if copy is None:
        engine.queues.wait(state)
    else:
        engine.queues.wait_for_copy(state)
    engine.policy_caller.session_joined(state)
    return copy
