"""A sweep of 504 runs: killed half-way and resumed, repeated on one process and on Dask, and what two cores gain.

python -m benchmarks.sweep_kill                     # all of it
python -m benchmarks.sweep_kill --ray               # 72 of the runs killed and resumed on two Ray workers
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

RUNS_A_SEED = 72
TABLES = ("results.parquet", "results.csv")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="where the runs stay; without it they are thrown away")
    parser.add_argument("--efficiency-only", action="store_true", help="kill nothing; compare one process with two")
    parser.add_argument("--ray", action="store_true", help="kill and resume 72 runs on Ray, and no more")
    parser.add_argument("--turns", type=int, default=3, help="of one process, two, and two that share nothing")
    parser.add_argument("--seeds", type=int, default=3, help="of the runs that are compared: 72 each")
    parser.add_argument("--seconds", type=float, default=60.0, help="of arrivals, of each run that is compared")
    options = parser.parse_args()
    if options.turns < 1 or options.seeds < 1 or options.seconds <= 0:
        parser.error("--turns and --seeds are at least 1, --seconds above 0")
    with tempfile.TemporaryDirectory(prefix="caesura-sweep-") as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        holds = options.efficiency_only or (loses_nothing_on_ray(folder) if options.ray else loses_nothing(folder))
        if not options.ray:
            for line in lines(compare(folder, options.seconds, options.seeds, options.turns)):
                print(line)
    if not holds:
        sys.exit("the sweep lost, repeated or changed something")


def loses_nothing(folder: Path) -> bool:
    """Kill a sweep on two processes, resume it, repeat it elsewhere, and say what came of it."""
    file, kept = killed_and_resumed(folder, 7, "--jobs", "2")
    alone, dask = folder / "alone", folder / "dask"
    sweep(file, alone, "--jobs", "1")
    sweep(file, dask, "--on", "dask", "--jobs", "2")
    same = all(tables(other) == tables(alone) for other in (folder / "killed", dask))
    print(f"tables of the resumed sweep, of one process and of two Dask workers: {'same bytes' if same else 'DIFFER'}")
    return kept and same


def loses_nothing_on_ray(folder: Path) -> bool:
    """Kill a sweep on two Ray workers, resume it, repeat it on one process, and say what came of it."""
    file, kept = killed_and_resumed(folder, 1, "--on", "ray", "--jobs", "2")
    sweep(file, folder / "alone", "--jobs", "1")
    same = tables(folder / "killed") == tables(folder / "alone")
    print(f"tables of the sweep resumed on Ray and of one process: {'same bytes' if same else 'DIFFER'}")
    return kept and same


def killed_and_resumed(folder: Path, seeds: int, *where: str) -> tuple[Path, bool]:
    """The experiment, and whether no run was lost by SIGKILL to the first process nor done again by its successor."""
    file, out, runs = folder / "x.yaml", folder / "killed", seeds * RUNS_A_SEED
    file.write_text(experiment(seconds=10.0, seeds=seeds))
    started = subprocess.Popen(command(file, out, *where), start_new_session=True)
    while len(stamps(out)) < runs // 2 and started.poll() is None:
        time.sleep(0.05)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    before = stamps(out)
    sweep(file, out, *where)
    after = stamps(out)
    repeated = [name for name, stamp in before.items() if after.get(name) != stamp]
    print(f"killed after {len(before)} of {runs} runs; resumed: {len(after)} runs, {len(repeated)} of them repeated")
    return file, len(before) < runs == len(after) and not repeated


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
