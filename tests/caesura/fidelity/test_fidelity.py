"""Errors of a replay against the real run, and when the two are not compared."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from caesura.config.systems import load_preset
from caesura.fidelity.fidelity import NotComparable, compare, ranking, ranks_agree, table
from profiler.serving.iterations import KEPT
from profiler.serving.recorded_run import RecordedRun, load, replay, save
from sim.costs.profile import LinearForward, Profile, SwapCost
from traces.readers import write_own
from traces.session import Call, Pause, Session
from traces.workload_hash import workload_hash

PROFILE = Profile(
    name="test", model="none", gpu="none", origin="estimate", source="a test", kv_bytes_per_token=100,
    kv_capacity_tokens=640, host_capacity_tokens=640, saturation_tokens=64,
    forward=LinearForward(fixed_s=0.01, per_token_s=1e-4), swap=SwapCost(out_bytes_per_s=1e6, in_bytes_per_s=1e6),
)  # fmt: skip
SLOWER = PROFILE.model_copy(update={"forward": LinearForward(fixed_s=0.02, per_token_s=2e-4)})
SESSIONS = [
    Session(f"s{n}", 0.1 * n, 50, (Call(10, Pause(0.5, returned=5, waits_for="tool")), Call(10))) for n in range(6)
]


def recorded(system: str, profile: Profile = PROFILE, sessions: list[Session] = SESSIONS) -> RecordedRun:
    """A run that was not real, but was simulated with ``profile``."""
    preset = load_preset(system)
    rules = preset.rules()
    empty = RecordedRun(system, 10.0, rules, profile, None, sessions, None, {"gpu": "none"})  # type: ignore[arg-type]
    return RecordedRun(system, 10.0, rules, profile, None, sessions, replay(empty), {"gpu": "none"})


def test_a_replay_with_the_costs_of_the_run_has_no_error():
    run = recorded("cache-lru")
    found = compare(run, replay(run))
    assert found.sessions == 6
    assert set(found.error_pct.values()) == {0.0}
    assert set(found.waste_points.values()) == {0.0}
    assert found.mape_pct == 0.0


def test_errors_are_signed_and_relative_to_the_real_run():
    """Real costs are twice the simulated ones; with nothing else going on, TPOT is halved: -50 %."""
    alone = [Session("a", 0.0, 50, (Call(11),))]
    found = compare(recorded("vllm", SLOWER, alone), recorded("vllm", PROFILE, alone).record)
    assert found.error_pct["TPOT mean"] == pytest.approx(-50.0)
    assert found.error_pct["TTFT p99"] == pytest.approx(-50.0)
    assert found.mape_pct == pytest.approx(50.0)


def test_a_recording_is_read_back_as_it_was(tmp_path: Path):
    run = recorded("infercept")
    read = load(save(run, tmp_path))
    assert read.sessions == run.sessions
    assert read.rules == run.rules
    assert read.profile == run.profile
    assert compare(read, replay(read)).mape_pct == 0.0


def test_iterations_are_read_back_to_the_microsecond(tmp_path: Path):
    times = {"device_s": [0.0051234, 0.0062], "wall_s": [0.006, 0.0065], "ended_s": [1.5, 101.25]}
    iterations = pd.DataFrame({name: times.get(name, [3, 4]) for name in KEPT})
    read = load(save(replace(recorded("infercept"), iterations=iterations), tmp_path)).iterations
    assert read is not None
    assert list(read.columns) == list(iterations.columns)
    assert read["device_s"].tolist() == [0.005123, 0.0062]
    assert read["ended_s"].tolist() == [1.5, 101.25]


def test_iterations_without_a_column_are_refused_by_name(tmp_path: Path):
    iterations = pd.DataFrame({name: [1] for name in KEPT if name != "stalled"})
    with pytest.raises(ValueError, match=r"iterations.parquet lacks stalled"):
        load(save(replace(recorded("infercept"), iterations=iterations), tmp_path))


def test_iterations_of_another_run_are_refused(tmp_path: Path):
    iterations = pd.DataFrame({name: [1, 2] for name in KEPT})
    run = replace(recorded("infercept"), iterations=iterations, provenance={"iterations": 3})
    with pytest.raises(ValueError, match="has 2 iterations, and the run had 3"):
        load(save(run, tmp_path))


def test_a_run_without_iterations_leaves_none_of_another_behind(tmp_path: Path):
    run = recorded("infercept")
    save(replace(run, iterations=pd.DataFrame({name: [1] for name in KEPT})), tmp_path)
    assert load(save(run, tmp_path)).iterations is None


def test_a_recording_whose_workload_was_changed_is_refused(tmp_path: Path):
    folder = save(recorded("vllm"), tmp_path)
    file = tmp_path / f"workload-{workload_hash(SESSIONS)[:12]}.jsonl"
    changed = file.read_text().replace('"output":10', '"output":11', 1)
    assert changed != file.read_text()
    file.write_text(changed)
    with pytest.raises(ValueError, match="is not the workload that this run served"):
        load(folder)


def test_a_recording_whose_sessions_share_other_blocks_is_refused(tmp_path: Path):
    """Block hashes say which prompts have tokens in common: with others, prefix caches serve another workload."""
    hashed = [replace(session, block_hashes=(1, 2), hash_block=16) for session in SESSIONS]
    folder = save(replace(recorded("vllm"), sessions=hashed), tmp_path)
    assert load(folder).sessions == hashed
    file = tmp_path / f"workload-{workload_hash(hashed)[:12]}.jsonl"
    write_own(file, [replace(session, block_hashes=(1, 3)) for session in hashed])
    with pytest.raises(ValueError, match="is not the workload that this run served"):
        load(folder)


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (recorded("vllm", PROFILE.model_copy(update={"kv_capacity_tokens": 800})), "gpu_blocks is 40 .* 50 simulated"),
        (recorded("vllm", sessions=[Session("s0", 0.0, 51, (Call(10),))]), "session s0: prompt_tokens is 50 and 51"),
        (recorded("vllm", sessions=[Session("s0", 0.0, 50, (Call(9, Pause(0.5)), Call(10)))]), "s0 emitted 20 and 19"),
    ],
)
def test_runs_that_did_other_work_are_not_compared(other: RecordedRun, complaint: str):
    with pytest.raises(NotComparable, match=complaint):
        compare(recorded("vllm"), other.record)


def test_a_session_that_the_workload_does_not_have_is_not_compared():
    run = recorded("vllm")
    more = recorded("vllm", sessions=[*SESSIONS, Session("stranger", 0.0, 50, (Call(10),))])
    with pytest.raises(NotComparable, match="session stranger of the simulated run is not in its workload"):
        compare(run, more.record)


def test_a_session_that_came_in_one_run_only_before_the_cut_does_not_count():
    run = recorded("vllm")
    assert compare(run, recorded("vllm", sessions=SESSIONS[:-1]).record).sessions == len(SESSIONS) - 1


def test_only_clear_gaps_count_for_the_ranking():
    """Real 1.00 and 1.02 s may be swapped, 1.00 and 1.10 s may not."""
    run = recorded("vllm")
    one = compare(run, run.record)
    made = [
        type(one)(name, 1.0, {"x": real}, {"x": simulated}, {}, {}, 0.0, 1)
        for name, real, simulated in (("a", 1.00, 2.0), ("b", 1.02, 1.0), ("c", 1.10, 1.5))
    ]
    tau, wrong = ranks_agree(made, "x")
    assert wrong == ["c / a"]
    assert tau == pytest.approx(-1 / 3)
    assert list(table([one])["system"]) == ["vllm"]


def test_figures_are_held_against_the_aim_of_their_statistic():
    """3 % for mean, P50 and throughput, 6 % for P90 and P99; 1 point for waste: 3 of 5 and 1 of 2 hold."""
    one = compare(recorded("vllm"), recorded("vllm").record)
    errors = {"TTFT mean": 2.9, "TTFT p50": -3.1, "TTFT p90": -5.9, "TPOT p99": 6.1, "throughput": -3.0}
    found = replace(one, error_pct=errors, waste_points={"waste_swap": -1.0, "waste_preserve": 1.1})
    assert found.errors_within_aim() == 3
    assert found.wastes_within_aim() == 1


def test_a_ranking_names_the_systems_from_the_best_on():
    """Real 1 < 2 < 3 s; simulated 1 < 4 > 3 s: the last two change places, and their gap is clear."""
    one = compare(recorded("vllm"), recorded("vllm").record)
    figures = {"a": (2.0, 4.0), "b": (1.0, 1.0), "c": (3.0, 3.0)}
    made = [replace(one, system=name, real={"x": r}, simulated={"x": s}) for name, (r, s) in figures.items()]
    found = ranking(made, "x")
    assert (found.real, found.simulated) == (["b", "a", "c"], ["b", "c", "a"])
    assert found.wrong == ["c / a"]
    assert math.isnan(ranking(made[:1], "x").tau)
