"""Figures of a trace: arrivals and concurrency over time, lengths, and pauses by what is waited for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from caesura.results.figures import Picture, frame
from caesura.runs.run_folder import write_bytes
from traces.draw.distributions import Distribution, Values
from traces.draw.shapes import pause_label
from traces.fit.arrivals import FittedArrivals
from traces.fit.trace import Quantity
from traces.portrait import ALL, Portrait

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MOST_LINES = 8
BINS = 120
LEAST_SHOWN_S = 1e-5
MOST_LINEAR = 30


def write_figures(portrait: Portrait, token_s: float, title: str, folder: Path) -> list[Path]:
    """Draw what the trace records, as PNG files in ``folder``.

    Raises:
        UserError: the folder cannot be written.
    """
    pictures = {"lengths": lengths(portrait, title)}
    if portrait.has_arrivals:
        pictures["arrivals"] = arrivals(portrait, token_s, title)
    if portrait.waits:
        pictures["pauses"] = pauses(portrait, title)
    files = []
    for name, picture in pictures.items():
        files.append(folder / f"{name}.png")
        write_bytes(files[-1], picture.png())
    return files


def arrivals(portrait: Portrait, token_s: float, title: str) -> Picture:
    """Arrival rate over time, open sessions over time, and the gaps beside those of a Poisson process."""
    figure = Picture(figsize=(9, 6), layout="constrained")
    rate, concurrency, gaps = figure.subplots(3, 1)
    times = portrait.arrivals
    edges = np.linspace(times[0], times[-1], BINS + 1)
    counts, _ = np.histogram(times, edges)
    rate.stairs(counts / (edges[1] - edges[0]), edges, fill=True, color=COLOURS[0], alpha=0.8)
    rate.set_ylabel("arrivals\n(sessions/s)")
    rate.set_title(title, loc="left", fontsize=10)
    mean, peak, bins = _open_over_time(portrait, token_s)
    concurrency.stairs(peak, bins, color=COLOURS[1], linewidth=1, label="most")
    concurrency.stairs(mean, bins, fill=True, color=COLOURS[2], alpha=0.8, label="mean")
    concurrency.legend(frameon=False, fontsize=9, ncols=2, loc="lower right", bbox_to_anchor=(1, 0.98), borderaxespad=0)
    concurrency.set_ylabel("open sessions")
    concurrency.set_xlabel(f"time (s); a session is open for its pauses and {1e3 * token_s:g} ms a generated token")
    between = np.diff(times)
    _cdf(gaps, between[between > 0], "recorded", COLOURS[0])
    poisson = -np.log1p(-np.linspace(0, 0.9999, 400)) * between.mean()
    gaps.plot(poisson[1:], np.linspace(0, 0.9999, 400)[1:], "--", color="#777777", label="Poisson of the same rate")
    gaps.set_xscale("log")
    gaps.set_xlabel("gap between arrivals (s)" + (", those of 0 left out" if (between == 0).any() else ""))
    gaps.set_ylabel("share at or below")
    gaps.legend(frameon=False, fontsize=9)
    for axes in (rate, concurrency, gaps):
        frame(axes)
    return figure


def lengths(portrait: Portrait, title: str) -> Picture:
    """Cumulative shares of contexts, outputs, returned tokens and calls, one line a kind."""
    panels = {
        "context": "context at the start of a call (tokens)",
        "output": "generated in a call (tokens)",
        "returned": "returned by a pause (tokens)",
        "calls": "calls of a session",
    }
    kinds = portrait.kinds if 1 < len(portrait.kinds) <= MOST_LINES else [ALL]
    figure = Picture(figsize=(9, 5.6), layout="constrained")
    for axes, (column, label) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        lines = {kind: portrait.column(column, kind) for kind in kinds}
        _cdfs(axes, {kind: values for kind, values in lines.items() if len(values)}, label, least=1.0)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    if len(kinds) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=8, frameon=False, fontsize=9)
    return figure


def pauses(portrait: Portrait, title: str) -> Picture:
    """Cumulative shares of pauses by duration, one line a sort of pause, the commonest eight."""
    figure = Picture(figsize=(9, 4.4), layout="constrained")
    axes = figure.add_subplot()
    lines = {pause_label(*wait): portrait.pause_seconds(*wait) for wait in portrait.waits[:MOST_LINES]}
    _cdfs(axes, lines, f"pause (s); {LEAST_SHOWN_S:g} s and less stand at the left end", least=LEAST_SHOWN_S)
    axes.set_title(title, loc="left", fontsize=10)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _open_over_time(portrait: Portrait, token_s: float) -> tuple[Values, Values, Values]:
    """Mean and greatest number of open sessions in each of some equal spans of time, and the spans' edges."""
    times, count = portrait.open_sessions(token_s)
    edges = np.linspace(times[0], times[-1], 4 * BINS + 1)
    session_s = np.concatenate([[0.0], np.cumsum(np.diff(times) * count[:-1])])
    mean = np.diff(np.interp(edges, times, session_s)) / np.diff(edges)
    first = np.searchsorted(times, edges[:-1], side="right") - 1
    peak = np.maximum(np.maximum.reduceat(count, first), count[first])
    return mean, peak, edges


def _cdfs(axes: Axes, lines: Mapping[str, Values], label: str, least: float) -> None:
    """One line each; values below ``least`` stand there, as a logarithmic axis has no 0."""
    for index, (name, values) in enumerate(lines.items()):
        width = 1.4 + 2.8 * (1 - index / len(lines)) if len(lines) > 1 else 1.6
        _cdf(axes, np.maximum(values, least), name, COLOURS[index], width)
    greatest = max((float(values.max()) for values in lines.values()), default=least)
    axes.set_xscale("log" if greatest > MOST_LINEAR or least < 1 else "linear")
    axes.set_xlabel(label)
    axes.set_ylabel("share at or below")
    axes.set_ylim(0, 1.01)
    frame(axes)


def _cdf(axes: Axes, values: Values, name: str, colour: str, width: float = 1.6) -> None:
    """The share of values at or below each; earlier lines are wider, so that equal ones show beneath each other."""
    ordered = np.sort(values)
    stride = max(1, len(ordered) // 2000)
    reached = np.arange(1, len(ordered) + 1) / len(ordered)
    shown = np.unique(np.r_[np.arange(0, len(ordered), stride), len(ordered) - 1])
    axes.step(ordered[shown], reached[shown], where="post", color=colour, linewidth=width, label=name)


def fitted_kind(quantities: Sequence[Quantity], kind: str) -> Picture:
    """Recorded and fitted cumulative shares of every quantity of one kind, one panel each."""
    chosen = [quantity for quantity in quantities if quantity.kind == kind]
    columns = min(3, len(chosen))
    lines = -(-len(chosen) // columns)
    figure = Picture(figsize=(9.6, 2.4 * lines + 0.3), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes, quantity in zip(panels, chosen, strict=False):
        least = LEAST_SHOWN_S if quantity.unit == "s" else 0.001 if "part" in quantity.name else 1.0
        _fitted(axes, quantity.values, quantity.fitted.distribution, least)
        axes.set_title(f"{quantity.name} · {quantity.fitted.name} · {quantity.fitted.ks:.3f}", fontsize=8.5, loc="left")
        axes.set_xlabel(quantity.unit, fontsize=8)
    for axes in panels[len(chosen) :]:
        axes.set_visible(False)
    return figure


def fitted_arrivals(arrivals: FittedArrivals) -> Picture:
    """Recorded gaps between arrivals, and those of each candidate process."""
    figure = Picture(figsize=(9, 3.6), layout="constrained")
    axes = figure.add_subplot()
    gaps = arrivals.gaps
    _cdf(axes, gaps, "recorded", "#000000", 2.2)
    at = np.geomspace(gaps[0], gaps[-1], 400)
    for candidate, colour in zip(arrivals.candidates, COLOURS, strict=False):
        taken = " (taken)" if candidate is arrivals.candidates[0] else ""
        axes.plot(at, candidate.gaps.cdf(at * arrivals.rate), "--", color=colour, label=f"{candidate.name}{taken}")
    axes.set_xscale("log")
    axes.set_xlabel("gap between arrivals (s)")
    axes.set_ylabel("share at or below")
    axes.legend(frameon=False, fontsize=9)
    frame(axes)
    return figure


def _fitted(axes: Axes, values: Values, distribution: Distribution, least: float) -> None:
    uniform = (np.arange(2000) + 0.5) / 2000
    _cdf(axes, np.maximum(values, least), "recorded", COLOURS[0], 2.2)
    axes.plot(np.maximum(distribution.values(uniform), least), uniform, "--", color=COLOURS[1], linewidth=1.4)
    axes.set_xscale("log" if max(float(values[-1]), least) > MOST_LINEAR * max(float(values[0]), least) else "linear")
    axes.set_ylim(0, 1.01)
    axes.tick_params(labelsize=8)
    frame(axes)
