"""What a second core gains is told apart from what the machine takes back, and from what our own start and end take."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.sweep_efficiency import Compared, lines, start_s, tail_s
from benchmarks.sweep_turn import Turn

ROOT = Path(__file__).resolve().parents[2]
ONE = Turn(wall_s=40.0, cpu_s=40.0, runs_s=38.0, begins=[0.0, 20.0], ends=[19.0, 39.0])
TWO = Turn(wall_s=25.0, cpu_s=48.0, runs_s=44.0, begins=[1.0, 1.5, 12.0, 13.0], ends=[11.0, 12.0, 23.5, 24.5])


def test_efficiency_is_what_one_process_takes_over_what_two_take_together() -> None:
    """40 s over 2 * 25 s, and 40 over 48 CPU seconds. Apart they take 22 + 23 s: 45 of 50 s is what could be had."""
    half = replace(ONE, wall_s=22.0, cpu_s=23.0)
    said = lines(Compared([ONE], [TWO], [(half, replace(half, wall_s=23.0))]))
    assert "efficiency 80% by the clock, 83% by CPU seconds" in said[2]
    assert "89% and 87%, the machine's ceiling" in said[3]
    assert said[4] == "of the ceiling: 90% by the clock, 96% by CPU seconds"


def test_the_time_of_two_processes_is_divided_among_its_causes() -> None:
    """Of 50 s: 38 s of runs, 6 s more of them beside each other, 1 + 1.5 s of start, 1 s for the last run alone."""
    said = lines(Compared([ONE], [TWO], [(ONE, ONE)]))[-1]
    for share in ("one process 76.0%", "each other 12.0%", "workers 5.0%", "ends 2.0%", "end of the workers 5.0%"):
        assert share in said


@pytest.mark.parametrize(
    ("begins", "ends", "start"), [([1.0, 1.5], [9.0, 9.0], 2.5), ([1.0, 3.0, 4.0], [2.5, 9, 9], 5.5)]
)
def test_workers_have_started_when_two_runs_are_under_way(begins: list[float], ends: list[float], start: float) -> None:
    """1 + 1.5 s. A worker that begins at 4 s, the other having idled 1 s and, after its first run, 0.5 s: 5.5 s."""
    assert start_s(replace(TWO, begins=begins, ends=ends)) == start


def test_the_last_run_leaves_the_other_worker_idle() -> None:
    assert tail_s(TWO) == 1.0


def test_the_command_compares_a_small_sweep(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.sweep_kill", str(tmp_path / "out"), "--efficiency-only"]
    done = subprocess.run(
        [*command, "--turns", "1", "--seeds", "1", "--seconds", "0.5"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "medians of 1 turns of 72 runs" in done.stdout
    assert "the machine's ceiling" in done.stdout
