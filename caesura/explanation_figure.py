"""Where the tokens of one context were over time: on the GPU, on the host, or still to be computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.patches import Patch

from caesura.figures import Picture

if TYPE_CHECKING:
    from caesura.explanation import Explanation

_PLACES = (("on the GPU", "#009E73"), ("on the host", "#E69F00"), ("missing", "#D9D9D9"))
_PAUSE = "#F1EEF6"


def draw(explanation: Explanation) -> Picture:
    """Tokens by place, stacked; pauses shaded; verdicts that changed something named above."""
    figure = Picture(figsize=(8.6, 3.6), layout="constrained")
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
        elif entry.what == "decided" and entry.details["verdict"] != "preserve":
            axes.plot(entry.time, 1.05 * top, "v", color="#222222", markersize=5)
    verdicts = [e.details["verdict"] for e in explanation.entries if e.what == "decided"]
    counted = ", ".join(f"{verdicts.count(name)} {name}" for name in dict.fromkeys(verdicts) if name != "preserve")
    handles = [Patch(color=colour, label=name) for name, colour in _PLACES]
    handles.append(Patch(facecolor=_PAUSE, edgecolor="#BBBBBB", label="paused"))
    axes.legend(handles=handles, loc="upper left", frameon=False, ncols=4, bbox_to_anchor=(0, 1.12), fontsize=9)
    axes.set_ylim(0, 1.12 * top)
    axes.set_xlim(times[0], times[-1])
    axes.set_xlabel(f"time (s){f'; triangles: {counted}' if counted else ''}")
    axes.set_ylabel("context tokens")
    label = explanation.label
    axes.set_title(f"Session {explanation.session['id']} under {label['system']} at load {label['load']:g}", pad=22)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _course(explanation: Explanation) -> tuple[list[float], list[list[int]]]:
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
