"""The figure of a sweep: lines over one swept key, a heatmap over two."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm, to_hex

from caesura.errors import UserError, did_you_mean
from caesura.results.figures import MARKERS, PANELS, Picture, frame, ink_on, plain_log, style
from caesura.results.tables import DETAIL
from caesura.results.text_table import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from caesura.results.sweep_tables import SweepTables

_WIDE = 20
_PAGE = 8.6
"""Inches that panels may take side by side, so that their numbers can be read in a page."""


def draw(sweep: SweepTables, measure: str) -> Picture:
    """One measure of a sweep: one line a system over its only dimension, or one heatmap a system over its first two.

    Further dimensions stand at their last value.

    Raises:
        UserError: there is no such measure, or the runs differ in nothing that could be an axis.
    """
    if measure not in sweep.table.columns or not pd.api.types.is_numeric_dtype(sweep.table[measure]):
        raise UserError(f"no measure {measure!r}{did_you_mean(measure, sweep.table.columns)}")
    if not sweep.dimensions:
        raise UserError("the sweep has one point only; there is nothing to draw a figure over")
    label, scale = next(((name, by) for name, column, by in DETAIL if column == measure), (measure, 1.0))
    table = sweep.table.assign(shown=scale * sweep.table[measure])
    for dimension in sweep.dimensions[2:]:
        table = table[table[dimension] == sweep.values(dimension)[-1]]
    return _heatmaps(sweep, table, label) if len(sweep.dimensions) > 1 else _lines(sweep, table, label)


def _lines(sweep: SweepTables, table: pd.DataFrame, label: str) -> Picture:
    (dimension,) = sweep.dimensions
    values = sweep.values(dimension)
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    places = [float(value) for value in values] if numeric else [float(place) for place in range(len(values))]
    figure = Picture(figsize=(8.6, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for index, system in enumerate(sweep.systems):
        rows = table[table["system"] == system]
        groups = rows.groupby(dimension)["shown"]
        mean, low, high = (_at(found, values) for found in (groups.mean(), groups.min(), groups.max()))
        colour, dash = style(system, sweep.systems)
        marker = MARKERS[index % len(MARKERS)]
        axes.plot(places, mean, dash, color=colour, marker=marker, markersize=5.5, linewidth=1.8, label=system)
        axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
    _log_if_wide(axes, table["shown"])
    axes.set_xticks(places, [_text(value) for value in values])
    axes.set_xlabel(dimension)
    axes.set_ylabel(label)
    frame(axes)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9.5)
    return figure


def _heatmaps(sweep: SweepTables, table: pd.DataFrame, label: str) -> Picture:
    down, across = sweep.dimensions[:2]
    rows, columns = sweep.values(down), sweep.values(across)
    systems = sweep.systems[:PANELS]
    panel = (max(2.8, 0.78 * len(columns)), max(1.5, 0.5 * len(rows) + 0.45))
    wide = min(len(systems), max(1, int(_PAGE / panel[0])))
    lines = -(-len(systems) // wide)
    size = (max(wide * panel[0] + 2.2, 8.6), max(lines * panel[1] + 0.7, 3.6))
    figure = Picture(figsize=size, layout="constrained")
    grid = figure.subplots(lines, wide, sharex=True, sharey=True, squeeze=False)
    scale = _scale(table["shown"])
    image = None
    for axes, system in zip(grid.flat, systems, strict=False):
        means = table[table["system"] == system].groupby([down, across])["shown"].mean()
        cells = np.array([[means.get((row, column), math.nan) for column in columns] for row in rows])
        image = axes.imshow(cells, aspect="auto", cmap="cividis", **scale)
        for (row, column), value in np.ndenumerate(cells):
            if math.isfinite(value):
                ink = ink_on(to_hex(image.to_rgba(value)))
                axes.text(column, row, number(value), ha="center", va="center", fontsize=9.5, color=ink)
        axes.set_title(system, fontsize=10.5, loc="left")
        axes.set_xticks(range(len(columns)), [_text(value) for value in columns])
        axes.set_yticks(range(len(rows)), [_text(value) for value in rows])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    for axes in list(grid.flat)[len(systems) :]:
        axes.set_visible(False)
    assert image is not None
    bar = figure.colorbar(image, ax=list(grid.flat), label=label, aspect=7 * size[1])
    if "norm" in scale:
        plain_log(bar.ax)
    figure.supxlabel(across, fontsize=10)
    figure.supylabel(down, fontsize=10)
    return figure


def _scale(shown: pd.Series[float]) -> dict[str, Any]:
    """The ends of the colours for ``imshow``: logarithmic where the values are far apart."""
    known = shown[np.isfinite(shown)]
    least, most = (float(known.min()), float(known.max())) if len(known) else (1.0, 1.0)
    if _far_apart(least, most):
        return {"norm": LogNorm(least, most)}
    return {"vmin": least, "vmax": max(most, least + 1e-12)}


def _far_apart(least: float, most: float) -> bool:
    return least > 0 and most / least > _WIDE


def _at(found: pd.Series[float], values: list[Any]) -> list[float]:
    return [float(found.get(value, math.nan)) for value in values]


def _log_if_wide(axes: Axes, shown: pd.Series[float]) -> None:
    known = shown[np.isfinite(shown)]
    if len(known) and _far_apart(known.min(), known.max()):
        axes.set_yscale("log")
        plain_log(axes)
    else:
        axes.set_ylim(bottom=0)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
