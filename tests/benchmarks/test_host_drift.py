"""What the host took beyond the profile, in the mean and by the second."""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd
import pytest

from benchmarks.host_drift import begin, drift
from profiler.serving.recorded_run import RecordedRun
from sim.costs.profile import HostCost
from sim.results.run_record import RunRecord
from tests.sim.worlds import profile

HOST_S, DEVICE_S = 1e-3, 5e-3
PROFILE = profile(works=HostCost(per_iteration_s=HOST_S))
DECODE = {
    "decodes": 1, "decode_context": 9, "chunks": 0, "chunk_tokens": 0, "chunk_context": 0, "pairs": 0, "begun": 0,
    "opened": 0, "copies_out": 0, "copies_in": 0,
}  # fmt: skip


def iteration(ended: float, beyond: float, stalled: int = 0) -> dict[str, float]:
    wall = DEVICE_S + HOST_S + beyond
    return DECODE | {"stalled": stalled, "device_s": DEVICE_S, "wall_s": wall, "ended_s": ended}


def run(*rows: dict[str, float]) -> RecordedRun:
    record = RunRecord(sessions={}, calls={}, timeline={}, totals={"end_time": 100.0})
    provenance = {"date": "2026-02-03T07:01:40+00:00"}
    return RecordedRun("vllm", 1.0, {}, PROFILE, None, [], record, provenance, pd.DataFrame(rows))


def test_the_host_s_drift_is_that_of_usual_iterations() -> None:
    """100 µs beyond the profile and 2 µs more each second, over 99 s: 200 µs in the mean. One that was interrupted and
    those that waited for copies do not count."""
    usual = [iteration(second, 100e-6 + 2e-6 * second) for second in range(1, 101)]
    stalled = [iteration(101.0 + n, 0.5, stalled=1) for n in range(20)]
    mean, slope = drift(run(*usual, iteration(122.0, 1.0), *stalled), PROFILE)
    assert mean == pytest.approx(200e-6, rel=0.01)
    assert slope == pytest.approx(2e-6, rel=0.01)


def test_a_run_began_as_long_before_its_date_as_it_took() -> None:
    assert begin(run(iteration(1.0, 0.0))) == datetime(2026, 2, 3, 7, 0, tzinfo=UTC)
