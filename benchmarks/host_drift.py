"""How the host's time rose and fell while runs were recorded, on two cards of one machine at once.

    .venv/bin/python -m benchmarks.host_drift

What the shipped runs' iterations took beyond what the profile says, in the mean and by the second of the run.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np

from caesura.fidelity.replays import choose_costs, find_recordings
from profiler.serving.recorded_run import RecordedRun, load
from profiler.serving.time_split import expected
from sim.costs.profile import Profile

USUAL = 0.99
"""Iterations whose host took longer than this quantile were interrupted by something else."""


def main() -> None:
    """A line a run, as Markdown, by the time when it began."""
    costs, found = choose_costs(None), []
    for folder in find_recordings(None):
        run = load(folder)
        _, profile = costs.of_run(run)
        found.append((begin(run), str(run.provenance.get("card")), folder.name, *drift(run, profile)))
    print("| began | card | run | host beyond the profile, µs | its slope, µs a second |")
    print("| --- | --- | --- | ---: | ---: |")
    for at, card, name, mean, slope in sorted(found):
        print(f"| {at:%H:%M:%S} | {card} | {name} | {1e6 * mean:+.0f} | {1e6 * slope:+.2f} |")


def begin(run: RecordedRun) -> datetime:
    """When its first session could arrive."""
    return datetime.fromisoformat(run.provenance["date"]) - timedelta(seconds=run.record.totals["end_time"])


def drift(run: RecordedRun, profile: Profile) -> tuple[float, float]:
    """Seconds an iteration, and seconds a second, over iterations that waited for no copies."""
    rows = run.iterations
    assert rows is not None, f"{run.label} has no iterations"
    _, host = expected(rows, profile)
    beyond = (rows["wall_s"] - rows["device_s"]).to_numpy() - host
    free = rows["stalled"].to_numpy() == 0
    usual = free & (beyond < np.quantile(beyond[free], USUAL))
    slope, _ = np.polyfit(rows["ended_s"].to_numpy()[usual], beyond[usual], 1)
    return float(beyond[usual].mean()), float(slope)


if __name__ == "__main__":
    main()
