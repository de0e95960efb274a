"""The benchmark measures what it says: which cases, how much of each, and what two of them say together."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.cases import case, cases
from benchmarks.measure import Measured, measure
from benchmarks.results import Result, as_markdown, ratios
from caesura.config.systems import preset_names

ROOT = Path(__file__).resolve().parents[2]


def test_every_shipped_system_is_measured() -> None:
    assert {one.system for one in cases() if one.name.startswith("b-")} == set(preset_names())


@pytest.mark.parametrize("leap", [True, False])
def test_a_share_of_a_case_is_a_share_of_its_sessions(leap: bool) -> None:
    """1 % of 10,000 sessions of one call; each emits 512 tokens, so iterations are many and, with leaps, events few."""
    measured = measure(case("a"), leap, 0.01)
    assert (measured.sessions, measured.calls) == (100, 100)
    assert (measured.events < measured.iterations) is leap
    assert measured.cpu_s > 0
    assert measured.peak_bytes > 1e7


def test_the_large_case_is_one_run_of_all_its_replicas() -> None:
    """640 of the million sessions on 64 replicas: every one of them is served, by one call each."""
    measured = measure(case("d"), True, 640 / 1_000_000)
    assert (measured.sessions, measured.calls) == (640, 640)


def result(name: str, sessions: int, cpu_s: float) -> Result:
    run = Measured(name, True, 1.0, cpu_s, 0.2, sessions, sessions, 9, 3, 1.0, 10**8)
    half = replace(run, share=0.5, cpu_s=cpu_s / 8)
    return Result(name, "", "vllm", 1.0, None, run, (half, replace(half, leap=False, cpu_s=cpu_s / 2)), 0.0)


def test_growth_is_a_ratio_of_times_per_session() -> None:
    """4 s for a thousand sessions over 8 s for four thousand: half the time per session."""
    lines = ratios([result("d-quarter", 1000, 4.0), result("d", 4000, 8.0)])
    assert [line.split("×")[0] for line in lines] == ["four times the sessions take 0.50"]


def test_leaps_are_compared_on_the_same_share_of_the_workload_and_it_is_said() -> None:
    """Half the workload in an eighth of the seconds with leaps, in half of them without: four times the calls."""
    row = as_markdown([result("a", 1000, 4.0)]).splitlines()[2]
    assert "| 4.0× (of 50%) |" in row


def test_the_command_writes_a_table_and_what_it_was_measured_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "a", "--runs", "1", "--share", "0.002", "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    found = json.loads((tmp_path / "simulator.json").read_text())
    assert [row["case"] for row in found["results"]] == ["a", "a-chunked"]
    assert found["about"]["machine"]
    assert (tmp_path / "simulator.md").read_text().startswith("| case |")
