"""Replays of recorded real runs, as ``caesura validate --recorded`` does them: how wrong the simulator is today. It may
get better and must not get worse."""

from __future__ import annotations

import pytest

from caesura.replays import Replayed, choose_costs, find_recordings, rankings, replay_all

MOST_WRONG_PCT = {
    "cache-lru @ 8": 3.0,
    "improved-discard @ 8": 1.5,
    "infercept @ 8": 3.5,
    "preserve @ 8": 4.0,
    "swap @ 8": 1.5,
    "vllm @ 8": 2.5,
    "cache-lru @ 12": 3.0,
    "improved-discard @ 12": 8.5,
    "infercept @ 12": 3.5,
    "preserve @ 12": 1.5,
    "swap @ 12": 2.0,
    "vllm @ 12": 6.0,
    "cache-lru @ 16": 3.5,
    "improved-discard @ 16": 3.5,
    "infercept @ 16": 27.0,
    "preserve @ 16": 4.5,
    "swap @ 16": 9.5,
    "vllm @ 16": 2.0,
}
"""Error of the mean normalized latency, percent: what was found on the day of the recording, rounded up."""


@pytest.fixture(scope="module")
def replayed() -> list[Replayed]:
    return replay_all(find_recordings(None), choose_costs(None), jobs=1, progress=False)


def test_no_replay_is_more_wrong_than_it_was(replayed: list[Replayed]):
    assert {one.label for one in replayed} == set(MOST_WRONG_PCT)
    for one in replayed:
        errors = one.fidelity.error_pct
        assert abs(errors["normalized latency mean"]) <= MOST_WRONG_PCT[one.label], one.label
        assert abs(errors["throughput"]) <= 2.0, one.label
        assert max(map(abs, one.fidelity.waste_points.values())) <= 1.0, one.label


def test_the_simulator_ranks_the_systems_as_the_gpu_did(replayed: list[Replayed]):
    for bench, found in rankings(replayed):
        assert found.wrong == [], bench
