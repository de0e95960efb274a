"""Eviction: frees GPU blocks by the policy's verdicts, within the swap budget and what the host can hold."""

from __future__ import annotations

import math

from policies.contract import Discard, Prefetch, Swap, Verdict
from sim.costs.batch import Direction
from sim.engine.policy_calls import WATERMARK, Need, PolicyCaller
from sim.engine.queues import Queues
from sim.engine.settings import EngineSettings
from sim.engine.swap_budget import SwapBudget
from sim.kv.copy import Copy
from sim.kv.kv_cache import KVCacheManager
from sim.kv.prefix_cache import FreeableBlocks
from sim.session import SessionState, Status

_LEAVING = (Swap, Discard)  # a union would be made anew by every check


class Evictor:
    """GPU memory under pressure.

    Attributes:
        protected: the session that blocks are being freed for; its own context is not evicted.
        budget: what may still be copied beside the batch.
        watermark_blocks: blocks that admissions leave free.
    """

    def __init__(
        self, settings: EngineSettings, kv: KVCacheManager, queues: Queues, policy_caller: PolicyCaller
    ) -> None:
        self._settings = settings
        self._kv = kv
        self._queues = queues
        self._policy_caller = policy_caller
        self._overlapped = settings.swap == "overlapped"
        # contexts that are to leave since their pause, with the tokens that stay
        self._pending_swap_outs: dict[SessionState, int] = {}
        self.budget = SwapBudget(settings, kv.block_size)
        self.protected: SessionState | None = None
        self._watermark_refused = False
        self.watermark_blocks = math.ceil(settings.watermark * kv.gpu.capacity)

    def ensure_free(self, blocks: int, urgent: bool, by: str) -> bool:
        """See that ``blocks`` GPU blocks are free for ``by``; paused contexts give way in the policy's order.

        ``urgent`` waits for copies and takes all there is. Otherwise no context is evicted unless it is enough,
        counting what copies under way will free, so that the answer may be no now and yes an iteration later.
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
            evictions = kv.evictions
            for state, verdict in self._policy_caller.victims(lacking):
                self._apply(state, verdict, "room", True, Need(lacking, by))
                break
            if kv.evictions == evictions:
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
            if not self.budget.covers_a_block(Direction.OUT):
                return
            if state.copy is None and self._begin_swap_out(state, verdict.keep, blocking=False):
                self._policy_caller.applied(state, verdict, "room", Need(lacking, WATERMARK))
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
        """Free blocks that decoding may not use before the policy is asked for victims."""
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

    def cancel_copies(self, state: SessionState) -> None:
        """The session ends at the instant of its last pause: a copy that the batch would wait for is not made."""
        copies = self.budget.copies
        if copies and any(copy.state is state for copy in copies):
            for copy in copies:
                if copy.state is state:
                    state.stats.swapped_out -= copy.tokens
                    for listener in self._kv.listeners:
                        listener.copy_cancelled(copy)
            self.budget.copies = [copy for copy in copies if copy.state is not state]

    def serve_pending_swap_outs(self) -> None:
        """Contexts that were to be swapped out at their pause go on leaving, within the budget."""
        kv = self._kv
        for state, keep in list(self._pending_swap_outs.items()):
            if state.copy is not None:
                continue
            if kv.blocks(state.resident) <= kv.blocks(keep):
                del self._pending_swap_outs[state]
            elif self.budget.covers_a_block(Direction.OUT) and not self._begin_swap_out(state, keep, blocking=False):
                del self._pending_swap_outs[state]
                if self._settings.host_full == "discard":
                    kv.truncate(state, keep)

    def revise(self) -> None:
        """Ask the policy for revised verdicts, and carry them out."""
        if self.concerns_policy:
            for state, verdict in self._policy_caller.revisions():
                if isinstance(verdict, Prefetch):
                    self._fetch(state, verdict)
                else:
                    self._apply(state, verdict, "revise", blocking=not self._overlapped)

    @property
    def concerns_policy(self) -> bool:
        """Whether there is a context whose verdict the policy might revise."""
        return bool(self._kv.idle_gpu or (self._policy_caller.policy.prefetches and self._kv.idle_host))

    def _fetch(self, state: SessionState, verdict: Prefetch) -> None:
        """Begin to copy a paused context back ahead of its answer, into memory that is free."""
        kv, blocking = self._kv, not self._overlapped
        free = kv.gpu.free_blocks - self.watermark_blocks
        if state.copy is not None or state.status is not Status.PAUSED:
            return
        copy = kv.begin_swap_in(state, min(free, self.budget.blocks(Direction.IN)), blocking)
        if copy is None:
            return
        self._policy_caller.applied(state, verdict, "revise")
        self._pending_swap_outs.pop(state, None)
        if blocking:
            kv.finish(copy)
        else:
            self.budget.spend(copy)
        self.budget.copies.append(copy)

    def begin_swap_in(self, state: SessionState) -> Copy | None:
        """Begin to copy a context back, as far as the swap budget goes."""
        budget = self.budget.blocks(Direction.IN)
        if budget < 1:
            return None
        copy = self._kv.begin_swap_in(state, budget, blocking=not self._overlapped)
        if copy is not None:
            self.budget.spend(copy)
            self.budget.copies.append(copy)
        return copy

    def swap_out_beside(self, state: SessionState) -> bool:
        """Begin to copy a waiting session's context out beside the batch, within the budget. False if nothing moves."""
        return self._begin_swap_out(state, 0, blocking=False)

    def swap_out_waiting(self, state: SessionState) -> bool:
        """Copy a waiting session's whole context out while the batch waits. False if the host cannot hold it."""
        held = self._kv.blocks_held(state)
        return 0 < held <= self._kv.host.free_blocks and self._begin_swap_out(state, 0, blocking=True)

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
        most = math.inf if blocking else self.budget.blocks(Direction.OUT)
        copy = self._kv.begin_swap_out(state, keep, most, blocking)
        if copy is None:
            return False
        if blocking:
            self._kv.finish(copy)
        else:
            self.budget.spend(copy)
        self.budget.copies.append(copy)
        if state.status is Status.WAITING:  # it had come back and must now be copied in first
            self._queues.remove(state)
            self._queues.wait_for_copy(state)
        return True
