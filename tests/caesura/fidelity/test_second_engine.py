"""An engine that tells no more than the times of its calls is validated as the torch backend is."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from caesura.config.systems import load_preset
from caesura.fidelity.fidelity import compare
from caesura.fidelity.record_runs import RecordingPlan, record_runs
from caesura.fidelity.replays import ReplayCosts, Replayed, replay_all
from caesura.fidelity.report import write_validation
from caesura.fidelity.tables import remarks, value_rows, verdict, waste_rows
from profiler.serving.real_engine import PARTS, CallTiming, RealEngine, RealRun, record_of
from profiler.serving.recorded_run import RecordedRun, load, replay
from sim.costs.profile import LinearForward
from sim.results.run_record import RunRecord
from tests.caesura.fidelity.small_real_runs import GUESSED, short_trace, small_plan
from traces.session import Session

SYSTEMS = ("vllm", "preserve")
SLOWER = GUESSED.model_copy(update={"forward": LinearForward(fixed_s=2e-3, per_token_s=2e-5)})


class ListedEngine:
    """Serves sessions from lists of timings.

    Args:
        runs: the timings of a run's calls and its end, by the name of its policy.
    """

    def __init__(self, runs: Mapping[str, tuple[list[CallTiming], float]]) -> None:
        self.runs = runs

    def serve(self, sessions: Sequence[Session], rules: Mapping[str, Any], horizon: float | None) -> RealRun:
        timings, end = self.runs[rules["policy"]["name"]]
        return RealRun(record_of(sessions, timings, end), provenance={"engine": "listed", "gpu": "none"})


def full_run(plan: RecordingPlan, system: str) -> RecordedRun:
    """What the engine would tell if it could tell everything: a simulation with other costs than the plan's."""
    (at,), preset = plan.loads, load_preset(system)
    nothing = RunRecord({}, {}, {}, {})
    run = RecordedRun(system, at, preset.rules(), plan.profile, None, plan.sessions(at), nothing, {})
    return replace(run, record=replay(run, SLOWER))


def listed_engine(plan: RecordingPlan, first_tokens: bool = True) -> RealEngine:
    runs = {}
    for system in plan.systems:
        record = full_run(plan, system).record
        columns = [record.calls[name] for name in CallTiming.__dataclass_fields__]
        timings = [CallTiming(*values) for values in zip(*columns, strict=True)]
        timings = timings if first_tokens else [replace(one, first_token_at=math.nan) for one in timings]
        runs[load_preset(system).policy["name"]] = (timings, record.totals["end_time"])
    return ListedEngine(runs)


@pytest.fixture
def plan(tmp_path: Path) -> RecordingPlan:
    return small_plan(short_trace(tmp_path), SYSTEMS)


def replayed_from(plan: RecordingPlan, folder: Path, **how: bool) -> list[Replayed]:
    folders = record_runs(plan, folder, lambda _: None, listed_engine(plan, **how))
    return replay_all(folders, ReplayCosts(("mine", plan.profile)), jobs=1, progress=False)


def test_its_errors_are_those_of_an_engine_that_tells_everything(plan: RecordingPlan, tmp_path: Path) -> None:
    for one in replayed_from(plan, tmp_path / "out"):
        run = full_run(plan, one.fidelity.system)
        whole = compare(run, replay(run))
        assert one.fidelity.sessions == whole.sessions == len(run.sessions)
        assert one.fidelity.error_pct == pytest.approx(whole.error_pct)
        assert one.fidelity.error_pct["TPOT mean"] < -10
        assert one.fidelity.mape_pct == pytest.approx(whole.mape_pct)


def test_what_it_did_not_tell_is_missing_and_not_zero(plan: RecordingPlan, tmp_path: Path) -> None:
    replayed = replayed_from(plan, tmp_path / "out")
    for one in replayed:
        assert one.missing == ("memory pools", "memory use", "iterations", "tokens")
        assert (one.fidelity.waste_points, one.fidelity.real_waste) == ({}, {})
        assert (one.time_split, one.at_its_pace) == (None, None)
    assert [row[1:] for row in waste_rows(replayed).rows] == [["–"] * 4] * 2
    assert all(row[-1].startswith("– / ") for row in value_rows(replayed).rows)
    assert "wastes" not in verdict(replayed)
    (said,) = remarks(replayed)
    assert said.startswith("Not compared for preserve @ 12, vllm @ 12: ")
    assert all(f"{PARTS[part]} (the run has no {part})" in said for part in replayed[0].missing)
    assert "TTFT" not in said


def test_without_first_tokens_there_is_no_error_of_ttft_and_tpot(plan: RecordingPlan, tmp_path: Path) -> None:
    for one in replayed_from(plan, tmp_path / "out", first_tokens=False):
        assert one.missing == tuple(PARTS)
        assert {name.split()[0] for name in one.fidelity.error_pct} == {"normalized", "session", "throughput"}


def test_its_report_comes_out_and_names_what_is_missing(plan: RecordingPlan, tmp_path: Path, caesura: Callable) -> None:
    record_runs(plan, tmp_path / "runs", lambda _: None, listed_engine(plan))
    said = caesura("validate", "--recorded", str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--jobs", "1")
    assert said.code == 0, said.err
    page = (tmp_path / "out" / "report.html").read_text()
    for text in (said.out, page):
        assert "wasted memory (the run has no memory use)" in text
    runs = json.loads((tmp_path / "out" / "fidelity.json").read_text())["runs"]
    assert [run["missing"] for run in runs] == [["memory pools", "memory use", "iterations", "tokens"]] * 2
    errors = pd.read_csv(tmp_path / "out" / "fidelity.csv")
    assert errors["normalized latency mean"].notna().all()
    assert "preserve points" not in errors


def test_a_run_of_each_engine_can_stand_in_one_report(plan: RecordingPlan, tmp_path: Path) -> None:
    (listed, _) = replayed_from(plan, tmp_path / "out")
    run = full_run(plan, "vllm")
    whole = replace(listed, fidelity=compare(run, replay(run)), missing=("iterations", "tokens"))
    write_validation([listed, whole], tmp_path / "report")
    errors = pd.read_csv(tmp_path / "report" / "fidelity.csv")
    assert errors["preserve points"].isna().tolist() == [True, False]
    assert len(remarks([listed, whole])) == 2
    assert "4 wastes within" in verdict([listed, whole])


def test_its_runs_are_read_back_as_they_were(plan: RecordingPlan, tmp_path: Path) -> None:
    folders = record_runs(plan, tmp_path / "out", lambda _: None, listed_engine(plan))
    for folder in folders:
        run = load(folder)
        assert (run.record.timeline, run.iterations) == ({}, None)
        assert run.provenance["engine"] == "listed"
        assert not (folder / "timeline.parquet").exists()


def test_it_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import caesura.fidelity.record_runs, profiler.serving.real_engine, profiler.serving.recorded_run\n"
        "import profiler.measure.commit"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
