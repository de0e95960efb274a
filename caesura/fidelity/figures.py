"""The figures of a validation: the errors at a glance, and real against simulated, measure by measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from caesura.fidelity.fidelity import AIM_PCT, Fidelity
from caesura.fidelity.replays import Replayed
from caesura.results.figures import Picture, frame, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = {
    "normalized latency mean": ("mean", "o", 62),
    "normalized latency p50": ("P50", "s", 34),
    "normalized latency p90": ("P90", "^", 38),
    "normalized latency p99": ("P99", "D", 30),
    "throughput": ("throughput", "x", 34),
}
PANELS: dict[str, tuple[Callable[[Fidelity, str], float], str]] = {
    "normalized latency, mean (ms per token)": (
        lambda one, side: _figure(one, side, "normalized latency mean", 1e3),
        "log",
    ),
    "normalized latency, P99 (ms per token)": (
        lambda one, side: _figure(one, side, "normalized latency p99", 1e3),
        "log",
    ),
    "TTFT, mean (s)": (lambda one, side: _figure(one, side, "TTFT mean", 1.0), "log"),
    "TPOT, mean (ms)": (lambda one, side: _figure(one, side, "TPOT mean", 1e3), "log"),
    "throughput (sessions/s)": (lambda one, side: _figure(one, side, "throughput", 1.0), "linear"),
    "wasted memory (%)": (lambda one, side: sum(getattr(one, f"{side}_waste").values() or [math.nan]), "linear"),
}
_LINE = 0.27
_APART = 0.24
"""How far marks of one run stand above and below its line: some errors are equal."""
_WIDE = 10.0
"""Values further apart than by this factor are drawn on a logarithmic scale."""


def errors(replayed: Sequence[Replayed]) -> Picture:
    """Signed errors of normalized latency and throughput, one line a run, over the bands that are aimed at."""
    figure = Picture(figsize=(8.6, 1.5 + _LINE * _height(replayed)), layout="constrained")
    axes = figure.add_subplot()
    places = _places(replayed)
    for aim, shade in ((AIM_PCT["p90"], "#EFEFEF"), (AIM_PCT["mean"], "#DADADA")):
        axes.axvspan(-aim, aim, color=shade, linewidth=0, zorder=0)
    axes.axvline(0, color="#888888", linewidth=1, zorder=1)
    apart = np.linspace(-_APART, _APART, len(MARKS))
    for shift, (name, (label, marker, size)) in zip(apart, MARKS.items(), strict=True):
        values = [one.fidelity.error_pct.get(name, math.nan) for one in replayed]
        edge = None if marker == "x" else "white"
        axes.scatter(
            values,
            np.array(places) + shift,
            marker=marker,
            s=size,
            c=_colours(replayed),
            label=label,
            edgecolors=edge,
            zorder=3,
        )
    reach = max([2 * AIM_PCT["p90"], *(abs(v) for one in replayed for v in _shown(one.fidelity))])
    axes.set_xlim(-1.06 * reach, 1.06 * reach)
    _name_lines(axes, replayed, places)
    axes.set_xlabel(
        f"simulated / real − 1 (%); shaded: ±{AIM_PCT['mean']:g} % (aim for mean, P50, throughput) and "
        f"±{AIM_PCT['p90']:g} % (P90, P99)"
    )
    frame(axes, grid="x")
    axes.tick_params(axis="y", length=0)
    legend = figure.legend(loc="outside upper center", ncols=len(MARKS), frameon=False, fontsize=9, columnspacing=1.2)
    for handle in legend.legend_handles:
        handle.set_color("#555555")  # type: ignore[union-attr]
    return figure


def _range(*values: np.ndarray[Any, Any]) -> float:
    """The largest of all values over the smallest."""
    together = np.concatenate(values)
    together = together[np.isfinite(together)]
    return float(together.max() / together.min()) if together.size and together.min() > 0 else 1.0


def real_and_simulated(replayed: Sequence[Replayed]) -> Picture:
    """Real and simulated values joined by a line, one panel a measure."""
    figure = Picture(figsize=(10.6, 1.3 + 2 * (0.6 + 0.22 * _height(replayed))), layout="constrained")
    grid = figure.subplots(2, 3, sharey=True)
    places, colours = _places(replayed), _colours(replayed)
    for axes, (title, (value, scale)) in zip(grid.flat, PANELS.items(), strict=True):
        real, simulated = (np.array([value(one.fidelity, side) for one in replayed]) for side in ("real", "simulated"))
        axes.hlines(places, real, simulated, colors=colours, linewidth=2.2, alpha=0.6, zorder=2)
        axes.scatter(real, places, s=34, c=colours, zorder=3, label="real")
        axes.scatter(simulated, places, s=34, facecolors="white", edgecolors=colours, linewidths=1.5, zorder=4,
                     label="simulated")  # fmt: skip
        if scale == "log" and _range(real, simulated) > _WIDE:
            axes.set_xscale("log")
            _few_ticks(axes)
        else:
            reach = max([value for value in (*real, *simulated) if math.isfinite(value)], default=0.0) or 1.0
            axes.set_xlim(-0.03 * reach, 1.05 * reach)
        axes.set_title(title, fontsize=10, loc="left")
        _name_lines(axes, replayed, places)
        frame(axes, grid="x")
        axes.tick_params(axis="y", length=0)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=9.5)
    for handle, face in zip(legend.legend_handles, ("#555555", "white"), strict=True):
        handle.set_facecolor(face)  # type: ignore[union-attr]
        handle.set_edgecolor("#555555")  # type: ignore[union-attr]
    return figure


FIGURES: dict[str, Callable[[Sequence[Replayed]], Picture]] = {
    "errors": errors,
    "real-and-simulated": real_and_simulated,
}


def _figure(one: Fidelity, side: str, name: str, scale: float) -> float:
    found: dict[str, float] = getattr(one, side)
    return scale * found.get(name, math.nan)


def _shown(one: Fidelity) -> list[float]:
    return [one.error_pct[name] for name in MARKS if name in one.error_pct]


def _places(replayed: Sequence[Replayed]) -> list[float]:
    """From the top: a line a run, and a gap before another load."""
    places, at = [], 0.0
    for index, one in enumerate(replayed):
        if index and _group(one) != _group(replayed[index - 1]):
            at -= 0.7
        places.append(at)
        at -= 1.0
    return places


def _height(replayed: Sequence[Replayed]) -> float:
    return 1.0 - _places(replayed)[-1]


def _group(one: Replayed) -> tuple[str, float]:
    return one.bench, one.fidelity.load


def _colours(replayed: Sequence[Replayed]) -> list[str]:
    systems = list(dict.fromkeys(one.fidelity.system for one in replayed))
    return [style(one.fidelity.system, systems)[0] for one in replayed]


def _name_lines(axes: Axes, replayed: Sequence[Replayed], places: Sequence[float]) -> None:
    axes.set_yticks(places, [one.label for one in replayed], fontsize=9)
    axes.set_ylim(min(places) - 0.7, 0.7)


def _few_ticks(axes: Axes) -> None:
    """At most five ticks on a logarithmic x axis, written out."""
    low, high = axes.get_xlim()
    for steps in ((1, 2, 5), (1, 3), (1,)):
        inside = [t for power in range(-6, 9) for step in steps if low <= (t := step * 10.0**power) <= high]
        if len(inside) <= 5:
            break
    axes.xaxis.set_major_locator(FixedLocator(inside))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
