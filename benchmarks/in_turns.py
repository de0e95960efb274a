"""Whether a checkout is slower than another: cases of the benchmark run in turns in both, and the ratio of the medians.

    python -m benchmarks.in_turns ../old . --share 0.2                 # all cases but the large ones
    python -m benchmarks.in_turns ../old . a b-infercept --runs 7

Each checkout measures with its own ``.venv`` and its own ``benchmarks.measure``, each run in a process of its own. The
runs of a case alternate, old new new old, so that a machine that slows down or speeds up does so for both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import named
from benchmarks.cases import cases


@dataclass(frozen=True)
class Compared:
    """CPU seconds of one case, run by run, in the old and the new checkout."""

    case: str
    old: Sequence[float]
    new: Sequence[float]

    @property
    def ratio(self) -> float:
        """Median of the new checkout over that of the old one: above 1 is slower."""
        return statistics.median(self.new) / statistics.median(self.old)

    @property
    def noise(self) -> float:
        """How far the runs of one checkout lie apart, at most, as a share of their median."""
        return max((max(runs) - min(runs)) / statistics.median(runs) for runs in (self.old, self.new))


def cpu_s(checkout: Path, case: str, share: float) -> float:
    """CPU seconds of a case in a checkout.

    Raises:
        RuntimeError: the checkout cannot run it.
    """
    root = checkout.resolve()
    command = [str(root / ".venv/bin/python"), "-m", "benchmarks.measure", case, "--share", repr(share)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{checkout}: {case} failed:\n{done.stderr}")
    return float(json.loads(done.stdout)["cpu_s"])


def in_turns(old: Path, new: Path, case: str, runs: int, share: float) -> Compared:
    """Run a case ``runs`` times in each checkout, the order turned round each time."""
    seconds: dict[Path, list[float]] = {old: [], new: []}
    for turn in range(runs):
        for checkout in (old, new) if turn % 2 == 0 else (new, old):
            seconds[checkout].append(cpu_s(checkout, case, share))
    return Compared(case, seconds[old], seconds[new])


def as_table(compared: Sequence[Compared]) -> Table:
    """A row for each case."""
    table = Table("case", *("old, CPU s", "new, CPU s", "new / old", "noise"))
    for column in table.columns[1:]:
        column.justify = "right"
    for one in compared:
        medians = (f"{statistics.median(runs):.3f}" for runs in (one.old, one.new))
        table.add_row(one.case, *medians, f"{one.ratio:.3f}", f"{one.noise:.0%}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="a checkout with its own .venv")
    parser.add_argument("new", type=Path, help="another one")
    parser.add_argument("cases", nargs="*", help="names or their beginnings; all but the large ones without any")
    parser.add_argument("--runs", type=int, default=5, help="of each case in each checkout; the median counts")
    parser.add_argument("--share", type=float, default=1.0, help="of each workload")
    options = parser.parse_args()
    if options.old.resolve() == options.new.resolve():
        parser.error("OLD and NEW are the same checkout")
    if options.runs < 1 or not 0 < options.share <= 1:
        parser.error("--runs is at least 1, --share above 0 and at most 1")
    wanted = options.cases
    chosen = [one for one in cases() if (any(named(one, name) for name in wanted) if wanted else not one.once)]
    if not chosen:
        parser.error(f"no such case; there are {', '.join(one.name for one in cases())}")
    compared, missing = [], []
    for one in chosen:
        try:
            compared.append(in_turns(options.old, options.new, one.name, options.runs, options.share))
        except RuntimeError as error:
            missing.append(str(error).strip())
            continue
        print(f"{one.name}: {compared[-1].ratio:.3f}", file=sys.stderr, flush=True)
    console = Console(width=None if sys.stdout.isatty() else 120)
    if compared:
        console.print(as_table(compared))
        ratios = [one.ratio for one in compared]
        console.print(f"median of {len(ratios)} cases: {statistics.median(ratios):.3f}; worst: {max(ratios):.3f}")
    for error in missing:
        print(error, file=sys.stderr)
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
