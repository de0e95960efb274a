"""Sustained load: the highest load at which a system still holds the objective, and what a gain is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


def load_text(load: float) -> str:
    """A load for a table: two decimals, and three digits of one that is small."""
    return f"{load:.2f}" if load >= 0.1 or load == 0 else f"{load:.3g}"


@dataclass(frozen=True, slots=True)
class Sustained:
    """A sustained load.

    Attributes:
        load: sessions per second (or the speed of a replay).
        bound: ``exact`` when the objective was crossed between two measured loads; ``at least`` when it never was;
            ``below`` when the lowest measured load misses it already.
    """

    load: float
    bound: Literal["exact", "at least", "below"] = "exact"

    def __str__(self) -> str:
        return {"exact": "", "at least": "≥ ", "below": "< "}[self.bound] + load_text(self.load)


def sustained_load(loads: Sequence[float], latencies: Sequence[float | None], objective: float) -> Sustained:
    """The highest load at which the latency is at most ``objective``.

    The latency is made monotone first (at each load, the largest so far), so a dip behind a crossing counts for
    nothing; between two loads its logarithm is interpolated linearly. None stands for a run in which no session
    finished.
    """
    if not loads:
        raise ValueError("no load was measured")
    order = sorted(range(len(loads)), key=lambda index: loads[index])
    below: tuple[float, float] | None = None
    highest = 0.0
    for index in order:
        value = latencies[index]
        highest = max(highest, math.inf if value is None else value)
        if highest > objective:
            if below is None:
                return Sustained(loads[index], "below")
            return Sustained(_crossing(below, (loads[index], highest), objective))
        below = (loads[index], highest)
    assert below is not None
    return Sustained(below[0], "at least")


def _crossing(low: tuple[float, float], high: tuple[float, float], objective: float) -> float:
    (load, latency), (next_load, next_latency) = low, high
    if not math.isfinite(next_latency) or latency <= 0:
        return load
    share = (math.log(objective) - math.log(latency)) / (math.log(next_latency) - math.log(latency))
    return load + share * (next_load - load)


SAME = "1.00×"
"""The ratio of a system to itself, whatever its bounds."""


def ratio_text(one: Sustained, reference: Sustained) -> str:
    """``one / reference`` for a table, with what the bounds allow to be said."""
    if reference.load <= 0 or (one.bound != "exact" and one.bound == reference.bound):
        return "–"
    value = f"{one.load / reference.load:.2f}×"
    larger = one.bound == "at least" or reference.bound == "below"
    smaller = one.bound == "below" or reference.bound == "at least"
    return "≥ " * larger + "≤ " * smaller + value


@dataclass(frozen=True, slots=True)
class Split:
    """A gain over a baseline, split into what its batching rule brings and the rest: total = batching x rest."""

    baseline: str
    twin: str
    system: str
    total: str
    batching: str
    rest: str


def batching_splits(sustained: Mapping[str, Sustained], system: str = "infercept") -> list[Split]:
    """For every baseline that ran under both batching rules: which part of ``system``'s gain is batching.

    The twin of ``X`` is ``X-chunked``; where a preset batches as ``system`` does, its twin is ``X-unchunked``.
    """
    if system not in sustained:
        return []
    pairs = [(name, f"{name}-chunked") for name in sustained] + [(f"{name}-unchunked", name) for name in sustained]
    return [
        Split(
            baseline=old,
            twin=new,
            system=system,
            total=ratio_text(sustained[system], sustained[old]),
            batching=ratio_text(sustained[new], sustained[old]),
            rest=ratio_text(sustained[system], sustained[new]),
        )
        for old, new in pairs
        if old in sustained and new in sustained and system not in (old, new)
    ]
