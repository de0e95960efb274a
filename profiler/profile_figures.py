"""The figures of a profile: points are what was measured, lines what was fitted; in colours that anyone tells apart.

Contexts and batch sizes run from dark to bright (viridis); single series have the colours of Okabe and Ito.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from profiler.fit import relative
from profiler.fit_host import cold_seconds
from profiler.points import Floats, Mask, Points
from profiler.profile_folder import HELD_OUT, MEDIAN_AIM, P95_AIM, recompute_time
from profiler.saturation import convex
from sim.costs import CostModel
from sim.plan import Batch
from sim.profile import HostCost, Profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from profiler.profile_folder import Findings

BLUE, ORANGE, GREEN, RED, PINK, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#777777"
KINDS = {"decode": BLUE, "prefill": ORANGE, "tokens": PINK, "chunks": GREEN, "mixed": RED}
MARKERS = "osD^vP*X"
DPI = 130
_INK = "#222222"


def draw_all(folder: Path, findings: Findings) -> None:
    """Draw every figure into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Callable[[Findings], Figure]] = {
        "decode": decode,
        "prefill": prefill,
        "mixed": mixed,
        "errors": errors,
        "copies": copies,
        "beside": beside,
        "recompute": recompute,
        "host": host,
        "saturation": saturation,
        "drift": drift,
    }
    for name, draw in figures.items():
        draw(findings).savefig(folder / f"{name}.png", dpi=DPI, facecolor="white")


def decode(findings: Findings) -> Figure:
    """Decode iterations over the batch, one line a context length."""
    figure, axes = _panel(findings, "Decode iteration", "decoding sessions", "ms on the device")
    chosen = findings.points[_of(findings.points, "decode")]
    contexts = chosen.decode_context / chosen.decodes
    costs = _device(findings.profile)

    def predicted(sessions: int, context: float) -> float:
        return costs.iteration_time(Batch(decode_sessions=sessions, decode_context=int(sessions * context)))

    _families(axes, chosen, chosen.decodes, contexts, predicted, least=1)
    _logarithmic(axes)
    _legend(axes, "context of each")
    return figure


def prefill(findings: Findings) -> Figure:
    """One chunk, one line a length of the context before it."""
    figure, axes = _panel(findings, "One chunk", "tokens of the chunk", "ms on the device")
    points = findings.points
    chosen = points[_of(points, "prefill", "tokens") & (points.chunks == 1)]
    priors = chosen.chunk_context - chosen.chunk_tokens
    costs = _device(findings.profile)
    _families(axes, chosen, chosen.chunk_tokens, priors, lambda n, prior: costs.forward_time(n, int(prior)))
    _logarithmic(axes)
    _legend(axes, "context before it")
    return figure


def mixed(findings: Findings) -> Figure:
    """Predicted against measured time of iterations with several chunks, mixed ones, and random ones."""
    figure, axes = _panel(findings, "Mixed iterations", "ms on the device, measured", "ms, predicted")
    points, predicted = findings.points, findings.predicted
    series = (
        (HELD_OUT, GREY, "o", "random, not fitted"),
        (("mixed",), RED, "s", "decodes + chunk"),
        (("chunks",), GREEN, "^", "several chunks"),
    )
    for kinds, colour, marker, label in series:
        mine = _of(points, *kinds)
        label = f"{label} ({int(mine.sum())})"
        axes.plot(1e3 * points.seconds[mine], 1e3 * predicted[mine], marker, color=colour, markersize=4, label=label,
                  alpha=0.75, markeredgewidth=0)  # fmt: skip
    ends = 1e3 * np.array([points.seconds.min(), points.seconds.max()])
    axes.plot(ends, ends, color=_INK, linewidth=1, label="as measured")
    axes.fill_between(ends, ends * (1 - P95_AIM), ends * (1 + P95_AIM), color=GREY, alpha=0.18, linewidth=0,
                      label=f"within {P95_AIM:.0%}")  # fmt: skip
    _logarithmic(axes)
    _legend(axes, "")
    return figure


def errors(findings: Findings) -> Figure:
    """Histogram of the relative errors on the random batches, and quantiles by kind of grid point."""
    figure, axes = _panel(findings, "Errors of prediction", "predicted / measured − 1, %", "random batches")
    points = findings.points
    all_errors = 100 * relative(findings.predicted, points.seconds)
    held_out = all_errors[_of(points, *HELD_OUT)]
    reach = max(12.0, float(np.quantile(np.abs(held_out), 0.98))) if len(held_out) else 12.0
    axes.hist(np.clip(held_out, -reach, reach), bins=np.linspace(-reach, reach, 49).tolist(), color=GREY)
    for aim, style in ((MEDIAN_AIM, "-"), (P95_AIM, "--")):
        for side in (-100, 100):
            label = f"{aim:.0%}" if side > 0 else None
            axes.axvline(side * aim, color=RED, linestyle=style, linewidth=1.2, label=label)
    measured = findings.profile.measured
    if measured is not None:
        found = measured.errors["held_out"]
        text = (f"median {found.median:.1%}   P95 {found.p95:.1%}   bias {found.bias:+.1%}"
                f"   (the outermost bars hold all beyond)")  # fmt: skip
        axes.set_title(text, fontsize=9, loc="right", color=_INK)
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    _legend(axes, "aims: median, P95")
    return figure


def copies(findings: Findings) -> Figure:
    """Bandwidth of copies over their size."""
    figure, axes = _panel(findings, "Copies of KV blocks", "MB copied", "GB/s")
    table, cost = findings.copies, findings.profile.swap
    looks = {("out", "alone"): (BLUE, "o"), ("in", "alone"): (ORANGE, "s"), ("out", "both"): (BLUE, "^"),
             ("in", "both"): (ORANGE, "v")}  # fmt: skip
    for (way, kind), (colour, marker) in looks.items():
        rows = table[(table["direction"] == way) & (table["kind"] == kind) & (table["layout"] == "scattered")]
        medians = rows.groupby("bytes")["device_s"].median()
        sizes = medians.index.to_numpy(dtype=np.float64)
        label = f"{way}, {'alone' if kind == 'alone' else 'both ways at once'}"
        fill = colour if kind == "alone" else "none"
        axes.plot(sizes / 1e6, sizes / medians.to_numpy(dtype=np.float64) / 1e9, marker, color=colour,
                  markerfacecolor=fill, label=label)  # fmt: skip
        if kind == "alone" and len(sizes):
            line = np.geomspace(sizes.min(), sizes.max(), 100)
            seconds = cost.latency_s + line / (cost.out_bytes_per_s if way == "out" else cost.in_bytes_per_s)
            axes.plot(line / 1e6, line / seconds / 1e9, color=colour, linewidth=1.4)
    _logarithmic(axes, up=False)
    axes.set_ylim(bottom=0)
    _legend(axes, "fitted: lines")
    return figure


def beside(findings: Findings) -> Figure:
    """By how much a copy lengthens the iteration that it runs beside."""
    figure, axes = _panel(
        findings, "Compute with a copy beside it", "what is computed", "iteration longer by, % of the overlap"
    )
    table = findings.beside
    copying = table[["copy_out_s", "copy_in_s"]].max(axis=1)
    share: pd.Series[float] = 100 * (table["beside_s"] - table["alone_s"]) / np.minimum(copying, table["beside_s"])
    shapes = list(dict.fromkeys(table["shape"]))
    looks = ((-0.2, "out", BLUE, "o"), (0.0, "in", ORANGE, "s"), (0.2, "both", GREEN, "^"))
    for offset, way, colour, marker in looks:
        for index, shape in enumerate(shapes):
            values: pd.Series[float] = share[(table["shape"] == shape) & (table["way"] == way)]
            spread = index + offset + np.linspace(-0.05, 0.05, len(values))
            label = ("both ways" if way == "both" else f"copy {way}") if index == 0 else None
            axes.plot(spread, values, marker, color=colour, markersize=4, alpha=0.6, markeredgewidth=0, label=label)
            axes.hlines(values.median(), index + offset - 0.08, index + offset + 0.08, color=colour, linewidth=2.5)
    axes.axhline(0, color=_INK, linewidth=0.8)
    axes.set_xticks(range(len(shapes)), [_in_words(shape) for shape in shapes])
    _legend(axes, "medians: bars")
    return figure


def _in_words(shape: str) -> str:
    """``decode 8x1024`` and ``prefill 512+256``, as the samples name what was computed."""
    if found := re.fullmatch(r"decode (\d+)x(\d+)", shape):
        sessions, context = map(int, found.groups())
        return f"{sessions:,} sessions decode,\n{context:,} tokens each"
    if found := re.fullmatch(r"prefill (\d+)\+(\d+)", shape):
        context, tokens = map(int, found.groups())
        return f"a chunk of {tokens:,} tokens" + (f"\nafter {context:,}" if context else ",\nnothing before it")
    return shape


def recompute(findings: Findings) -> Figure:
    """Computing a context anew, whole and in chunks."""
    figure, axes = _panel(findings, "Recomputation of a context", "tokens of the context", "ms on the device")
    table, costs = findings.recompute, _device(findings.profile)
    cases = table.groupby(["context", "chunk"])["device_s"].median().reset_index()
    whole = cases[cases["context"] == cases["chunk"]]
    parts = sorted(set(cases["chunk"][cases["chunk"] < cases["context"]].tolist()))
    series = [("whole", whole), *((f"in chunks of {size}", cases[(cases["chunk"] == size) &
              (cases["context"] > size)]) for size in parts)]  # fmt: skip
    for colour, marker, (label, rows) in zip(_ramp(len(series)), _markers(len(series)), series, strict=True):
        axes.plot(rows["context"], 1e3 * rows["device_s"], marker, color=colour, markersize=5, label=label)
        pairs = zip(rows["context"], rows["chunk"], strict=True)
        line = [1e3 * recompute_time(costs, int(context), int(chunk)) for context, chunk in pairs]
        axes.plot(rows["context"], line, color=colour, linewidth=1.4)
    _logarithmic(axes)
    _legend(axes, "predicted: lines")
    return figure


def host(findings: Findings) -> Figure:
    """What the engine adds to an iteration, over the sessions in it. The lines take the mean of all else."""
    figure, axes = _panel(findings, "Engine time of an iteration", "sessions that compute", "ms beside the device's")
    table, cost = findings.serving, findings.profile.host
    sessions = table["decodes"] + table["chunks"]
    gap = 1e3 * (table["wall_s"] - table["device_s"])
    waited = float(table["wall_s"].median())
    cold = cold_seconds(cost, waited)
    ends = np.array([0, sessions.max()])
    for chunked, colour, marker in ((False, BLUE, "o"), (True, ORANGE, "s")):
        mine, name = (table["chunks"] > 0) == chunked, "with chunks" if chunked else "decode only"
        axes.plot(
            sessions[mine], gap[mine], marker, color=colour, markersize=4, alpha=0.4, markeredgewidth=0, label=name
        )
        others = {"begun": cost.per_call_s, "opened": cost.per_arrival_s, "chunks": cost.per_chunk_s}
        others |= {"copies_out": cost.copies_out_s, "copies_in": cost.copies_in_s}
        usual = (
            sum(share * float(table[column][mine].mean()) for column, share in others.items()) if mine.any() else 0.0
        )
        fixed = cost.per_iteration_s + cold + usual + (cost.chunked_s if chunked else 0.0)
        line = 1e3 * (fixed + cost.per_session_s * ends)
        axes.plot(ends, line, color=_INK, linewidth=1.8, linestyle="--" if chunked else "-", label=f"fitted, {name}")
    axes.set_ylim(0, 1.3 * max(float(gap.quantile(0.99)), float(line.max())))
    _legend(axes, "")
    return figure


def saturation(findings: Findings) -> Figure:
    """The curve that S is read from."""
    figure, axes = _panel(findings, "Saturation point", "query tokens of one chunk", "ms on the device")
    tokens, seconds = findings.curve
    axes.plot(tokens, 1e3 * seconds, "o", color=BLUE, markersize=4, label="measured")
    costs = _device(findings.profile)
    dense = np.unique(np.geomspace(tokens.min(), tokens.max(), 300).round())
    line = [1e3 * costs.forward_time(int(count)) for count in dense]
    axes.plot(dense, line, color=BLUE, linewidth=1.4, label="fitted")
    axes.plot(tokens, 1e3 * convex(tokens, seconds), color=ORANGE, linewidth=1.4, label="closest convex curve")
    point = findings.profile.saturation_tokens
    axes.axvline(point, color=RED, linewidth=1.4, label=f"S = {point} tokens")
    axes.set_xlim(0, tokens.max())
    axes.set_ylim(bottom=0)
    _legend(axes, "")
    return figure


def drift(findings: Findings) -> Figure:
    """The reference shapes over the time of the measurement."""
    figure, axes = _panel(findings, "Drift", "minutes since the first", "% of the median of all visits")
    points = findings.points
    for kind, colour, marker in (("decode", BLUE, "o"), ("chunk", ORANGE, "s")):
        mine = points[np.char.startswith(points.names, f"reference {kind}")]
        if not len(mine):
            continue
        minutes = (mine.at_s - points.at_s.min()) / 60
        middle = np.median(mine.seconds)
        spread = 100 * np.abs(np.stack((mine.low, mine.high)) - mine.seconds) / middle
        axes.errorbar(minutes, 100 * mine.seconds / middle, spread, fmt=f"{marker}-", color=colour, markersize=5,
                      linewidth=1.2, capsize=2, label=f"reference {kind}")  # fmt: skip
    axes.axhline(100, color=_INK, linewidth=0.8)
    _legend(axes, "P10 to P90: bars")
    return figure


def _panel(findings: Findings, title: str, across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.0, 4.8), layout="constrained")
    axes = figure.add_subplot()
    figure.suptitle(f"{title} — {findings.profile.name}", fontsize=11, x=0.01, ha="left", color=_INK)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.3, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _families(
    axes: Axes, points: Points, across: Floats, by: Floats, predict: Callable[[int, float], float], least: int = 0
) -> None:
    """One colour a value of ``by``, in tokens: its points over ``across``, and ``predict(across, by)`` as a line that
    begins at ``least``, by default at its first point."""
    levels = np.unique(by)
    for colour, marker, level in zip(_ramp(len(levels)), _markers(len(levels)), levels, strict=True):
        mine, places = points[by == level], across[by == level]
        order = np.argsort(places)
        _measured(axes, mine[order], places[order], colour, marker, f"{level:,.0f} tokens")
        sizes = np.unique(np.geomspace(least or places.min(), places.max(), 200).round())
        axes.plot(sizes, [1e3 * predict(int(n), float(level)) for n in sizes], color=colour, linewidth=1.4)


def _measured(axes: Axes, points: Points, across: Floats, colour: str, marker: str, label: str) -> None:
    """Medians, with bars from the 10th to the 90th percentile."""
    spread = 1e3 * np.maximum(np.stack((points.seconds - points.low, points.high - points.seconds)), 0.0)
    axes.errorbar(across, 1e3 * points.seconds, spread, fmt=marker, color=colour, markersize=4.5, capsize=2,
                  elinewidth=0.8, label=label)  # fmt: skip


def _device(profile: Profile) -> CostModel:
    """Costs without the engine's share, which figures of the device do not hold."""
    return CostModel(profile.model_copy(update={"host": HostCost()}))


def _of(points: Points, *kinds: str) -> Mask:
    chosen: Mask = np.isin(points.sets, kinds)
    return chosen


def _ramp(colours: int) -> list[str]:
    """From dark to bright, none too bright to see."""
    ramp = mpl.colormaps["viridis"](np.linspace(0.0, 0.85, max(colours, 1)))
    return [mpl.colors.to_hex(colour) for colour in ramp]


def _markers(count: int) -> list[str]:
    return [MARKERS[index % len(MARKERS)] for index in range(count)]


def _logarithmic(axes: Axes, *, up: bool = True) -> None:
    axes.set_xscale("log")
    if up:
        axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis) if up else (axes.xaxis,):
        axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())


def _legend(axes: Axes, title: str) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles, labels, title=title or None, fontsize=8, title_fontsize=8, frameon=False,
                    loc="upper left", bbox_to_anchor=(1.0, 1.0))  # fmt: skip
