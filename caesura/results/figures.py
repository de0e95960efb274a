"""The figures of a comparison: latency against load, waste by cause, memory over time by use.

A family of systems keeps its colour in every figure; a twin with the other batching rule has the same colour and a
dashed line. The colours are those of Okabe and Ito, which people with any colour vision can tell apart.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from caesura.results.comparison_tables import ComparisonTables


class Picture(Figure):
    """A figure that a notebook shows by itself."""

    def _repr_png_(self) -> bytes:
        return self.png(dpi=100)

    def png(self, dpi: int = 160) -> bytes:
        """The figure as a PNG file, on white."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=dpi, facecolor="white")
        return buffer.getvalue()


FAMILIES = {
    "vllm": "#0072B2",
    "improved-discard": "#56B4E9",
    "preserve": "#009E73",
    "swap": "#E69F00",
    "heuristic": "#CC79A7",
    "infercept": "#D55E00",
    "cache-lru": "#000000",
}
OTHERS = (
    "#7A5C00", "#7F7F7F", "#8C4B9E", "#3F7F7F", "#A0522D", "#B2182B", "#4D9221", "#C51B7D", "#01665E", "#6A3D9A",
    "#B15928", "#1B9E77",
)  # fmt: skip
OTHER_LINES = ("-", "-.")
MARKERS = "osD^vP*XphH<>"
USES = {
    "useful": ("computing new tokens", "#C4C4C4"),
    "preserve": ("kept while paused", "#009E73"),
    "recompute_own": ("recompute: its own memory", "#D55E00"),
    "recompute_others": ("recompute: other sessions'", "#0072B2"),
    "swap": ("swap: waiting for copies", "#E69F00"),
}
CAUSES = {f"waste_{use}_pct": look for use, look in USES.items() if use != "useful"}
PANELS = 8
COLOURED = 12
_SAME_LINE = 0.008
"""Share of a logarithmic axis that a line is wide."""
_DASH = 2.2
"""Of a line over another, in line widths; as long as its gap, so that a second one fills the gaps of the first."""
_TEXT_LINE = 0.033
"""Share of the axis that a line of text is high."""
_FEWEST_TICKS = 5
_STEPS = (
    (1, 2, 5),
    (1, 1.5, 2, 3, 5, 7),
    tuple(step / 10 for step in range(10, 100, 5)),
    tuple(n / 10 for n in range(10, 100)),
)
_FIVE_USES = 9.5
"""Inches that the names of the uses of memory take side by side."""
_WIDE_BAND = 0.03
"""Share of the axis from which a band of waste has room for its number."""
_INK = "#222222"


def latency(comparison: ComparisonTables) -> Picture:
    """Mean normalized latency against load, one line a system; the legend stands in the order of the lines' ends.

    Of many systems the best dozen at the highest load have colours, and those of a family; the others are grey, with
    their names at their ends. A line that runs over another all along is dashed, and the one below is wider.
    """
    systems = comparison.systems
    curves = {
        system: [math.nan if value is None else 1e3 * value for value in comparison.latency(system)]
        for system in systems
    }
    known = {system: [value for value in curve if math.isfinite(value)] for system, curve in curves.items()}
    ends = sorted(systems, key=lambda system: known[system][-1] if known[system] else math.inf)
    best = ends if len(ends) <= len(MARKERS) else ends[:COLOURED]
    shown = [system for system in systems if system in best or _family(system)]
    grey = [system for system in systems if system not in shown]
    figure = Picture(figsize=(8.6 + bool(grey), max(4.8, 0.2 + 0.225 * len(shown))), layout="constrained")
    axes = figure.add_subplot()
    loads = comparison.loads
    for system in grey:
        axes.plot(loads, curves[system], color="#CFCFCF", linewidth=1.2, zorder=1)
    below = _coinciding([curves[system] for system in shown])
    covered = list(below.values())
    for index, system in enumerate(shown):
        colour, dash = style(system, shown)
        marker = MARKERS[index % len(MARKERS)]
        width, size = (3.6, 8.0) if index in covered else (1.8, 5.5)
        lines = axes.plot(
            loads, curves[system], dash, color=colour, marker=marker, markersize=size, linewidth=width, label=system
        )
        if index in below:
            turn = [over for over, under in below.items() if under == below[index]].index(index)
            gap = (turn * _DASH, (_DASH, _DASH))
            lines[0].set(linestyle=gap, markersize=4.5, markeredgecolor="white", zorder=3)
    _mark_objective(axes, 1e3 * comparison.objective, empty=not any(known.values()))
    axes.set_yscale("log")
    plain_log(axes)
    axes.set_xticks(loads, [f"{load:g}" for load in loads])
    axes.set_xlabel(f"load ({comparison.load_unit})")
    axes.set_ylabel("mean normalized latency (ms per token)")
    frame(axes)
    _name_ends(axes, {system: curves[system][-1] for system in grey}, loads[-1])
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    order = [system for system in reversed(ends) if system in handles]
    figure.legend([handles[name] for name in order], order, loc="outside right upper", frameon=False, fontsize=9.5)
    return figure


def _coinciding(curves: Sequence[Sequence[float]]) -> dict[int, int]:
    """The curves that run over an earlier one all along, closer to it than a line is wide, each with the one below."""
    logs = np.log(np.array(curves, dtype=float))
    reach = max(float(np.nanmax(logs) - np.nanmin(logs)), 1e-9) if np.isfinite(logs).any() else 1.0
    below: dict[int, int] = {}
    for index in range(len(curves)):
        for other in range(index):
            apart = np.abs(logs[index] - logs[other])
            if other not in below and np.isfinite(apart).any() and np.nanmax(apart) < _SAME_LINE * reach:
                below[index] = other
                break
    return below


def _mark_objective(axes: Axes, objective: float, empty: bool) -> None:
    axes.axhline(objective, color="#777777", linewidth=1, linestyle=(0, (1, 2)))
    axes.annotate(
        f"objective: {objective:g} ms", (0, objective), xycoords=("axes fraction", "data"), xytext=(6, 4),
        textcoords="offset points", fontsize=9, color="#555555", bbox={"fc": "white", "ec": "none", "pad": 1.5},
    )  # fmt: skip
    if empty:
        axes.set_ylim(objective / 10, objective * 10)


def _name_ends(axes: Axes, ends: Mapping[str, float], at: float) -> None:
    """Names beside the right ends of lines on a logarithmic scale, as close as lines of text can stand."""
    from scipy.optimize import isotonic_regression

    named = sorted((end for end in ends.items() if math.isfinite(end[1])), key=lambda end: end[1])
    if not named:
        return
    low, high = np.log(axes.get_ylim())
    apart = _TEXT_LINE * (high - low) * np.arange(len(named))
    places = np.exp(isotonic_regression(np.log([value for _, value in named]) - apart).x + apart)
    for (system, _), place in zip(named, places, strict=True):
        axes.annotate(
            system, (at, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8, color="#808080",
            annotation_clip=False,
        )  # fmt: skip


def waste(comparison: ComparisonTables, load: float | None = None) -> Picture:
    """Share of GPU memory x time that was wasted, by cause, one bar a system, at one load (default: the knee)."""
    load = comparison.knee if load is None else load
    rows = comparison.at(load)
    figure = Picture(figsize=(8.6, 1.5 + 0.38 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(rows))[::-1]
    left = np.zeros(len(rows))
    reach = max(float(rows[list(CAUSES)].sum(axis=1).max()), 0.1)
    for column, (label, colour) in CAUSES.items():
        values = rows[column].to_numpy(dtype=float)
        axes.barh(places, values, left=left, color=colour, label=label, height=0.68, linewidth=0)
        for place, begin, value in zip(places, left, values, strict=True):
            if value > _WIDE_BAND * reach:
                axes.text(
                    begin + value / 2, place, f"{value:.0f}", ha="center", va="center", fontsize=8, color=ink_on(colour)
                )
        left += values
    for place, total in zip(places, left, strict=True):
        axes.annotate(
            f"{total:.2g} %" if total < 10 else f"{total:.0f} %", (total, place), xytext=(5, 0),
            textcoords="offset points", va="center", fontsize=9, color=_INK,
        )  # fmt: skip
    axes.set_xlim(0, 1.1 * reach)
    axes.set_yticks(places, rows["system"])
    axes.set_xlabel(f"share of GPU memory × time while sessions arrive (%), load {load:g}")
    frame(axes, grid="x")
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9, handlelength=1, columnspacing=1.2)
    return figure


def memory(comparison: ComparisonTables, load: float | None = None) -> Picture:
    """What the GPU's KV memory was used for over time: one panel a system (at most eight), at one load (first seed)."""
    load = comparison.knee if load is None else load
    systems = panel_systems(comparison)
    columns = min(4 if len(systems) > 6 else 3, len(systems))
    lines = -(-len(systems) // columns)
    figure = Picture(figsize=(max(2.3 * columns, 7) + 0.6, 2.1 * lines + 0.9), layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    timeline = comparison.timeline
    timeline = timeline[(timeline["load"] == load) & (timeline["seed"] == comparison.seeds[0])]
    for axes, system in zip(grid.flat, systems, strict=False):
        rows = timeline[timeline["system"] == system].groupby("time", as_index=False)[[*USES, "unused"]].sum()
        pool = rows[[*USES, "unused"]].sum(axis=1).max()
        stride = max(1, len(rows) // 240)
        binned = rows.groupby(np.arange(len(rows)) // stride)[["time", *USES]].mean()
        shares = [100 * binned[use].to_numpy() / pool for use in USES]
        colours = [colour for _, colour in USES.values()]
        axes.stackplot(binned["time"], shares, colors=colours, labels=[label for label, _ in USES.values()], lw=0)
        axes.set_title(system, fontsize=10, loc="left", color=_INK)
        axes.set_ylim(0, 100)
        axes.axvline(comparison.duration, color=_INK, linewidth=1, linestyle=(0, (1, 2)))
        frame(axes, grid="y")
    grid.flat[0].set_xlim(left=0)  # shared; set once all panels are drawn, so that the longest run is whole
    for axes in list(grid.flat)[len(systems) :]:
        axes.set_visible(False)
    figure.supxlabel(f"simulated time (s) at load {load:g}; dotted: the last arrival", fontsize=10)
    figure.supylabel("KV memory of the GPU (%)", fontsize=10)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    beside = 5 if figure.get_figwidth() > _FIVE_USES else 3
    figure.legend(
        handles, labels, loc="outside upper center", ncols=beside, frameon=False, fontsize=9, handlelength=1,
        columnspacing=1.2,
    )  # fmt: skip
    return figure


FIGURES: dict[str, Callable[[ComparisonTables], Picture]] = {"latency": latency, "waste": waste, "memory": memory}


def panel_systems(comparison: ComparisonTables) -> list[str]:
    """At most eight systems to show side by side; where there are more, twins and variants go first."""
    systems = comparison.systems
    own = [system for system in systems if _family(system) == system]
    chosen = own if len(systems) > PANELS and own else systems
    if len(chosen) > PANELS:
        chosen = [*chosen[: PANELS - 1], chosen[-1]]
    return chosen


def style(system: str, systems: list[str]) -> tuple[str, str]:
    """Colour and line of a system."""
    family = _family(system)
    if family is None:
        unknown = [other for other in systems if _family(other) is None]
        turn, place = divmod(unknown.index(system), len(OTHERS))
        return OTHERS[place], OTHER_LINES[turn % len(OTHER_LINES)]
    dash = "-" if family == system else "--" if system.endswith("chunked") else ":"
    return FAMILIES[family], dash


def _family(system: str) -> str | None:
    return next((family for family in FAMILIES if system == family or system.startswith(f"{family}-")), None)


def frame(axes: Axes, grid: str = "both") -> None:
    """Plain axes with a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(colors="#555555", labelcolor=_INK)
    axes.grid(True, axis=grid, color="#E4E4E4", linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def ink_on(colour: str) -> str:
    """Dark or white, whichever stands out more from a colour (contrast ratio of WCAG 2)."""
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour))
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.066 else _INK


def plain_log(axes: Axes) -> None:
    """Ticks written out, at 1, 2 and 5 of each decade, and at more where these are fewer than five."""
    low, high = axes.get_ylim()
    for steps in _STEPS:
        inside = [tick for power in range(-6, 9) for step in steps if low <= (tick := step * 10.0**power) <= high]
        if len(inside) >= _FEWEST_TICKS:
            break
    axes.yaxis.set_major_locator(FixedLocator(inside or [low, high]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
