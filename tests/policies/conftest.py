"""Stand-ins for what a policy sees, and a small world in which a person can compute every time by hand.

``paused`` and ``view`` make plain dataclasses with round defaults. ``replay`` runs sessions through the simulator where

    an iteration over x query tokens takes  1 s + x / 100 s      (S = 100 tokens)
    a copy of n tokens, either way, takes   n / 200 s            (unless ``copy_rate`` says otherwise)
    a block holds                           10 tokens
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from policies.basic.fcfs import FirstCome
from policies.contract import InterceptPolicy, QueueOrder
from policies.estimation import DurationEstimator
from sim.costs.profile import LinearForward, Profile, SwapCost
from sim.engine.settings import EngineSettings
from sim.results.run_record import RunRecord
from sim.world.simulate import simulate
from traces.session import Session


@dataclass(frozen=True)
class LinearCosts:
    """T_fwd(x) = fixed + per_token * x, T_swap(x) = copy * x; by default GPT-J-6B on an A100, as published."""

    fixed: float = 0.010
    per_token: float = 4.63e-5
    copy: float = 4e-5
    saturation_tokens: int = 384

    def forward_time(self, query_tokens: int, context_tokens: int = 0) -> float:
        return self.fixed + self.per_token * query_tokens

    def swap_time(self, tokens: int) -> float:
        return self.copy * tokens


@dataclass(frozen=True)
class Tiles(LinearCosts):
    """Some sizes fit better than smaller ones; tokens after others take longer."""

    def forward_time(self, query_tokens: int, context_tokens: int = 0) -> float:
        fit = 1.0 if query_tokens % 64 > 40 else 1.3
        return fit * super().forward_time(query_tokens) + 1e-6 * query_tokens * context_tokens


@dataclass(frozen=True)
class AnyCosts:
    """Forward times in any order: more tokens may take less time."""

    times: tuple[float, ...]
    saturation_tokens: int = 8

    def forward_time(self, query_tokens: int, context_tokens: int = 0) -> float:
        return self.times[query_tokens % len(self.times)]

    def swap_time(self, tokens: int) -> float:
        return 0.0


@dataclass
class FakePaused:
    """A paused context whose tokens are all on the GPU, unless told otherwise."""

    id: str = "a"
    resident_tokens: int = 100
    shared_tokens: int = 0
    offloaded_tokens: int = 0
    missing_tokens: int = 1
    ready_at: float = 0.0
    paused_at: float = 0.0
    resumed: bool = False
    moving: bool = False
    tool: str = "tool"
    waits_for: str = "tool"
    kind: str = ""
    arrival: float = 0.0
    calls_done: int = 1
    emitted_tokens: int = 0
    emitted_before: int = 0
    paused_s: float = 0.0

    @property
    def context_tokens(self) -> int:
        return self.resident_tokens + self.offloaded_tokens + self.missing_tokens


@dataclass
class FakeQueued:
    """A session that is ready to compute, with nothing on the GPU unless told otherwise."""

    id: str = "a"
    kind: str = ""
    arrival: float = 0.0
    ready_at: float = 0.0
    entered: float = 0.0
    waits_since: float = 0.0
    calls_done: int = 0
    emitted_tokens: int = 0
    emitted_before: int = 0
    paused_s: float = 0.0
    context_tokens: int = 100
    resident_tokens: int = 0
    offloaded_tokens: int = 0
    had_service: float = 0.0
    had_to_wait: float = 0.0
    resumed: bool = False
    ready: bool = True
    running: bool = False

    @property
    def missing_tokens(self) -> int:
        return self.context_tokens - self.resident_tokens - self.offloaded_tokens

    def served(self, now: float) -> float:
        return self.had_service

    def waited(self, now: float) -> float:
        return self.had_to_wait + (0.0 if math.isnan(self.waits_since) else now - self.waits_since)


@dataclass
class FakeView:
    """An engine with GPT-J's costs, 134 decoding sessions (so that S - 134 = 250 tokens are left) and no free
    memory."""

    now: float = 0.0
    paused: Sequence[FakePaused] = ()
    costs: LinearCosts = field(default_factory=LinearCosts)
    block_size: int = 10
    token_budget: int = 384
    gpu_blocks: int = 1000
    free_gpu_blocks: int = 0
    free_host_blocks: int = 1000
    running_sessions: int = 134
    running_context_tokens: int = 4000
    running_query_tokens: int = 134
    waiting_sessions: int = 0
    swap_budget: float = 0.0
    offloaded: Sequence[FakePaused] = ()
    running: Sequence[FakeQueued] = ()
    waiting: Sequence[FakeQueued] = ()

    @property
    def undecided(self) -> Sequence[FakePaused]:
        return [one for one in self.paused if not (one.moving or one.resumed)]

    @property
    def kv_usage(self) -> Sequence[tuple[int, int, int]]:
        return [(one.resident_tokens, one.shared_tokens, one.offloaded_tokens) for one in self.undecided]


class Known(DurationEstimator):
    """Remaining times that a test writes down, by session."""

    def __init__(self, **remaining: float) -> None:
        self.by_id = remaining

    def remaining(self, paused: Any, now: float) -> float:
        return self.by_id[paused.id]


def learnt(estimator: Any, paused: Callable[..., FakePaused], **pauses: Sequence[float]) -> Any:
    """The estimator, told of pauses by tool."""
    for tool, seconds in pauses.items():
        for duration in seconds:
            estimator.pause_ended(paused(tool=tool), duration)
    return estimator


@dataclass
class Replayed:
    """What a replay left behind, by session."""

    record: RunRecord

    def of(self, column: str) -> dict[str, Any]:
        """A column of the session table: session -> value."""
        sessions = self.record.sessions
        return dict(zip(sessions["id"], sessions[column], strict=True))

    @property
    def finished(self) -> dict[str, Any]:
        """Session -> when it left, s; to be compared to 1e-9."""
        return self.of("finished_at")

    def calls(self, session: str, column: str) -> list[Any]:
        """A column of the call table for one session, call by call."""
        calls = self.record.calls
        rows = zip(calls["session"], calls["call"], calls[column], strict=True)
        return [value for _, value in sorted((call, value) for name, call, value in rows if name == session)]

    def changes(self) -> list[tuple[float, str, str, int]]:
        """Decisions after the pause: (time, session, verdict, tokens kept)."""
        decisions = [d for d in self.record.decisions if d["asked"] != "pause"]
        return [(round(d["time"], 9), d["session"], d["verdict"], d["keep"]) for d in decisions]

    def total(self, name: str) -> float:
        return self.record.totals[name]


def _replay(
    sessions: Sequence[Session],
    policy: InterceptPolicy,
    *,
    order: QueueOrder | None = None,
    gpu_tokens: int = 1000,
    host_tokens: int = 1000,
    copy_rate: float = 200.0,
    **settings: Any,
) -> Replayed:
    profile = Profile(
        name="round numbers",
        model="none",
        gpu="none",
        origin="estimate",
        source="the docstring above",
        kv_bytes_per_token=1,
        kv_capacity_tokens=gpu_tokens,
        host_capacity_tokens=host_tokens,
        saturation_tokens=100,
        forward=LinearForward(fixed_s=1.0, per_token_s=0.01),
        swap=SwapCost(out_bytes_per_s=copy_rate, in_bytes_per_s=copy_rate),
    )
    rules = EngineSettings(**{"block_size": 10, "watermark": 0.0, **settings})
    record = simulate(
        sessions, policy=policy, order=order or FirstCome(), settings=rules, profile=profile, log_decisions=True
    )
    totals = record.totals
    uses = ("useful", "waste_preserve", "waste_recompute_own", "waste_recompute_others", "waste_swap", "unused")
    assert math.isclose(sum(totals[f"{use}_token_s"] for use in uses), totals["memory_token_s"], rel_tol=1e-9)
    return Replayed(record)


@pytest.fixture
def gpt_j() -> LinearCosts:
    return LinearCosts()


@pytest.fixture
def paused() -> Callable[..., FakePaused]:
    return FakePaused


@pytest.fixture
def queued() -> Callable[..., FakeQueued]:
    return FakeQueued


@pytest.fixture
def view() -> Callable[..., FakeView]:
    return FakeView


@pytest.fixture
def known() -> Callable[..., Known]:
    return Known


@pytest.fixture
def replay() -> Callable[..., Replayed]:
    return _replay
