"""The recorded runs of coding agents: their workload is the script's, and the simulator is right about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.record_agents import CALLS, LOAD, LONGEST, SHORTEST, stretches, workload
from caesura.config.profiles import read_profile
from caesura.fidelity.fidelity import compare
from profiler.serving.recorded_run import load, replay
from traces.session import Call, Pause, Session
from traces.workload_hash import workload_hash

RUNS = Path(__file__).parents[2] / "benchmarks" / "recordings" / "coding-agents"


def test_the_workload_is_the_one_that_was_recorded() -> None:
    sessions = workload(0)
    run = load(RUNS / f"infercept.load-{LOAD:g}")
    assert workload_hash(sessions) == workload_hash(run.sessions)
    assert max(session.max_context for session in sessions) <= LONGEST
    assert all(session.prompt >= SHORTEST and len(session.calls) <= CALLS for session in sessions)


def test_a_stretch_begins_with_the_context_of_its_first_call() -> None:
    """20,000 + 40 + 960 tokens by the second call, + 40 + 100 by the third. Pauses an eighth, outputs a quarter; what
    follows a rewritten context is left out."""
    calls = (Call(40, Pause(8.0, 960)), Call(40, Pause(400.0, 100)), Call(8, Pause(1.0, 5, keeps=0)))
    chosen = {}
    for seed in range(40):
        (found,) = stretches(
            [Session("a", 0.0, 20_000, (*calls, Call(4, Pause(1.0)), Call(4, Pause(1.0)), Call(4)))], seed
        )
        chosen[found.prompt] = found
    assert sorted(chosen) == [20_000, 21_000, 21_140]
    assert chosen[20_000].calls == (Call(10, Pause(1.0, 960)), Call(10, Pause(15.0, 100)), Call(2))
    assert chosen[21_140].calls == (Call(2),)


@pytest.mark.parametrize(("name", "most"), [("infercept", 4.5), ("cache-lru", 3.0)])
def test_the_costs_that_were_measured_before_the_runs_are_right_about_them(name: str, most: float) -> None:
    """Mean normalized latency: -3.4 and -2.2 % when these were recorded, on another card than the costs."""
    run = load(RUNS / f"{name}.load-{LOAD:g}")
    found = compare(run, replay(run, read_profile("h200/llama-3.1-8b-131k")))
    assert abs(found.error_pct["normalized latency mean"]) < most
