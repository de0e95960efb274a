"""What happens to one session of a run, entry by entry: its calls, the policy's verdicts, moves of its context, waste.

A diary sits beside the recorders of a run, of one replica or of several, and changes nothing in it. The waste that a
session causes is its share of what the ledger books; over all sessions it adds up to the ledger's sums:

- *preserve*: its blocks, while nothing is computed for it;
- *recompute*: its own blocks while tokens are computed again that were computed before, and everyone else's while that
  lengthens the iteration. Where several recompute in one iteration the latter is shared by recomputed tokens;
- *swap*: the blocks that its copies read or fill and, while the batch waits for copies, everyone's, shared by tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sim.costs.cost_model import CostModel
from sim.engine.engine import Engine
from sim.engine.plan import Outcome, Plan
from sim.engine.truth import Tools
from sim.results.memory_accounting import MemoryAccounting
from sim.results.page import Page
from sim.results.recorder import Recorder
from sim.session import SessionState

CAUSES = ("preserve", "recompute_own", "recompute_others", "swap")
_ORDER = {"copied": 0, "first_token": 1, "call_ended": 2, "arrived": 3, "answered": 3, "left_replica": 3, "adopted": 3}
_ORDER |= dict.fromkeys(("queued", "passed"), 4)
_ORDER |= dict.fromkeys(("decided", "dropped", "swapped", "copy_began", "preempted"), 5)
_ORDER |= {"computed": 6, "went_on": 6, "finished": 7, "rejected": 7}
WHAT = tuple(_ORDER)
"""What can happen, in the order in which one instant's entries are told; alike ones as they were written. ``swapped``
is a copy that the batch waits for; one beside the batch began and was ``copied``. ``passed``: in the queue order."""


@dataclass(frozen=True, slots=True)
class Entry:
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


class Diary:
    """Follows one session.

    Args:
        session: its id.

    Attributes:
        waste: token-seconds of GPU memory by call and cause (``CAUSES``).
    """

    def __init__(self, session: str) -> None:
        self.session = session
        self.waste: dict[int, dict[str, float]] = {}
        self._entries: list[Entry] = []
        self._pages: list[Page] = []

    def recorder(
        self,
        engine: Engine,
        accounting: tuple[CostModel, int, int, int, float],
        bytes_per_token: int,
        replica: int,
        tools: Tools,
    ) -> Recorder:
        """The recorder of a replica, which tells this diary what it hears."""
        page = Page(self, engine, replica)
        self._pages.append(page)
        engine.kv.witness = engine.policy_caller.witness = page
        if engine.order_caller is not None:
            engine.order_caller.witness = page
        return _TellingRecorder(page, _TellingAccounting(page, *accounting), bytes_per_token, replica, tools)

    def write(self, at: float, what: str, state: SessionState, replica: int, details: Mapping[str, Any]) -> None:
        """Add an entry; ``details`` may say where the tokens are, if not where they are now."""
        resident, offloaded, missing = details.get("tokens_were", (state.resident, state.offloaded, state.missing))
        rest = {name: value for name, value in details.items() if name != "tokens_were"}
        entry = Entry(at, what, state.call_index, replica, resident, offloaded, missing, rest)
        last = self.last
        # the log has a copy's reasons only once it is sure that it can begin
        ahead = what == "decided" and last is not None and last.time == at and last.what in ("copy_began", "swapped")
        self._entries.insert(len(self._entries) - ahead, entry)

    @property
    def last(self) -> Entry | None:
        """The entry written last."""
        return self._entries[-1] if self._entries else None

    def strike(self) -> None:
        """Take back the entry written last."""
        self._entries.pop()

    def book(self, call: int, cause: str, token_seconds: float) -> None:
        """Add to the waste."""
        if token_seconds:
            causes = self.waste.setdefault(call, dict.fromkeys(CAUSES, 0.0))
            causes[cause] += token_seconds

    def close(self, at: float) -> None:
        """The run ended at ``at``."""
        for page in self._pages:
            page.close(at)

    @property
    def entries(self) -> Sequence[Entry]:
        """Everything that happened, by time. To be read when the run is over."""
        return sorted(self._entries, key=lambda entry: (entry.time, _ORDER[entry.what]))


class _TellingRecorder(Recorder):
    """A recorder that passes on what it hears about the session."""

    def __init__(self, page: Page, *made_from: Any) -> None:
        super().__init__(*made_from)
        self._page = page

    def arrived(self, state: SessionState) -> None:
        super().arrived(state)
        if self._page.follows(state):
            self._page.arrived(state)

    def moved_in(self, state: SessionState, now: float, first_token_at: float) -> None:
        super().moved_in(state, now, first_token_at)
        if self._page.follows(state):
            self._page.adopted(state, now)

    def moved_away(self, state: SessionState) -> None:
        super().moved_away(state)
        if self._page.follows(state):
            self._page.withdrawn(state)

    def tool_returned(self, state: SessionState, now: float) -> None:
        super().tool_returned(state, now)
        if self._page.follows(state):
            self._page.answered(state, now)

    def committed(self, outcome: Outcome, now: float) -> None:
        super().committed(outcome, now)
        for state in outcome.first_tokens:
            if self._page.follows(state):
                self._page.note(now, "first_token", state)

    def finished(self, state: SessionState, now: float) -> None:
        if self._page.follows(state):
            self._page.left(state, now)
        super().finished(state, now)


class _TellingAccounting(MemoryAccounting):
    """A ledger that passes on what it books."""

    def __init__(self, page: Page, *made_from: Any) -> None:
        super().__init__(*made_from)
        self._page = page

    def work(self, engine: Engine, plan: Plan, begin: float, stall: float, ends: Sequence[float]) -> None:
        super().work(engine, plan, begin, stall, ends)
        self._page.worked(plan, begin, ends, stall, self.lengthened)

    def idle(self, engine: Engine, begin: float, end: float) -> None:
        super().idle(engine, begin, end)
        self._page.rested(end)
