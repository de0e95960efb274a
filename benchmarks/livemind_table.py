"""LiveMind's latency table beside the published one: ``python -m benchmarks.livemind_table runs/livemind``.

Reads what ``caesura run configs/experiments/livemind.yaml --out runs/livemind`` wrote. Published are the mean seconds
of Llama-3-70B on MMLU-Pro (arXiv 2406.14319, v1; by prompt length from its data for each question).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

import caesura

PUBLISHED = {
    "sentences-1-2": (15.29, 4.90, 7.06),
    "sentences-3-5": (17.51, 9.55, 16.4),
    "sentences-6-10": (16.48, 5.47, 24.6),
    "sentences-11-20": (16.32, 2.01, 43.8),
    "sentences-over-20": (14.12, 2.50, 94.1),
}
SYSTEMS = ["whole-prompt", "livemind", "livemind-no-reuse"]


def main(folder: Path) -> None:
    """Print latencies and generation times, one row a prompt length, as Markdown."""
    found = caesura.load(folder)
    sessions = found.sessions
    latency = sessions.pivot_table(index="kind", columns="system", values="e2el")[SYSTEMS]
    counts = sessions[sessions["system"] == SYSTEMS[0]].groupby("kind").size()
    print("| sentences | n | published: whole | LiveMind | less | whole-prompt | livemind | less | no-reuse | less |")
    print("| --- " * 10 + "|")
    for kind, (whole, state, _) in PUBLISHED.items():
        print(_latency_row(kind.removeprefix("sentences-"), int(counts[kind]), whole, state, *latency.loc[kind]))
    everyone = sessions.groupby("system")["e2el"].mean()[SYSTEMS]
    print(_latency_row("all", int(counts.sum()), 16.33, 6.66, *everyone))
    generation = _generation_seconds(found.calls, sessions)[SYSTEMS]
    print("\n| sentences | published: LiveMind | times whole | whole-prompt | livemind | times | no-reuse | times |")
    print("| --- " * 8 + "|")
    for kind, (published, _, spent) in PUBLISHED.items():
        whole, state, anew = generation.loc[kind]
        cells = (
            f"{spent} | {spent / published:.1f}",
            f"{state:.1f} | {state / whole:.1f}",
            f"{anew:.1f} | {anew / whole:.1f}",
        )
        print(f"| {kind.removeprefix('sentences-')} | {cells[0]} | {whole:.1f} | {cells[1]} | {cells[2]} |")


def _latency_row(name: str, count: int, published: float, state: float, whole: float, reuse: float, anew: float) -> str:
    less = [f"{100 * (1 - part / of):.0f} %" for part, of in ((state, published), (reuse, whole), (anew, whole))]
    seconds = (f"{published:.2f} | {state:.2f}", f"{whole:.2f} | {reuse:.2f}", f"{anew:.2f}")
    return (
        f"| {name} | {count} | " + " | ".join(f"{one} | {two}" for one, two in zip(seconds, less, strict=True)) + " |"
    )


def _generation_seconds(calls: pd.DataFrame, sessions: pd.DataFrame) -> pd.DataFrame:
    """Mean seconds that the calls of a session ran, inferences and answer, by kind and system."""
    spent = calls.assign(seconds=calls["finished_at"] - calls["scheduled_at"])
    spent = spent.groupby(["system", "session"])["seconds"].sum().reset_index()
    spent = spent.merge(sessions, left_on=["system", "session"], right_on=["system", "id"])
    return spent.pivot_table(index="kind", columns="system", values="seconds")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
