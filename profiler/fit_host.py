"""From a real serving run to what the engine adds to an iteration."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from profiler.points import Points
from sim.profile import HostCost

RARE = 0.99
"""Iterations beyond this quantile of the engine's time were interrupted by something else."""


def fit_host(serving: pd.DataFrame) -> HostCost:
    """Wall less device time: a constant and shares for each session and chunk. Means, not medians: they add up."""
    sessions = (serving["decodes"] + serving["chunks"]).to_numpy(dtype=np.float64)
    gap = (serving["wall_s"] - serving["device_s"]).to_numpy(dtype=np.float64)
    usual = gap <= np.quantile(gap, RARE)
    chunks = serving["chunks"].to_numpy(dtype=np.float64)[usual]
    columns = np.stack((np.ones_like(chunks), sessions[usual] / 100, chunks), axis=1)
    (fixed, per_hundred, per_chunk), _ = nnls(columns, np.maximum(gap[usual], 0.0))
    return HostCost(per_iteration_s=float(fixed), per_session_s=float(per_hundred) / 100, per_chunk_s=float(per_chunk))


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
