"""Paused contexts make room: carries out the policy's verdicts, within the swap budget and what the host can hold."""

from __future__ import annotations

import math
from collections.abc import Callable

from policies.contract import Discard, Prefetch, Swap, Verdict
from sim.costs.batch import Direction
from sim.engine.policy_calls import RESERVE, Counsel, Need
from sim.engine.queues import Queues
from sim.engine.settings import EngineSettings
from sim.kv.copy import Copy
from sim.kv.kv_cache import Contexts
from sim.kv.prefix_cache import Tally
from sim.session import SessionState, Status

_LEAVING = (Swap, Discard)  # a union would be made anew by every check


class Room:
    """GPU memory under pressure.

    Attributes:
        spared: the session that room is being made for; nobody takes its own.
        copies: copies begun since the last plan was handed out.
        watermark_blocks: blocks that admissions leave free.
        hides_copies: whether copies run beside the batch, and no more of them than it hides.
    """

    def __init__(self, settings: EngineSettings, contexts: Contexts, queues: Queues, counsel: Counsel) -> None:
        self._settings = settings
        self._contexts = contexts
        self._queues = queues
        self._counsel = counsel
        self._overlapped = settings.swap == "overlapped"
        self.hides_copies = self._overlapped and settings.swap_budget != "unlimited"
        self._wanted: dict[SessionState, int] = {}  # contexts on their way out since their pause, with what stays
        self._hidden: Callable[[], float] = lambda: math.inf
        self._account = {way: way if settings.swap_budget == "hidden-each-way" else Direction.OUT for way in Direction}
        self._left: dict[Direction, float] = {}  # of the budget, by account
        self.spared: SessionState | None = None
        self.copies: list[Copy] = []
        self._reserve_refused = False
        self.watermark_blocks = math.ceil(settings.watermark * contexts.gpu.capacity)

    def make(self, blocks: int, urgent: bool, by: str) -> bool:
        """See that ``blocks`` GPU blocks are free for ``by``; paused contexts give way in the policy's order.

        ``urgent`` waits for copies and takes all there is. Otherwise nobody gives way unless it is enough, counting
        what copies under way will free, so that the answer may be no now and yes an iteration later.
        """
        contexts = self._contexts
        later = self._overlapped and not urgent
        while contexts.gpu.free < blocks:
            lacking = blocks - contexts.gpu.free
            if not contexts.held or (not urgent and lacking > contexts.idle_blocks + contexts.copying_blocks):
                return False
            lacking -= contexts.coming_blocks() if later else 0
            changes, found = self._offers(lacking)
            if not changes or (not urgent and found < lacking):
                return False
            free = contexts.gpu.free
            for state, verdict in changes:
                self._apply(state, verdict, "room", not later, Need(lacking, by))
            if contexts.gpu.free == free:
                return False  # copies beside the batch free their blocks at their end
        if self._counsel.policy.one_lru:
            self._spare_cached(blocks, by)
        return True

    def _spare_cached(self, blocks: int, by: str) -> None:
        """Of ``blocks`` free blocks none is to be a cached one that was used later than a context that can give way."""
        contexts, gpu = self._contexts, self._contexts.gpu
        while gpu.cached and contexts.held and (lacking := blocks - gpu.free + len(gpu.cached)) > 0:
            first = next((state for state, _ in self._counsel.room(lacking) if state.copy is None), None)
            if first is None:
                return
            lacking -= gpu.older(first.unused_since, lacking)
            if lacking == 0:
                return
            losses = contexts.losses
            for state, verdict in self._counsel.room(lacking):
                self._apply(state, verdict, "room", True, Need(lacking, by))
                break
            if contexts.losses == losses:
                return

    def _offers(self, lacking: int) -> tuple[list[tuple[SessionState, Verdict]], int]:
        """Contexts that the policy lets give way, until ``lacking`` blocks are found, and how many are."""
        contexts = self._contexts
        found, tally = 0, Tally(contexts.block_size)
        changes: list[tuple[SessionState, Verdict]] = []
        if lacking > 0:
            for state, verdict in self._counsel.room(lacking):
                if state.copy is None and isinstance(verdict, _LEAVING):
                    found += tally.add(state, verdict.keep, leaves_common=isinstance(verdict, Swap))
                    changes.append((state, verdict))
                if found >= lacking:
                    break
        return changes, found

    def keep_reserve(self) -> None:
        """With overlapped swaps blocks come free an iteration late, so contexts begin to leave before blocks lack."""
        contexts = self._contexts
        lacking = self.watermark_blocks - contexts.gpu.free
        self._reserve_refused = False
        if not self._overlapped or not contexts.held or lacking <= 0:
            return
        lacking -= contexts.coming_blocks()
        if lacking <= 0:
            return
        self._reserve_refused = True
        for state, verdict in self._counsel.room(lacking):
            if not isinstance(verdict, Swap):
                return
            self._reserve_refused = False
            if not self.has_budget(Direction.OUT):
                return
            if state.copy is None and self._begin_out(state, verdict.keep, blocking=False):
                self._counsel.applied(state, verdict, "room", Need(lacking, RESERVE))
                assert state.copy is not None
                lacking -= state.copy.blocks
            if lacking <= 0:
                return

    @property
    def unsettled(self) -> bool:
        """Whether contexts wait to leave, or the reserve is short and the policy might yet fill it."""
        short = self._overlapped and self._contexts.held and self._contexts.gpu.free < self.watermark_blocks
        return bool(self._wanted) or bool(short and not self._reserve_refused)

    def untouched_blocks(self) -> int:
        """Free blocks that decoding may not use before the policy is asked who gives way."""
        contexts = self._contexts
        if not contexts.held:
            return 0
        cached = len(contexts.gpu.cached) if self._counsel.policy.one_lru else 0
        return max(cached, self.watermark_blocks if self._overlapped and not self._reserve_refused else 0)

    def pause(self, state: SessionState) -> None:
        """A session has just paused: ask what becomes of its context, and do it."""
        verdict = self._counsel.pause(state)
        if isinstance(verdict, Discard):
            self._contexts.keep_only(state, verdict.keep)
        elif isinstance(verdict, Swap) and self._overlapped:
            self._wanted[state] = verdict.keep
        elif isinstance(verdict, Swap):
            leaving = self._contexts.blocks(state.resident) - self._contexts.blocks(verdict.keep)
            if self._contexts.host.free >= leaving:
                self._begin_out(state, verdict.keep, blocking=True)
            elif self._settings.host_full == "discard":
                self._contexts.keep_only(state, verdict.keep)

    def forget_wish(self, state: SessionState) -> None:
        """The session came back: what has not left stays."""
        self._wanted.pop(state, None)

    def serve_wishes(self) -> None:
        """Contexts that were to be swapped out at their pause go on leaving, within the budget."""
        contexts = self._contexts
        for state, keep in list(self._wanted.items()):
            if state.copy is not None:
                continue
            if contexts.blocks(state.resident) <= contexts.blocks(keep):
                del self._wanted[state]
            elif self.has_budget(Direction.OUT) and not self._begin_out(state, keep, blocking=False):
                del self._wanted[state]
                if self._settings.host_full == "discard":
                    contexts.keep_only(state, keep)

    def revise(self) -> None:
        """Ask the policy for changes of mind, and carry them out."""
        if self.concerns_policy:
            for state, verdict in self._counsel.revisions():
                if isinstance(verdict, Prefetch):
                    self._fetch(state, verdict)
                else:
                    self._apply(state, verdict, "revise", blocking=not self._overlapped)

    @property
    def concerns_policy(self) -> bool:
        """Whether there is a context about which the policy might change its mind."""
        return bool(self._contexts.held or (self._counsel.policy.prefetches and self._contexts.away))

    def _fetch(self, state: SessionState, verdict: Prefetch) -> None:
        """Begin to copy a paused context back ahead of its answer, into memory that is free."""
        contexts, blocking = self._contexts, not self._overlapped
        free = contexts.gpu.free - self.watermark_blocks
        if state.copy is not None or state.status is not Status.PAUSED:
            return
        copy = contexts.begin_in(state, min(free, self._budget_blocks(Direction.IN)), blocking)
        if copy is None:
            return
        self._counsel.applied(state, verdict, "revise")
        self._wanted.pop(state, None)
        if blocking:
            contexts.finish(copy)
        else:
            self._spend(copy)
        self.copies.append(copy)

    def begin_in(self, state: SessionState) -> Copy | None:
        """Begin to copy a context back, as far as the swap budget goes."""
        budget = self._budget_blocks(Direction.IN)
        if budget < 1:
            return None
        copy = self._contexts.begin_in(state, budget, blocking=not self._overlapped)
        if copy is not None:
            self._spend(copy)
            self.copies.append(copy)
        return copy

    def has_budget(self, way: Direction) -> bool:
        """Whether the swap budget still covers a block."""
        return self._budget_blocks(way) >= 1

    def swap_out_beside(self, state: SessionState) -> bool:
        """Begin to copy a waiting session's context out beside the batch, within the budget. False if nothing moves."""
        return self._begin_out(state, 0, blocking=False)

    def swap_out_waiting(self, state: SessionState) -> bool:
        """Copy a waiting session's whole context out while the batch waits. False if the host cannot hold it."""
        held = self._contexts.held_by(state)
        return 0 < held <= self._contexts.host.free and self._begin_out(state, 0, blocking=True)

    @property
    def copies_beside(self) -> bool:
        """Whether this plan has begun copies that run beside the batch, under a budget."""
        return self.hides_copies and any(not copy.blocking for copy in self.copies)

    def open_budget(self, hidden: Callable[[], float]) -> None:
        """A plan begins; ``hidden`` tells how many tokens' copies its batch, as far as it is planned, hides."""
        self._hidden = hidden
        self._left.clear()

    def settle_budget(self) -> None:
        """The batch has grown: ask anew what it hides. Copies begun beside it are taken off."""
        self._left.clear()

    def swap_budget(self, way: Direction) -> float:
        """Tokens that may still be copied beside this iteration; infinite when nothing limits it."""
        account = self._account[way]
        left = self._left.get(account)
        if left is None:
            left = self._hidden()
            for copy in self.copies:
                if not copy.blocking and self._account[copy.direction] is account:
                    left -= copy.tokens
            left = self._left[account] = max(0, left)
        return left

    def _spend(self, copy: Copy) -> None:
        self._left[self._account[copy.direction]] -= copy.tokens

    def _apply(self, state: SessionState, verdict: Verdict, asked: str, blocking: bool, need: Need | None = None) -> None:
        """Carry out a verdict on an idle context, as far as the swap budget and the host pool allow."""
        if state.copy is not None or not isinstance(verdict, _LEAVING):
            return
        if isinstance(verdict, Swap):
            if self._begin_out(state, verdict.keep, blocking):
                self._counsel.applied(state, verdict, asked, need)
                return
            full = self._contexts.host.free == 0 and state.resident > 0
            if not full or not (blocking or self._settings.host_full == "discard"):
                return
            verdict = Discard(verdict.keep, {**verdict.because, "host_is_full": 1.0})
        self._counsel.applied(state, verdict, asked, need)
        self._wanted.pop(state, None)
        self._contexts.keep_only(state, verdict.keep)

    def _begin_out(self, state: SessionState, keep: int, blocking: bool) -> bool:
        """Begin to copy a context out; a blocking copy counts as done, and the next iteration waits for it."""
        most = math.inf if blocking else self._budget_blocks(Direction.OUT)
        copy = self._contexts.begin_out(state, keep, most, blocking)
        if copy is None:
            return False
        if blocking:
            self._contexts.finish(copy)
        else:
            self._spend(copy)
        self.copies.append(copy)
        if state.status is Status.WAITING:  # it had come back and must now be copied in first
            self._queues.withdraw(state)
            self._queues.wait_for_copy(state)
        return True

    def _budget_blocks(self, way: Direction) -> float:
        """Whole blocks that the swap budget still covers."""
        budget = self.swap_budget(way)
        return budget if budget == math.inf else budget // self._contexts.block_size
