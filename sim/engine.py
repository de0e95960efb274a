"""The engine: the rules of one serving replica. It holds no clock and draws no random number; it is told the time.

    live = engine.submit(session, now)     # a session arrives
    engine.resume(live, now)               # a tool's answer came back
    plan = engine.plan(now)                # decides one iteration and claims the memory for it
    outcome = engine.commit(plan, now)     # the iteration is over: who emitted, who paused, who finished
    engine.copied(copy, now)               # a copy that ran beside the batch has ended

Sessions that go from one replica to another: see ``sim.moves``.

Calls come between iterations: a driver holds back what happens during one. Invariants, held by the tests against random
workloads, policies and settings:

    INV-1  every session submitted is finished, rejected, failed, moved away or inside, in exactly one place
    INV-2  GPU and host blocks in use equal the sum over contexts and copies under way, and never exceed capacity
    INV-3  a token is emitted only when its whole context is resident
    INV-4  an iteration computes at most the token budget; with chunking off, one whole context may exceed it
    INV-5  if work waits and nothing runs, something is under way that can change that
    INV-6  no policy changes which tokens are generated, only when
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

from policies.contract import InterceptPolicy, PreemptiveOrder, QueueOrder
from sim.batching import Batching
from sim.contexts import Contexts
from sim.costs import CostModel
from sim.counsel import Counsel
from sim.errors import StalledEngine
from sim.leaping import find_alike
from sim.live import RUNNING, LiveSession, State
from sim.moves import depart
from sim.plan import Batch, Copy, Outcome, Plan
from sim.precedence import Precedence, Turns, turns_of
from sim.queues import Queues, by_key
from sim.room import Room
from sim.seating import Seating
from sim.settings import EngineSettings
from sim.shapes import require_supported
from sim.view import View
from traces.session import Session


class Engine:
    """One replica's rules.

    Args:
        settings: the rules in which systems differ.
        costs: seconds for work; the swap budget and the policies ask it.
        policy, order: who decides about paused contexts and about the queue.
        gpu_blocks, host_blocks: sizes of the two pools.
        log_decisions: keep every decision of the policy with the numbers it was made from.
        leap: let a plan stand for all the iterations that will be like it.
    """

    def __init__(
        self,
        settings: EngineSettings,
        costs: CostModel,
        policy: InterceptPolicy,
        order: QueueOrder,
        gpu_blocks: int,
        host_blocks: int,
        log_decisions: bool = False,
        leap: bool = False,
    ) -> None:
        self.settings = settings
        self.leap = leap
        self.costs = costs
        self.now = 0.0
        budget = settings.token_budget
        self.token_budget = costs.saturation_tokens if budget == "saturation" else budget
        self.emitted_tokens = 0
        self.contexts = Contexts(
            gpu_blocks, host_blocks, settings.block_size, settings.prefix_sharing, settings.sample_layout
        )
        # never more sessions than the budget has tokens, so that every decoder fits
        most_running = min(settings.max_running, self.token_budget)
        self.precedence: Precedence | None = None
        self.seating: Seating | None = None
        self.queues = Queues(self.contexts, most_running, not isinstance(order, PreemptiveOrder))
        self.counsel = Counsel(policy, order, View(self), log_decisions)
        self.room = Room(settings, self.contexts, self.queues, self.counsel)
        if isinstance(order, PreemptiveOrder):
            self.precedence = Precedence(order, self.counsel.view)
            self.seating = Seating(settings, self.token_budget, self.precedence, self.contexts, self.queues, self.room)
        self.turns = turns_of(order, self.counsel.view)
        self.asking: Turns | None = self.turns or self.precedence
        self.batching = Batching(
            settings, self.token_budget, self.contexts, self.queues, self.room, self.seating, self.asking
        )
        self._next_serial = 0

    # ---- what happens to the engine

    def submit(self, session: Session, now: float) -> LiveSession:
        """A session arrives. It is queued, or rejected with a reason if it could never be served.

        Raises:
            UnsupportedSession: the session has a shape that this engine cannot serve.
        """
        self.hear(now)
        require_supported(session)
        live = LiveSession(session, self.next_serial(), now)
        live.reason = self.too_large(session)
        if live.reason:
            live.state = State.REJECTED
        else:
            live.key = self.counsel.key(live)
            self.queues.enqueue(live)
        return live

    def next_serial(self) -> int:
        """The number of a session that comes in: ties fall to the one that came first."""
        self._next_serial += 1
        return self._next_serial - 1

    def too_large(self, session: Session) -> str:
        """Why this engine could never serve a session to its end; empty if it could."""
        need, blocks = self.contexts.most_blocks(session) + self.room.watermark_blocks, self.contexts.gpu.capacity
        if session.samples > self.queues.most_running:
            return f"it decodes {session.samples} samples at once; at most {self.queues.most_running} sequences may run"
        if need <= blocks:
            return ""
        each = f" in each of {session.samples} samples" if session.samples > 1 else ""
        return (
            f"its context grows to {session.max_context} tokens{each}, {need} blocks with the watermark; "
            f"the GPU pool has {blocks}"
        )

    def resume(self, live: LiveSession, now: float) -> bool:
        """The answer came: its tokens join the context and the session queues. True if nothing follows and it is over.

        While the context is being copied the answer is taken up when the copy ends.
        """
        live.ready_at = live.waits_since = now
        self.end_pause(live, now)
        if live.copy is not None:
            live.answered = True
            return False
        return self._take_answer(live)

    def end_pause(self, live: LiveSession, now: float) -> None:
        """The answer came, whether the session goes on here or at another replica."""
        assert live.state is State.PAUSED, live
        self.hear(now)
        duration = now - live.paused_at
        live.paused_s += duration
        self.counsel.answer(live, duration)

    def hear(self, at: float) -> None:
        """News of ``at`` may be taken up later: for policies it is never earlier than when they were asked before."""
        if at > self.now:
            self.now = at

    def _take_answer(self, live: LiveSession) -> bool:
        self.room.forget_wish(live)
        self.queues.unpause(live)
        live.answered = False
        if live.last_call:
            self._finish(live)
            return True
        pause = live.call.pause
        assert pause is not None
        if pause.keeps is not None:
            self.contexts.cut(live, pause.keeps)
        live.call_index, joined = live.next_call(live.ready_at)
        live.missing += joined
        live.emitted = 0
        live.scheduled_at = math.nan
        live.entered = live.ready_at if self.settings.reentry == "tail" else live.session.arrival
        live.resumed = True
        live.key = self.counsel.key(live)
        self.queues.enqueue(live, at_once=self.settings.resume_resident == "running")
        return False

    def copied(self, copy: Copy, now: float) -> LiveSession | None:
        """A copy has ended: its blocks change hands. Returns its session if that has ended with it."""
        self.hear(now)
        self.contexts.finish(copy)
        live = copy.live
        if live.leaving:
            depart(self, live)
            return None
        if live.answered:
            return live if self._take_answer(live) else None
        if live.state is State.SWAPPED:
            self.queues.arrived(live)
        return None

    # ---- one iteration

    def plan(self, now: float) -> Plan:
        """Decide one iteration and claim the blocks it needs.

        Order of service: running sessions, then those that wait for their copy from the host, then the queue. Running
        sessions may preempt later ones; the others take only what is free or what paused contexts give way.

        Raises:
            PolicyError: the policy raised, or answered something impossible.
            StalledEngine: a rule of the engine is broken.
        """
        self.now = now
        while True:
            losses = self.contexts.losses
            plan = self._plan_once(now)
            if not plan.empty or (self.contexts.losses == losses and not self._stalled(plan)):
                for live in plan.started:
                    self.counsel.start(live)
                return plan
            if self.contexts.losses == losses:
                self._break_stall()

    def _plan_once(self, now: float) -> Plan:
        plan, batching = Plan(now), self.batching
        losses = self.contexts.losses
        self.room.open_budget(lambda: self._hidden_tokens(plan))
        if self.turns is not None:
            self.queues.move(self.turns.reranked())
        if self.seating is not None:
            self._serve_seated(plan, self.seating)
        elif self.settings.mixed_batches:
            batching.decode(plan)
            batching.prefill(plan)
            batching.swap_in(plan)
            batching.admit(plan)
        else:
            if not (self.settings.swapped_first and self.queues.swapped):
                batching.prefill(plan)
                batching.admit(plan)
            if not plan.chunks:
                batching.decode(plan)
                batching.swap_in(plan)
            if not plan.computes:
                batching.prefill(plan)
        if self.room.concerns_policy or self.room.unsettled:
            self.room.settle_budget()
            self.room.serve_wishes()
            self.room.revise()
            self.room.keep_reserve()
        if self.seating is not None:
            self.seating.keep_reserve()
        plan.copies, self.room.copies = self.room.copies, []
        if self.leap and plan.computes and self.contexts.losses == losses:
            find_alike(self, plan)
        return plan

    def _serve_seated(self, plan: Plan, seating: Seating) -> None:
        """Under a preemptive order: seat whoever comes first, let them compute, then copy in ahead of need."""
        seating.seat(plan.now)
        if self.settings.mixed_batches:
            self.batching.decode(plan)
        self.batching.prefill(plan)
        if not (self.settings.mixed_batches or plan.chunks):
            self.batching.decode(plan)
        seating.swap_ahead()

    def _hidden_tokens(self, plan: Plan) -> float:
        """N with T_swap(N) = T_fwd(batch): tokens whose copy the plan hides; no limit without a forward pass.

        Before anything is planned the batch is taken to be the decoding sessions or, without any, the next chunk.
        """
        if not self.room.hides_copies:
            return math.inf
        batch, decoding = plan.batch, self.queues.decoding
        if not plan.computes:
            if decoding.seats:
                batch = Batch(decoding.seats, decoding.read_tokens + decoding.seats, decode_spread=decoding.spread)
            elif self.queues.prefilling:
                batch = Batch()
                first = min(self.queues.prefilling, key=by_key)
                batch.add_missing(first, first.resident, min(first.missing, self.token_budget))
        return self.costs.tokens_within(self.costs.iteration_time(batch)) if batch.query_tokens else math.inf

    def wakes_at(self) -> float:
        """When the policy or the order wants to be asked though nothing runs, s; infinity for never."""
        if self.queues.empty:
            return math.inf
        asked = [one for one in (self.counsel, self.asking) if one is not None]
        reviews = [one.next_review() for one in asked]
        return min((at for at in reviews if at > self.now), default=math.inf)

    # ---- the end of an iteration

    def commit(self, plan: Plan, now: float) -> Outcome:
        """The iteration is over. Sessions emit; calls that end pause or finish, and the policy hears of each pause.

        Raises:
            PolicyError: the policy raised, or answered something impossible.
        """
        if self.seating is not None and self.seating.calm:
            self._catch_up(plan.ends)
        self.now = now
        self.contexts.claimed = 0
        outcome = Outcome()
        self.contexts.gpu.take(plan.growth[plan.iterations - 1])
        if plan.decoding:
            self.emitted_tokens += self.queues.decoding.seats * plan.iterations
            outcome.ended.extend(self.queues.decoding.advance(plan.iterations))
        for chunk in plan.chunks:
            live = chunk.live
            if live.samples > 1 and not live.fork:
                self.contexts.branch(live)
            live.resident += chunk.tokens * plan.iterations
            live.missing -= chunk.tokens * plan.iterations
            live.recomputed += live.queries(chunk.start, chunk.recomputed)
            self.contexts.computed(live)
            if live.missing == 0:
                self._emit_first(live, outcome)
        for live in outcome.ended:
            self._end_call(live, outcome)
        return outcome

    def _catch_up(self, ends: Sequence[float]) -> None:
        """The order was not asked while iterations went by: it says now what it would have said when each began."""
        assert self.seating is not None and self.precedence is not None
        decoding, begins, index = self.queues.decoding, ends[:-1], 0
        first = decoding.tick + 1
        while index < len(begins):
            self.now, decoding.tick = begins[index], first + index
            index = bisect_left(begins, self.precedence.next_review(), index)
            if index < len(begins):
                self.now, decoding.tick = begins[index], first + index
                self.seating.rerank()
                index += 1
        decoding.tick = first - 1

    def _emit_first(self, live: LiveSession, outcome: Outcome) -> None:
        """The last missing token was computed: its logits give the next token, which is now the missing one."""
        assert live.offloaded == 0, live  # INV-3
        live.missing = 1
        live.emitted += 1
        self.emitted_tokens += live.samples
        self.queues.end_prefill(live)
        if live.emitted == 1:
            outcome.first_tokens.append(live)
        left = live.call.output - live.emitted
        if left == 0:
            outcome.ended.append(live)
        else:
            live.state = State.DECODING
            self.queues.decoding.join(live, left)

    def _end_call(self, live: LiveSession, outcome: Outcome) -> None:
        live.end_service(self.now)
        live.emitted_total += live.emitted
        live.inferred += live.emitted if live.infers else 0
        live.peak = max(live.peak, live.resident)
        if live.fork:
            self.contexts.join_branches(live)
        if live.call.pause is None:
            self._finish(live)
            outcome.finished.append(live)
            return
        live.paused_at = self.now
        live.resumed = False
        self.queues.pause(live)
        outcome.paused.append(live)
        self.room.pause(live)

    def _finish(self, live: LiveSession) -> None:
        self.queues.leave(live)
        self.counsel.finish(live)

    # ---- when nothing moves

    def _stalled(self, plan: Plan) -> bool:
        """Whether sessions are ready and nothing under way will ever free memory for them."""
        if plan.withheld and self.turns is not None and self.now < self.turns.next_review() < math.inf:
            return False
        queues = self.queues
        moving = self.contexts.flying or queues.departing
        return bool(queues.ready()) and not moving and not queues.pauses_hold_memory()

    def _break_stall(self) -> None:
        """Ready sessions hold the memory that they wait for: the last in the queue's order forgets its context."""
        ready = self.queues.ready()
        holding = [live for live in ready if live.resident or live.offloaded]
        if len(ready) < 2 or not holding:
            raise StalledEngine(f"at {self.now:.6f} s {len(ready)} sessions wait, nothing runs, nothing can change it")
        last = max(holding, key=by_key)
        ran = last.state in RUNNING
        if ran:
            self.queues.stop(last)
            last.interrupt(self.now)
        else:
            self.queues.withdraw(last)
        self.contexts.keep_only(last, 0)
        self.queues.wait(last)
        if ran and self.asking is not None:
            self.asking.preempted(last)
