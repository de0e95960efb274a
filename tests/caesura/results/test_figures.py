"""What can be read in a figure: every line, every number, the scale."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pandas as pd
import pytest
from matplotlib.figure import Figure

from caesura.results import figures, sweep_figures

OTHERS = 13


def latency(curves: dict[str, list[float]]) -> Figure:
    """The figure of curves in ms per token, at loads 1, 2, 3."""
    seconds = {system: [1e-3 * value for value in curve] for system, curve in curves.items()}
    found = SimpleNamespace(
        systems=list(curves), loads=[1, 2, 3], load_unit="sessions/s", objective=0.1, latency=seconds.__getitem__
    )
    return figures.latency(found)


def line(figure: Figure, system: str):
    return next(one for one in figure.axes[0].lines if one.get_label() == system)


def test_of_lines_that_coincide_the_upper_is_dashed_and_the_lower_wider():
    """``b`` and ``d`` are ``a`` within 0.5 %, a tenth of a line's width; ``c`` leaves ``a`` at the end."""
    drawn = latency({"a": [10, 20, 400], "b": [10, 20.1, 402], "c": [10, 20, 300], "d": [10, 20, 400]})
    a, b, c, d = (line(drawn, system) for system in "abcd")
    assert a.get_linestyle() == c.get_linestyle() == "-"
    assert b.get_linestyle() == d.get_linestyle() == "--"
    assert b._unscaled_dash_pattern[0] != d._unscaled_dash_pattern[0], (
        "the dashes of one stand in the gaps of the other"
    )
    assert a.get_linewidth() > c.get_linewidth() == b.get_linewidth()


def test_of_many_systems_grey_ones_are_named_and_families_have_their_colours():
    """Sixteen systems: the best twelve and cache-lru, the worst of all, have colours; grey names stand apart."""
    curves = {f"s{n:02}": [10.0, 20.0, 100.0 + n] for n in range(OTHERS + 2)} | {"cache-lru": [10, 20, 900]}
    drawn = latency(curves)
    assert line(drawn, "cache-lru").get_color() == figures.FAMILIES["cache-lru"]
    (axes,) = drawn.axes
    named = {text.get_text(): text.xy[1] for text in axes.texts if text.get_text() in curves}
    assert list(named) == ["s12", "s13", "s14"]
    low, high = axes.get_ylim()
    for below, above in itertools.pairwise(named.values()):
        assert above / below >= (high / low) ** 0.033 * (1 - 1e-9)
    assert {text.get_text() for text in drawn.legends[0].texts} == set(curves) - set(named)


@pytest.mark.parametrize("curve", [[14, 20, 25], [45, 95, 180], [10, 900, 6000]])
def test_a_logarithmic_scale_has_at_least_five_ticks(curve: list[float]):
    drawn = latency({"a": curve})
    low, high = drawn.axes[0].get_ylim()
    assert sum(low <= tick <= high for tick in drawn.axes[0].get_yticks()) >= 5


@pytest.mark.parametrize(("colour", "ink"), [("#0072B2", "white"), ("#E69F00", "#222222"), ("#009E73", "#222222")])
def test_numbers_on_a_colour_stand_out_from_it(colour: str, ink: str):
    """White on the orange of swaps has a contrast of 2.2, dark one of 7.1."""
    assert figures.ink_on(colour) == ink


@pytest.mark.parametrize(("columns", "beside"), [(2, 3), (4, 2), (7, 1)])
def test_a_heatmap_fits_a_page_and_has_room_for_its_numbers(columns: int, beside: int):
    """Three systems: as many beside each other as a page is wide, 0.5 inches a row at least."""
    swept = {"a": ["8 GB", "16 GB"], "load": list(range(1, columns + 1))}
    systems = ["vllm", "swap", "infercept"]
    points = itertools.product(swept["a"], swept["load"], systems)
    table = pd.DataFrame(points, columns=["a", "load", "system"]).assign(mean_normalized_latency_s=0.01)
    table.loc[0, "mean_normalized_latency_s"] = 1.0
    sweep = SimpleNamespace(table=table, dimensions=list(swept), systems=systems, values=swept.__getitem__)
    drawn = sweep_figures.draw(sweep, "mean_normalized_latency_s")
    width, height = drawn.get_size_inches()
    assert width < 11
    assert height >= 0.5 * 2 * -(-3 // beside)
    assert len({axes.get_subplotspec().colspan.start for axes in drawn.axes[:3]}) == beside
    bar = drawn.axes[-1]
    low, high = bar.get_ylim()
    assert sum(low <= tick <= high for tick in bar.get_yticks()) >= 5


@pytest.mark.parametrize("count", [1, 3, 6, 8])
def test_the_legend_of_memory_fits_the_figure(count: int):
    systems = [f"s{number}" for number in range(count)]
    times = [(system, time) for system in systems for time in range(3)]
    timeline = pd.DataFrame(times, columns=["system", "time"]).assign(load=1.0, seed=0, unused=1.0)
    timeline = timeline.assign(**dict.fromkeys(figures.USES, 1.0))
    found = SimpleNamespace(systems=systems, timeline=timeline, seeds=[0], duration=2.0, knee=1.0)
    drawn = figures.memory(found)
    drawn.draw_without_rendering()
    legend = drawn.legends[0].get_window_extent()
    assert legend.x0 >= 0
    assert legend.x1 <= drawn.bbox.width
