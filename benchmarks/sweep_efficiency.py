"""What a second core gains a sweep, what it could gain on this machine at most, and where the rest goes.

One process, two, and two plain processes that each do half of the runs and know nothing of each other take turns. The
last say what the machine allows: two busy cores may share caches, memory and power, so that each is slower than one
alone. The efficiency is what one process takes, divided by what two take together, by the clock and by CPU seconds; of
the ceiling the same with what the two plain processes take.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import cores, processor
from benchmarks.sweep_turn import Turn

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Compared:
    """Turns of the same runs: on one process, on two, and on two that share nothing, each with half of them."""

    one: list[Turn]
    two: list[Turn]
    apart: list[tuple[Turn, Turn]]


def compare(folder: Path, seconds: float, seeds: int, turns: int) -> Compared:
    """Take the turns in ``folder``; see the module for what they are."""
    compared = Compared([], [], [])
    sized = ["--seconds", repr(seconds), "--seeds", str(seeds)]
    for turn in range(turns):
        compared.one.extend(_side_by_side([[str(folder / f"one-{turn}"), *sized]]))
        compared.two.extend(_side_by_side([[str(folder / f"two-{turn}"), "--jobs", "2", *sized]]))
        halves = [
            [str(folder / f"apart-{turn}-{half}"), "--every", "2", "--first", str(half), *sized] for half in (0, 1)
        ]
        first, second = _side_by_side(halves)
        compared.apart.append((first, second))
    return compared


def _side_by_side(each: Iterable[list[str]]) -> list[Turn]:
    """One turn in each of several processes, begun when all are ready."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    begun = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sweep_turn", *words],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for words in each
    ]
    for process in begun:
        assert process.stdin is not None and process.stdout is not None
        if process.stdout.readline() != "ready\n":
            sys.exit("a turn of the sweep failed before it began")
    for process in begun:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    turns = [process.communicate()[0] for process in begun]
    if any(process.returncode for process in begun):
        sys.exit("a turn of the sweep failed")
    return [Turn(**json.loads(turn)) for turn in turns]


def lines(compared: Compared) -> list[str]:
    """What the turns say, in words; medians."""
    one, two = compared.one, compared.two
    wall, cpu = _median(turn.wall_s for turn in one), _median(turn.cpu_s for turn in one)
    both, both_cpu = _median(2 * turn.wall_s for turn in two), _median(turn.cpu_s for turn in two)
    apart = _median(a.wall_s + b.wall_s for a, b in compared.apart)
    apart_cpu = _median(a.cpu_s + b.cpu_s for a, b in compared.apart)
    runs_alone, runs_beside = (_median(turn.runs_s for turn in turns) for turns in (one, two))
    starts, tails = _median(map(start_s, two)), _median(map(tail_s, two))
    where = {
        "runs as in one process": runs_alone,
        "runs slower beside each other": runs_beside - runs_alone,
        "start of the workers": starts,
        "one idle while the last run ends": tails,
        "tables, transport, writing and the end of the workers": both - runs_beside - starts - tails,
    }
    shares = ", ".join(f"{name} {seconds / both:.1%}" for name, seconds in where.items())
    load = f"load average {os.getloadavg()[0]:.1f}"
    return [
        f"{processor()}, {cores()}, {load}; medians of {len(one)} turns of {len(one[0].ends)} runs",
        f"one process:               {wall:6.1f} s, {cpu:6.1f} CPU s",
        f"two processes, 2 x:        {both:6.1f} s, {both_cpu:6.1f} CPU s: efficiency {wall / both:.0%} by the clock, "
        f"{cpu / both_cpu:.0%} by CPU seconds",
        f"two that share nothing:    {apart:6.1f} s, {apart_cpu:6.1f} CPU s: {wall / apart:.0%} and "
        f"{cpu / apart_cpu:.0%}, the machine's ceiling",
        f"of the ceiling: {apart / both:.0%} by the clock, {apart_cpu / both_cpu:.0%} by CPU seconds",
        f"where the time of two processes goes: {shares}",
    ]


def start_s(turn: Turn) -> float:
    """Seconds for which two workers together had nothing to do until both had begun their first run."""
    for before, begin in enumerate(turn.begins):
        over = bisect_right(turn.ends, begin)
        if before > over:
            busy = sum(begin - one for one in turn.begins[:before]) - sum(begin - one for one in turn.ends[:over])
            return 2 * begin - busy
    return turn.wall_s


def tail_s(turn: Turn) -> float:
    """Seconds for which one worker had nothing left to do while the other did the last run."""
    return turn.ends[-1] - turn.ends[-2]


def _median(seconds: Iterable[float]) -> float:
    return statistics.median(seconds)
