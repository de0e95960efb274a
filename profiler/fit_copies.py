"""From measured copies to their costs: alone, both ways at once, and beside compute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from profiler.fit import error_of, relative
from profiler.points import Floats
from sim.profile import Error, SwapCost

WAYS = ("out", "in")


@dataclass(frozen=True, slots=True)
class CopyFit:
    """Costs of copies.

    Attributes:
        cost: what the simulator uses.
        error: of copies alone, against the fastest of each size.
        figures: what it does not use: bandwidths, slowdowns beside other work, host seconds.
    """

    cost: SwapCost
    error: Error
    figures: dict[str, float]


def fit_copies(copies: pd.DataFrame, beside: pd.DataFrame, overlaps: bool) -> CopyFit:
    """A copy takes latency + bytes / bandwidth, with one latency for both directions.

    Of each size the fastest counts: what else the host's memory and links are busy with, such as another GPU's copies,
    only ever delays a copy, and may do so in most of the samples.

    Args:
        copies, beside: the tables of samples.
        overlaps: whether copies run beside compute at all; on a CPU they do not, and slow nothing.
    """
    alone = copies[(copies["kind"] == "alone") & _as_in_service(copies)]
    fastest = alone.groupby(["direction", "bytes"])["device_s"].min().reset_index()
    sizes, seconds = fastest["bytes"].to_numpy(dtype=np.float64), fastest["device_s"].to_numpy(dtype=np.float64)
    outward = (fastest["direction"] == "out").to_numpy(dtype=np.float64)
    columns = np.stack((np.ones_like(sizes), sizes * outward, sizes * (1 - outward)), axis=1)
    scale = columns.max(axis=0)
    found, _ = nnls(columns / scale / seconds[:, None], np.ones(len(sizes)))
    latency, per_byte_out, per_byte_in = (float(value) for value in found / scale)
    slow = {way: slowdown(beside, way) if overlaps else 0.0 for way in WAYS}
    cost = SwapCost(
        out_bytes_per_s=1 / max(per_byte_out, 1e-15),
        in_bytes_per_s=1 / max(per_byte_in, 1e-15),
        latency_s=latency,
        slowdown_out=slow["out"],
        slowdown_in=slow["in"],
    )
    predicted: Floats = columns @ np.array([latency, per_byte_out, per_byte_in])
    return CopyFit(cost, error_of(relative(predicted, seconds)), _figures(copies, beside, overlaps))


def slowdown(beside: pd.DataFrame, way: str, kind: str = "decode") -> float:
    """Share by which a copy lengthens iterations of a kind while it runs: extra seconds over seconds side by side."""
    rows = beside[(beside["way"] == way) & beside["shape"].str.startswith(kind)]
    if rows.empty:
        return 0.0
    extra = rows["beside_s"] - rows["alone_s"]
    copying = rows[["copy_out_s", "copy_in_s"]].max(axis=1)
    together = np.minimum(copying, rows["beside_s"])
    shares: pd.Series[float] = (extra / together).groupby(rows["shape"]).median()
    return max(0.0, float(shares.mean()))


def _as_in_service(copies: pd.DataFrame) -> pd.Series[bool]:
    """Blocks scattered over the device, as they lie after a while; one block has no other way to lie."""
    return (copies["layout"] == "scattered") | (copies["blocks"] == 1)


def _figures(copies: pd.DataFrame, beside: pd.DataFrame, overlaps: bool) -> dict[str, float]:
    largest = copies[copies["blocks"] == copies.loc[copies["kind"] == "both", "blocks"].max()]
    figures: dict[str, float] = {"largest_copy_bytes": float(largest["bytes"].max())}
    longest = copies[copies["blocks"] == copies["blocks"].max()]
    if longest["blocks"].max() > largest["blocks"].max():
        figures["longest_copy_bytes"] = float(longest["bytes"].max())
        for way in WAYS:
            rows = longest[longest["direction"] == way]
            figures[f"{way}_longest_bytes_per_s"] = float((rows["bytes"] / rows["device_s"]).median())
    for way in WAYS:
        mine = largest[largest["direction"] == way]
        for kind in ("alone", "both"):
            for layout in ("scattered", "neighbours"):
                rows = mine[(mine["kind"] == kind) & (mine["layout"] == layout)]
                if not rows.empty:
                    name = f"{way}_{kind}_{layout}_bytes_per_s"
                    figures[name] = float((rows["bytes"] / rows["device_s"]).median())
        if overlaps:
            alone = float(mine[(mine["kind"] == "alone") & _as_in_service(mine)]["device_s"].median())
            rows = beside[beside["way"] == way]
            figures[f"{way}_lengthened_beside_compute"] = float(rows[f"copy_{way}_s"].median() / alone - 1)
    if overlaps:
        for way in (*WAYS, "both"):
            for kind in ("decode", "prefill"):
                figures[f"slowdown_of_{kind}_{way}"] = slowdown(beside, way, kind)
    submits = copies[_as_in_service(copies)].groupby("blocks")["submit_s"].median()
    if len(submits) > 1:
        slope, fixed = np.polyfit(submits.index.to_numpy(dtype=np.float64), submits.to_numpy(dtype=np.float64), 1)
        figures |= {"host_s_per_copy": max(0.0, float(fixed)), "host_s_per_block": max(0.0, float(slope))}
    return figures
