"""From a real serving run to what the engine adds to an iteration."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from profiler.points import Floats, Mask, Points
from sim.profile import HostCost

SERVED = ("decodes", "chunks", "begun", "opened", "copies_out", "copies_in")
"""Columns of the serving run: sessions that decode, chunks, calls that begin, sessions that arrived since the iteration
before, and whether copies of each direction begin beside it."""
COLD_AFTER_S = 0.02
"""Wait after which half of what a cold host costs is felt. Passes of the grid on two H200 do not tell it well: from 5 to
80 ms they are explained alike."""
RARE = 0.99
"""Iterations beyond this quantile of the engine's time were interrupted by something else."""


def fit_host(serving: pd.DataFrame, points: Points) -> HostCost:
    """Wall less device time. Means, not medians: they add up.

    What the engine and the executor take together is seen in serving; the executor's part, where passes run without an
    engine. A serving run in which every chunk is the first of its call, as was measured formerly, cannot tell the two:
    there what chunks add is taken from the executor's part.
    """
    grid = _usual(points.gap_s)
    sessions, chunks = (points.padded + points.chunks)[grid], points.chunks[grid]
    executor, _, chunked, per_chunk = _shares(points.gap_s[grid], sessions, chunks > 0, chunks)
    executor_chunked, cold = chunked, 0.0
    decodes, chunks, begun, opened, out, into = (_numbers(serving, name) for name in SERVED)
    wall = _numbers(serving, "wall_s")
    gap, waited = wall - _numbers(serving, "device_s"), np.concatenate((wall[:1], wall[:-1]))
    if (begun == chunks).all():
        gap = gap - chunked * (chunks > 0) - per_chunk * chunks
        usual = _usual(gap)
        fixed, per_session, per_call = _shares(gap[usual], (decodes + chunks)[usual], begun[usual])
        per_arrival = copies_out = copies_in = 0.0
    else:
        usual = _usual(gap)
        features = (decodes + chunks, chunks > 0, chunks, begun, opened, out, into, waited / (waited + COLD_AFTER_S))
        shares = _shares(gap[usual], *(feature[usual] for feature in features))
        fixed, per_session, chunked, per_chunk, per_call, per_arrival, copies_out, copies_in, cold = shares
    return HostCost(
        per_iteration_s=fixed,
        per_session_s=per_session,
        chunked_s=chunked,
        per_chunk_s=per_chunk,
        per_call_s=per_call,
        per_arrival_s=per_arrival,
        copies_out_s=copies_out,
        copies_in_s=copies_in,
        cold_s=cold,
        cold_after_s=COLD_AFTER_S,
        executor_s=min(executor, fixed),
        executor_chunked_s=min(executor_chunked, chunked),
    )


def _numbers(serving: pd.DataFrame, name: str) -> Floats:
    return serving[name].to_numpy(dtype=np.float64)


def _usual(gap: Floats) -> Mask:
    usual: Mask = gap <= np.quantile(gap, RARE)
    return usual


def _shares(gap: Floats, *features: Floats | Mask) -> list[float]:
    """A constant, and what each feature adds, none less than zero."""
    scales = [max(1.0, float(feature.max(initial=0))) for feature in features]
    columns = [np.ones_like(gap), *(feature / scale for feature, scale in zip(features, scales, strict=True))]
    found, _ = nnls(np.stack(columns, axis=1), np.maximum(gap, 0.0))
    return [float(share) / scale for share, scale in zip(found, (1.0, *scales), strict=True)]


def host_figures(serving: pd.DataFrame, points: Points) -> dict[str, float]:
    """Medians and spread of the host's time, of the engine's and of the executor's own."""
    gap = serving["wall_s"] - serving["device_s"]
    figures = {f"engine_p{share}_s": float(gap.quantile(share / 100)) for share in (10, 50, 90, 99)}
    for name, kind in (("decode", points.chunks == 0), ("chunks", points.chunks > 0)):
        if kind.any():
            figures[f"executor_{name}_p50_s"] = float(np.median(points.host_s[kind]))
            figures[f"executor_{name}_p90_s"] = float(np.quantile(points.host_s[kind], 0.9))
            figures[f"gap_{name}_p50_s"] = float(np.median(points.gap_s[kind]))
    return figures
