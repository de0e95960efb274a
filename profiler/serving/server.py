"""Serve a workload for real: the simulator's engine and policies, the wall clock, and a GPU that does the work.

Nothing here decides anything. The engine plans; the executor computes and the swapper copies what the plan says;
arrivals and answers come when the wall clock says so. What it records has the form of a simulated run.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import heappop, heappush

from policies.contract import InterceptPolicy, QueueOrder
from profiler.backend.backend import Backend
from profiler.backend.block_tables import Move
from profiler.backend.branch_rows import BranchRows, in_pages, require_pages
from profiler.backend.executor import Iteration
from profiler.backend.swap import Job
from profiler.serving.prompts import common_beginning
from sim.costs.batch import Direction
from sim.costs.cost_model import CostModel
from sim.costs.profile import Profile
from sim.engine.engine import Engine
from sim.engine.plan import Plan
from sim.engine.settings import EngineSettings
from sim.kv.copy import Copy
from sim.kv.listeners import BlockTableListener
from sim.results.memory_accounting import MemoryAccounting
from sim.results.recorder import Recorder
from sim.results.run_record import RunRecord, merge
from sim.session import SessionState
from sim.world.arrivals import by_arrival
from sim.world.driver import Driver
from sim.world.events import EventKind, PendingEvent, in_order
from sim.world.tools import ReplayTools
from traces.session import Session

SPIN_S = 0.002
"""Before something due within this time the server does not go to sleep: waking up takes about as long."""


class BlockFollower(BlockTableListener):
    """Lets the backend's blocks follow the engine's counts, and hands its copies to the swapper."""

    def __init__(self, backend: Backend) -> None:
        self._tables = backend.tables
        self._swapper = backend.swapper
        self.branches = BranchRows(backend)
        self._moves: dict[Copy, Move] = {}
        self._copies: dict[Move, Copy] = {}
        self.blocking: list[Job] = []
        self._tables.forget_all()  # what an engine before this one could find

    def truncated(self, state: SessionState) -> None:
        """Free what the context no longer holds."""
        self._tables.keep(state.session.id, state.resident, state.offloaded)
        self.branches.kept(state)

    def samples_joined(self, state: SessionState) -> None:
        """Close the rows of all samples but the first."""
        self.branches.joined(state)

    def copy_began(self, copy: Copy) -> None:
        """Take block ids and start the copy."""
        begin = self._tables.begin_out if copy.direction is Direction.OUT else self._tables.begin_in
        move = begin(copy.state.session.id, copy.blocks)
        self._moves[copy] = move
        self._copies[move] = copy
        job = self._swapper.submit(move, blocking=copy.blocking)
        if copy.blocking:
            self.blocking.append(job)

    def copy_ended(self, copy: Copy) -> None:
        """Free the ids that the copy left. A blocking one is ordered before all that could touch them."""
        move = self._moves.pop(copy)
        del self._copies[move]
        self._tables.finish(move)

    def prefix_reused(self, state: SessionState, keys: Sequence[Hashable]) -> None:
        """Let the context begin with the ids of blocks that are there."""
        self._tables.find(state.session.id, keys)

    def blocks_cached(self, state: SessionState, keys: Sequence[Hashable]) -> None:
        """Note where the blocks of ``keys`` are."""
        self._tables.name(state.session.id, state.shared_blocks, keys)

    def blocks_uncached(self, keys: Sequence[Hashable]) -> None:
        """Forget where they were."""
        self._tables.forget(keys)

    def ended(self) -> list[Copy]:
        """Copies beside the batch that have ended since the last call."""
        return [self._copies[job.move] for job in self._swapper.poll()]


@dataclass(slots=True)
class Timings:
    """Seconds of each iteration: where the time went.

    Attributes:
        wall: from the end of the iteration before, or from the events that ended an idle time, to its end.
        device: between the events around its work on the device.
        host: work of the host before the device could begin: pending events, plan, index tensors.
        plans: what each one computed.
        opened: sessions that had arrived since the one before.
        ended: seconds from the run's start to its end.
    """

    wall: list[float] = field(default_factory=list)
    device: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)


class Server:
    """One engine by the wall clock.

    Args:
        backend: does the work. Its pools must have the sizes of ``profile``; its sessions are opened and closed here.
        policy, order, settings: as for the simulator.
        profile: costs that policies and the swap budget ask for, and the sizes of the pools.

    Raises:
        ValueError: the settings ask for what the backend does not do.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        policy: InterceptPolicy,
        order: QueueOrder,
        settings: EngineSettings,
        profile: Profile,
        timeline_step: float = 1.0,
        log_decisions: bool = False,
    ) -> None:
        tables = backend.tables
        if settings.block_size != tables.block_size:
            raise ValueError(
                f"blocks of {settings.block_size} tokens in the engine, {tables.block_size} in the backend"
            )
        self._backend = backend
        costs = CostModel(profile)
        gpu, host = tables.gpu_blocks, tables.host_blocks
        self.engine = Engine(in_pages(settings), costs, policy, order, gpu, host, log_decisions)
        self._follower = BlockFollower(backend)
        self.branches = self._follower.branches
        self.engine.add_listener(self._follower)
        accounting = MemoryAccounting(costs, gpu, host, settings.block_size, timeline_step)
        tools = ReplayTools()
        recorder = Recorder(accounting, profile.kv_bytes_per_token, 0, tools)
        self._driver = Driver(self.engine, recorder, tools, self._pause, self._leave)
        self._due: list[tuple[float, int, SessionState]] = []  # answers by time
        self._looked_at = 0.0
        self._arrived = -1  # the number of the session that arrived last
        self._left = 0
        self._opened = 0
        self.timings = Timings()
        self.on_leave: Callable[[SessionState], None] | None = None

    def serve(self, sessions: Sequence[Session], horizon: float | None = None) -> RunRecord:
        """Serve ``sessions`` at their arrival times until all have left, or for ``horizon`` seconds.

        Raises:
            PolicyError: the policy raised, or answered something impossible.
            UnsupportedSession: a session has a shape that the engine or the backend cannot serve.
        """
        for session in sessions:
            require_pages(session, self.engine.settings)
        arrivals = list(by_arrival(sessions, self.engine.settings.streamed_prompts))[::-1]
        total = len(arrivals)
        with _no_full_collection():
            begun = time.perf_counter()
            while self._left < total:
                now = time.perf_counter() - begun
                if horizon is not None and now >= horizon:
                    break
                self._apply(self._take_events(arrivals, now))
                plan = self.engine.plan(now)
                blocking, self._follower.blocking = self._follower.blocking, []
                if plan.computes or blocking:
                    self._iterate(plan, blocking, begun, now)
                elif self._left < total:
                    self._sleep(arrivals, begun, horizon)
            end = time.perf_counter() - begun
        self._driver.rested(end)
        return merge([self._driver.result()], end)

    def abandon(self) -> None:
        """The run was cut: free what the sessions still inside hold in the backend, for the next run on it."""
        while self.engine.kv.in_flight:
            self._backend.swapper.wait_for_one()
            for copy in self._follower.ended():
                self.engine.kv.finish(copy)
        for state in self.engine.queues.inside():
            self.branches.close(state)
            self._backend.executor.close(state.session.id)

    def _take_events(self, arrivals: list[Session], now: float) -> list[PendingEvent]:
        """What has happened by ``now``: what is due with the time when it was, and copies with that of the look before,
        since they have ended after it; so the blocks that they left are free before any of the rest needs them."""
        looked_at, self._looked_at = self._looked_at, now
        events: list[PendingEvent] = [
            (looked_at, EventKind.COPY_COMPLETED, copy.state.serial, copy) for copy in self._follower.ended()
        ]
        while self._due and self._due[0][0] <= now:
            at, serial, state = heappop(self._due)
            events.append((at, EventKind.TOOL_RETURNED, serial, state))
        while arrivals and arrivals[-1].arrival <= now:
            session = arrivals.pop()
            self._arrived += 1
            events.append((session.arrival, EventKind.REQUEST_ARRIVED, self._arrived, (session, self._arrived)))
        return events

    def _apply(self, events: list[PendingEvent]) -> None:
        """One by one the backend's contexts open and grow, and the engine is told."""
        for event in sorted(events, key=in_order):
            at, kind, _, what = event
            if kind is EventKind.REQUEST_ARRIVED:
                session, _ = what
                self._backend.executor.open(session.id, session.prompt, begins_with=common_beginning(session))
                self._opened += 1
            elif kind is EventKind.TOOL_RETURNED:
                self._lengthen(what, at)
            self._driver.apply([event])

    def _lengthen(self, state: SessionState, at: float) -> None:
        """The answer's tokens join the backend's context."""
        pause = state.call.pause
        if pause is None or state.last_call:
            return
        executor, key = self._backend.executor, state.session.id
        if pause.keeps is not None:
            executor.cut(key, pause.keeps)
        executor.extend(key, state.next_call(at)[1])

    def _iterate(self, plan: Plan, blocking: list[Job], begun: float, now: float) -> None:
        iteration: Iteration | None = None
        if plan.computes:
            branches = self.branches
            decode = branches.decodes(self.engine.queues.decoding) if plan.decoding else []
            chunks = [work for chunk in plan.chunks for work in branches.work(chunk)]
            iteration = self._backend.executor.run(decode, chunks)
            launched = time.perf_counter() - begun
            iteration.wait()
        else:
            launched = now
            for job in blocking:
                for moment in job.ended:
                    moment.wait()
        end = time.perf_counter() - begun
        stall = min(sum(job.seconds() for job in blocking), end - self._driver.accounted)
        if iteration is not None:
            self.timings.wall.append(end - self._driver.accounted)
            self.timings.device.append(iteration.device_s())
            self.timings.host.append(launched - self._driver.accounted)
            self.timings.plans.append(plan)
            self.timings.opened.append(self._opened)
            self.timings.ended.append(end)
            self._opened = 0
        self._driver.worked(plan, stall, [end])
        self._driver.follow(self._driver.commit(plan, end), end)

    def _sleep(self, arrivals: list[Session], begun: float, horizon: float | None) -> None:
        """Nothing to compute: wait for whatever comes first, without spinning on it for long."""
        due = [session.arrival for session in arrivals[-1:]] + [entry[0] for entry in self._due[:1]]
        due += [at for at in (horizon, self.engine.next_wakeup()) if at is not None and self.engine.now < at < math.inf]
        if self.engine.kv.in_flight:
            self._backend.swapper.wait_for_one()
        elif due:
            while (left := min(due) - (time.perf_counter() - begun)) > 0:
                if left > SPIN_S:
                    time.sleep(left - SPIN_S)
        self._driver.rested(time.perf_counter() - begun)

    def _pause(self, state: SessionState, until: float) -> None:
        heappush(self._due, (until, state.serial, state))

    def _leave(self, state: SessionState) -> None:
        if self.on_leave is not None:
            self.on_leave(state)
        self._backend.executor.close(state.session.id)
        self._left += 1


@contextmanager
def _no_full_collection() -> Iterator[None]:
    """Look for cycles of garbage only among what is new: to look through all that torch has made takes a tenth of a
    second, in which no session gets a token."""
    before = gc.get_threshold()
    gc.set_threshold(*before[:2], 1 << 30)
    try:
        yield
    finally:
        gc.set_threshold(*before)
