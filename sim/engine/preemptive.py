"""Under a preemptive order: who of all ready sessions runs, and whose contexts leave the GPU for them.

A session that must stop keeps its context on the GPU. The contexts of ready sessions that do not run are idle; memory
goes by the order, so a session takes it from those after it: first from idle ones, the one whose turn is furthest off
before the others, then from running ones, the last first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

from sim.costs.batch import Direction
from sim.engine.eviction import Room
from sim.engine.order_calls import Precedence
from sim.engine.progress_guarantee import OwedTurns
from sim.engine.queues import Queues, by_key
from sim.engine.ready_queue import Line
from sim.engine.settings import EngineSettings
from sim.kv.kv_cache import Contexts
from sim.session import LiveSession, State


class Seating:
    """Seats sessions before each iteration.

    Args:
        settings: chunking, swaps and how a context gives way.
        token_budget: query tokens that an iteration may compute.
        precedence: asks the order.
        contexts, queues, room: the engine's memory, places and pressure.

    Attributes:
        calm: whether nobody's place matters in the iteration that is planned, and the order is told of it afterwards.
    """

    def __init__(
        self,
        settings: EngineSettings,
        token_budget: int,
        precedence: Precedence,
        contexts: Contexts,
        queues: Queues,
        room: Room,
    ) -> None:
        self._settings = settings
        self._token_budget = token_budget
        self._precedence = precedence
        self._contexts = contexts
        self._queues = queues
        self._room = room
        self._line = Line(queues)
        self._owed = OwedTurns()
        self._head: LiveSession | None = None  # the first that found no tokens or no memory
        self._joined_after_refusal = False
        self.calm = False
        self._places = queues.most_running
        self._swaps = settings.preemption == "swap"
        self._ahead_of_need = self._swaps and settings.swap == "overlapped"

    # ---- before an iteration

    def seat(self, now: float) -> None:
        """Decide who runs: ready sessions in their order, while there are places, tokens and memory.

        The first that finds no tokens or no memory stops all those behind it that would have to compute more than
        their next token; the others hold their memory already.
        """
        queues, precedence = self._queues, self._precedence
        if self._owed:
            self._owed.settle()
        self._head, self._joined_after_refusal = None, False
        prompts = self._prompts_compete()
        enough = precedence.catches_up and (precedence.keys_age or not prompts) and self._enough_for_all()
        contended = prompts or not enough
        if not enough:
            self._move(precedence.reranked())
        elif prompts or precedence.next_review() <= now:
            self.rerank()
        if precedence.limits:
            self._places = int(min(queues.most_running, precedence.most_running()))
        if contended:
            self._seat_in_order(now)
        elif queues.waiting or queues.swapped:
            self._seat_all(now)
        self.calm = not (contended or queues.waiting or queues.swapped)

    def _seat_all(self, now: float) -> None:
        """There are places and blocks for all who are ready; only tokens may be lacking.

        Then the first that finds none stops all that would have to compute more than their next token.
        """
        for live in self._line:
            if not self._seat_one(live, now):
                self._head = live
                self._seat_decoders(now)
                return

    def _seat_in_order(self, now: float) -> None:
        queues, contexts = self._queues, self._contexts
        while queues.running > self._places and queues.several_run:
            self._stop(queues.latest_running(), now)
        prefills = sorted(queues.prefilling, key=by_key) if self._unpromised_blocks() < 0 or contexts.gpu.cached else ()
        for live in prefills:
            if live in queues.prefilling:
                self._make_room(contexts.growth(live, min(live.missing, self._token_budget)), live, now)
        for live in self._line:
            if self._full_before(live):
                break
            if live.state is State.SWAPPED and self._full_before(live, self._arriving()):
                continue
            if not self._seat_one(live, now):
                self._head = live
                break
        self._seat_decoders(now)

    def _seat_decoders(self, now: float) -> None:
        """Those who hold their memory and compute but their next token run on, while there are places."""
        for live in sorted([one for one in self._idle() if _decodes(one)], key=by_key):
            if self._full_before(live):
                break
            self._joined_after_refusal |= self._seat_one(live, now)

    def _prompts_compete(self) -> bool:
        """Whether somebody computes a prompt beside others that have yet to."""
        queues = self._queues
        if len(queues.prefilling) != 1:
            return len(queues.prefilling) > 1
        return bool(queues.waiting or queues.swapped or self._contexts.gpu.cached)

    def _enough_for_all(self) -> bool:
        """Whether there are places and blocks for all who are ready: then no place of those who decode matters."""
        queues, contexts = self._queues, self._contexts
        seats, blocks = queues.running, self._unpromised_blocks()
        if not (queues.waiting or queues.swapped):
            return blocks >= 0
        for live in (*[live for _, live in queues.waiting], *queues.swapped):
            seats += live.samples
            if live.copy is None:
                blocks -= contexts.lacking(live)
            leaves = live.copy is not None and live.copy.direction is Direction.OUT
            if leaves or seats > queues.most_running or blocks < self._room.watermark_blocks:
                return False
        return blocks >= 0

    def rerank(self) -> None:
        """Sessions stand where the order wants them from now on, as far as it matters while all who decode go on."""
        self._move(self._precedence.reranked_beside_decoders())

    def _move(self, moved: list[tuple[LiveSession, tuple[float, ...]]]) -> None:
        waiting = []
        for live, key in moved:
            self._owed.move(live, key)
            if live.state is State.WAITING:
                waiting.append(live)
            elif live.state is State.SWAPPED:
                self._line.swapped_moved()
        self._queues.rise(waiting)

    def _full_before(self, live: LiveSession, arriving: Sequence[LiveSession] = ()) -> bool:
        """Whether those before it in the order leave it too few places: who runs and, as to copies in, who is on the
        way. With nobody before it, it may run even if the order would have fewer run than it has samples."""
        queues, key = self._queues, live.key
        if queues.running + sum([one.samples for one in arriving]) + live.samples <= self._places:
            return False
        before = sum(one.samples for one in chain(queues.decoding, queues.prefilling, arriving) if one.key < key)
        return before > 0 and before + live.samples > self._places

    def _arriving(self) -> Sequence[LiveSession]:
        """Sessions that are being copied in."""
        flying = self._contexts.flying
        if not flying:
            return ()
        return [copy.live for copy in flying if copy.direction is Direction.IN and copy.live.state is State.SWAPPED]

    def _seat_one(self, live: LiveSession, now: float) -> bool:
        """Let a session run, or begin to copy it in. False if there are no tokens or no memory for it yet."""
        queues, room = self._queues, self._room
        if not queues.running and room.copies_beside:
            return False  # copies that were begun without a limit, because nobody computed, get no batch to slow
        if live.state is State.SWAPPED and not self._bring_back(live, now):
            return live.copy is not None
        decodes = _decodes(live)
        if not decodes and not self._finds_tokens(live):
            return False
        growth = self._contexts.growth(live, live.missing)
        if not self._make_room(growth + (0 if decodes else room.watermark_blocks), live, now):
            return False
        while queues.running and queues.running + live.samples > self._places:
            self._stop(queues.latest_running(), now)
        queues.withdraw(live)
        self._owed.begin(live)
        if decodes:
            self.begin_service(live, now)
            queues.go_on(live)
        else:
            self._contexts.take_found(live)
            queues.start(live)
        room.settle_budget()
        return True

    def begin_service(self, live: LiveSession, now: float) -> None:
        """The coming iteration computes for a session that waited."""
        live.begin_service(now)
        self._precedence.runs(live)

    def _bring_back(self, live: LiveSession, now: float) -> bool:
        """Copy a context in as far as the budget goes. True if it is all there, and its session waits to run."""
        contexts = self._contexts
        need = contexts.lacking(live) + self._room.watermark_blocks
        if not self._make_room(need, live, now):
            return False
        copy = self._room.begin_in(live)
        if copy is not None:
            self._owed.begin(live)
            self._line.swapped_moved()
        if copy is not None and copy.blocking:
            contexts.finish(copy)
            self._queues.arrived(live)
        return live.state is State.WAITING

    def _finds_tokens(self, live: LiveSession) -> bool:
        """Whether the iteration has tokens left for it after the missing ones of those before it."""
        key, seats, left = live.key, live.samples, self._token_budget
        for one in self._queues.prefilling:
            if one.key < key:
                seats += one.samples
                left -= one.queries(one.resident, one.missing) if one.fork else one.missing
        if seats == live.samples:
            return True  # nobody is before it
        if self._settings.mixed_batches:
            left -= min(self._queues.decoding.seats, self._places - seats)
        if self._settings.chunked_prefill:
            return left >= live.samples
        return left >= live.queries(live.resident, live.missing)

    def _stop(self, live: LiveSession, now: float) -> None:
        """A running session must wait; its context stays."""
        self._queues.stop(live)
        if math.isnan(live.waits_since):
            live.interrupt(now)
            live.preemptions += 1
            self._precedence.preempted(live)
        self._queues.wait(live)

    # ---- memory

    def _idle(self) -> list[LiveSession]:
        """Ready sessions that do not run and hold GPU memory that is not being copied."""
        queues, held = self._queues, self._contexts.held
        if not (queues.waiting or queues.swapped):
            return []
        if len(held) < len(queues.waiting) + len(queues.swapped):  # either may be long: many pause, or many wait
            return [one for one in held if one.copy is None and one.state in (State.WAITING, State.SWAPPED)]
        ready = [*queues.swapped, *(live for _, live in queues.waiting)]
        return [one for one in ready if one.copy is None and one in held]

    def _copyable(self) -> list[LiveSession]:
        """Idle sessions that can leave by a copy: not branch sets in the middle of their call."""
        return [one for one in self._idle() if not one.fork]

    def _idle_after(self, live: LiveSession) -> list[LiveSession]:
        return [one for one in self._idle() if one.key > live.key]

    def _by_turn(self, idle: list[LiveSession]) -> list[LiveSession]:
        """Idle sessions in the order in which they give way."""
        return self._precedence.soonest_first(sorted(idle, key=by_key))[::-1]

    def _make_room(self, blocks: int, live: LiveSession, now: float) -> bool:
        """See that ``blocks`` blocks are free beyond those promised before and those that decoding sessions take now;
        paused contexts give way, then later ones.

        Nobody gives way unless it is enough; copies beside the batch free their blocks at their end.
        """
        contexts, room, decoding = self._contexts, self._room, self._queues.decoding
        blocks += self._promised(live)
        if room.make(blocks + decoding.blocks_needed(), False, live.session.id):
            return True
        idle, key = self._idle_after(live), live.key
        running = [one for one in (*decoding, *self._queues.prefilling) if one.key > key]
        held = sum(contexts.held_by(one) for one in (*idle, *running))
        growing = sum(contexts.growth(one, 1) for one in decoding if one.key < key)
        if held == 0 or not room.make(blocks + growing - held, False, live.session.id):
            return False
        for one in (*self._by_turn(idle), *sorted(running, key=by_key, reverse=True)):
            free = contexts.gpu.free + contexts.coming_blocks()
            if free >= blocks + decoding.blocks_needed() or not self._leaves(one, now):
                break
        return contexts.gpu.free >= blocks + decoding.blocks_needed()

    def _promised(self, live: LiveSession) -> int:
        """GPU blocks that sessions before ``live`` will take, beyond the next token of those that decode."""
        contexts, key, blocks = self._contexts, live.key, 0
        for one in self._queues.prefilling:
            if one.key < key:
                blocks += contexts.lacking(one)
        for one in self._arriving():
            if one.key < key:
                blocks += contexts.to_come(one)
        return blocks

    def _unpromised_blocks(self) -> int:
        """Free blocks that none of those who run or arrive will take, if those that decode take one token each."""
        contexts, queues = self._contexts, self._queues
        blocks = contexts.gpu.free - queues.decoding.blocks_needed()
        for one in queues.prefilling:
            blocks -= contexts.growth(one, one.missing)
        for one in self._arriving():
            blocks -= contexts.to_come(one)
        return blocks

    def _leaves(self, live: LiveSession, now: float) -> bool:
        """A context gives way for a session before it. False if the budget allows no copy beside the batch now."""
        beside = self._ahead_of_need and self._contexts.host.free > 0 and not live.fork
        if beside and not self._room.has_budget(Direction.OUT):
            return False
        if live.state is State.PREFILLING or live.state is State.DECODING:
            self._stop(live, now)
        if not beside:
            self._leave_at_once(live)
            return True
        return self._room.swap_out_beside(live)

    def _leave_at_once(self, live: LiveSession) -> None:
        """An idle context is copied out while the batch waits, or is forgotten."""
        if self._swaps and self._room.swap_out_waiting(live):
            return
        self._contexts.keep_only(live, 0)
        if live.state is State.SWAPPED:
            self._queues.withdraw(live)
            self._queues.wait(live)

    def take_from_idle(self, after: LiveSession) -> bool:
        """A running session lacks blocks: one idle context after it in the order leaves at once. False for none."""
        idle = self._idle_after(after)
        if idle:
            self._leave_at_once(self._by_turn(idle)[0])
        return bool(idle)

    # ---- copies ahead of need

    def swap_ahead(self) -> None:
        """Contexts whose turn comes soonest come back into memory that nobody needs, within the swap budget.

        Who runs needs what is missing, and the first that waits all of its context: what others leave for it stays.
        """
        contexts, room, head = self._contexts, self._room, self._head
        if not self._ahead_of_need or not self._queues.swapped:
            return
        room.settle_budget()
        promised = sum(contexts.growth(live, live.missing) for live in self._queues.prefilling)
        if head is not None and head.copy is None:
            promised += contexts.lacking(head)
        spare = contexts.gpu.free - promised - room.watermark_blocks
        if spare <= 0 or not room.has_budget(Direction.IN):
            return
        away = [live for live in self._queues.swapped if live.copy is None and live is not head]
        needs = {live: contexts.lacking(live) for live in away}
        if min(needs.values(), default=math.inf) > spare:
            return
        for live in self._precedence.soonest_first(sorted(away, key=by_key)):
            if needs[live] + promised + room.watermark_blocks <= contexts.gpu.free and room.begin_in(live) is None:
                return

    def keep_reserve(self) -> None:
        """Idle contexts leave beside the batch, furthest turn first, until the watermark is free."""
        contexts, room = self._contexts, self._room
        if not self._short() or contexts.coming_blocks() >= room.watermark_blocks - contexts.gpu.free:
            return
        if not room.has_budget(Direction.OUT):
            return
        for live in self._by_turn(self._copyable()):
            lacking = room.watermark_blocks - contexts.gpu.free - contexts.coming_blocks()
            if lacking <= 0 or not room.has_budget(Direction.OUT) or not room.swap_out_beside(live):
                return

    def _short(self) -> bool:
        return self._ahead_of_need and self._contexts.gpu.free < self._room.watermark_blocks

    @property
    def unsettled(self) -> bool:
        """Whether the next plan may differ though the order stands: a turn that was owed ends with the next token,
        paused contexts may give way beside who joined since they were asked, or the watermark is not free and an idle
        context could yet leave for it."""
        if self._owed or self._joined_after_refusal:
            return True
        return self._short() and self._contexts.host.free > 0 and bool(self._copyable())

    def untouched_blocks(self) -> int:
        """Free blocks that decoding may not use before idle contexts are asked to leave."""
        could = self._ahead_of_need and self._contexts.host.free > 0 and self._copyable()
        return self._room.watermark_blocks if could else 0


def _decodes(live: LiveSession) -> bool:
    """Whether a waiting session has all but the token that it emitted last, and goes on with the next one."""
    return live.missing == 1 and live.emitted > 0 and live.offloaded == 0
