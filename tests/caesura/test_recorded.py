"""Replays of recorded real runs, as ``caesura validate --recorded`` does them: how wrong the simulator is today. It may
get better and must not get worse."""

from __future__ import annotations

import pytest

from caesura.replays import Replayed, choose_costs, find_recordings, rankings, replay_all

MOST_WRONG_PCT = {"improved-discard @ 12": 11.0, "infercept @ 12": 1.0, "preserve @ 12": 4.0, "vllm @ 12": 19.0}
"""Error of the mean normalized latency, percent: what was found on the day of the recording, rounded up."""


@pytest.fixture(scope="module")
def replayed() -> list[Replayed]:
    return replay_all(find_recordings(None), choose_costs(None), jobs=1, progress=False)


def test_no_replay_is_more_wrong_than_it_was(replayed: list[Replayed]):
    assert {one.label for one in replayed} == set(MOST_WRONG_PCT)
    for one in replayed:
        errors = one.fidelity.error_pct
        assert abs(errors["normalized latency mean"]) <= MOST_WRONG_PCT[one.label], one.label
        assert abs(errors["throughput"]) <= 5.0, one.label
        assert max(map(abs, one.fidelity.waste_points.values())) <= 3.2, one.label


def test_the_simulator_ranks_the_systems_as_the_gpu_did(replayed: list[Replayed]):
    for bench, found in rankings(replayed):
        assert found.wrong == [], bench
        assert found.tau == pytest.approx(1.0), bench
