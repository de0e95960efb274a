"""From the order of measured passes to how much a GPU at its power limit slows down.

The profiler runs each pass between others that are drawn at random, so one and the same pass is measured after heavy
ones and after light ones. What it takes then, relative to its own median, shows what those before it did to the clocks.

Whether a GPU at rest is faster than at the reference is not assumed: ``free_share`` may lie above the mean of the
shares, and then it is not. On two H200 it lay at 0.4 with the reference at 0.5; left out of a fold that is a tenth of
the passes, 53 and 52 % of the variance within passes remained with it, 57 and 56 % without any gain below 0.5. What the
samples do not show is a share below 0.2 (0.2 % of the passes): there the gain at 0.4 is extrapolated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from profiler.points import Floats, Mask, Points, names_of
from sim.profile import PhysicalForward, PowerLimit

MEMORIES = (0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2)
FREE_SHARES = (0.0, 0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
LEAST_REPEATS = 4
"""A pass that was measured less often says little about its own median."""
INTERRUPTED = 0.15
"""Relative distance from the median beyond which something else disturbed a pass."""
WORTH = 0.9
"""The slowdown is kept if what remains of the variance within passes is below this share."""
LONGEST_PREPARATION_S = 0.02


@dataclass(frozen=True, slots=True)
class _Series:
    """Measured passes in the order in which they ran.

    Attributes:
        seconds: of wall time from one to the next.
        busy: of matrix work in each, on the device.
        work: its share of the pass.
        times: relative to the median of the same pass.
        passes: which pass, as numbers from 0.
        chosen: those that the fit may use.
    """

    seconds: Floats
    busy: Floats
    work: Floats
    times: Floats
    passes: np.ndarray[tuple[int], np.dtype[np.intp]]
    chosen: Mask


def fit_power(iterations: pd.DataFrame, forward: PhysicalForward, points: Points) -> PowerLimit | None:
    """What heavy passes do to those after them; None where that explains next to nothing.

    Random batches, which later show how right the costs are, are heeded as neighbours only.

    Args:
        iterations: the samples, in the order of measurement.
        forward: costs fitted without regard to the order.
        points: those of ``points_of`` for the samples.
    """
    series = _series(iterations, forward, points)
    before = _within(series.times, series)
    if not series.chosen.any() or not before.any():
        return None
    best, limit = np.inf, None
    for memory in MEMORIES:
        shares = _shares(series, memory)
        for free in FREE_SHARES:
            heard = np.maximum(shares, free)
            columns = np.stack((_within(heard, series), _within(heard * series.work, series)), axis=1)
            (flat, by_work), left = nnls(columns, before)
            if left < best:
                reference = float(heard[series.chosen].mean())
                limit = PowerLimit(memory_s=memory, free_share=free, reference_share=reference,
                                   slowdown=float(flat), slowdown_matrix=float(by_work))  # fmt: skip
                best = float(left)
    return limit if best**2 < WORTH * float(before @ before) else None


def at_reference(iterations: pd.DataFrame, forward: PhysicalForward, points: Points, limit: PowerLimit) -> pd.DataFrame:
    """The samples with the device's time as it would have been at ``limit.reference_share``."""
    series = _series(iterations, forward, points)
    heard = np.maximum(_shares(series, limit.memory_s), limit.free_share) - limit.reference_share
    slower = 1.0 + (limit.slowdown + limit.slowdown_matrix * series.work) * heard
    return iterations.assign(device_s=iterations["device_s"] / slower)


def _series(iterations: pd.DataFrame, forward: PhysicalForward, points: Points) -> _Series:
    names = {name: index for index, name in enumerate(points.names.tolist())}
    passes = names_of(iterations).map(names).to_numpy(dtype=np.intp)
    median, device = points.seconds[passes], iterations["device_s"].to_numpy(dtype=np.float64)
    busy = np.minimum(median, forward.per_token_s * points.tokens[passes])
    repeats = np.bincount(passes, minlength=len(points))[passes]
    times = device / median - 1.0
    usual = (np.abs(times) < INTERRUPTED) & (repeats >= LEAST_REPEATS)
    return _Series(
        seconds=iterations["wall_s"].to_numpy(dtype=np.float64) + _preparations(iterations),
        busy=busy,
        work=busy / median,
        times=times,
        passes=passes,
        chosen=usual & ~np.char.startswith(points.sets[passes], "held-out"),
    )


def _preparations(iterations: pd.DataFrame) -> Floats:
    """Seconds that the host took to set up each pass: what is left of the time between two parts' ends."""
    part = iterations["point"].to_numpy()
    parts = iterations.groupby("point", sort=False)
    took = parts["at_s"].first().diff()
    each = (took - parts["wall_s"].sum()) / parts.size()
    sane = each[(each > 0) & (each < LONGEST_PREPARATION_S)]
    usual = float(sane.median()) if len(sane) else 0.0
    found: Floats = each.where(each.index.isin(sane.index), usual).loc[part].to_numpy(dtype=np.float64)
    return found


def _shares(series: _Series, memory: float) -> Floats:
    """The share of matrix work before each pass; see ``sim.profile.PowerLimit``."""
    found, share = np.empty(len(series.seconds)), 0.0
    for index, (seconds, busy) in enumerate(zip(series.seconds.tolist(), series.busy.tolist(), strict=True)):
        found[index] = share
        share += (busy / seconds - share) * seconds / (memory + seconds)
    return found


def _within(values: Floats, series: _Series) -> Floats:
    """Chosen values, less the mean of the same pass."""
    passes, chosen = series.passes[series.chosen], values[series.chosen]
    means = np.bincount(passes, chosen) / np.maximum(1, np.bincount(passes))
    found: Floats = chosen - means[passes]
    return found
