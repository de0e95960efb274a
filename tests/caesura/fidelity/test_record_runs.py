"""Real runs are recorded whole, once each, with what says whether their tokens can be trusted."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from caesura.errors import UserError
from caesura.fidelity.record_runs import record_runs
from caesura.fidelity.replays import ReplayCosts, replay_all
from profiler.serving.recorded_run import load, replay
from tests.caesura.fidelity.small_real_runs import HOST_TOKENS, KV_TOKENS, short_trace, small_plan

SYSTEMS = ("vllm", "swap", "infercept", "cache-lru")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    plan = small_plan(short_trace(folder), SYSTEMS)
    record_runs(plan, folder / "out", lambda _: None)
    return folder


def test_in_float64_every_session_has_the_tokens_that_it_has_alone(recordings: Path):
    for system in SYSTEMS:
        run = load(recordings / "out" / f"{system}.load-12")
        assert run.record.sessions["status"] == ["finished"] * len(run.sessions)
        found = run.provenance["agreement"]
        assert found["sessions"] == found["equal"] == -(-len(run.sessions) // 2)
        assert found["first_difference_margins"] == []
        assert found["margins_elsewhere_median"] > 0


def test_the_systems_did_to_contexts_what_they_are_named_for(recordings: Path):
    totals = {name: load(recordings / "out" / f"{name}.load-12").record for name in SYSTEMS}
    assert totals["vllm"].totals["recomputed_tokens"] > 0
    assert sum(totals["swap"].sessions["swapped_out_bytes"]) > 0
    assert all(run.totals["gpu_blocks"] == KV_TOKENS // 16 for run in totals.values())
    assert all(run.totals["host_blocks"] == HOST_TOKENS // 16 for run in totals.values())


def test_a_recording_can_be_replayed_in_the_same_memory(recordings: Path):
    run = load(recordings / "out" / "infercept.load-12")
    simulated = replay(run)
    assert simulated.totals["gpu_blocks"] == run.record.totals["gpu_blocks"]
    assert simulated.sessions["output_tokens"] == run.record.sessions["output_tokens"]


def test_what_each_iteration_computed_and_took_is_recorded(recordings: Path):
    for folder in (recordings / "out").glob("*.load-*"):
        run = load(folder)
        assert run.iterations is not None
        assert len(run.iterations) == run.provenance["iterations"]
        assert run.iterations["device_s"].sum() == pytest.approx(run.provenance["device_s"], rel=1e-3)
        computed = run.iterations["decodes"].sum() + run.iterations["chunk_tokens"].sum()
        assert computed == run.record.totals["computed_tokens"]
        assert run.iterations["ended_s"].is_monotonic_increasing


def test_a_run_that_is_cut_before_anybody_comes_is_recorded_and_replayed(tmp_path: Path):
    """The first session comes after 67 ms, the run ends after one."""
    plan = replace(small_plan(short_trace(tmp_path), ("vllm",)), horizon=1e-3)
    (folder,) = record_runs(plan, tmp_path / "out", lambda _: None)
    run = load(folder)
    assert run.iterations is not None and run.iterations.empty
    (replayed,) = replay_all([folder], ReplayCosts(), jobs=1)
    assert (replayed.fidelity.sessions, replayed.time_split, replayed.at_its_pace) == (0, None, None)


def test_a_second_sitting_makes_only_the_runs_that_are_missing(recordings: Path):
    plan = small_plan(recordings / "short.jsonl", ("vllm", "preserve"))
    before = (recordings / "out" / "vllm.load-12" / "run.json").stat().st_mtime_ns
    said: list[str] = []
    record_runs(plan, recordings / "out", said.append)
    assert any("vllm at 12/s (1 of 2): recorded already" in line for line in said)
    assert (recordings / "out" / "vllm.load-12" / "run.json").stat().st_mtime_ns == before
    assert (recordings / "out" / "preserve.load-12" / "run.json").is_file()


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 1}, "another workload"), ({"horizon": 0.4}, "another horizon"), ({"max_context": 64}, "workload")],
)
def test_a_folder_with_other_runs_is_refused(recordings: Path, change: dict[str, float], named: str):
    plan = small_plan(recordings / "short.jsonl", ("vllm",))
    with pytest.raises(UserError, match=f"{named}.*--out"):
        record_runs(replace(plan, **change), recordings / "out", lambda _: None)  # type: ignore[arg-type]


def test_without_a_gpu_the_way_out_is_said(tmp_path: Path):
    plan = replace(small_plan(short_trace(tmp_path), ("vllm",)), device="cuda")
    with pytest.raises(UserError, match=r"no CUDA GPU here.*--recorded"):
        record_runs(plan, tmp_path / "out", lambda _: None)
    assert not (tmp_path / "out").exists()


def test_recording_needs_nothing_that_only_a_command_line_needs():
    code = (
        "import sys, caesura.fidelity.record_runs\n"
        "import profiler.serving.recorded_run, profiler.serving.server, profiler.serving.token_match\n"
        "print([name for name in ('typer', 'rich', 'jinja2', 'joblib', 'simpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
