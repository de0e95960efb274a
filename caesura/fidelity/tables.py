"""The tables of a validation, as rows of text for the terminal and the report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from caesura.errors import listed
from caesura.fidelity.fidelity import AIM_PCT, AIM_POINTS, MEASURES, STATISTICS, Fidelity, aim_of
from caesura.fidelity.replays import Replayed, rankings
from caesura.results.sections import Section
from caesura.results.text_table import STANDS_OUT, TextTable, number
from profiler.serving.real_engine import PARTS

_SHOWN = {"mean": "mean", "p50": "P50", "p90": "P90", "p99": "P99"}
WASTE_HEADINGS = {
    "waste_preserve": "kept while paused",
    "waste_recompute_own": "recompute, own",
    "waste_recompute_others": "recompute, others'",
    "waste_swap": "swap",
}
_AIM = f"mean, P50 and throughput ±{AIM_PCT['mean']:g} %, P90 and P99 ±{AIM_PCT['p90']:g} %"


def error_rows(replayed: Sequence[Replayed]) -> TextTable:
    """One row a run: normalized latency and throughput."""
    names = [f"normalized latency {statistic}" for statistic in STATISTICS]
    rows = [
        [
            one.label,
            f"{one.fidelity.sessions:,} of {one.arrived:,}",
            *(_against_aim(one.fidelity, name) for name in (*names, "throughput")),
            number(one.fidelity.mape_pct),
        ]
        for one in replayed
    ]
    headings = [
        "system @ load",
        "finished in both",
        *(f"norm. lat. {_SHOWN[s]}" for s in STATISTICS),
        "throughput",
        "MAPE",
    ]
    title = "Simulated against real, errors in %: norm. latency, throughput, MAPE over sessions"
    return TextTable(f"{title} ({STANDS_OUT.strip()} misses the aim)", headings, rows)


def aim_rows(replayed: Sequence[Replayed]) -> TextTable:
    """One row a measure: how many of its errors are within the aim."""
    rows = []
    for measure in (*MEASURES.values(), "throughput"):
        cells = []
        for statistic in STATISTICS:
            name = measure if measure == "throughput" else f"{measure} {statistic}"
            known = [one.fidelity.error_pct[name] for one in replayed if name in one.fidelity.error_pct]
            if not known or (measure == "throughput" and statistic != STATISTICS[0]):
                cells.append("–")
            else:
                cells.append(f"{sum(abs(error) <= aim_of(name) for error in known)} of {len(known)}")
        rows.append([measure, *cells])
    return TextTable("Errors within the aim", ["measure", *_SHOWN.values()], rows)


def waste_rows(replayed: Sequence[Replayed]) -> TextTable:
    """One row a run: by how much each share of wasted memory differs."""
    rows = [
        [one.label, *(_signed(one.fidelity.waste_points.get(waste)) for waste in WASTE_HEADINGS)] for one in replayed
    ]
    return TextTable("Wasted memory, simulated − real, points", ["system @ load", *WASTE_HEADINGS.values()], rows)


def other_error_rows(replayed: Sequence[Replayed]) -> TextTable:
    """One row a run: TTFT, TPOT and session time."""
    measures = [name for name in MEASURES.values() if name != "normalized latency"]
    pairs = [(measure, statistic) for measure in measures for statistic in STATISTICS]
    rows = [[one.label, *(_against_aim(one.fidelity, f"{m} {s}") for m, s in pairs)] for one in replayed]
    headings = ["system @ load", *(f"{measure} {_SHOWN[statistic]}" for measure, statistic in pairs)]
    return TextTable("Errors of TTFT, TPOT and session time, %", headings, rows)


def value_rows(replayed: Sequence[Replayed]) -> TextTable:
    """One row a run: real and simulated, side by side."""
    shown = {
        "norm. latency mean, ms": ("normalized latency mean", 1e3),
        "its P99, ms": ("normalized latency p99", 1e3),
        "TTFT mean, ms": ("TTFT mean", 1e3),
        "TPOT mean, ms": ("TPOT mean", 1e3),
        "session time mean, s": ("session time mean", 1.0),
        "sessions finished a second": ("throughput", 1.0),
    }
    rows = []
    for one in replayed:
        sides = (one.fidelity.real, one.fidelity.simulated)
        cells = [" / ".join(_value(side.get(name), scale) for side in sides) for name, scale in shown.values()]
        wastes = (one.fidelity.real_waste, one.fidelity.simulated_waste)
        rows.append([one.label, *cells, " / ".join(number(sum(waste.values())) if waste else "–" for waste in wastes)])
    return TextTable("Real / simulated", ["system @ load", *shown, "wasted memory, %"], rows)


def ranking_rows(replayed: Sequence[Replayed]) -> TextTable:
    """One row a load: the systems in order, the best first."""
    several = len({one.bench for one in replayed}) > 1
    rows = [
        [
            f"{bench}, load {found.load:g}" if several else f"load {found.load:g}",
            " < ".join(found.real),
            "the same" if found.simulated == found.real else " < ".join(found.simulated),
            number(found.tau),
            ", ".join(found.wrong) or "none",
        ]
        for bench, found in rankings(replayed)
    ]
    headings = ["", "real", "simulated", "Kendall's tau", "wrong pairs"]
    return TextTable(
        "Ranking by mean normalized latency; a pair counts as wrong where its real gap is above 3 %", headings, rows
    )


def share_rows(replayed: Sequence[Replayed]) -> TextTable:
    """One row a run whose iterations were recorded: where its errors come from."""
    rows = []
    for one in replayed:
        if (found := one.time_split) is not None and one.at_its_pace is not None:
            device, host = found.expected_device_s - found.device_s, found.expected_host_s - found.host_s
            rows.append(
                [
                    one.label,
                    f"{found.iterations:,}",
                    _ms(found.whole_s),
                    _ms(found.device_s),
                    _signed(100 * device / found.device_s),
                    _ms(found.host_s),
                    _signed(100 * host / found.host_s),
                    _ms(max(found.whole_s - found.device_s - found.host_s, 0.0)),
                    _signed(100 * (device + (1 - found.waited) * host) / found.whole_s),
                    _signed(_mean(one.fidelity)),
                    _signed(_mean(one.at_its_pace)),
                    f"{one.fidelity.errors_within_aim()} / {one.at_its_pace.errors_within_aim()}",
                ]
            )
    headings = [
        "system @ load",
        "iterations",
        "an iteration, ms",
        "device, ms",
        "by profile, %",
        "host, ms",
        "by profile, %",
        "rest: copies, ms",
    ]
    headings += ["both by profile, %", "norm. lat. mean, %", "at the run's pace, %", "aims met / at that pace"]
    title = (
        "Where errors come from: each iteration by itself, real and by the profile; and replays in which the device "
        "and the host are as fast as in the run in the mean"
    )
    return TextTable(title, headings, rows)


def agreement_rows(replayed: Sequence[Replayed]) -> TextTable:
    """One row a run whose tokens were compared with those of its sessions served alone."""
    rows = []
    for one in replayed:
        found = one.provenance.get("agreement")
        if found and found["sessions"]:
            margins = [found["first_difference_margin_median"], found["margins_elsewhere_median"]]
            shares = f"{found['equal']} of {found['sessions']}"
            rows.append([one.label, shares, *("–" if m is None else f"{m:.3g}" for m in margins)])
    headings = ["system @ load", "sessions equal", "median margin at the first difference", "median margin elsewhere"]
    return TextTable(
        "Tokens of sampled sessions against the same session served alone (margin: lead in logits)", headings, rows
    )


def verdict(replayed: Sequence[Replayed]) -> str:
    """How many errors are within the aim, in one sentence."""
    runs = [one.fidelity for one in replayed]
    points = sum(len(one.waste_points) for one in runs)
    wasted = f", {sum(one.wastes_within_aim() for one in runs)} of {points} wastes within ±{AIM_POINTS:g} point"
    mean = _worst_mean(runs)
    worst = f"; mean normalized latency is off by at most {mean:.1f} %" if mean is not None else ""
    ranked = [found for _, found in rankings(replayed)]
    wrong = sum(len(found.wrong) for found in ranked)
    ranks = "; every clear ranking is right" if not wrong else f"; {wrong} pairs of systems rank the wrong way round"
    if all(len(found.real) < 2 for found in ranked):
        ranks = ""
    return f"{_within(runs)} are within the aim ({_AIM}){wasted if points else ''}{worst}{ranks}."


def pace_verdict(replayed: Sequence[Replayed]) -> str:
    """How much would be within the aim if costs had the right level, in one sentence; empty where no run tells."""
    known = [one.at_its_pace for one in replayed if one.at_its_pace is not None]
    if not known:
        return ""
    mean = _worst_mean(known)
    worst = f", and the mean normalized latency off by at most {mean:.1f} %" if mean is not None else ""
    return (
        f"With the device and the host as fast as they were in each run in the mean, {_within(known)} would be within "
        f"the aim{worst}."
    )


def remarks(replayed: Sequence[Replayed]) -> list[str]:
    """What is to be said beside the verdict: that at the runs' pace, which profile misses its own aim, and what could
    not be compared."""
    misses = dict.fromkeys(one.misses for one in replayed)
    return [one for one in (pace_verdict(replayed), *misses, *_not_compared(replayed)) if one]


def _not_compared(replayed: Sequence[Replayed]) -> list[str]:
    """What real engines did not tell, one sentence for the runs that lack the same parts."""
    runs: dict[tuple[str, ...], list[str]] = {}
    for one in replayed:
        if one.missing:
            runs.setdefault(one.missing, []).append(one.label)
    return [
        f"Not compared for {listed(labels)}: {'; '.join(f'{PARTS[part]} (the run has no {part})' for part in missing)}."
        for missing, labels in runs.items()
    ]


_ERRORS = "Errors at a glance"
SECTIONS: tuple[Section[Sequence[Replayed]], ...] = (
    Section("aims", _ERRORS, aim_rows),
    Section("errors", _ERRORS, error_rows),
    Section("others", _ERRORS, other_error_rows),
    Section("wastes", _ERRORS, waste_rows),
    Section("shares", "Where do the errors come from?", share_rows),
    Section("values", "Real and simulated", value_rows, on_terminal=False),
    Section("ranks", "Do the systems rank the same?", ranking_rows, wrap=True),
    Section(
        "tokens",
        "Tokens against those of each session alone",
        agreement_rows,
        otherwise="These recordings do not say: they were made without the check.",
    ),
)
"""The sections of a validation."""
ERRORS = ("aims", "errors", "others", "wastes", "shares")
"""The sections that are about errors."""


def _within(runs: Sequence[Fidelity]) -> str:
    return f"{sum(one.errors_within_aim() for one in runs)} of {sum(len(one.error_pct) for one in runs)} errors"


def _worst_mean(runs: Sequence[Fidelity]) -> float | None:
    return max([abs(error) for one in runs if (error := _mean(one)) is not None], default=None)


def _mean(fidelity: Fidelity) -> float | None:
    return fidelity.error_pct.get("normalized latency mean")


def _against_aim(fidelity: Fidelity, figure: str) -> str:
    """The error of a figure, marked if it misses the aim."""
    error = fidelity.error_pct.get(figure)
    missed = error is not None and abs(error) > aim_of(figure)
    return _signed(error) + (STANDS_OUT if missed else "")


def _signed(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:+.1f}" if abs(value) >= 0.05 else "0.0"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}" if math.isfinite(seconds) else "–"


def _value(value: float | None, scale: float) -> str:
    return "–" if value is None else number(scale * value)
