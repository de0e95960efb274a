"""``caesura trace describe``: a trace's portrait as tables, as JSON, and as figures."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Any

from caesura.config.units import parse_seconds
from caesura.errors import UserError
from caesura.results.text_table import TextTable, number
from caesura.trace.files import TraceInput, say
from traces import shipped
from traces.portrait import ALL, Portrait

MOST_ROWS = 25


def describe_trace(given: TraceInput, as_json: bool, figures: Path | None, token_time: str) -> None:
    """Print what a trace is made of, and write its figures.

    Raises:
        UserError: a token time that is no time, or a trace without sessions.
        TraceError: the trace cannot be read.
    """
    try:
        token_s = parse_seconds(token_time)
    except ValueError as error:
        raise UserError(f"--token-time: {error}") from None
    if token_s < 0:
        raise UserError(f"--token-time {token_time}: expected at least 0 s")
    portrait = Portrait(given.sessions())
    if not portrait.sessions:
        raise UserError(f"{given.name}: no session in it could be read")
    summary = portrait.summary(token_s)
    if as_json:
        print(jsonlib.dumps({"trace": given.name, "format": given.format, **summary}, indent=2, allow_nan=False))
    else:
        _show(given, summary)
    if figures is not None:
        from caesura.trace.figures import write_figures

        files = write_figures(portrait, token_s, given.name.rpartition("/")[2], figures)
        say(f"wrote {', '.join(file.name for file in files)} to {figures}")


def kind_rows(summary: dict[str, Any]) -> TextTable:
    """One row a kind of session."""
    columns = (
        *(("calls mean", "calls", "mean"), ("p50", "calls", "p50"), ("p99", "calls", "p99")),
        *(("1st prompt mean", "prompt", "mean"),),
        *(("context of a call mean", "context", "mean"), ("p50", "context", "p50"), ("p99", "context", "p99")),
        *(("output of a call mean", "output", "mean"), ("p50", "output", "p50"), ("p99", "output", "p99")),
        *(("returned mean", "returned", "mean"), ("pauses s", "pause_s_total", "mean")),
    )
    kinds = {name: kind for name, kind in summary["kinds"].items() if name != ALL or len(summary["kinds"]) != 2}
    rows = [
        [
            name or "(none)",
            f"{kind['sessions']:,}",
            f"{100 * kind['share']:.1f} %",
            *(_figure(kind[column][figure]) if kind[column] else "–" for _, column, figure in columns),
        ]
        for name, kind in kinds.items()
    ]
    headings = ["kind", "sessions", "share", *(heading for heading, _, _ in columns)]
    return TextTable("Sessions by kind (lengths in tokens; the last column: pauses of a session, mean)", headings, rows)


def pause_rows(summary: dict[str, Any]) -> TextTable:
    """One row a sort of pause, the commonest first."""
    waits = summary["waits"]
    rows = [
        [
            wait["name"],
            f"{wait['seconds']['count']:,}",
            f"{100 * wait['share']:.1f} %",
            "–" if wait["share_of_time"] is None else f"{100 * wait['share_of_time']:.1f} %",
            *(_figure(wait["seconds"][figure]) for figure in ("mean", "sd", "p50", "p90", "p99", "max")),
            _figure(wait["returned"]["mean"]),
        ]
        for wait in waits[:MOST_ROWS]
    ]
    more = f"; {len(waits) - MOST_ROWS} rarer ones left out, --json has all" if len(waits) > MOST_ROWS else ""
    headings = ["waits for", "pauses", "share", "of time", "mean", "sd", "p50", "p90", "p99", "max", "returned tokens"]
    return TextTable(f"Pauses (seconds){more}", headings, rows)


def remarks(summary: dict[str, Any]) -> list[str]:
    """What is not a table: arrivals, concurrency, sharing, rewritten contexts, calls that overlapped."""
    lines = [*_about_arrivals(summary["arrivals"]), *_about_contexts(summary), *_about_concurrency(summary)]
    if any(wait["name"] == "overlap" for wait in summary["waits"]):
        lines.append(
            "Pauses for overlap: a call that began before the one before it had ended; recorded as a pause of 0 s."
        )
    return lines


def _show(given: TraceInput, summary: dict[str, Any]) -> None:
    from caesura.cli.terminal import show_rows

    tokens = summary["tokens"]
    head = (
        f"{given.name} ({given.format}): {summary['sessions']:,} sessions, {summary['calls']:,} calls, "
        f"{summary['pauses']:,} pauses; tokens: {tokens['prompt']:,} in first prompts, {tokens['output']:,} generated, "
        f"{tokens['returned']:,} returned by pauses"
    )
    tables = [kind_rows(summary), *([pause_rows(summary)] if summary["waits"] else [])]
    kinds = shipped.kinds(given.name) if given.format == "shipped" else ""
    show_rows([head, *([f"Kinds: {kinds}."] if kinds else []), *remarks(summary)], tables)


def _about_arrivals(arrivals: dict[str, Any] | None) -> list[str]:
    if arrivals is None:
        return ["Arrivals: none recorded; draw them, for example with arrivals: {poisson: {rate: 2}}."]
    if arrivals["rate"] is None:
        return ["Arrivals: all at one time."]
    gaps = arrivals["gap_s"]
    text = (
        f"Arrivals: {arrivals['rate']:.3g} sessions/s over {arrivals['span_s']:,.0f} s; gaps vary by "
        f"{arrivals['gap_cv']:.3g} (sd / mean; Poisson: 1), p50 {_figure(gaps['p50'])} s, p99 {_figure(gaps['p99'])} s"
    )
    if arrivals["dispersion"] is not None:
        text += f"; by the minute, variance / mean {arrivals['dispersion']:.3g} (Poisson: 1)"
    lines = [f"{text}."]
    if arrivals["tick_s"] is not None:
        lines.append(
            f"Arrivals lie on a grid of {arrivals['tick_s']:g} s, which makes the variation of the gaps: "
            "spread them inside a tick before a replay."
        )
    return lines


def _about_contexts(summary: dict[str, Any]) -> list[str]:
    lines = []
    if summary["rewritten_contexts"]:
        lines.append(f"Contexts: rewritten by the client in {summary['rewritten_contexts']:,} pauses.")
    if blocks := summary["shared_blocks"]:
        lines.append(
            f"Sharing: {100 * blocks['hit_share']:.1f} % of {blocks['seen']:,} prompt blocks were there before; an "
            "infinite cache would hit them."
        )
    return lines


def _about_concurrency(summary: dict[str, Any]) -> list[str]:
    concurrency = summary["concurrency"]
    if concurrency is None:
        return []
    return [
        f"Concurrency: {concurrency['mean']:.3g} sessions open on average, {concurrency['peak']:.0f} at the peak, "
        f"if a generated token takes {1e3 * concurrency['token_s']:g} ms."
    ]


def _figure(value: float) -> str:
    """Three significant digits; whole numbers whole, and small ones with their exponent."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:.2e}" if abs(value) < 1e-3 else number(value)
