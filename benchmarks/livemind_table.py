"""LiveMind's latency table beside the published one: ``python -m benchmarks.livemind_table runs/livemind``.

Reads what ``caesura run configs/experiments/livemind.yaml --out runs/livemind`` wrote. Published are the mean seconds
of Llama-3-70B on MMLU-Pro (arXiv 2406.14319, v1; by prompt length from its data for each question).
"""

from __future__ import annotations

import sys
from pathlib import Path

import caesura

PUBLISHED = {
    "sentences-1-2": (15.29, 4.90, 7.06),
    "sentences-3-5": (17.51, 9.55, 16.4),
    "sentences-6-10": (16.48, 5.47, 24.6),
    "sentences-11-20": (16.32, 2.01, 43.8),
    "sentences-over-20": (14.12, 2.50, 94.1),
}
SYSTEMS = ("whole-prompt", "livemind", "livemind-no-reuse")
_FULL = "| {} | {} | {:.2f} | {:.2f} | {:.0f} % | {:.2f} | {:.2f} | {:.0f} % | {:.2f} | {:.0f} % |"


def main(folder: Path) -> None:
    """Print one row a prompt length and one for all, as Markdown."""
    sessions = caesura.load(folder).sessions
    latency = sessions.pivot_table(index="kind", columns="system", values="e2el")
    counts = sessions[sessions["system"] == SYSTEMS[0]].groupby("kind").size()
    print("| sentences | n | published whole | LiveMind | less | whole-prompt | livemind | less | no reuse | less |")
    print("| --- " * 10 + "|")
    for kind, (whole, live, _) in PUBLISHED.items():
        print(_row(kind.removeprefix("sentences-"), int(counts[kind]), whole, live, *latency.loc[kind, list(SYSTEMS)]))
    everyone = sessions.groupby("system")["e2el"].mean()
    print(_row("all", int(counts.sum()), 16.33, 6.66, *(everyone[name] for name in SYSTEMS)))


def _row(name: str, count: int, published: float, live: float, whole: float, reuse: float, anew: float) -> str:
    less = [100 * (1 - part / of) for part, of in ((live, published), (reuse, whole), (anew, whole))]
    return _FULL.format(name, count, published, live, less[0], whole, reuse, less[1], anew, less[2])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
