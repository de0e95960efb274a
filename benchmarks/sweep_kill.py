"""A sweep of 504 runs: killed half-way and resumed, repeated on one process and on Dask, and what two cores gain.

python -m benchmarks.sweep_kill                     # all of it
python -m benchmarks.sweep_kill --efficiency-only   # what two cores gain (benchmarks/sweep_efficiency.py)

Ends with an error if a run was lost by SIGKILL or done twice, or if the tables are not the same to the last byte
however they were made.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.sweep_efficiency import compare, lines
from benchmarks.sweep_turn import OVER, experiment

RUNS = 504
TABLES = ("results.parquet", "results.csv")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="where the runs stay; without it they are thrown away")
    parser.add_argument("--efficiency-only", action="store_true", help="kill nothing; compare one process with two")
    parser.add_argument("--turns", type=int, default=3, help="of one process, two, and two that share nothing")
    parser.add_argument("--seeds", type=int, default=3, help="of the runs that are compared: 72 each")
    parser.add_argument("--seconds", type=float, default=60.0, help="of arrivals, of each run that is compared")
    options = parser.parse_args()
    if options.turns < 1 or options.seeds < 1 or options.seconds <= 0:
        parser.error("--turns and --seeds are at least 1, --seconds above 0")
    with tempfile.TemporaryDirectory(prefix="caesura-sweep-") as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        holds = options.efficiency_only or loses_nothing(folder)
        for line in lines(compare(folder, options.seconds, options.seeds, options.turns)):
            print(line)
    if not holds:
        sys.exit("the sweep lost, repeated or changed something")


def loses_nothing(folder: Path) -> bool:
    """Kill a sweep, resume it, repeat it elsewhere, and say what came of it."""
    file = folder / "x.yaml"
    file.write_text(experiment(seconds=10.0, seeds=7))
    before, after = killed_and_resumed(file, folder / "killed")
    repeated = [name for name, stamp in before.items() if after.get(name) != stamp]
    print(f"killed after {len(before)} of {RUNS} runs; resumed: {len(after)} runs, {len(repeated)} of them repeated")
    alone, dask = folder / "alone", folder / "dask"
    sweep(file, alone, "--jobs", "1")
    sweep(file, dask, "--on", "dask", "--jobs", "2")
    same = all(tables(other) == tables(alone) for other in (folder / "killed", dask))
    print(f"tables of the resumed sweep, of one process and of two Dask workers: {'same bytes' if same else 'DIFFER'}")
    return len(before) < RUNS == len(after) and not repeated and same


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
