"""``caesura trace fit``: a generator file out of a trace, and a page that says how well it fits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from caesura.config.generator_schema import GeneratorFile
from caesura.config.validation import validated
from caesura.config.yaml_source import parse_yaml
from caesura.errors import UserError
from caesura.results.html import embed_image, render_html
from caesura.results.text_table import STANDS_OUT, TextTable, number
from caesura.runs.run_folder import write_bytes
from caesura.trace.files import PIPE, TraceInput, say, working
from caesura.trace.generate import Amount, generate_trace
from traces.fit.association import Association
from traces.fit.trace import FittedTrace, TraceFit
from traces.portrait import ALL, Portrait

LEAST_DRAWN, MOST_DRAWN = 2_000, 20_000
FAR_OFF, FAR_OFF_KS, FAR_OFF_CORRELATION = 0.1, 0.1, 0.1
MOST_OFF_SPREAD, REGULAR = 1.5, 0.05
CHECKED = {
    "calls": "calls of a session",
    "prompt": "first prompt (tokens)",
    "context": "context of a call (tokens)",
    "output": "output of a call (tokens)",
    "returned": "returned by a pause (tokens)",
    "pause_s": "pause (s)",
    "pause_s_total": "pauses of a session (s)",
    "final_context": "final context (tokens)",
}


@dataclass(frozen=True)
class Fit:
    """A fitted generator beside the trace that it was fitted to.

    Attributes:
        trace: the trace's name.
        fitted: what was fitted.
        text: the generator file.
        recorded: the trace's portrait.
        drawn: the portrait of a trace drawn from the generator, of as many sessions (2,000 to 20,000).
        associations: how values of the drawn trace go together, by kind and quantity.
        seed: which was drawn with.
    """

    trace: str
    fitted: FittedTrace
    text: str
    recorded: Portrait
    drawn: Portrait
    associations: Mapping[str, Mapping[str, Association]]
    seed: int


@dataclass(frozen=True)
class _Compared:
    """One quantity of the trace and of the drawn one: figures by name, and the greatest distance of their shares."""

    title: str
    recorded: Mapping[str, float]
    drawn: Mapping[str, float]
    ks: float

    @property
    def off(self) -> float | None:
        """By what share of it the drawn mean differs from the recorded one; None of one that is 0."""
        return self.drawn["mean"] / self.recorded["mean"] - 1 if self.recorded["mean"] else None


def fit_trace(given: TraceInput, points: int, seed: int) -> Fit:
    """Fit a generator to a trace, and draw a trace from it to compare.

    Raises:
        UserError: a trace without sessions.
        TraceError: the trace cannot be read.
    """
    recorded, observed = Portrait(), TraceFit()
    for session in given.sessions():
        recorded.add(session)
        observed.add(session)
    if not recorded.sessions:
        raise UserError(f"{given.name}: no session in it could be read")
    with working("fitting, and drawing a trace to compare"):
        fitted = observed.fit(points)
        text = _text(given, fitted, recorded)
        file = validated(GeneratorFile, parse_yaml(text, "the fitted generator"))
        drawn, seen = Portrait(), TraceFit()
        count = min(max(recorded.sessions, LEAST_DRAWN), MOST_DRAWN)
        for session in generate_trace(file, Amount(count, None), seed):
            drawn.add(session)
            seen.add(session)
        return Fit(given.stem, fitted, text, recorded, drawn, seen.associations(), seed)


def write_fit(fit: Fit, out: str, page: Path | None) -> None:
    """Write the generator file, and the page beside it; print the checks unless the file goes to standard output.

    Raises:
        UserError: a place that cannot be written.
    """
    if page is not None:
        write_bytes(page, _page(fit).encode())
        say(f"wrote {page}")
    if out == PIPE:
        print(fit.text, end="")
        return
    write_bytes(Path(out), fit.text.encode())
    say(f"wrote {out}")
    from caesura.cli.terminal import show_rows

    show_rows(remarks(fit), [fit_rows(fit), check_rows(fit, ALL), association_rows(fit)])


def fit_rows(fit: Fit) -> TextTable:
    """One row a fitted quantity: what stands for it, and how far that lies off."""
    rows = []
    for quantity in fit.fitted.quantities:
        fitted = quantity.fitted
        best = fitted.candidates[:3]
        tried = ", ".join(f"{candidate.name} {candidate.ks:.3f}" for candidate in best) if best else "–"
        name = f"{quantity.kind}: {quantity.name}" if quantity.kind else quantity.name
        rows.append([name, f"{fitted.count:,}", fitted.name, _ks(fitted.ks), tried])
    headings = ["quantity", "values", "stands for it", "KS", "least AIC, with KS"]
    return TextTable("What was fitted (KS: greatest distance of the cumulative shares)", headings, rows)


def arrival_rows(fit: Fit) -> TextTable:
    """One row a candidate for the arrivals; no rows where there was nothing to fit."""
    arrivals = fit.fitted.arrivals
    rows = []
    for candidate in arrivals.candidates if arrivals is not None else ():
        parameters = ", ".join(f"{name} {value:g}" for name, value in candidate.parameters.items())
        rows.append(
            [
                candidate.name,
                parameters or "–",
                f"{candidate.aic:,.0f}",
                f"{candidate.ks:.3f}",
                f"{candidate.gap_cv:.2f}",
            ]
        )
    return TextTable(
        "Arrivals; the first was taken", ["process", "parameters", "AIC", "KS of gaps", "sd / mean of gaps"], rows
    )


def check_rows(fit: Fit, kind: str) -> TextTable:
    """The figures of ``describe`` for the trace and for one drawn from the generator."""
    rows = []
    for one in _compared(fit, kind):
        sides = (one.recorded, one.drawn)
        figures = [number(side[figure]) for figure in ("mean", "p50", "p90", "p99") for side in sides]
        off = "–" if one.off is None else f"{_percent(one.off)}{_mark(abs(one.off) - FAR_OFF)}"
        rows.append([one.title, *figures[:2], off, *figures[2:], _ks(one.ks)])
    headings = [
        "",
        "mean: trace",
        "drawn",
        "off",
        "p50: trace",
        "drawn",
        "p90: trace",
        "drawn",
        "p99: trace",
        "drawn",
        "KS",
    ]
    what = "all sessions" if kind == ALL else f"kind {kind or '(none)'}"
    return TextTable(f"Described: the trace, and one drawn from the generator ({what})", headings, rows)


def association_rows(fit: Fit) -> TextTable:
    """One row a quantity of a kind: its correlations in the trace, and as drawn."""
    rows = []
    for kind, recorded in fit.fitted.associations.items():
        drawn = fit.associations.get(_drawn_kind(kind), {})
        for name, one in recorded.items():
            other = drawn.get(name)
            of_session = ("alike", "next") if name != "calls" and one.next is not None else ()
            chance = 2 / math.sqrt(len(fit.recorded.column("calls", kind)))
            cells: list[str] = []
            for figure in ("with_prompt", *of_session):
                cells += _correlations(getattr(one, figure), getattr(other, figure, None), chance)
            rows.append([f"{kind}: {name}" if kind else name, *cells, *["–"] * (6 - len(cells))])
    titles = ("with the first prompt", "with others of the session", "with the next one")
    headings = ["", *(heading for title in titles for heading in (f"{title}: trace", "drawn"))]
    return TextTable("How values go together (correlations of normal scores)", headings, rows)


def _correlations(recorded: float, drawn: float | None, chance: float) -> tuple[str, str]:
    if drawn is None:
        return f"{recorded:.2f}", "–"
    return f"{recorded:.2f}", f"{drawn:.2f}{_mark(abs(recorded - drawn) - max(FAR_OFF_CORRELATION, chance))}"


def far_off(fit: Fit) -> list[str]:
    """What the drawn trace has wrong by much, of all its sessions: name and by how much."""
    compared = _compared(fit, ALL)
    means = [
        f"{one.title} in its mean by {_percent(one.off)}" for one in compared if one.off and abs(one.off) > FAR_OFF
    ]
    shares = [f"{one.title} by a KS of {one.ks:.3f}" for one in compared if one.ks > FAR_OFF_KS]
    return means + shares + _arrivals_far_off(fit)


def _arrivals_far_off(fit: Fit) -> list[str]:
    """How much arrivals vary, where that is drawn by half more or a third less than recorded."""
    if fit.fitted.arrivals is None:
        return []
    recorded, drawn = (portrait.summary(0.0)["arrivals"] for portrait in (fit.recorded, fit.drawn))
    pairs = {
        "sd / mean of the gaps": (fit.fitted.arrivals.gap_cv, drawn["gap_cv"]),
        "variance / mean of the arrivals by the minute": (recorded["dispersion"], drawn["dispersion"]),
    }
    return [
        f"{name}, {other:.3g} instead of {one:.3g}"
        for name, (one, other) in pairs.items()
        if one and other and max(one, other) > REGULAR and not 1 / MOST_OFF_SPREAD <= other / one <= MOST_OFF_SPREAD
    ]


def remarks(fit: Fit) -> list[str]:
    """Arrivals and rewritten contexts, of the trace and as drawn; and what the generator leaves out."""
    recorded, drawn = fit.recorded.summary(0.0), fit.drawn.summary(0.0)
    lines = []
    if fit.fitted.arrivals is None:
        lines.append(
            "Arrivals: the trace records none, or too few; 1 session/s stands in the generator, measured nowhere."
        )
    else:
        lines.append(_about_arrivals(fit, recorded["arrivals"], drawn["arrivals"]))
    if recorded["rewritten_contexts"]:
        shares = [100 * figures["rewritten_contexts"] / max(figures["pauses"], 1) for figures in (recorded, drawn)]
        lines.append(f"Rewritten contexts: {shares[0]:.1f} % of the pauses, drawn {shares[1]:.1f} %.")
    if recorded["shared_blocks"]:
        lines.append("Shared blocks: not in the generator; its sessions share nothing.")
    wrong = far_off(fit)
    nothing = "Nothing that is compared for all sessions is far off; kind by kind, what is bears a mark on the page."
    lines.append(f"Far off: {'; '.join(wrong)}." if wrong else nothing)
    return lines


def _about_arrivals(fit: Fit, recorded: dict[str, Any], drawn: dict[str, Any]) -> str:
    arrivals = fit.fitted.arrivals
    assert arrivals is not None
    text = (
        f"Arrivals: {recorded['rate']:.3g} sessions/s, drawn {drawn['rate']:.3g}; sd / mean of the gaps "
        f"{arrivals.gap_cv:.3g}, drawn {drawn['gap_cv']:.3g}"
    )
    if arrivals.tick_s is not None:
        text += f" (the trace's grid of {arrivals.tick_s:g} s was spread first)"
    if recorded["dispersion"] is not None and drawn["dispersion"] is not None:
        text += f"; by the minute, variance / mean {recorded['dispersion']:.3g}, drawn {drawn['dispersion']:.3g}"
    return f"{text}."


def _drawn_kind(kind: str) -> str:
    return kind or "session"


def _compared(fit: Fit, kind: str) -> list[_Compared]:
    from scipy.stats import ks_2samp

    recorded, drawn = fit.recorded.summary(0.0)["kinds"][kind], fit.drawn.summary(0.0)["kinds"].get(_drawn_kind(kind))
    found = []
    for column, title in CHECKED.items():
        one, other = recorded[column], drawn[column] if drawn is not None else None
        if one is not None and other is not None:
            values = fit.recorded.column(column, kind), fit.drawn.column(column, _drawn_kind(kind))
            found.append(_Compared(title, one, other, ks_2samp(*values).statistic))
    return found


def _percent(off: float) -> str:
    return f"{100 * off:+.1f} %"


def _mark(beyond: float) -> str:
    return STANDS_OUT if beyond > 0 else ""


def _ks(distance: float) -> str:
    return f"{distance:.3f}{_mark(distance - FAR_OFF_KS)}"


def _text(given: TraceInput, fitted: FittedTrace, recorded: Portrait) -> str:
    calls = len(recorded.column("output"))
    written = {
        "description": f"fitted to {given.stem} ({given.format}): {recorded.sessions:,} sessions, {calls:,} calls",
        "sessions": max(1000, min(recorded.sessions, MOST_DRAWN)),
        **fitted.written,
    }
    return yaml.safe_dump(written, sort_keys=False, default_flow_style=None, width=118, allow_unicode=True)


def _page(fit: Fit) -> str:
    from caesura.trace.figures import fitted_arrivals, fitted_kind

    arrivals = fit.fitted.arrivals
    kinds = [ALL, *(fit.recorded.kinds if len(fit.recorded.kinds) > 1 else ())]
    pictures = {kind: fitted_kind(fit.fitted.quantities, kind) for kind in fit.recorded.kinds}
    return render_html(
        "fit.html.j2",
        fit=fit,
        remarks=remarks(fit),
        fits=fit_rows(fit),
        arrivals=arrival_rows(fit),
        gaps=None if arrivals is None else embed_image(fitted_arrivals(arrivals).png(110)),
        checks=[*(check_rows(fit, kind) for kind in kinds), association_rows(fit)],
        kinds={kind or "sessions": embed_image(picture.png(110)) for kind, picture in pictures.items()},
    )
