"""A sweep of 504 runs: killed half-way and resumed, repeated on one process and on Dask, and what two cores gain.

    python -m benchmarks.sweep_kill [FOLDER]

Prints, and ends with an error if one of the first three does not hold: that no run was lost by SIGKILL, that none was
done twice, that the tables are the same to the last byte however they were made; and the parallel efficiency of two
processes. The efficiency is one of CPU seconds, so that others on the machine disturb it little: the CPU seconds that
the runs take in one process, divided by those that two workers and the process that feeds them take together. What it
leaves out is idle time; the wall clock beside it has that, and everybody else's work.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from caesura.executors import executor
from caesura.sweep_results import write_sweep
from caesura.sweeps import carry_out_sweep, parse_over, plan_sweep
from caesura.yaml_source import parse_yaml

EXPERIMENT = """\
workload: {trace: infercept-mix, arrivals: {poisson: {rate: [2, 3]}}, duration: 10 s}
systems: [vllm, swap, infercept]
seeds: 7
"""
LONGER = EXPERIMENT.replace("10 s", "60 s").replace("seeds: 7", "seeds: 1")
OVER = ("replica.kv_capacity=20000 tokens,30000 tokens,50000 tokens", "systems[*].engine.max_running=16,32,64,128")
RUNS = 504
TURNS = 3
"""How often one process and two take turns: the machine may be faster at one time than at another."""
TABLES = ("results.parquet", "results.csv")


def main() -> None:
    """Do all of it in a folder that is thrown away, or in the one named."""
    with tempfile.TemporaryDirectory(prefix="caesura-sweep-") as scratch:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else scratch)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "x.yaml"
        file.write_text(EXPERIMENT)
        before, after = killed_and_resumed(file, folder / "killed")
        repeated = [name for name, stamp in before.items() if after.get(name) != stamp]
        print(
            f"killed after {len(before)} of {RUNS} runs; resumed: {len(after)} runs, {len(repeated)} of them repeated"
        )
        alone, dask = folder / "alone", folder / "dask"
        sweep(file, alone, "--jobs", "1")
        sweep(file, dask, "--on", "dask", "--jobs", "2")
        same = all(tables(other) == tables(alone) for other in (folder / "killed", dask))
        print(
            f"tables of the resumed sweep, of one process and of two Dask workers: {'same bytes' if same else 'DIFFER'}"
        )
        print(efficiency(folder))
        if len(before) >= RUNS or len(after) != RUNS or repeated or not same:
            sys.exit("the sweep lost, repeated or changed something")


def killed_and_resumed(file: Path, out: Path) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]]]:
    """The runs that were there after SIGKILL to the first process, and after the same command again."""
    started = subprocess.Popen(command(file, out, "--jobs", "2"), start_new_session=True)
    while len(stamps(out)) < RUNS // 2 and started.poll() is None:
        time.sleep(0.05)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    before = stamps(out)
    sweep(file, out, "--jobs", "2")
    return before, stamps(out)


def efficiency(folder: Path) -> str:
    """One process against two, by CPU seconds and by the clock, on runs of a size that people do, in turns."""
    plan = plan_sweep(parse_yaml(LONGER, "x.yaml"), "x", folder, [parse_over(text) for text in OVER])
    used, wall = {1: 0.0, 2: 0.0}, {1: 0.0, 2: 0.0}
    for turn, jobs in enumerate((1, 2) * TURNS):
        out = folder / f"turn-{turn}"
        cpu, clock = cpu_seconds(), time.perf_counter()
        carry_out_sweep(plan, out, executor("local", jobs), progress=False)
        used[jobs] += cpu_seconds() - cpu
        wall[jobs] += time.perf_counter() - clock
        write_sweep(plan, out)
    load = os.getloadavg()[0]
    return (
        f"{TURNS} times {len(plan.runs)} runs: {used[1]:.1f} CPU seconds on one process, {used[2]:.1f} on two: "
        f"efficiency {used[1] / used[2]:.0%}; by the clock {wall[1]:.1f} s and {wall[2]:.1f} s: "
        f"{wall[1] / wall[2] / 2:.0%} (load average {load:.1f} on {os.cpu_count()} cores)"
    )


def cpu_seconds() -> float:
    """Of this process and of those of its children that have ended."""
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def stamps(out: Path) -> dict[str, tuple[int, int]]:
    """Which file each run's summary is and when it was written: another one if the run was done again."""
    found = {file.parent.name: file.stat() for file in (out / "runs").glob("[!.]*/summary.json")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


def tables(out: Path) -> list[bytes]:
    """The combined table, both ways."""
    return [(out / name).read_bytes() for name in TABLES]


def command(file: Path, out: Path, *words: str) -> list[str]:
    """The sweep as on a command line."""
    over = [word for text in OVER for word in ("--over", text)]
    return [sys.executable, "-m", "caesura", "sweep", str(file), *over, "--out", str(out), "--quiet", *words]


def sweep(file: Path, out: Path, *words: str) -> None:
    """Carry the sweep out; an error where it fails."""
    subprocess.run(command(file, out, *words), check=True)


if __name__ == "__main__":
    main()
