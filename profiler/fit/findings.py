"""What a fit found: a profile, what it was made from, and how right its costs should be."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from profiler.fit.measurements import Floats, Measurements
from sim.costs.cost_model import CostModel
from sim.costs.profile import Profile

MEDIAN_AIM, P95_AIM = 0.03, 0.08
"""Largest relative errors, in the median and at P95, of costs that meet their aim."""
HELD_OUT = ("held-out", "held-out-long")
"""Sets of random batches, which no fit has seen."""


@dataclass(frozen=True, slots=True)
class Findings:
    """A profile and what it was made from, for figures and tables.

    Attributes:
        points: every measured iteration.
        predicted: seconds for each of them.
        curve: iteration seconds by query tokens of one chunk without prior context, the points that S comes from.
        iterations, copies, beside, recompute, serving: the samples.
    """

    profile: Profile
    points: Measurements
    predicted: Floats
    curve: tuple[Floats, Floats]
    copies: pd.DataFrame
    beside: pd.DataFrame
    recompute: pd.DataFrame
    serving: pd.DataFrame


def recompute_time(costs: CostModel, context: int, chunk: int) -> float:
    """Seconds to compute a context in chunks, one iteration each."""
    starts = range(0, context, chunk)
    return sum(costs.forward_time(min(chunk, context - start), start) for start in starts)
