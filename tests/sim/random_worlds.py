"""Random workloads, systems and machines for hypothesis, and a policy that does whatever it likes."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

from policies.contract import (
    EVERY_ITERATION,
    NEVER,
    Change,
    Discard,
    EngineView,
    InterceptPolicy,
    Paused,
    Preserve,
    QueueOrder,
    Swap,
    Verdict,
)
from policies.registry import make_policy
from sim.costs.profile import HostCost, PhysicalForward, PowerLimit, Profile
from sim.engine.settings import EngineSettings
from sim.kv.kv_cache import KVCacheManager
from sim.results.session_log import SessionLog
from sim.world.arrivals import as_calls
from tests.sim.random_orders import ORDERS, WhimsicalOrder
from tests.sim.worlds import World, profile, simulate
from traces.session import Call, Pause, PromptPart, Session

HUNT = int(os.environ.get("CAESURA_EXAMPLES", "0"))
_MINIMISE = [Phase.shrink] if HUNT else []
_FOUND = DirectoryBasedExampleDatabase(".hypothesis/examples") if HUNT else None


def examples(count: int) -> settings:
    """Always the same worlds, and a failure as it is found; a hunt draws fresh ones and takes the time to minimise."""
    return settings(
        max_examples=HUNT or count,
        deadline=None,
        derandomize=not HUNT,
        database=_FOUND,
        phases=[Phase.explicit, Phase.reuse, Phase.generate, *_MINIMISE],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )


class Whimsical(InterceptPolicy):
    """Any verdict with any ``keep`` at any time; sometimes asks back later, sometimes answers lazily."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._random = random.Random(seed)
        self._review = self._random.choice([EVERY_ITERATION, NEVER, 0.0, 0.0])

    def __repr__(self) -> str:
        return f"Whimsical({self.seed})"

    def _verdict(self, paused: Paused) -> Verdict:
        keep = self._random.choice([0, paused.context_tokens, self._random.randint(0, paused.context_tokens)])
        return self._random.choice([Preserve(), Swap(keep), Discard(keep)])

    def on_pause(self, paused: Paused, view: EngineView) -> Verdict:
        return self._verdict(paused)

    def evict(self, blocks: int, view: EngineView) -> Iterator[Change]:
        paused = list(view.paused)
        self._random.shuffle(paused)
        for one in paused[: self._random.randint(0, len(paused))]:
            yield one, self._verdict(one)

    def revise(self, view: EngineView) -> Iterator[Change]:
        paused: Iterable[Paused] = view.paused
        if self._random.random() < 0.5:
            paused = list(paused)
        for one in paused:
            if self._random.random() < 0.4:
                yield one, self._verdict(one)
        if self._review >= 0:
            self._review = view.now + self._random.choice([0.5, 7.0, 1e-3])

    def review_at(self, view: EngineView) -> float:
        return self._review


ESTIMATORS = ["elapsed", "oracle", {"name": "tool-mean", "default": 1.0}]
LEARNED = [
    {"name": "tool-quantile", "share": 0.5},
    {"name": "ewma", "default": 1.0},
    {"name": "empirical", "enough": 1, "window": 3},
    {"name": "noisy-oracle", "noise": 0.5},
]
SHIPPED: list[Any] = [
    "discard",
    "preserve",
    "swap",
    "cache-lru",
    *({"name": "heuristic", "estimator": one, "swap_above": 4.0, "discard_above": 7.0} for one in ESTIMATORS),
    {"name": "heuristic", "estimator": "oracle", "swap_above": 7.0, "discard_above": 0.5},
    *({"name": "min-waste", "estimator": one, "swaps": swaps} for one in ESTIMATORS for swaps in (True, False)),
    *({"name": "min-waste", "estimator": one} for one in LEARNED),
    {"name": "min-waste-released", "estimator": "oracle"},
    {"name": "released-heuristic", "estimator": "oracle", "swap_above": 2.0, "discard_above": 7.0},
    {"name": "greedy-swap", "estimator": "oracle", "tokens": 40},
    {"name": "swap-or-discard", "estimator": "tool-mean", "preserve_below": 1.0},
    {"name": "min-waste-released", "estimator": "elapsed", "per_token": 0.1, "fixed": 20.0},
    {"name": "tokencake", "estimator": "oracle", "pressure": 1.0},
    {"name": "tokencake", "estimator": "ewma", "pressure": 0.5},
    {"name": "continuum", "enough": 1, "window": 3},
    {"name": "mori", "tick": 0.7, "headroom": 0.5},
    {"name": "thunderagent", "tick": 0.7},
    {"name": "lamps", "predictor": {"name": "call-oracle", "noise": 0.5}},
    {"name": "retention", "wishes": {"search": {"priority": 80, "duration": 2.0}}},
]


@dataclass(frozen=True)
class Plot:
    """Everything that a run is made from, so that it can be run twice. ``policy`` is a spec, or a seed of whims; so
    is ``order``, a class or a seed."""

    sessions: tuple[Session, ...]
    policy: Any
    order: Callable[[], QueueOrder] | int
    settings: EngineSettings
    profile: Profile
    step: float = 1.0
    leap: bool = True
    horizon: float | None = None
    policy_costs: Profile | None = None

    def served(self) -> list[Session]:
        """The sessions as the engine serves them."""
        return [as_calls(session, self.settings.streamed_prompts) for session in self.sessions]

    def run(self, session_log: SessionLog | None = None, short_cuts: bool = True) -> World:
        return simulate(
            self.sessions,
            policy=Whimsical(self.policy) if isinstance(self.policy, int) else make_policy(self.policy),
            order=WhimsicalOrder(self.order) if isinstance(self.order, int) else self.order(),
            settings=self.settings,
            profile=self.profile,
            horizon=self.horizon,
            step=self.step,
            leap=self.leap,
            session_log=session_log,
            policy_costs=self.policy_costs,
            short_cuts=short_cuts,
        )


SECONDS = st.sampled_from([0.0, 1e-5, 0.1, 0.7, 2.5, 6.0, 20.0]) | st.floats(0, 50)
ARRIVALS = st.sampled_from([0.0, 0.0, 0.1, 7.9, 25.2]) | st.floats(0, 5)
OUTPUT = st.integers(1, 6) | st.integers(1, 40)


def _sessions(prompt: int, returned: int, samples: st.SearchStrategy[int]) -> st.SearchStrategy[Session]:
    """Sessions of 1 to 5 calls, with prompts and answers of up to so many tokens."""
    tool = st.sampled_from(["", "search"])
    appending = st.builds(Pause, SECONDS, st.sampled_from([0, 1, 7]) | st.integers(0, returned), tool=tool)
    rewriting = st.builds(
        Pause, SECONDS, st.integers(1, returned), tool=tool, keeps=st.sampled_from([0, 1]) | st.integers(0, prompt)
    )
    pauses = appending | appending | rewriting
    at_once: st.SearchStrategy[tuple[PromptPart, ...]] = st.just(())
    return st.builds(
        lambda arrival, prompt, stream, chain, last, kind, samples: Session(
            "",
            arrival,
            prompt + sum(part.tokens for part in stream),
            (*chain, last),
            kind,
            1 if stream else samples,
            stream,
        ),
        ARRIVALS,
        st.integers(1, prompt),
        at_once | at_once | at_once | _streams(prompt),
        st.lists(st.builds(Call, OUTPUT, pauses), max_size=4),
        st.builds(Call, OUTPUT, st.none() | pauses),
        st.sampled_from(["", "chat"]),
        samples,
    )


def _streams(prompt: int) -> st.SearchStrategy[tuple[PromptPart, ...]]:
    """Up to five parts that come one after the other, of ``prompt`` tokens in all, with an inference from most."""
    part = st.tuples(st.integers(0, prompt // 5), SECONDS, st.just(0) | OUTPUT | OUTPUT)
    return st.lists(part, min_size=1, max_size=5).map(
        lambda parts: tuple(
            PromptPart(tokens, at, output)
            for (tokens, _, output), at in zip(parts, accumulate(gap for _, gap, _ in parts), strict=True)
        )
    )


@st.composite
def workloads(draw: st.DrawFn) -> tuple[Session, ...]:
    """1 to 25 sessions, in any order of arrival; all small, or of any size."""
    samples = draw(st.sampled_from([st.just(1), st.just(1), st.integers(1, 4)]))
    kind = draw(st.sampled_from([_sessions(12, 7, samples), _sessions(200, 200, samples)]))
    drawn = draw(st.lists(kind, min_size=draw(st.sampled_from([1, 3, 6])), max_size=draw(st.sampled_from([6, 10, 25]))))
    return tuple(replace(session, id=f"s{index}") for index, session in enumerate(drawn))


SETTINGS = st.builds(
    EngineSettings,
    token_budget=st.just("saturation") | st.integers(1, 64),
    max_running=st.integers(1, 8),
    chunked_prefill=st.booleans(),
    mixed_batches=st.booleans(),
    block_size=st.integers(1, 16),
    watermark=st.sampled_from([0.0, 0.01]) | st.floats(0, 0.3),
    swap=st.sampled_from(["blocking", "overlapped"]),
    swap_budget=st.sampled_from(["hidden", "hidden-each-way", "unlimited"]),
    host_full=st.sampled_from(["discard", "preserve"]),
    preemption=st.sampled_from(["recompute", "swap"]),
    requeue_at=st.sampled_from(["arrival", "tail"]),
    resume_on_gpu=st.sampled_from(["running", "queue"]),
    swap_in_before_prefill=st.booleans(),
    recompute_swapped_when_idle=st.booleans(),
    sample_layout=st.sampled_from(["paged-sharing", "segment", "contiguous"]),
    streamed_prompts=st.sampled_from(["whole", "parts", "parts"]),
)
POWER = st.builds(
    PowerLimit,
    memory_s=st.sampled_from([0.01, 1.0]),
    free_share=st.sampled_from([0.0, 0.3]),
    reference_share=st.just(0.5),
    slowdown=st.sampled_from([0.0, 0.3]),
    slowdown_matrix=st.sampled_from([0.0, 0.3]),
)
HOST = st.builds(
    HostCost,
    per_iteration_s=st.sampled_from([0.0, 0.01]),
    per_session_s=st.sampled_from([0.0, 1e-3]),
    chunked_s=st.sampled_from([0.0, 0.02]),
    per_call_s=st.sampled_from([0.0, 0.03]),
    per_arrival_s=st.sampled_from([0.0, 0.05]),
    copies_out_s=st.sampled_from([0.0, 0.004]),
    copies_in_s=st.sampled_from([0.0, 0.007]),
    cold_s=st.sampled_from([0.0, 0.0, 0.008]),
).flatmap(
    lambda host: st.sampled_from([0.0, 1.0]).map(
        lambda share: host.model_copy(
            update={"executor_s": share * host.per_iteration_s, "executor_chunked_s": share * host.chunked_s}
        )
    )
)
PHYSICAL = st.builds(
    PhysicalForward,
    overhead_s=st.sampled_from([0.0, 0.003]),
    weights_s=st.sampled_from([0.0, 0.01]),
    per_token_s=st.just(1e-4),
    knee=st.sampled_from([1.0, 4.0]),
    per_session_s=st.sampled_from([0.0, 1e-4]),
    decode_read_s=st.sampled_from([0.0, 1e-5]),
    prefill_read_s=st.sampled_from([0.0, 1e-5]),
    pair_s=st.sampled_from([0.0, 1e-7]),
    power=st.none() | POWER,
)


ANY_ORDER = st.sampled_from(ORDERS)


@st.composite
def plots(draw: st.DrawFn, policies: st.SearchStrategy[Any], orders: st.SearchStrategy[Any] = ANY_ORDER) -> Plot:
    """A workload, a system and a machine; the GPU pool holds the largest session, seldom less, often little more."""
    sessions, rules = draw(workloads()), draw(SETTINGS)
    block = rules.block_size
    fits = max(KVCacheManager(0, 0, block, False, rules.sample_layout).max_blocks(session) for session in sessions)
    fits = math.ceil(fits / (1 - rules.watermark)) + 1
    gpu = fits + draw(st.sampled_from([-fits // 2, 0, 1, 3]) | st.integers(0, fits) | st.integers(0, 4 * fits))
    machine = profile(
        fixed=draw(st.sampled_from([0.0, 0.02, 0.3])),
        per_token=draw(st.sampled_from([1e-4, 0.003])),
        copy=draw(st.sampled_from([1e-5, 1e-3, 0.03])),
        latency=draw(st.sampled_from([0.0, 0.002])),
        slowdown=draw(st.sampled_from([0.0, 0.3])),
        gpu=max(gpu, 1) * block,
        host=draw(st.sampled_from([0, 1, fits, 20 * fits]) | st.integers(0, 2 * fits)) * block,
        saturation=draw(st.integers(1, 64)),
        forward=draw(st.none() | PHYSICAL),
    ).model_copy(update={"host": draw(HOST)})
    return Plot(
        sessions=sessions,
        policy=draw(policies),
        order=draw(orders),
        settings=rules,
        profile=machine,
        step=draw(st.sampled_from([1.0, 0.1, 0.7, 10.0])),
        leap=draw(st.booleans()),
    )
