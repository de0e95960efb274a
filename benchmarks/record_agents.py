"""Coding agents with long contexts, served for real and recorded: stretches of recorded sessions, with time compressed
so that a run takes a minute and a half.

.venv/bin/python -m benchmarks.record_agents --out recordings              # on a GPU, eight minutes
.venv/bin/python -m benchmarks.record_agents --out /tmp/tiny --device cpu  # a rehearsal; the figures mean nothing
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from caesura.config.profiles import read_profile
from caesura.config.systems import System, load_preset
from caesura.config.workload import read_trace
from caesura.fidelity.record_runs import Plan, _record, _set_up
from sim.costs.profile import Profile
from traces.session import Call, Pause, Session

SYSTEMS = ("cache-lru", "infercept", "caesura", "swap", "continuum")
CALLS = 10
"""Calls of a session, from the first at which its context has ``SHORTEST`` tokens or a later one."""
SHORTEST, LONGEST = 16_000, 131_072
FASTER, SHORTER, LONGEST_PAUSE_S = 8.0, 4, 15.0
"""By how much pauses and outputs are divided, and the longest pause that is left."""
LOAD, DURATION_S, HORIZON_S = 0.3, 55.0, 85.0
TOKEN_BUDGET = 512
GPU_TOKENS, HOST_TOKENS = 300_000, 480_000


def stretches(sessions: Sequence[Session], seed: int) -> list[Session]:
    """One stretch of each recorded session that has one: its prompt is the context that it had by then."""
    random, found = np.random.default_rng(seed), []
    for session in sessions:
        contexts = _contexts(session)
        begins = [index for index, tokens in enumerate(contexts[:-2]) if SHORTEST <= tokens <= LONGEST - 8_000]
        if not begins:
            continue
        first = int(random.choice(begins))
        calls = [_faster(call) for call in _until_rewritten(session.calls[first : first + CALLS])]
        calls[-1] = replace(calls[-1], pause=None)
        stretch = Session(session.id, 0.0, contexts[first], tuple(calls), session.kind)
        if stretch.max_context <= LONGEST:
            found.append(stretch)
    return found


def _until_rewritten(calls: Sequence[Call]) -> list[Call]:
    """The calls up to the first after which the client rewrites the context: agents that alternate between two contexts
    would compute most of the time whatever a policy did."""
    rewrites = [index for index, call in enumerate(calls) if call.pause is not None and call.pause.keeps is not None]
    return list(calls[: rewrites[0] + 1] if rewrites else calls)


def _contexts(session: Session) -> list[int]:
    """Tokens of the context with which each call begins."""
    tokens, found = session.prompt, []
    for call in session.calls:
        found.append(tokens)
        tokens += call.output
        if call.pause is not None:
            kept = tokens if call.pause.keeps is None else min(tokens, call.pause.keeps)
            tokens = kept + call.pause.returned
    return found


def _faster(call: Call) -> Call:
    pause = call.pause
    if pause is not None:
        seconds = min(pause.duration / FASTER, LONGEST_PAUSE_S)
        pause = Pause(seconds, pause.returned, pause.waits_for, pause.tool, pause.keeps)
    return Call(max(1, call.output // SHORTER), pause)


def workload(seed: int, scale: int = 1) -> list[Session]:
    """Stretches in a random order that arrive one by one; ``scale`` divides all tokens, for a rehearsal."""
    random = np.random.default_rng((seed, 1))
    chosen = stretches(list(read_trace("coding-agents")), seed)
    arrivals = np.cumsum(random.exponential(1 / LOAD, 1000))
    arrivals -= arrivals[0]
    arrivals = arrivals[arrivals < DURATION_S]
    order = random.permutation(len(chosen))[: len(arrivals)]
    picked = [replace(chosen[index], arrival=float(at)) for index, at in zip(order, arrivals, strict=False)]
    return [_scaled(session, scale) for session in picked] if scale > 1 else picked


def _scaled(session: Session, scale: int) -> Session:
    calls = []
    for call in session.calls:
        pause = call.pause
        if pause is not None:
            keeps = None if pause.keeps is None else pause.keeps // scale
            pause = replace(pause, returned=pause.returned // scale, keeps=keeps, duration=pause.duration / 10)
        calls.append(Call(max(1, call.output // scale), pause))
    return replace(session, prompt=max(1, session.prompt // scale), calls=tuple(calls), arrival=session.arrival / 10)


@dataclass(frozen=True)
class AgentPlan(Plan):
    """A plan whose sessions are given."""

    served: tuple[Session, ...] = ()

    def sessions(self, load: float) -> list[Session]:
        return list(self.served)


def plan_of(device: str, profile: Profile, seed: int) -> AgentPlan:
    """What is run on ``device``."""
    small = device == "cpu"
    pools: dict[str, object] = {"kv_capacity_tokens": 3_200, "host_capacity_tokens": 4_800}
    pools |= {"model": "tiny", "kv_bytes_per_token": 512}
    if not small:
        pools = {"kv_capacity_tokens": GPU_TOKENS, "host_capacity_tokens": HOST_TOKENS}
    return AgentPlan(
        model="tiny" if small else profile.model,
        profile=profile.model_copy(update=pools),
        systems=SYSTEMS,
        loads=(LOAD,),
        duration=DURATION_S,
        horizon=10.0 if small else HORIZON_S,
        seed=seed,
        trace="coding-agents",
        max_context=1_400 if small else LONGEST,
        device=device,
        checked_sessions=0,
        served=tuple(workload(seed, 100 if small else 1)),
    )


def _system(name: str) -> System:
    system = load_preset(name)
    return replace(system, engine=system.engine.model_copy(update={"token_budget": TOKEN_BUDGET}))


def main() -> None:
    """Record every system that is not recorded yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--profile", default="h200/llama-3.1-8b-131k")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    plan = plan_of(options.device, read_profile(options.profile), options.seed)
    systems = [_system(name) for name in SYSTEMS]
    engine = _set_up(plan, systems, lambda text: print(text, flush=True))
    for system in systems:
        if not (options.out / f"{system.name}.load-{LOAD:g}" / "run.json").is_file():
            print(system.name, _record(plan, system, LOAD, engine, options.out), flush=True)


if __name__ == "__main__":
    main()
