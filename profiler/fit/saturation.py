"""The saturation point S: how many query tokens an iteration takes before each further one costs.

The rule: S is where an added token begins to cost half of what it costs once the device is busy computing. Below S the
time to read the weights hides most of a token's work; above, it hides less than half. For costs whose two regimes join
sharply that is where their lines cross, whatever the share; for a p-norm with p = 4 it is at 0.9 of that.

The curve of time over tokens comes from measured points that a staircase of tiles and noise make uneven. So the closest
convex curve is fitted first: the cost of an added token never falls along it.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from profiler.fit.measurements import Floats

SHARE = 0.5


def saturation_point(tokens: Floats, seconds: Floats, share: float = SHARE) -> int:
    """S for one-iteration times ``seconds`` over query ``tokens``, ascending, reaching well into the busy region.

    The busy region is the upper half of the range. The smallest of ``tokens`` if the device is busy from the start.

    Raises:
        ValueError: fewer than four points.
    """
    if len(tokens) < 4:
        raise ValueError(f"a saturation point needs four points at least, not {len(tokens)}")
    smooth = convex(tokens, seconds)
    cost = np.diff(smooth) / np.diff(tokens)
    half = float(np.interp(tokens[-1] / 2, tokens, smooth))
    busy = (smooth[-1] - half) / (tokens[-1] / 2)
    middles = (tokens[1:] + tokens[:-1]) / 2
    if cost[0] >= share * busy:
        return int(tokens[0])
    above = int(np.argmax(cost >= share * busy))
    lower, upper = cost[above - 1], cost[above]
    part = (share * busy - lower) / (upper - lower)
    return round(float(middles[above - 1] + part * (middles[above] - middles[above - 1])))


def convex(x: Floats, y: Floats) -> Floats:
    """The convex, nondecreasing curve over ``x`` with the least relative squared distance from ``y``, at ``x``."""
    hinges = np.maximum(x[:, None] - x[None, :-1], 0.0)
    columns = np.hstack((np.ones((len(x), 1)), hinges))
    scale = np.maximum(columns.max(axis=0), 1e-300)
    weights = 1.0 / y
    found, _ = nnls(columns / scale * weights[:, None], np.ones(len(x)))
    smooth: Floats = columns / scale @ found
    return smooth
