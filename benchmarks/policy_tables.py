"""The tables of docs/comparison.md: ``python -m benchmarks.policy_tables runs/all-systems LOAD``.

Reads what ``caesura run configs/experiments/all-systems.yaml --out runs/all-systems`` wrote. A cell is one load.
Of each it says how ``caesura`` compares with the best published system that is told nothing of the future, in the mean
normalized latency and in its P99, both means over the seeds; and on how many of the seeds it is the lower one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import caesura
from caesura.errors import UserError
from caesura.results.comparison import Comparison
from caesura.results.tables import possible_saving
from caesura.results.text_table import number

OURS = "caesura"
MEASURES = {"mean": "mean_normalized_latency_s", "P99": "p99_normalized_latency_s"}
TIE = 0.002
"""Means that differ by no more than this share are said to tie."""


def main(folder: Path, load: float) -> None:
    """Print the tables as Markdown; the waste saved is that at ``load``."""
    found = caesura.load(folder)
    oracles = set(found.oracles())
    for name, measure in MEASURES.items():
        print(f"\n{name} normalized latency, ms per token, over {len(found.seeds)} seeds\n")
        _print_latencies(found, measure, oracles, load if name == "mean" else None)
    print("\nof caesura to the best of the others that is no oracle; of seeds, how many it is the lower on\n")
    _print_cells(found, [one for one in found.systems if one not in oracles and not one.startswith(OURS)])
    print("\nof caesura to cache-lru, and to the best oracle\n")
    _print_ratios(found, oracles)


def _print_latencies(found: Comparison, measure: str, oracles: set[str], load: float | None) -> None:
    means = found.table.pivot_table(index="system", columns="load", values=measure).loc[found.systems]
    means = means.sort_values(by=means.columns[::-1].tolist())
    saved = {} if load is None else dict(zip(found.at(load)["system"], possible_saving(found.at(load)), strict=True))
    more: list[str] = [] if load is None else ["holds", f"waste saved at {load:g}"]
    loads = [f"{one:g}" for one in found.loads]
    print("| system | " + " | ".join(loads + more) + " |")
    print("| --- " * (1 + len(found.loads) + len(more)) + "|")
    for system, row in means.iterrows():
        cells = [number(1e3 * value) for value in row]
        if saved:
            cells += [str(found.sustained[str(system)]), f"{saved[system]:.0f} %"]
        print(f"| `{system}`{'*' if system in oracles else ''} | " + " | ".join(cells) + " |")


def _print_cells(found: Comparison, others: Sequence[str]) -> None:
    print("| load | " + " | ".join(f"{name} | the best other | seeds" for name in MEASURES) + " | spread of the mean |")
    print("| --- " * (2 + 3 * len(MEASURES)) + "|")
    for load in found.loads:
        cells = []
        for measure in MEASURES.values():
            by_seed = _by_seed(found, measure, load)
            means = by_seed.mean()
            best = str(means[list(others)].idxmin())
            ratio = float(means[OURS] / means[best])
            lower = int((by_seed[OURS] < by_seed[best]).sum())
            word = "ties" if abs(ratio - 1) <= TIE else "wins" if ratio < 1 else "loses"
            cells += [f"{word}, {100 * (ratio - 1):+.1f} %", f"`{best}`", f"{lower} of {len(by_seed)}"]
        ours = 1e3 * _by_seed(found, MEASURES["mean"], load)[OURS]
        print(f"| {load:g} | " + " | ".join(cells) + f" | {number(ours.min())} to {number(ours.max())} |")


def _print_ratios(found: Comparison, oracles: set[str]) -> None:
    for name, measure in MEASURES.items():
        for rival, systems in (("cache-lru", ["cache-lru"]), ("the best oracle", sorted(oracles))):
            ratios = []
            for load in found.loads:
                means = _by_seed(found, measure, load).mean()
                ratios.append(f"{100 * (means[OURS] / means[systems].min() - 1):+.1f} %")
            print(f"{name} to {rival}: " + ", ".join(ratios))


def _by_seed(found: Comparison, measure: str, load: float) -> pd.DataFrame:
    """One row a seed, one column a system, at one load."""
    rows = found.runs[found.runs["load"] == load]
    return rows.pivot_table(index="seed", columns="system", values=measure).astype(float)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), float(sys.argv[2]))
    except UserError as error:
        sys.exit(f"{Path(__file__).stem}: {error}")
