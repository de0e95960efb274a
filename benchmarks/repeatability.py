"""How much a real run differs from the same run made again on the same card: what no simulator can undercut.

    .venv/bin/python -m benchmarks.repeatability

Compares the runs of ``benchmarks/recorded_again`` with those of the same name that ship, as simulated runs are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from caesura.fidelity.fidelity import Fidelity, compare
from caesura.fidelity.replays import choose_costs
from profiler.serving.recorded_run import SHIPPED, RecordedRun, load, replay

AGAIN = Path(__file__).resolve().parent / "recorded_again"
BENCH = SHIPPED / "h200-llama-3.1-8b"
FIGURES = [*(f"normalized latency {s}" for s in ("mean", "p50", "p90", "p99")), "TTFT mean", "TPOT mean", "throughput"]


def main() -> None:
    """A line a pair, and the simulator against each run, as Markdown."""
    pairs = [(load(BENCH / folder.name), load(folder)) for folder in sorted(AGAIN.glob("*.load-*"))]
    print("| run | norm. lat. mean | P50 | P90 | P99 | TTFT mean | TPOT mean | throughput | MAPE | host, ms |")
    print(f"| --- |{' ---: |' * 9}")
    for pair in pairs:
        first, again = pair
        found = compare(first, again.record)
        host = " / ".join(f"{_host_ms(run):.2f}" for run in pair)
        print(f"| {first.name} @ {first.load:g} | {_cells(found, FIGURES)} | {found.mape_pct:.1f} | {host} |")
    print()
    print("| simulated against | norm. lat. mean | P50 | P90 | P99 | TTFT mean | TPOT mean |")
    print(f"| --- |{' ---: |' * 6}")
    costs = choose_costs(None)
    for pair in pairs:
        for run, which in zip(pair, ("first", "second"), strict=True):
            _, profile = costs.of_run(run)
            cells = _cells(compare(run, replay(run, profile)), FIGURES[:6])
            print(f"| the {which} {run.name} @ {run.load:g} | {cells} |")


def _cells(found: Fidelity, figures: Sequence[str]) -> str:
    return " | ".join(f"{round(found.error_pct[name], 1) + 0.0:+.1f}" for name in figures)


def _host_ms(run: RecordedRun) -> float:
    """The host's part of an iteration in the mean, without what copies made it wait for."""
    seconds = float(run.provenance["host_s"]) - float(run.record.totals["swap_stall_s"])
    return 1e3 * seconds / int(run.provenance["iterations"])


if __name__ == "__main__":
    main()
