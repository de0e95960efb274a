"""What answers a pause, and when. Everything that must know asks here; policies never do.

Tools with queues, failures or answers that depend on the load take the place of ``ReplayTools``.
"""

from __future__ import annotations

from sim.session import SessionState
from traces.session import Session


class ReplayTools:
    """Every answer takes as long as the trace says. Implements ``sim.engine.truth.Tools``."""

    def returns_at(self, state: SessionState) -> float:
        """When the pause under way ends, s: its duration after it began, not before its input was typed."""
        pause = state.call.pause
        assert pause is not None
        return pause.end(state.paused_at, state.session.arrival)

    def duration(self, session: Session, call: int) -> float:
        """Seconds of the pause that follows a call, as recorded."""
        pause = session.calls[call].pause
        assert pause is not None
        return pause.duration
