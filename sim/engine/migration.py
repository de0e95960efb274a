"""Sessions that pause on one replica and go on at another.

    live = successor(old, now)                # the answer came: the session as its next replica sees it
    withdraw(here, old, now, readable)        # it does not resume here; a readable context stays until it has been read
    copy = adopt(there, live, now, tokens)    # it queues there, and perhaps the first tokens of its context are copied
    let_go(here, old, now)                    # the copy has ended, or was not begun: the memory is free

Like all calls of an engine these come between its iterations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.kv.copy import Copy
from sim.session import LiveSession, State

if TYPE_CHECKING:
    from sim.engine.engine import Engine


def successor(old: LiveSession, now: float) -> LiveSession:
    """A paused session as another replica takes it up when the answer comes at ``now``: all of it missing."""
    live = LiveSession(old.session, -1, now)
    live.call_index, joined = old.next_call(now)
    live.carried = old.kept()
    live.missing = live.carried + joined
    live.emitted_total, live.inferred = old.emitted_total, old.inferred
    live.peak = min(old.peak, live.carried)
    live.unwritten = min(old.unwritten, live.carried)
    live.paused_at, live.paused_s = old.paused_at, old.paused_s + (now - old.paused_at)
    live.resumed = True
    live.queued_s, live.served_s, live.preemptions = old.queued_s, old.served_s, old.preemptions
    live.recomputed, live.prefix_hits = old.recomputed, old.prefix_hits
    live.swapped_out, live.swapped_in = old.swapped_out, old.swapped_in
    live.place, live.moves = old.place, old.moves + 1
    live.received, live.left_behind = old.received, old.left_behind
    return live


def withdraw(engine: Engine, live: LiveSession, now: float, readable: bool) -> None:
    """The answer came, and the session goes on at another replica.

    Its memory is free at once or, if it is to be ``readable`` there, after ``let_go``; never before the end of a copy
    of it that is under way.
    """
    engine.end_pause(live, now)
    engine.counsel.leave(live)
    engine.room.forget_wish(live)
    live.leaving, live.pinned = True, readable
    if live.copy is None:
        depart(engine, live)


def depart(engine: Engine, live: LiveSession) -> None:
    """Nothing copies the context within this replica any more: it is kept to be read, or freed."""
    engine.queues.unpause(live)
    if live.pinned:
        live.state = State.DEPARTING
        engine.queues.departing[live] = None
        engine.contexts.pin(live)
    else:
        _forget(engine, live)


def let_go(engine: Engine, live: LiveSession, now: float) -> None:
    """The context of a session that was withdrawn need not be read any more."""
    engine.hear(now)
    live.pinned = False
    if live.state is State.DEPARTING:
        del engine.queues.departing[live]
        engine.contexts.unpin(live)
        _forget(engine, live)


def _forget(engine: Engine, live: LiveSession) -> None:
    live.state = State.MOVED
    engine.contexts.release(live)


def adopt(engine: Engine, live: LiveSession, now: float, tokens: int) -> Copy | None:
    """A session that paused elsewhere goes on here. It has failed if its context outgrows this replica.

    Args:
        engine: where it goes on.
        live: the successor of the session that was withdrawn.
        now: when its answer came, s.
        tokens: leading context tokens that can be copied over; the copy begins if there is room for the whole context.

    Returns:
        The copy that has begun; without one the whole context is computed anew.
    """
    engine.hear(now)
    live.serial = engine.next_serial()
    live.reason = engine.too_large(live.session)
    if live.reason:
        live.state = State.FAILED
        live.reason = f"moved to a replica that is too small: {live.reason}"
        return None
    live.entered = now if engine.settings.reentry == "tail" else live.session.arrival
    live.key = engine.counsel.key(live)
    copy = engine.batching.take_over(live, tokens, now) if tokens else None
    if copy is None:
        engine.queues.wait(live)
    else:
        engine.queues.wait_for_copy(live)
    engine.counsel.join(live)
    return copy
