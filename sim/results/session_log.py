"""What happens to one session of a run, event by event: its calls, the policy's verdicts, moves of its context, waste.

Listeners write the log (``sim.results.session_follower``), one at each replica, and change nothing in the run. The
waste that a session causes is its share of what the accounts book; over all sessions it adds up to their sums:

- *preserve*: its blocks, while nothing is computed for it;
- *recompute*: its own blocks while tokens are computed again that were computed before, and all others while that
  lengthens the iteration. Where several recompute in one iteration the latter is shared by recomputed tokens;
- *swap*: the blocks that its copies read or fill and, while the batch waits for copies, all blocks, shared by tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sim.session import SessionState

CAUSES = ("preserve", "recompute_own", "recompute_others", "swap")
_ORDER = {"copied": 0, "first_token": 1, "call_ended": 2, "arrived": 3, "answered": 3, "left_replica": 3, "adopted": 3}
_ORDER |= dict.fromkeys(("queued", "passed"), 4)
_ORDER |= dict.fromkeys(("decided", "dropped", "swapped", "copy_began", "preempted"), 5)
_ORDER |= {"computed": 6, "went_on": 6, "finished": 7, "rejected": 7}
WHAT = tuple(_ORDER)
"""What can happen, in the order in which one instant's events are told; alike ones as they were written. ``swapped``
is a copy that the batch waits for; one beside the batch began and was ``copied``. ``passed``: in the queue order."""


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """Something that happened to the session, and where the tokens of its context were then.

    Attributes:
        time: when, s.
        what: one of ``WHAT``.
        call: index of the call that was under way, or whose pause was.
        replica: where.
        resident, offloaded, missing: context tokens on the GPU, on the host, to be computed.
        details: the numbers behind it; which, depends on ``what``.
    """

    time: float
    what: str
    call: int
    replica: int
    resident: int
    offloaded: int
    missing: int
    details: Mapping[str, Any] = field(default_factory=dict)


class SessionLog:
    """The events of one session.

    Args:
        session: its id.

    Attributes:
        on_close: called with the time at which the run ended.
        waste: token-seconds of GPU memory by call and cause (``CAUSES``).
    """

    def __init__(self, session: str) -> None:
        self.session = session
        self.waste: dict[int, dict[str, float]] = {}
        self._events: list[SessionEvent] = []
        self.on_close: list[Callable[[float], None]] = []

    def add(self, at: float, what: str, state: SessionState, replica: int, details: Mapping[str, Any]) -> None:
        """Add an event; ``details`` may say where the tokens are, if not where they are now."""
        resident, offloaded, missing = details.get("tokens_were", (state.resident, state.offloaded, state.missing))
        rest = {name: value for name, value in details.items() if name != "tokens_were"}
        event = SessionEvent(at, what, state.call_index, replica, resident, offloaded, missing, rest)
        last = self.last
        # the log has a copy's reasons only once it is sure that it can begin
        ahead = what == "decided" and last is not None and last.time == at and last.what in ("copy_began", "swapped")
        self._events.insert(len(self._events) - ahead, event)

    @property
    def last(self) -> SessionEvent | None:
        """The event written last."""
        return self._events[-1] if self._events else None

    def take_back(self, what: str) -> None:
        """Take back the last event of a kind."""
        place = max(place for place, event in enumerate(self._events) if event.what == what)
        del self._events[place]

    def add_waste(self, call: int, cause: str, token_seconds: float) -> None:
        """Add to the waste."""
        if token_seconds:
            causes = self.waste.setdefault(call, dict.fromkeys(CAUSES, 0.0))
            causes[cause] += token_seconds

    def close(self, at: float) -> None:
        """The run ended at ``at``."""
        for close in self.on_close:
            close(at)

    @property
    def events(self) -> Sequence[SessionEvent]:
        """Everything that happened, by time. To be read when the run is over."""
        return sorted(self._events, key=lambda event: (event.time, _ORDER[event.what]))
