"""What four samples of each prompt took, system by system: ``python -m benchmarks.segment_kv_table runs/segment-kv``.

Reads what ``caesura run configs/experiments/segment-kv.yaml --out runs/segment-kv`` wrote.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

import caesura
from caesura.errors import UserError
from caesura.results.figures import USES

COLUMNS = ("tokens/s", "mean, ms per token", "P99", "TTFT, s", "TPOT, ms", "batch", "peak memory, %", "preempted")


def main(folder: Path) -> None:
    """Print one row a load and system, as Markdown."""
    found = caesura.load(folder)
    peaks = _peaks(found.timeline, found.table)
    print("| sessions/s | system | " + " | ".join(COLUMNS) + " |")
    print("| ---: | --- |" + " ---: |" * len(COLUMNS))
    for load in found.loads:
        for _, row in found.at(load).iterrows():
            batch, memory = peaks.loc[(row["system"], load)]
            cells = (
                f"{row['output_throughput']:,.0f}",
                f"{1e3 * row['mean_normalized_latency_s']:.1f}",
                f"{1e3 * row['p99_normalized_latency_s']:.0f}",
                f"{row['mean_ttft_ms'] / 1e3:.2f}",
                f"{row['mean_tpot_ms']:.1f}",
                f"{batch:.0f}",
                f"{memory:.0f}",
                f"{row['preemptions']:.0f}",
            )
            print(f"| {load:g} | `{row['system']}` | {' | '.join(cells)} |")


def _peaks(timeline: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The largest number of branches that ran and of GPU blocks in use, in percent of the pool: means over a second,
    the largest of each run, averaged over the seeds."""
    pool = table["gpu_blocks"].iloc[0]
    steps = timeline.assign(memory=100 * timeline[list(USES)].sum(axis="columns") / pool)
    runs = steps.groupby(["system", "load", "seed"])[["running", "memory"]].max()
    return runs.groupby(["system", "load"]).mean()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except UserError as error:
        sys.exit(f"{Path(__file__).stem}: {error}")
