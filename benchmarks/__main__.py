"""How fast the simulator is: CPU seconds, median of five, each run in a process of its own, one on each core.

The large cases, and a share of each case with leaps and iteration by iteration, are done once.

python -m benchmarks                      # everything, some ten minutes on two cores; writes runs/bench/
python -m benchmarks a b-infercept c      # some cases
python -m benchmarks --runs 1 --share 0.1 # a look
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from benchmarks.cases import Case, cases
from benchmarks.machine import cores, processor
from benchmarks.measure import Measured
from benchmarks.results import Result, as_markdown, as_table, legend, ratios

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="names or their beginnings; all without any")
    parser.add_argument("--runs", type=int, default=5, help="of each case; the median counts")
    parser.add_argument("--share", type=float, default=1.0, help="of each workload")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, help="processes; by default one a core")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    if options.runs < 1 or options.at_once < 1 or not 0 < options.share <= 1:
        parser.error("--runs and --at-once are at least 1, --share above 0 and at most 1")
    chosen = [one for one in cases() if not options.cases or any(named(one, name) for name in options.cases)]
    if not chosen:
        parser.error(f"no such case; there are {', '.join(one.name for one in cases())}")
    console = Console(width=None if sys.stdout.isatty() else 120)
    results = []
    begin = time.monotonic()
    with Progress(console=Console(stderr=True)) as progress, ThreadPoolExecutor(options.at_once) as pool:
        task = progress.add_task("", total=len(chosen))
        begun = {one.name: _begin(pool, one, options.runs, options.share) for one in _longest_first(chosen)}
        try:
            for one in chosen:
                progress.update(task, description=one.name)
                results.append(_result(one, begun[one.name]))
                progress.advance(task)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    about = _about(options, time.monotonic() - begin)
    console.print(as_table(results))
    for line in [*legend(results), *ratios(results), *about.values()]:
        console.print(line, style="dim", highlight=False)
    options.out.mkdir(parents=True, exist_ok=True)
    rows = [asdict(result) for result in results]
    (options.out / "simulator.json").write_text(json.dumps({"about": about, "results": rows}, indent=1) + "\n")
    (options.out / "simulator.md").write_text(as_markdown(results))


def named(one: Case, name: str) -> bool:
    """Whether a case has that name, or one that begins with it."""
    return one.name == name or one.name.startswith(f"{name}-")


def _longest_first(chosen: list[Case]) -> list[Case]:
    return sorted(chosen, key=lambda one: -one.sessions)


def _begin(pool: ThreadPoolExecutor, one: Case, runs: int, share: float) -> list[Future[Measured]]:
    """The runs of a case; last, if they are asked for, a share of it with leaps and iteration by iteration."""
    begun = [pool.submit(_measured, one, share, step=False) for _ in range(1 if one.once else runs)]
    stepped = share * one.stepped_share
    return [*begun, *(pool.submit(_measured, one, stepped, step) for step in (False, True) if stepped)]


def _result(one: Case, begun: list[Future[Measured]]) -> Result:
    ended = [run.result() for run in begun]
    leaping, compared = (ended[:-2], (ended[-2], ended[-1])) if one.stepped_share else (ended, None)
    return Result(
        case=one.name,
        title=one.title,
        system=one.system,
        rate=one.rate,
        least=one.least,
        leaping=_median(leaping),
        compared=compared,
        spread=(max(run.cpu_s for run in leaping) / min(run.cpu_s for run in leaping)) - 1.0,
    )


def _measured(one: Case, share: float, step: bool) -> Measured:
    command = [sys.executable, "-m", "benchmarks.measure", one.name, "--share", repr(share)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *(["--step"] if step else [])], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{one.name} failed:\n{done.stderr}")
    return Measured(**json.loads(done.stdout))


def _median(runs: list[Measured]) -> Measured:
    """The run whose time is the median: the lower one of two."""
    middle = statistics.median_low(run.cpu_s for run in runs)
    return next(run for run in runs if run.cpu_s == middle)


def _about(options: argparse.Namespace, seconds: float) -> dict[str, str]:
    """What the figures were measured on, and how."""
    return {
        "machine": f"{processor()}, {cores()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}, {platform.system()}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": f"python -m benchmarks {' '.join(sys.argv[1:])}".rstrip(),
        "figures": f"median of {options.runs}, the large cases once; {options.share:.0%} of each workload",
        "took": f"{seconds / 60:.0f} minutes, {options.at_once} processes at once",
    }


if __name__ == "__main__":
    main()
