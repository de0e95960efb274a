"""Paused contexts make room: carries out the policy's verdicts, within the swap budget and what the host can hold."""

from __future__ import annotations

import math

from policies.contract import Discard, Preserve, Swap, Verdict
from sim.contexts import Contexts
from sim.counsel import Counsel
from sim.live import LiveSession, State
from sim.plan import Copy
from sim.queues import Queues
from sim.settings import EngineSettings


class Room:
    """GPU memory under pressure.

    Attributes:
        swap_budget: tokens that may still be copied beside this iteration; infinite when nothing limits it.
        copies: copies begun since the last plan was handed out.
        watermark_blocks: blocks that admissions leave free.
    """

    def __init__(self, settings: EngineSettings, contexts: Contexts, queues: Queues, counsel: Counsel) -> None:
        self._settings = settings
        self._contexts = contexts
        self._queues = queues
        self._counsel = counsel
        self._overlapped = settings.swap == "overlapped"
        self._wanted: dict[LiveSession, int] = {}  # contexts on their way out since their pause, with what stays
        self.swap_budget = math.inf
        self.copies: list[Copy] = []
        self.watermark_blocks = math.ceil(settings.watermark * contexts.gpu.capacity)

    def make(self, blocks: int, urgent: bool) -> bool:
        """See that ``blocks`` GPU blocks are free; paused contexts give way in the policy's order.

        ``urgent`` waits for copies and takes all there is. Otherwise nobody gives way unless it is enough, counting
        what copies under way will free, so that the answer may be no now and yes an iteration later.
        """
        contexts = self._contexts
        lacking = blocks - contexts.gpu.free
        if lacking <= 0:
            return True
        if not self._queues.held or (not urgent and lacking > contexts.idle_blocks + contexts.copying_blocks):
            return False
        later = self._overlapped and not urgent
        found = contexts.coming_blocks() if later else 0
        changes: list[tuple[LiveSession, Verdict]] = []
        if found < lacking:
            for live, verdict in self._counsel.room(lacking - found):
                if live.copy is None and not isinstance(verdict, Preserve):
                    found += contexts.blocks(live.resident) - contexts.blocks(min(verdict.keep, live.resident))
                    changes.append((live, verdict))
                if found >= lacking:
                    break
        if urgent or found >= lacking:
            for live, verdict in changes:
                self._apply(live, verdict, "room", blocking=not later)
        return contexts.gpu.free >= blocks

    def keep_reserve(self) -> None:
        """With overlapped swaps blocks come free an iteration late, so contexts begin to leave before blocks lack."""
        contexts = self._contexts
        lacking = self.watermark_blocks - contexts.gpu.free
        if not self._overlapped or not self._queues.held or lacking <= 0:
            return
        lacking -= contexts.coming_blocks()
        if lacking <= 0:
            return
        for live, verdict in self._counsel.room(lacking):
            if not isinstance(verdict, Swap) or self._budget_blocks() < 1:
                return
            if live.copy is None and self._begin_out(live, verdict.keep, blocking=False):
                self._counsel.applied(live, verdict, "room")
                assert live.copy is not None
                lacking -= live.copy.blocks
            if lacking <= 0:
                return

    def pause(self, live: LiveSession) -> None:
        """A session has just paused: ask what becomes of its context, and do it."""
        verdict = self._counsel.pause(live)
        if isinstance(verdict, Discard):
            self._contexts.keep_only(live, verdict.keep)
        elif isinstance(verdict, Swap) and self._overlapped:
            self._wanted[live] = verdict.keep
        elif isinstance(verdict, Swap):
            leaving = self._contexts.blocks(live.resident) - self._contexts.blocks(verdict.keep)
            if self._contexts.host.free >= leaving:
                self._begin_out(live, verdict.keep, blocking=True)
            elif self._settings.host_full == "discard":
                self._contexts.keep_only(live, verdict.keep)

    def forget_wish(self, live: LiveSession) -> None:
        """The session came back: what has not left stays."""
        self._wanted.pop(live, None)

    def serve_wishes(self) -> None:
        """Contexts that were to be swapped out at their pause go on leaving, within the budget."""
        contexts = self._contexts
        for live, keep in list(self._wanted.items()):
            if live.copy is not None:
                continue
            if contexts.blocks(live.resident) <= contexts.blocks(keep):
                del self._wanted[live]
            elif self._budget_blocks() >= 1 and not self._begin_out(live, keep, blocking=False):
                del self._wanted[live]
                if self._settings.host_full == "discard":
                    contexts.keep_only(live, keep)

    def revise(self) -> None:
        """Ask the policy for changes of mind, and carry them out."""
        if self._queues.held:
            for live, verdict in self._counsel.revisions():
                self._apply(live, verdict, "revise", blocking=not self._overlapped)

    def begin_in(self, live: LiveSession) -> Copy | None:
        """Begin to copy a context back, as far as the swap budget goes."""
        if self._budget_blocks() < 1:
            return None
        copy = self._contexts.begin_in(live, self._budget_blocks(), blocking=not self._overlapped)
        if copy is not None:
            self.copies.append(copy)
            self.swap_budget -= copy.tokens
        return copy

    def swap_out_running(self, live: LiveSession) -> bool:
        """Copy a preempted session's whole context out while the batch waits. False if the host cannot hold it."""
        held = self._contexts.blocks(live.resident)
        return 0 < held <= self._contexts.host.free and self._begin_out(live, 0, blocking=True)

    def settle_budget(self, tokens: float) -> None:
        """The plan's batch hides copies of ``tokens`` tokens in all; those begun beside it are taken off."""
        self.swap_budget = max(0, tokens - sum(copy.tokens for copy in self.copies if not copy.blocking))

    def _apply(self, live: LiveSession, verdict: Verdict, asked: str, blocking: bool) -> None:
        """Carry out a verdict on an idle context, as far as the swap budget and the host pool allow."""
        if live.copy is not None or isinstance(verdict, Preserve):
            return
        if isinstance(verdict, Swap):
            if self._begin_out(live, verdict.keep, blocking):
                self._counsel.applied(live, verdict, asked)
                return
            full = self._contexts.host.free == 0 and live.resident > 0
            if not full or not (blocking or self._settings.host_full == "discard"):
                return
        self._counsel.applied(live, verdict, asked)
        self._wanted.pop(live, None)
        self._contexts.keep_only(live, verdict.keep)
        if live.resident == 0 and live.state is State.WAITING:
            self._queues.held.pop(live, None)

    def _begin_out(self, live: LiveSession, keep: int, blocking: bool) -> bool:
        """Begin to copy a context out; a blocking copy counts as done, and the next iteration waits for it."""
        copy = self._contexts.begin_out(live, keep, math.inf if blocking else self._budget_blocks(), blocking)
        if copy is None:
            return False
        self.copies.append(copy)
        if blocking:
            self._contexts.finish(copy)
        else:
            self.swap_budget -= copy.tokens
        if live.state is State.WAITING:  # it had come back and must now be copied in first
            self._queues.withdraw(live)
            self._queues.wait_for_copy(live)
        return True

    def _budget_blocks(self) -> float:
        """Whole blocks that the swap budget still covers."""
        return math.inf if math.isinf(self.swap_budget) else self.swap_budget // self._contexts.block_size
