"""The host's costs of an iteration, fitted to a real serving run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from profiler.fit.measurements import Floats, Mask, Measurements
from sim.costs.profile import HostCost

Waits = TypeVar("Waits", float, Floats)
SERVED = ("decodes", "chunks", "begun", "opened", "copies_out", "copies_in")
"""Columns of the serving run: sessions that decode, chunks, calls that begin, sessions that arrived since the iteration
before, and whether copies of each direction begin beside it."""
COLD_AFTER_S = 0.02
"""Wait after which half of what a cold host costs is felt. Passes of the grid on two H200 do not tell it well: with 5
to 80 ms they are explained alike."""
RARE = 0.99
"""Iterations that take longer than they should by more than this quantile were interrupted by something else."""
LONG = 0.98
"""Quantile of the waits in serving from which one knows whether there were long ones."""


def fit_host(serving: pd.DataFrame, iterations: pd.DataFrame) -> HostCost:
    """Wall less device time. Means, not medians: they add up.

    What the engine and the executor take together is seen in serving; the executor's part, where passes run without an
    engine. A serving run in which every chunk is the first of its call, as was measured formerly, cannot tell the two:
    there what chunks add is taken from the executor's part. So is what a cold host costs where no wait in serving was
    as long as ``COLD_AFTER_S``; that is too little, for the engine grows cold as well.
    """
    iterations, serving = _with_coldness(iterations), _with_coldness(serving)
    chunks = _numbers(iterations, "chunks")
    sessions = _numbers(iterations, "padded") + chunks
    passes: dict[str, Floats | Mask] = {
        "session": sessions,
        "chunked": chunks > 0,
        "chunk": chunks,
        "cold": _numbers(iterations, "cold"),
    }
    executor = _shares(_gap(iterations), passes)
    decodes, chunks, begun, opened, out, into = (_numbers(serving, name) for name in SERVED)
    cold = _numbers(serving, "cold")
    served: dict[str, Floats | Mask] = {
        "session": decodes + chunks,
        "chunked": chunks > 0,
        "chunk": chunks,
        "call": begun,
    }
    served |= {"arrival": opened, "out": out, "in": into, "cold": cold}
    known: dict[str, float] = {}
    if (begun == chunks).all():
        known = {"chunked": executor["chunked"], "chunk": executor["chunk"], "arrival": 0.0, "out": 0.0, "in": 0.0}
    if float(np.quantile(cold, LONG)) < 0.5:
        known["cold"] = executor["cold"]
    gap = _gap(serving)
    for name, share in known.items():
        gap = gap - share * served[name]
    found = known | _shares(gap, {name: feature for name, feature in served.items() if name not in known})
    return HostCost(
        per_iteration_s=found["fixed"],
        per_session_s=found["session"],
        chunked_s=found["chunked"],
        per_chunk_s=found["chunk"],
        per_call_s=found["call"],
        per_arrival_s=found["arrival"],
        copies_out_s=found["out"],
        copies_in_s=found["in"],
        cold_s=found["cold"],
        cold_after_s=COLD_AFTER_S,
        executor_s=min(executor["fixed"], found["fixed"]),
        executor_chunked_s=min(executor["chunked"], found["chunked"]),
    )


def _numbers(table: pd.DataFrame, name: str) -> Floats:
    return table[name].to_numpy(dtype=np.float64)


def _gap(table: pd.DataFrame) -> Floats:
    return _numbers(table, "wall_s") - _numbers(table, "device_s")


def _with_coldness(table: pd.DataFrame) -> pd.DataFrame:
    """Rows that follow one another, but for the first, with the wait before each: half after ``COLD_AFTER_S``, towards
    one after longer."""
    waited = table["wall_s"].shift()
    return table.assign(cold=waited / (waited + COLD_AFTER_S)).iloc[1:]


def _shares(gap: Floats, features: Mapping[str, Floats | Mask]) -> dict[str, float]:
    """A constant, ``fixed``, and what each feature adds, none less than zero."""
    scales = {name: float(feature.max(initial=0)) or 1.0 for name, feature in features.items()}
    columns = np.stack([np.ones_like(gap), *(features[name] / scale for name, scale in scales.items())], axis=1)
    gap = np.maximum(gap, 0.0)
    found, _ = nnls(columns, gap)
    beyond = gap - columns @ found
    usual = beyond <= np.quantile(beyond, RARE)
    found, _ = nnls(columns[usual], gap[usual])
    return {
        name: float(share) / scale for (name, scale), share in zip({"fixed": 1.0, **scales}.items(), found, strict=True)
    }


def cold_seconds(cost: HostCost, waited: Waits) -> Waits:
    """Seconds that a host takes longer after it waited for ``waited`` seconds; the equation is that of
    ``cost.cold_s``."""
    return cost.cold_s * waited / (waited + cost.cold_after_s)


def host_figures(serving: pd.DataFrame, points: Measurements) -> dict[str, float]:
    """Medians and spread of the host's time, of the engine's and of the executor's own."""
    gap = serving["wall_s"] - serving["device_s"]
    figures = {f"engine_p{share}_s": float(gap.quantile(share / 100)) for share in (10, 50, 90, 99)}
    for name, kind in (("decode", points.chunks == 0), ("chunks", points.chunks > 0)):
        if kind.any():
            figures[f"executor_{name}_p50_s"] = float(np.median(points.host_s[kind]))
            figures[f"executor_{name}_p90_s"] = float(np.quantile(points.host_s[kind], 0.9))
            figures[f"gap_{name}_p50_s"] = float(np.median(points.gap_s[kind]))
    return figures
