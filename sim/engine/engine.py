"""The engine: the rules of one serving replica. It holds no clock and draws no random number; it is told the time.

    live = engine.submit(session, now)     # a session arrives
    engine.resume(live, now)               # a tool's answer came back
    plan = engine.plan(now)                # decides one iteration and claims the memory for it
    outcome = engine.commit(plan, now)     # the iteration is over: who emitted, who paused, who finished
    engine.copied(copy, now)               # a copy that ran beside the batch has ended

Sessions that go from one replica to another: see ``sim.engine.migration``.

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
from sim.costs.batch import Batch
from sim.costs.cost_model import CostModel
from sim.engine.eviction import Evictor
from sim.engine.leap import extend_to_next_event
from sim.engine.migration import depart
from sim.engine.order_calls import OrderCaller, PreemptiveOrderCaller, order_caller_of
from sim.engine.plan import Outcome, Plan
from sim.engine.policy_calls import PolicyCaller
from sim.engine.preemptive import PreemptiveScheduler
from sim.engine.queues import Queues, by_key
from sim.engine.scheduler import Scheduler
from sim.engine.settings import EngineSettings
from sim.engine.shapes import require_supported
from sim.engine.view import View
from sim.errors import StalledEngine
from sim.kv.copy import Copy
from sim.kv.kv_cache import KVCacheManager
from sim.session import RUNNING, SessionState, Status
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
        self.kv = KVCacheManager(
            gpu_blocks, host_blocks, settings.block_size, settings.prefix_sharing, settings.sample_layout
        )
        # never more sessions than the budget has tokens, so that every decoder fits
        max_running = min(settings.max_running, self.token_budget)
        self.preemptive_order: PreemptiveOrderCaller | None = None
        self.preemptive: PreemptiveScheduler | None = None
        self.queues = Queues(self.kv, max_running, not isinstance(order, PreemptiveOrder))
        self.policy_caller = PolicyCaller(policy, order, View(self), log_decisions)
        self.evictor = Evictor(settings, self.kv, self.queues, self.policy_caller)
        if isinstance(order, PreemptiveOrder):
            self.preemptive_order = PreemptiveOrderCaller(order, self.policy_caller.view)
            self.preemptive = PreemptiveScheduler(
                settings, self.token_budget, self.preemptive_order, self.kv, self.queues, self.evictor
            )
        self.turns = order_caller_of(order, self.policy_caller.view)
        self.order_caller: OrderCaller | None = self.turns or self.preemptive_order
        self.scheduler = Scheduler(
            settings, self.token_budget, self.kv, self.queues, self.evictor, self.preemptive, self.order_caller
        )
        self._next_serial = 0

    # ---- what happens to the engine

    def submit(self, session: Session, now: float) -> SessionState:
        """A session arrives. It is queued, or rejected with a reason if it could never be served.

        Raises:
            UnsupportedSession: the session has a shape that this engine cannot serve.
        """
        self.advance_clock(now)
        require_supported(session)
        state = SessionState(session, self.next_serial(), now)
        state.reason = self.too_large(session)
        if state.reason:
            state.status = Status.REJECTED
        else:
            state.key = self.policy_caller.key(state)
            self.queues.enqueue(state)
        return state

    def next_serial(self) -> int:
        """The number of a session that comes in: ties fall to the one that came first."""
        self._next_serial += 1
        return self._next_serial - 1

    def too_large(self, session: Session) -> str:
        """Why this engine could never serve a session to its end; empty if it could."""
        need, blocks = self.kv.max_blocks(session) + self.evictor.watermark_blocks, self.kv.gpu.capacity
        if session.samples > self.queues.max_running:
            return f"it decodes {session.samples} samples at once; at most {self.queues.max_running} sequences may run"
        if need <= blocks:
            return ""
        each = f" in each of {session.samples} samples" if session.samples > 1 else ""
        return (
            f"its context grows to {session.max_context} tokens{each}, {need} blocks with the watermark; "
            f"the GPU pool has {blocks}"
        )

    def resume(self, state: SessionState, now: float) -> bool:
        """The answer came: its tokens join the context and the session queues. True if nothing follows and it is over.

        While the context is being copied the answer is taken up when the copy ends.
        """
        state.ready_at = state.waits_since = now
        self.end_pause(state, now)
        if state.copy is not None:
            state.answered = True
            return False
        return self._take_answer(state)

    def end_pause(self, state: SessionState, now: float) -> None:
        """The answer came, whether the session goes on here or at another replica."""
        assert state.status is Status.PAUSED, state
        self.advance_clock(now)
        duration = now - state.paused_at
        state.paused_s += duration
        self.policy_caller.pause_ended(state, duration)

    def advance_clock(self, at: float) -> None:
        """News of ``at`` may be taken up later: for policies it is never earlier than when they were asked before."""
        if at > self.now:
            self.now = at

    def _take_answer(self, state: SessionState) -> bool:
        self.evictor.cancel_swap_out(state)
        self.queues.unpause(state)
        state.answered = False
        if state.last_call:
            self._finish(state)
            return True
        pause = state.call.pause
        assert pause is not None
        if pause.keeps is not None:
            self.kv.rewrite(state, pause.keeps)
        state.call_index, joined = state.next_call(state.ready_at)
        state.missing += joined
        state.emitted = 0
        state.scheduled_at = math.nan
        state.entered = state.ready_at if self.settings.requeue_at == "tail" else state.session.arrival
        state.resumed = True
        state.key = self.policy_caller.key(state)
        self.queues.enqueue(state, at_once=self.settings.resume_on_gpu == "running")
        return False

    def copied(self, copy: Copy, now: float) -> SessionState | None:
        """A copy has ended: its blocks change hands. Returns its session if that has ended with it."""
        self.advance_clock(now)
        self.kv.finish(copy)
        state = copy.state
        if state.leaving:
            depart(self, state)
            return None
        if state.answered:
            return state if self._take_answer(state) else None
        if state.status is Status.SWAPPED:
            self.queues.swapped_in(state)
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
            losses = self.kv.evictions
            plan = self._plan_once(now)
            if not plan.empty or (self.kv.evictions == losses and not self._stalled(plan)):
                for state in plan.started:
                    self.policy_caller.call_started(state)
                return plan
            if self.kv.evictions == losses:
                self._break_stall()

    def _plan_once(self, now: float) -> Plan:
        plan, scheduler = Plan(now), self.scheduler
        losses = self.kv.evictions
        self.evictor.open_budget(lambda: self._hidden_tokens(plan))
        if self.turns is not None:
            self.queues.move(self.turns.reranked())
        if self.preemptive is not None:
            self._serve_seated(plan, self.preemptive)
        elif self.settings.mixed_batches:
            scheduler.decode(plan)
            scheduler.prefill(plan)
            scheduler.swap_in(plan)
            scheduler.admit(plan)
        else:
            if not (self.settings.swap_in_before_prefill and self.queues.swapped):
                scheduler.prefill(plan)
                scheduler.admit(plan)
            if not plan.chunks:
                scheduler.decode(plan)
                scheduler.swap_in(plan)
            if not plan.computes:
                scheduler.prefill(plan)
        if self.evictor.concerns_policy or self.evictor.unsettled:
            self.evictor.settle_budget()
            self.evictor.serve_pending_swap_outs()
            self.evictor.revise()
            self.evictor.maintain_watermark()
        if self.preemptive is not None:
            self.preemptive.maintain_watermark()
        plan.copies, self.evictor.copies = self.evictor.copies, []
        if self.leap and plan.computes and self.kv.evictions == losses:
            extend_to_next_event(self, plan)
        return plan

    def _serve_seated(self, plan: Plan, preemptive: PreemptiveScheduler) -> None:
        """Under a preemptive order: seat whoever comes first, let them compute, then copy in ahead of need."""
        preemptive.schedule(plan.now)
        if self.settings.mixed_batches:
            self.scheduler.decode(plan)
        self.scheduler.prefill(plan)
        if not (self.settings.mixed_batches or plan.chunks):
            self.scheduler.decode(plan)
        preemptive.swap_ahead()

    def _hidden_tokens(self, plan: Plan) -> float:
        """N with T_swap(N) = T_fwd(batch): tokens whose copy the plan hides; no limit without a forward pass.

        Before anything is planned the batch is taken to be the decoding sessions or, without any, the next chunk.
        """
        if not self.evictor.hides_copies:
            return math.inf
        batch, decoding = plan.batch, self.queues.decoding
        if not plan.computes:
            if decoding.num_sequences:
                context = decoding.read_tokens + decoding.num_sequences
                batch = Batch(decoding.num_sequences, context, decode_spread=decoding.spread)
            elif self.queues.prefilling:
                batch = Batch()
                first = min(self.queues.prefilling, key=by_key)
                batch.add_missing(first, first.resident, min(first.missing, self.token_budget))
        return self.costs.tokens_within(self.costs.iteration_time(batch)) if batch.query_tokens else math.inf

    def next_wakeup(self) -> float:
        """When the policy or the order wants to be asked though nothing runs, s; infinity for never."""
        if self.queues.empty:
            return math.inf
        asked = [one for one in (self.policy_caller, self.order_caller) if one is not None]
        reviews = [one.next_review() for one in asked]
        return min((at for at in reviews if at > self.now), default=math.inf)

    # ---- the end of an iteration

    def commit(self, plan: Plan, now: float) -> Outcome:
        """The iteration is over. Sessions emit; calls that end pause or finish, and the policy hears of each pause.

        Raises:
            PolicyError: the policy raised, or answered something impossible.
        """
        if self.preemptive is not None and self.preemptive.order_is_moot:
            self._catch_up(plan.ends)
        self.now = now
        self.kv.claimed = 0
        outcome = Outcome()
        self.kv.gpu.allocate(plan.growth[plan.iterations - 1])
        if plan.decoding:
            self.emitted_tokens += self.queues.decoding.num_sequences * plan.iterations
            outcome.ended.extend(self.queues.decoding.advance(plan.iterations))
        for chunk in plan.chunks:
            state = chunk.state
            if state.samples > 1 and not state.fork:
                self.kv.fork(state)
            state.resident += chunk.tokens * plan.iterations
            state.missing -= chunk.tokens * plan.iterations
            state.recomputed += state.queries(chunk.start, chunk.recomputed)
            self.kv.cache_blocks(state)
            if state.missing == 0:
                self._emit_first(state, outcome)
        for state in outcome.ended:
            self._end_call(state, outcome)
        return outcome

    def _catch_up(self, ends: Sequence[float]) -> None:
        """The order was not asked while iterations went by: it says now what it would have said when each began."""
        assert self.preemptive is not None and self.preemptive_order is not None
        decoding, begins, index = self.queues.decoding, ends[:-1], 0
        first = decoding.step + 1
        while index < len(begins):
            self.now, decoding.step = begins[index], first + index
            index = bisect_left(begins, self.preemptive_order.next_review(), index)
            if index < len(begins):
                self.now, decoding.step = begins[index], first + index
                self.preemptive.rerank()
                index += 1
        decoding.step = first - 1

    def _emit_first(self, state: SessionState, outcome: Outcome) -> None:
        """The last missing token was computed: its logits give the next token, which is now the missing one."""
        assert state.offloaded == 0, state  # INV-3
        state.missing = 1
        state.emitted += 1
        self.emitted_tokens += state.samples
        self.queues.end_prefill(state)
        if state.emitted == 1:
            outcome.first_tokens.append(state)
        left = state.call.output - state.emitted
        if left == 0:
            outcome.ended.append(state)
        else:
            state.status = Status.DECODING
            self.queues.decoding.join(state, left)

    def _end_call(self, state: SessionState, outcome: Outcome) -> None:
        state.end_service(self.now)
        state.emitted_total += state.emitted
        state.inferred += state.emitted if state.infers else 0
        state.peak = max(state.peak, state.resident)
        if state.fork:
            self.kv.join_samples(state)
        if state.call.pause is None:
            self._finish(state)
            outcome.finished.append(state)
            return
        state.paused_at = self.now
        state.resumed = False
        self.queues.pause(state)
        outcome.paused.append(state)
        self.evictor.pause(state)

    def _finish(self, state: SessionState) -> None:
        self.queues.leave(state)
        self.policy_caller.session_finished(state)

    # ---- when nothing moves

    def _stalled(self, plan: Plan) -> bool:
        """Whether sessions are ready and nothing under way will ever free memory for them."""
        if plan.head_refused and self.turns is not None and self.now < self.turns.next_review() < math.inf:
            return False
        queues = self.queues
        moving = self.kv.in_flight or queues.departing
        return bool(queues.ready()) and not moving and not queues.pauses_hold_memory()

    def _break_stall(self) -> None:
        """Ready sessions hold the memory that they wait for: the last in the queue's order forgets its context."""
        ready = self.queues.ready()
        holding = [state for state in ready if state.resident or state.offloaded]
        if len(ready) < 2 or not holding:
            raise StalledEngine(f"at {self.now:.6f} s {len(ready)} sessions wait, nothing runs, nothing can change it")
        last = max(holding, key=by_key)
        ran = last.status in RUNNING
        if ran:
            self.queues.stop(last)
            last.interrupt(self.now)
        else:
            self.queues.remove(last)
        self.kv.truncate(last, 0)
        self.queues.wait(last)
        if ran and self.order_caller is not None:
            self.order_caller.preempted(last)
