"""Replays of recorded real runs: how wrong the simulator is today. It may get better and must not get worse."""

from __future__ import annotations

from pathlib import Path

import pytest

from caesura.fidelity import Fidelity, compare, ranks_agree
from profiler.recorded import load, replay

RECORDINGS = Path(__file__).resolve().parents[2] / "profiler" / "recordings" / "h200-llama-3.1-8b"
MOST_WRONG_PCT = {"cache-lru": 6.0, "infercept": 11.0, "preserve": 5.0, "vllm": 24.0}
"""Error of the mean normalized latency, percent: what was found on the day of the recording, rounded up."""


@pytest.fixture(scope="module")
def results() -> list[Fidelity]:
    found = []
    for folder in sorted(RECORDINGS.glob("*.load-*")):
        run = load(folder)
        found.append(compare(run, replay(run)))
    return found


def test_no_replay_is_more_wrong_than_it_was(results: list[Fidelity]):
    assert {one.system for one in results} == set(MOST_WRONG_PCT)
    for one in results:
        assert abs(one.error_pct["normalized latency mean"]) <= MOST_WRONG_PCT[one.system], one.system
        assert abs(one.error_pct["throughput"]) <= 5.0, one.system
        assert max(map(abs, one.waste_points.values())) <= 2.0, one.system


def test_the_simulator_ranks_the_systems_as_the_gpu_did(results: list[Fidelity]):
    tau, wrong = ranks_agree(results)
    assert wrong == []
    assert tau == pytest.approx(1.0)
