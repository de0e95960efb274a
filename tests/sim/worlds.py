"""Tiny worlds: a few sessions, one GPU with round numbers, and a log of every iteration.

    run(session("a", 90, 10, pause(3.0, returned=20), 5), policy="discard").chunks("a")

Unless a test says otherwise an iteration of x tokens takes 1 s + 0.01 s * x, a token is copied in 0.01 s either way,
blocks hold one token, no watermark is left free, and an iteration computes at most 64 tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import sim.world.simulate
from policies.basic.fcfs import FirstCome
from policies.contract import InterceptPolicy, QueueOrder
from policies.registry import Spec, make_policy
from sim.costs.batch import Batch
from sim.costs.profile import HostCost, LinearForward, Measurement, PhysicalForward, Profile, SwapCost
from sim.engine.engine import Engine
from sim.engine.plan import Outcome, Plan
from sim.engine.settings import EngineSettings
from sim.kv.copy import Copy
from sim.results.run_record import RunRecord
from sim.results.session_log import SessionLog
from sim.session import SessionState, Status
from traces.session import Call, Pause, Session


def pause(seconds: float, returned: int = 0, keeps: int | None = None, tool: str = "") -> Pause:
    """A pause of ``seconds``, after which ``returned`` tokens join what is left of the context."""
    return Pause(seconds, returned, tool=tool, keeps=keeps)


def session(name: str, prompt: int, *steps: int | Pause, at: float = 0.0, **shape: Any) -> Session:
    """``session("a", 90, 10, pause(3), 5)``: a prompt of 90, generates 10, pauses 3 s, generates 5."""
    calls: list[Call] = []
    for step in steps:
        if isinstance(step, Pause):
            calls[-1] = Call(calls[-1].output, step)
        else:
            calls.append(Call(step))
    return Session(name, at, prompt, tuple(calls), **shape)


def profile(
    *,
    fixed: float = 1.0,
    per_token: float = 0.01,
    copy: float = 0.01,
    latency: float = 0.0,
    slowdown: float = 0.0,
    gpu: int = 1000,
    host: int = 1000,
    saturation: int = 64,
    forward: PhysicalForward | None = None,
    works: HostCost | None = None,
    measured: dict[str, int] | None = None,
) -> Profile:
    """Costs of the tiny GPU: seconds an iteration and a token, ``copy`` seconds a token copied, pools in tokens, what
    the host's processor works, and the range over which all that was ``measured``, if it was."""
    return Profile(
        name="tiny",
        model="none",
        gpu="none",
        origin="estimate",
        source="a test",
        kv_bytes_per_token=1,
        kv_capacity_tokens=gpu,
        host_capacity_tokens=host,
        saturation_tokens=saturation,
        forward=forward or LinearForward(fixed_s=fixed, per_token_s=per_token),
        swap=SwapCost(
            out_bytes_per_s=1 / copy,
            in_bytes_per_s=1 / copy,
            latency_s=latency,
            slowdown_out=slowdown,
            slowdown_in=slowdown,
        ),
        host=works or HostCost(),
        measured=None
        if measured is None
        else Measurement(
            date="today", commit="none", machine={}, within_aim=True, verdict="", errors={}, range=measured
        ),
    )


@dataclass
class Iteration:
    """What one plan did, by session name. ``end`` is NaN where nothing was waited for: copies that run alone.

    ``beside`` are the tokens of the copies that the batch does not wait for; ``alike`` the iterations of a leap;
    ``blocks`` those of the GPU that are in use during the first of these.
    """

    begin: float
    end: float = math.nan
    chunks: dict[str, int] = field(default_factory=dict)
    decoding: tuple[str, ...] = ()
    copies: list[tuple[str, str, int]] = field(default_factory=list)
    beside: int = 0
    batch: Batch = field(default_factory=Batch)
    alike: int = 1
    blocks: int = 0
    paused: tuple[str, ...] = ()
    finished: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens computed."""
        return len(self.decoding) + sum(self.chunks.values())


GONE = (Status.FINISHED, Status.REJECTED, Status.FAILED, Status.MOVED)


class Livelock(AssertionError):
    """A world that goes on and on."""


class WatchedEngine(Engine):
    """An engine that notes its iterations and checks its invariants at every plan and commit."""

    most_plans = 50_000

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.iterations: list[Iteration] = []
        self.events: list[tuple[float, str, str]] = []
        self.all_sessions: list[SessionState] = []
        self.decoded = self.chunked = self.recomputed = 0
        self._plans = 0
        self._clock = 0.0

    def submit(self, session: Session, now: float) -> SessionState:
        self.events.append((now, "arrived", session.id))
        state = super().submit(session, now)
        self.all_sessions.append(state)
        self._check()
        return state

    def plan(self, now: float) -> Plan:
        self._tick(now)
        plan = super().plan(now)
        self._plans += 1
        if self._plans > self.most_plans:
            raise Livelock(f"{self._plans} plans at {now} s; inside: {self.queues.inside()}")
        self._check()
        self._check_plan(plan)
        if not plan.empty:
            self.iterations.append(
                Iteration(
                    begin=now,
                    chunks={chunk.state.session.id: chunk.tokens for chunk in plan.chunks},
                    decoding=_ids(self.queues.decoding) if plan.decoding else (),
                    copies=[(copy.state.session.id, copy.direction.value, copy.tokens) for copy in plan.copies],
                    beside=sum(copy.tokens for copy in plan.copies if not copy.blocking),
                    batch=plan.batch,
                    blocks=self.kv.gpu.used,
                )
            )
        return plan

    def commit(self, plan: Plan, now: float) -> Outcome:
        self._tick(now)
        for state in [chunk.state for chunk in plan.chunks] + (list(self.queues.decoding) if plan.decoding else []):
            assert state.offloaded == 0 and state.copy is None, f"INV-3: {state} computes with context elsewhere"
        self.decoded += _seats(self.queues.decoding) * plan.iterations if plan.decoding else 0
        self.chunked += sum(_queries(chunk.state, chunk.start, chunk.tokens) for chunk in plan.chunks)
        self.recomputed += sum(_queries(chunk.state, chunk.start, chunk.recomputed) for chunk in plan.chunks)
        outcome = super().commit(plan, now)
        self._check()
        last = self.iterations[-1]
        last.end, last.alike = now, plan.iterations
        last.paused, last.finished = _ids(outcome.paused), _ids(outcome.finished)
        return outcome

    def copied(self, copy: Copy, now: float) -> SessionState | None:
        if not copy.blocking:
            self.events.append((now, "copied", copy.state.session.id))
        ended = super().copied(copy, now)
        self._check()
        return ended

    def resume(self, state: SessionState, now: float) -> bool:
        self.events.append((now, "answered", state.session.id))
        over = super().resume(state, now)
        self._check()
        return over

    def _check_view(self) -> None:
        """The lists that are kept are those that would be made anew."""
        view, paused = self.policy_caller.view, [one for one in self.kv.idle_gpu if one.status is Status.PAUSED]
        undecided = [state.view for state in paused if state.copy is None]
        assert view.undecided == undecided
        assert view.kv_usage == [(one.resident_tokens, one.shared_tokens, one.offloaded_tokens) for one in undecided]

    def _tick(self, now: float) -> None:
        assert now >= self._clock, f"time runs backwards: {self._clock} then {now}"
        self._clock = now

    def _check(self) -> None:
        """INV-1 and INV-2."""
        queues, inside = self.queues, self.queues.inside()
        self.kv.check(inside)
        self._check_view()
        assert len({id(state) for state in inside}) == len(inside), f"INV-1: twice inside: {inside}"
        gone = [state for state in self.all_sessions if state.status in GONE]
        assert len(inside) + len(gone) == len(self.all_sessions), f"INV-1: lost: {set(self.all_sessions) - set(inside)}"
        places = (
            (Status.WAITING, [state for _, state in queues.waiting]),
            (Status.SWAPPED, list(queues.swapped)),
            (Status.PREFILLING, list(queues.prefilling)),
            (Status.DECODING, list(queues.decoding)),
            (Status.PAUSED, list(queues.paused)),
            (Status.DEPARTING, list(queues.departing)),
        )
        for status, members in places:
            assert all(state.status is status for state in members), f"INV-1: not all {status}: {members}"
        for state in inside:
            assert state.resident >= 0 and state.offloaded >= 0 and state.missing >= 0, state
        for state in gone:
            assert state.resident == state.offloaded == 0 and state.copy is None, f"{state} left its memory behind"

    def _check_plan(self, plan: Plan) -> None:
        """INV-4 and INV-5, and what a plan may hold at all."""
        tokens = plan.batch.query_tokens
        decoded = _seats(self.queues.decoding) if plan.decoding else 0
        assert tokens == decoded + sum(_queries(c.state, c.start, c.tokens) for c in plan.chunks)
        alone = not self.settings.chunked_prefill and len(plan.chunks) == 1
        assert tokens <= self.token_budget or alone, f"INV-4: {tokens} tokens, budget {self.token_budget}"
        running = _seats([*self.queues.decoding, *self.queues.prefilling])
        assert self.queues.running == running <= self.settings.max_running
        assert len({chunk.state for chunk in plan.chunks}) == len(plan.chunks), "one context twice in a batch"
        assert all(chunk.tokens > 0 and chunk.start == chunk.state.resident for chunk in plan.chunks)
        assert self.settings.mixed_batches or not (plan.decoding and plan.chunks), "prefill and decode share a batch"
        if not self.settings.chunked_prefill:
            assert all(chunk.tokens == chunk.state.missing for chunk in plan.chunks), "a chunk though chunking is off"
        if plan.empty and (self.queues.ready() or len(self.queues.decoding)):
            moving = self.kv.in_flight or self.queues.departing
            assert moving or self.queues.paused, "INV-5: nothing will ever change"


def _seats(sessions: Any) -> int:
    return sum(state.session.samples for state in sessions)


def _queries(state: SessionState, start: int, tokens: int) -> int:
    """Tokens computed: those that the samples of a call have in common once, the others in each."""
    common = state.session.samples == 1 or not state.emitted or start + tokens <= state.context - state.emitted
    if common:
        return tokens
    shared = max(0, state.context - state.emitted - start)
    return shared + state.session.samples * (tokens - shared)


def _ids(sessions: Any) -> tuple[str, ...]:
    return tuple(state.session.id for state in sessions)


@dataclass
class World:
    """A world that has run."""

    record: RunRecord
    engine: WatchedEngine

    @property
    def iterations(self) -> list[Iteration]:
        """Every plan that did something, in order."""
        return self.engine.iterations

    def chunks(self, name: str) -> list[int]:
        """The sizes of the chunks in which a session's missing tokens were computed, in order."""
        return [iteration.chunks[name] for iteration in self.iterations if name in iteration.chunks]

    def copies(self, name: str) -> list[tuple[float, str, int]]:
        """A session's copies: when each was begun, which way, how many tokens."""
        return [
            (iteration.begin, way, tokens)
            for iteration in self.iterations
            for who, way, tokens in iteration.copies
            if who == name
        ]

    def times(self) -> list[tuple[float, float]]:
        """Begin and end of every iteration that was waited for."""
        return [(one.begin, one.end) for one in self.iterations if not math.isnan(one.end)]

    def session(self, name: str) -> dict[str, Any]:
        """A session's row of the record."""
        return row(self.record.sessions, id=name)

    def call(self, name: str, index: int) -> dict[str, Any]:
        """A call's row of the record."""
        return row(self.record.calls, session=name, call=index)

    def decided(self) -> list[tuple[str, str, str]]:
        """Logged decisions: session, what was asked, the verdict."""
        return [(one["session"], one["asked"], one["verdict"]) for one in self.record.decisions]

    @property
    def totals(self) -> dict[str, float]:
        """Sums over the run."""
        return self.record.totals


def row(columns: dict[str, list[Any]], **wanted: Any) -> dict[str, Any]:
    """The only row of a record's table that has these values."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    (found,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return found


_OF_PROFILE = {
    "fixed",
    "per_token",
    "copy",
    "latency",
    "slowdown",
    "gpu",
    "host",
    "saturation",
    "forward",
    "works",
    "measured",
}
_DEFAULTS: dict[str, Any] = {"block_size": 1, "watermark": 0.0, "max_running": 8}


def run(
    *sessions: Session,
    policy: InterceptPolicy | Spec = "preserve",
    order: QueueOrder | None = None,
    horizon: float | None = None,
    step: float = 1.0,
    leap: bool = False,
    session_log: SessionLog | None = None,
    **knobs: Any,
) -> World:
    """Run a tiny world to its end, iteration by iteration.

    ``knobs`` are those of ``profile`` and the fields of ``EngineSettings``.
    """
    costs = {name: knobs.pop(name) for name in sorted(_OF_PROFILE & knobs.keys())}
    return simulate(
        sessions,
        policy=policy if isinstance(policy, InterceptPolicy) else make_policy(policy),
        order=order or FirstCome(),
        settings=EngineSettings(**_DEFAULTS | knobs),
        profile=profile(**costs),
        horizon=horizon,
        step=step,
        leap=leap,
        session_log=session_log,
    )


def simulate(
    sessions: Sequence[Session],
    *,
    policy: InterceptPolicy,
    order: QueueOrder,
    settings: EngineSettings,
    profile: Profile,
    horizon: float | None = None,
    step: float = 1.0,
    leap: bool = False,
    session_log: SessionLog | None = None,
    policy_costs: Profile | None = None,
    short_cuts: bool = True,
) -> World:
    """``sim.world.simulate.simulate`` with a watched engine."""
    engines: list[WatchedEngine] = []

    def watched(*args: Any) -> WatchedEngine:
        engines.append(WatchedEngine(*args))
        return engines[-1]

    with patch.object(sim.world.simulate, "Engine", watched):
        record = sim.world.simulate.simulate(
            sessions,
            policy=policy,
            order=order,
            settings=settings,
            profile=profile,
            horizon=horizon,
            timeline_step=step,
            leap=leap,
            log_decisions=True,
            session_log=session_log,
            policy_costs=policy_costs,
            short_cuts=short_cuts,
        )
    return World(record, engines[0])
