"""Where the tokens of one context were over time: on the GPU, on the host, or still to be computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.patches import Patch

from caesura.results.figures import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from caesura.explanation.story import Story

_PLACES = (("on the GPU", "#009E73"), ("on the host", "#E69F00"), ("missing", "#D9D9D9"))
_PAUSE = "#E6E0F0"
_INK = "#222222"


def draw(explanation: Story) -> Picture:
    """Tokens by place, stacked; pauses shaded; above, a row of strokes for each verdict that changed something."""
    figure = Picture(figsize=(9.2, 4.0), layout="constrained")
    axes = figure.add_subplot()
    times, places = _course(explanation)
    axes.stackplot(times, *places, colors=[colour for _, colour in _PLACES], linewidth=0)
    top = max(map(sum, zip(*places, strict=True)), default=1)
    began = None
    for entry in explanation.entries:
        if entry.what == "call_ended":
            began = entry.time
        elif entry.what in ("answered", "left_replica", "finished") and began is not None:
            axes.axvspan(began, entry.time, color=_PAUSE, zorder=-1, linewidth=0)
            began = None
    axes.set_ylim(0, _draw_verdicts(axes, explanation, top))
    handles = [Patch(color=colour, label=name) for name, colour in _PLACES]
    handles.append(Patch(facecolor=_PAUSE, edgecolor="#BBBBBB", label="paused"))
    axes.set_xlim(times[0], times[-1])
    axes.set_xlabel("time (s)")
    axes.set_ylabel("context tokens")
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= top])
    label = explanation.label
    axes.set_title(f"Session {explanation.session['id']} under {label['system']} at load {label['load']:g}")
    figure.legend(handles=handles, loc="outside lower center", frameon=False, ncols=4, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_verdicts(axes: Axes, explanation: Story, top: float) -> float:
    """Strokes above ``top``, a row a verdict, its name and number beside it; the height that all of it takes."""
    verdicts: dict[str, list[float]] = {}
    for entry in explanation.entries:
        if entry.what == "decided" and entry.details["verdict"] != "preserve":
            verdicts.setdefault(entry.details["verdict"], []).append(entry.time)
    place = 1.04 * top
    for name, times in verdicts.items():
        axes.vlines(times, place, place + 0.05 * top, color=_INK, linewidth=0.9)
        axes.annotate(
            f"{name}: {len(times)}", (1, place + 0.025 * top), xycoords=("axes fraction", "data"), xytext=(5, 0),
            textcoords="offset points", va="center", fontsize=9, color=_INK, annotation_clip=False,
        )  # fmt: skip
        place += 0.08 * top
    return place


def _course(explanation: Story) -> tuple[list[float], list[list[int]]]:
    """Times, and tokens by place at each. Between two entries tokens change in proportion to time."""
    times: list[float] = []
    places: list[list[int]] = [[], [], []]

    def add(time: float, tokens: tuple[int, int, int]) -> None:
        times.append(max(time, times[-1]) if times else time)
        for place, count in zip(places, tokens, strict=True):
            place.append(count)

    for entry in explanation.entries:
        tokens = entry.resident, entry.offloaded, entry.missing
        if entry.what == "computed":
            returned = sum(tokens) - sum(place[-1] for place in places)
            add(entry.time, (places[0][-1], places[1][-1], places[2][-1] + returned))
            add(entry.details["until"], tokens)
        elif entry.what == "finished":
            add(entry.time, (places[0][-1], places[1][-1], places[2][-1]))
        else:
            add(entry.time, tokens)
    return times, places
