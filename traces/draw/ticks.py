"""Arrivals that were recorded on a coarse grid: spread inside their ticks before a replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from traces.session import Session


def spread_ticks(sessions: Sequence[Session], tick: float, seed: int = 0) -> list[Session]:
    """Move every arrival by a part of a tick, so that those of one tick no longer come at once.

    Sessions with equal arrivals move to times drawn uniformly from the tick that begins there, or from the time until
    the next recorded arrival where that is nearer; they keep their order.

    Args:
        sessions: by arrival.
        tick: seconds of the grid.
        seed: fixes the draws.

    Raises:
        ValueError: a tick that is not positive, or sessions out of order.
    """
    if not tick > 0:
        raise ValueError(f"tick is {tick!r}; it must be > 0 seconds")
    arrivals = np.array([session.arrival for session in sessions], dtype=np.float64)
    if np.any(np.diff(arrivals) < 0):
        raise ValueError("the sessions are not in the order of their arrivals")
    recorded, place = np.unique(arrivals, return_inverse=True)
    room = np.minimum(np.append(np.diff(recorded), tick), tick)
    moved = arrivals + np.random.default_rng(seed).random(len(arrivals)) * room[place]
    times = np.sort(moved).tolist()
    return [replace(session, arrival=time) for session, time in zip(sessions, times, strict=True)]
