"""What a profile says of recorded iterations, worked by hand."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from profiler.serving.iterations import BATCH
from profiler.serving.recorded_run import RecordedRun
from profiler.serving.time_split import as_it_was, expected, split_time
from sim.costs.profile import HostCost, PhysicalForward, PowerLimit
from sim.results.run_record import RunRecord
from tests.sim.worlds import pause, profile, session
from tests.sim.worlds import run as simulated

HOST = HostCost(per_iteration_s=1.0, per_session_s=0.1, chunked_s=0.5, per_arrival_s=0.25, copies_out_s=2.0)
PROFILE = profile(works=HOST)  # the device: 1 s and 0.01 s a token
FIRST = {
    "decodes": 0, "decode_context": 0, "chunks": 1, "chunk_tokens": 50, "chunk_context": 50, "pairs": 1275,
    "begun": 1, "opened": 1, "copies_out": 0, "copies_in": 0, "stalled": 0,
    "device_s": 1.6, "wall_s": 4.0, "ended_s": 10.0,
}  # fmt: skip
SECOND = FIRST | {
    "decodes": 2, "decode_context": 100, "chunks": 0, "chunk_tokens": 0, "chunk_context": 0, "pairs": 0,
    "begun": 0, "opened": 0, "copies_out": 1, "device_s": 1.0, "wall_s": 3.0, "ended_s": 15.0,
}  # fmt: skip
STALLED = SECOND | {"copies_out": 0, "stalled": 1, "wall_s": 9.0, "ended_s": 24.0}


def run(*rows: dict[str, float]) -> RecordedRun:
    nothing = RunRecord(sessions={}, calls={}, timeline={}, totals={})
    return RecordedRun("vllm", 1.0, {}, PROFILE, None, [], nothing, {}, pd.DataFrame(rows))


def test_device_and_host_of_each_iteration() -> None:
    """A chunk of 50 tokens: the device 1.5 s; the host 1 + 0.1 + 0.5 + 0.25 s. Two that decode while copies out begin:
    1.02 s, and 1 + 2 * 0.1 + 2 s."""
    device, host = expected(pd.DataFrame([FIRST, SECOND]), PROFILE)
    assert device.tolist() == pytest.approx([1.5, 1.02])
    assert host.tolist() == pytest.approx([1.85, 3.2])


def test_a_host_has_waited_since_the_iteration_before_began() -> None:
    """The first begins at 6 s, the second 6 s after it, 2 of them idle: 6/9 of what a cold host costs."""
    cold = PROFILE.model_copy(update={"host": HostCost(cold_s=0.3, cold_after_s=3.0)})
    assert expected(pd.DataFrame([FIRST, SECOND]), cold)[1].tolist() == pytest.approx([0.2, 0.2])


def test_what_copies_hide_does_not_count_as_the_host_s() -> None:
    found = split_time(run(FIRST, SECOND, STALLED), PROFILE)
    assert found is not None
    assert found.iterations == 3
    assert found.whole_s == pytest.approx((4 + 3 + 9) / 3)
    assert found.device_s == pytest.approx((1.6 + 1 + 1) / 3)
    assert found.expected_device_s == pytest.approx((1.5 + 1.02 + 1.02) / 3)
    assert found.host_s == pytest.approx((2.4 + 2) / 2)
    assert found.expected_host_s == pytest.approx((1.85 + 3.2) / 2)


def test_the_power_limit_remembers_the_real_past() -> None:
    """Half a second of matrix work a token, twice as slow at a share of one: a second pass right after one of 2 s is
    slower than one after a long rest."""
    limit = PowerLimit(memory_s=1.0, free_share=0.0, reference_share=0.0, slowdown=1.0, slowdown_matrix=0.0)
    forward = PhysicalForward(
        overhead_s=0.0, weights_s=0.0, per_token_s=0.5, decode_read_s=0.0, pair_s=0.0, power=limit
    )
    hot = profile(forward=forward)
    chunk = FIRST | {"chunk_tokens": 4, "device_s": 2.0, "wall_s": 2.0, "ended_s": 2.0}
    at_once = expected(pd.DataFrame([chunk, chunk | {"ended_s": 4.0}]), hot)[0]
    rested = expected(pd.DataFrame([chunk, chunk | {"ended_s": 104.0}]), hot)[0]
    assert at_once[0] == rested[0] == pytest.approx(2.0)
    assert at_once[1] > 1.2 * rested[1]


def test_a_simulated_run_takes_what_its_own_profile_says_of_its_iterations() -> None:
    """Prompts in chunks and decoding under a power limit, rests, a host that grows cold: to the last of them."""
    limit = PowerLimit(memory_s=2.0, free_share=0.1, reference_share=0.3, slowdown=0.4, slowdown_matrix=0.3)
    forward = PhysicalForward(
        overhead_s=0.1, weights_s=0.3, per_token_s=0.02, decode_read_s=0.001, pair_s=1e-4, power=limit
    )
    works = HOST.model_copy(update={"cold_s": 0.7, "cold_after_s": 2.0})
    served = [session(f"s{n}", 90 + 40 * n, 5, pause(30.0, returned=20), 8, at=7.0 * n) for n in range(4)]
    world = simulated(*served, forward=forward, works=works, saturation=64)
    assert len(world.iterations) > 20 and len({one.batch.prefill_tokens for one in world.iterations}) > 3
    rows = [
        {column: getattr(one.batch, name) for column, name in BATCH.items()}
        | {"copies_out": 0, "copies_in": 0, "stalled": 0}
        | {"device_s": 0.0, "wall_s": one.end - one.begin, "ended_s": one.end}
        for one in world.iterations
    ]
    device, host = expected(pd.DataFrame(rows), profile(forward=forward, works=works))
    assert (device + host).tolist() == pytest.approx([row["wall_s"] for row in rows])


def test_a_profile_at_the_run_s_pace_expects_what_was_measured() -> None:
    made = run(FIRST, SECOND)
    found = split_time(made, PROFILE)
    assert found is not None
    again = split_time(made, as_it_was(PROFILE, found))
    assert again is not None
    assert again.expected_device_s == pytest.approx(found.device_s)
    assert again.expected_host_s == pytest.approx(found.host_s)


def test_runs_without_iterations_have_no_shares() -> None:
    assert split_time(replace(run(FIRST), iterations=None), PROFILE) is None
