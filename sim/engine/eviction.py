"""Paused contexts make room: carries out the policy's verdicts, within the swap budget and what the host can hold."""

from __future__ import annotations

import math
from collections.abc import Callable

from policies.contract import Discard, Prefetch, Swap, Verdict
from sim.costs.batch import Direction
from sim.engine.policy_calls import RESERVE, Need, PolicyCaller
from sim.engine.queues import Queues
from sim.engine.settings import EngineSettings
from sim.kv.copy import Copy
from sim.kv.kv_cache import KVCacheManager
from sim.kv.prefix_cache import FreeableBlocks
from sim.session import SessionState, Status

_LEAVING = (Swap, Discard)  # a union would be made anew by every check


class Evictor:
    """GPU memory under pressure.

    Attributes:
        protected: the session that room is being made for; nobody takes its own.
        copies: copies begun since the last plan was handed out.
        watermark_blocks: blocks that admissions leave free.
        hides_copies: whether copies run beside the batch, and no more of them than it hides.
    """

    def __init__(
        self, settings: EngineSettings, kv: KVCacheManager, queues: Queues, policy_caller: PolicyCaller
    ) -> None:
        self._settings = settings
        self._kv = kv
        self._queues = queues
        self._policy_caller = policy_caller
        self._overlapped = settings.swap == "overlapped"
        self.hides_copies = self._overlapped and settings.swap_budget != "unlimited"
        self._pending_swap_outs: dict[
            SessionState, int
        ] = {}  # contexts on their way out since their pause, with what stays
        self._hidden: Callable[[], float] = lambda: math.inf
        self._account = {way: way if settings.swap_budget == "hidden-each-way" else Direction.OUT for way in Direction}
        self._left: dict[Direction, float] = {}  # of the budget, by account
        self.protected: SessionState | None = None
        self.copies: list[Copy] = []
        self._watermark_refused = False
        self.watermark_blocks = math.ceil(settings.watermark * kv.gpu.capacity)

    def ensure_free(self, blocks: int, urgent: bool, by: str) -> bool:
        """See that ``blocks`` GPU blocks are free for ``by``; paused contexts give way in the policy's order.

        ``urgent`` waits for copies and takes all there is. Otherwise nobody gives way unless it is enough, counting
        what copies under way will free, so that the answer may be no now and yes an iteration later.
        """
        kv = self._kv
        later = self._overlapped and not urgent
        while kv.gpu.free_blocks < blocks:
            lacking = blocks - kv.gpu.free_blocks
            if not kv.idle_gpu or (not urgent and lacking > kv.idle_blocks + kv.copying_blocks):
                return False
            lacking -= kv.blocks_being_freed() if later else 0
            changes, found = self._victims(lacking)
            if not changes or (not urgent and found < lacking):
                return False
            free = kv.gpu.free_blocks
            for state, verdict in changes:
                self._apply(state, verdict, "room", not later, Need(lacking, by))
            if kv.gpu.free_blocks == free:
                return False  # copies beside the batch free their blocks at their end
        if self._policy_caller.policy.unified_lru:
            self._spare_cached(blocks, by)
        return True

    def _spare_cached(self, blocks: int, by: str) -> None:
        """Of ``blocks`` free blocks none is to be a cached one that was used later than a context that can give way."""
        kv, gpu = self._kv, self._kv.gpu
        while gpu.cached and kv.idle_gpu and (lacking := blocks - gpu.free_blocks + len(gpu.cached)) > 0:
            first = next((state for state, _ in self._policy_caller.victims(lacking) if state.copy is None), None)
            if first is None:
                return
            lacking -= gpu.older(first.unused_since, lacking)
            if lacking == 0:
                return
            losses = kv.evictions
            for state, verdict in self._policy_caller.victims(lacking):
                self._apply(state, verdict, "room", True, Need(lacking, by))
                break
            if kv.evictions == losses:
                return

    def _victims(self, lacking: int) -> tuple[list[tuple[SessionState, Verdict]], int]:
        """Contexts that the policy lets give way, until ``lacking`` blocks are found, and how many are."""
        kv = self._kv
        found, tally = 0, FreeableBlocks(kv.block_size)
        changes: list[tuple[SessionState, Verdict]] = []
        if lacking > 0:
            for state, verdict in self._policy_caller.victims(lacking):
                if state.copy is None and isinstance(verdict, _LEAVING):
                    found += tally.add(state, verdict.keep, leaves_common=isinstance(verdict, Swap))
                    changes.append((state, verdict))
                if found >= lacking:
                    break
        return changes, found

    def maintain_watermark(self) -> None:
        """With overlapped swaps blocks come free an iteration late, so contexts begin to leave before blocks lack."""
        kv = self._kv
        lacking = self.watermark_blocks - kv.gpu.free_blocks
        self._watermark_refused = False
        if not self._overlapped or not kv.idle_gpu or lacking <= 0:
            return
        lacking -= kv.blocks_being_freed()
        if lacking <= 0:
            return
        self._watermark_refused = True
        for state, verdict in self._policy_caller.victims(lacking):
            if not isinstance(verdict, Swap):
                return
            self._watermark_refused = False
            if not self.has_budget(Direction.OUT):
                return
            if state.copy is None and self._begin_swap_out(state, verdict.keep, blocking=False):
                self._policy_caller.applied(state, verdict, "room", Need(lacking, RESERVE))
                assert state.copy is not None
                lacking -= state.copy.blocks
            if lacking <= 0:
                return

    @property
    def unsettled(self) -> bool:
        """Whether contexts wait to leave, or the reserve is short and the policy might yet fill it."""
        short = self._overlapped and self._kv.idle_gpu and self._kv.gpu.free_blocks < self.watermark_blocks
        return bool(self._pending_swap_outs) or bool(short and not self._watermark_refused)

    def untouched_blocks(self) -> int:
        """Free blocks that decoding may not use before the policy is asked who gives way."""
        kv = self._kv
        if not kv.idle_gpu:
            return 0
        cached = len(kv.gpu.cached) if self._policy_caller.policy.unified_lru else 0
        return max(cached, self.watermark_blocks if self._overlapped and not self._watermark_refused else 0)

    def pause(self, state: SessionState) -> None:
        """A session has just paused: ask what becomes of its context, and do it."""
        verdict = self._policy_caller.pause(state)
        if isinstance(verdict, Discard):
            self._kv.truncate(state, verdict.keep)
        elif isinstance(verdict, Swap) and self._overlapped:
            self._pending_swap_outs[state] = verdict.keep
        elif isinstance(verdict, Swap):
            leaving = self._kv.blocks(state.resident) - self._kv.blocks(verdict.keep)
            if self._kv.host.free_blocks >= leaving:
                self._begin_swap_out(state, verdict.keep, blocking=True)
            elif self._settings.host_full == "discard":
                self._kv.truncate(state, verdict.keep)

    def cancel_swap_out(self, state: SessionState) -> None:
        """The session came back: what has not left stays."""
        self._pending_swap_outs.pop(state, None)

    def serve_pending_swap_outs(self) -> None:
        """Contexts that were to be swapped out at their pause go on leaving, within the budget."""
        kv = self._kv
        for state, keep in list(self._pending_swap_outs.items()):
            if state.copy is not None:
                continue
            if kv.blocks(state.resident) <= kv.blocks(keep):
                del self._pending_swap_outs[state]
            elif self.has_budget(Direction.OUT) and not self._begin_swap_out(state, keep, blocking=False):
                del self._pending_swap_outs[state]
                if self._settings.host_full == "discard":
                    kv.truncate(state, keep)

    def revise(self) -> None:
        """Ask the policy for changes of mind, and carry them out."""
        if self.concerns_policy:
            for state, verdict in self._policy_caller.revisions():
                if isinstance(verdict, Prefetch):
                    self._fetch(state, verdict)
                else:
                    self._apply(state, verdict, "revise", blocking=not self._overlapped)

    @property
    def concerns_policy(self) -> bool:
        """Whether there is a context about which the policy might change its mind."""
        return bool(self._kv.idle_gpu or (self._policy_caller.policy.prefetches and self._kv.idle_host))

    def _fetch(self, state: SessionState, verdict: Prefetch) -> None:
        """Begin to copy a paused context back ahead of its answer, into memory that is free."""
        kv, blocking = self._kv, not self._overlapped
        free = kv.gpu.free_blocks - self.watermark_blocks
        if state.copy is not None or state.status is not Status.PAUSED:
            return
        copy = kv.begin_swap_in(state, min(free, self._budget_blocks(Direction.IN)), blocking)
        if copy is None:
            return
        self._policy_caller.applied(state, verdict, "revise")
        self._pending_swap_outs.pop(state, None)
        if blocking:
            kv.finish(copy)
        else:
            self._spend(copy)
        self.copies.append(copy)

    def begin_swap_in(self, state: SessionState) -> Copy | None:
        """Begin to copy a context back, as far as the swap budget goes."""
        budget = self._budget_blocks(Direction.IN)
        if budget < 1:
            return None
        copy = self._kv.begin_swap_in(state, budget, blocking=not self._overlapped)
        if copy is not None:
            self._spend(copy)
            self.copies.append(copy)
        return copy

    def has_budget(self, way: Direction) -> bool:
        """Whether the swap budget still covers a block."""
        return self._budget_blocks(way) >= 1

    def swap_out_beside(self, state: SessionState) -> bool:
        """Begin to copy a waiting session's context out beside the batch, within the budget. False if nothing moves."""
        return self._begin_swap_out(state, 0, blocking=False)

    def swap_out_waiting(self, state: SessionState) -> bool:
        """Copy a waiting session's whole context out while the batch waits. False if the host cannot hold it."""
        held = self._kv.blocks_held(state)
        return 0 < held <= self._kv.host.free_blocks and self._begin_swap_out(state, 0, blocking=True)

    @property
    def overlapping_copies(self) -> bool:
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

    def _apply(
        self, state: SessionState, verdict: Verdict, asked: str, blocking: bool, need: Need | None = None
    ) -> None:
        """Carry out a verdict on an idle context, as far as the swap budget and the host pool allow."""
        if state.copy is not None or not isinstance(verdict, _LEAVING):
            return
        if isinstance(verdict, Swap):
            if self._begin_swap_out(state, verdict.keep, blocking):
                self._policy_caller.applied(state, verdict, asked, need)
                return
            full = self._kv.host.free_blocks == 0 and state.resident > 0
            if not full or not (blocking or self._settings.host_full == "discard"):
                return
            verdict = Discard(verdict.keep, {**verdict.reasons, "host_is_full": 1.0})
        self._policy_caller.applied(state, verdict, asked, need)
        self._pending_swap_outs.pop(state, None)
        self._kv.truncate(state, verdict.keep)

    def _begin_swap_out(self, state: SessionState, keep: int, blocking: bool) -> bool:
        """Begin to copy a context out; a blocking copy counts as done, and the next iteration waits for it."""
        most = math.inf if blocking else self._budget_blocks(Direction.OUT)
        copy = self._kv.begin_swap_out(state, keep, most, blocking)
        if copy is None:
            return False
        if blocking:
            self._kv.finish(copy)
        else:
            self._spend(copy)
        self.copies.append(copy)
        if state.status is Status.WAITING:  # it had come back and must now be copied in first
            self._queues.remove(state)
            self._queues.wait_for_copy(state)
        return True

    def _budget_blocks(self, way: Direction) -> float:
        """Whole blocks that the swap budget still covers."""
        budget = self.swap_budget(way)
        return budget if budget == math.inf else budget // self._kv.block_size
