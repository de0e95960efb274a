"""Whether two checkouts simulate the same: their results byte for byte, and where they differ column by column.

    python -m benchmarks.compare_checkouts ../old .                              # some minutes for each checkout
    python -m benchmarks.compare_checkouts ../old . --old-results runs/checkouts/old
    python -m benchmarks.compare_checkouts ../old . --only quickstart

Each checkout runs with its own ``.venv``, from its own root: the quickstart; all systems, shortened to two loads, one
seed and 100 s; and the replays of the recorded runs. What says how a result was made (provenance, configuration) is not
compared. Exit code 1 if any result differs in more than added or renamed columns.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

SHORTER = ("seeds=1", "workload.duration=100 s", "workload.arrivals.poisson.rate=[4, 8]")
EXPERIMENTS: dict[str, tuple[str, ...]] = {
    "quickstart": ("compare", "configs/quickstart.yaml"),
    "all-systems": (
        "compare",
        "configs/experiments/all-systems.yaml",
        *(word for override in SHORTER for word in ("--set", override)),
    ),
    "validation": ("validate", "--recorded"),
}
NO_RESULTS = {"provenance.json"}
NO_RESULT_KEYS = {"versions", "folder", "key"}
"""Keys of JSON documents that say how or where a result was made."""


@dataclass(frozen=True)
class Difference:
    """How a file differs.

    Attributes:
        experiment, run, file: where; ``run`` is a run's folder without its key, empty for tables over all runs.
        renamed: columns that have another name, old to new, with the same values.
        added, removed: columns that only the new or only the old file has.
        changed: columns with other values; a file that only one checkout wrote says so here.
    """

    experiment: str
    run: str
    file: str
    renamed: tuple[tuple[str, str], ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def same_results(self) -> bool:
        """Whether nothing but added and renamed columns differs."""
        return not (self.removed or self.changed)

    def __str__(self) -> str:
        parts = [
            ("differ", ", ".join(self.changed)),
            ("removed", ", ".join(self.removed)),
            ("renamed", ", ".join(f"{old} -> {new}" for old, new in self.renamed)),
            ("added", ", ".join(self.added)),
        ]
        return "; ".join(f"{word}: {columns}" for word, columns in parts if columns) or "same values in other bytes"


def run_experiments(checkout: Path, results: Path, names: list[str], jobs: int) -> None:
    """Run experiments in a checkout, into ``results/NAME`` each."""
    root = checkout.resolve()
    environment = os.environ | {"PYTHONPATH": str(root)}
    for name in names:
        out = (results / name).resolve()
        shutil.rmtree(out, ignore_errors=True)
        words = [*EXPERIMENTS[name], "--jobs", str(jobs), "--quiet", "--out", str(out)]
        print(f"{checkout}: caesura {' '.join(EXPERIMENTS[name])}", file=sys.stderr, flush=True)
        command = [str(root / ".venv/bin/python"), "-m", "caesura", *words]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{checkout}: caesura {' '.join(words)} failed:\n{done.stderr}")


def result_files(folder: Path) -> dict[tuple[str, str], Path]:
    """Result files by run and name. A run's folder ends in a key of its inputs, which is no result."""
    found = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".json", ".parquet", ".csv") and file.name not in NO_RESULTS:
            run = file.parent.name.rpartition(".")[0] if file.parent.parent.name == "runs" else ""
            found[run, file.name] = file
    return found


def compare_results(experiment: str, old: Path, new: Path) -> tuple[int, list[Difference]]:
    """How many files are equal byte for byte, and how the others differ."""
    before, after = result_files(old), result_files(new)
    equal, found = 0, []
    for run, name in sorted(before.keys() | after.keys()):
        if (run, name) not in before or (run, name) not in after:
            where = "new" if (run, name) in after else "old"
            found.append(Difference(experiment, run, name, changed=(f"only the {where} checkout wrote it",)))
        elif before[run, name].read_bytes() == after[run, name].read_bytes():
            equal += 1
        else:
            found.append(compare_files(experiment, run, before[run, name], after[run, name]))
    return equal, found


def compare_files(experiment: str, run: str, old: Path, new: Path) -> Difference:
    """Two files that differ in bytes, column by column."""
    before, after = columns(old), columns(new)
    removed = [name for name in before if name not in after]
    added = [name for name in after if name not in before]
    renamed = []
    for name in list(removed):
        twin = next((other for other in added if _same(before[name], after[other])), None)
        if twin is not None:
            renamed.append((name, twin))
            removed.remove(name)
            added.remove(twin)
    changed = [name for name in before if name in after and not _same(before[name], after[name])]
    return Difference(experiment, run, old.name, tuple(renamed), tuple(added), tuple(removed), tuple(changed))


def columns(file: Path) -> dict[str, pd.Series[Any]]:
    """A file's columns: of a table, or the leaves of a JSON document by their paths, list places left out."""
    if file.suffix == ".parquet":
        table = pd.read_parquet(file)
    elif file.suffix == ".csv":
        table = pd.read_csv(file)
    else:
        gathered: dict[str, list[Any]] = defaultdict(list)
        for path, value in leaves(json.loads(file.read_text())):
            gathered[path].append(value)
        return {path: pd.Series(values, dtype=object) for path, values in gathered.items()}
    return {str(name): table[name] for name in table.columns}


def leaves(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values in a JSON document that are results, with the keys that lead to them."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key not in NO_RESULT_KEYS:
                yield from leaves(value, f"{path}.{key}" if path else key)
    elif isinstance(document, list):
        for value in document:
            yield from leaves(value, f"{path}[]")
    else:
        yield path, document


def _same(one: pd.Series[Any], other: pd.Series[Any]) -> bool:
    return one.equals(other)


def report(experiment: str, equal: int, found: list[Difference]) -> None:
    """Print one line for each file and kind of difference, with the runs that it is found in."""
    print(f"{experiment}: {equal} files equal byte for byte, {len(found)} others")
    groups: dict[tuple[bool, str, str], list[str]] = defaultdict(list)
    for one in found:
        groups[one.same_results, one.file, str(one)].append(one.run)
    for (same, file, what), runs in sorted(groups.items()):
        systems = sorted({run.partition(".load-")[0] for run in runs} - {""})
        where = f" of {len(runs)} runs ({', '.join(systems)})" if systems else ""
        print(f"  {'equal but for' if same else 'DIFFERS'}: {file}{where}: {what}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="a checkout with its own .venv")
    parser.add_argument("new", type=Path, help="another one")
    parser.add_argument("--jobs", type=int, default=1, help="processes [1]")
    parser.add_argument("--only", choices=sorted(EXPERIMENTS), action="append", help="an experiment; all by default")
    parser.add_argument("--out", type=Path, default=Path("runs/checkouts"), help="results go to OUT/old and OUT/new")
    parser.add_argument("--old-results", type=Path, help="results of an earlier run of OLD, as it left them in OUT/old")
    options = parser.parse_args()
    names = [name for name in EXPERIMENTS if not options.only or name in options.only]
    old, new = options.old_results or options.out / "old", options.out / "new"
    if options.old_results is None:
        run_experiments(options.old, old, names, options.jobs)
    differs = False
    for name in names:
        run_experiments(options.new, new, [name], options.jobs)
        equal, found = compare_results(name, old / name, new / name)
        report(name, equal, found)
        differs |= equal == 0 or not all(one.same_results for one in found)
    return int(differs)


if __name__ == "__main__":
    sys.exit(main())
