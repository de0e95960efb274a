"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from caesura.comparison import Comparison
from caesura.tables import Rows, detail_rows, latency_rows, split_rows

_PIPED_WIDTH = 132


def show_comparison(comparison: Comparison, kept: int) -> None:
    """What a comparison found, and where the rest of it lies."""
    console = _console()
    for rows in (latency_rows(comparison), detail_rows(comparison, comparison.knee), split_rows(comparison)):
        if rows.rows:
            console.print(rows.title, style="bold", highlight=False)
            console.print(_table(rows), "")
    for line in _remarks(comparison, kept):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def show_list(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A list with a name in its first column; long texts wrap."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(heading, no_wrap=index == 0, ratio=None if index == 0 else 1)
    for row in rows:
        table.add_row(*row)
    _console().print(table, highlight=False, markup=False)


def _console() -> Console:
    """As wide as the terminal; a pipe or a file gets lines of a size that shows a table whole."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, _PIPED_WIDTH))


def _table(rows: Rows) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for index, heading in enumerate(rows.headings):
        table.add_column(heading, justify="left" if index == 0 else "right", no_wrap=index == 0, vertical="bottom")
    for row in rows.rows:
        table.add_row(*row)
    return table


def _remarks(comparison: Comparison, kept: int) -> list[str]:
    remarks = []
    profile = comparison.facts["profile"]
    if profile["origin"] == "estimate":
        remarks.append(f"Estimate: nobody measured {profile['name']}; its figures come from a datasheet.")
    if oracles := comparison.oracles():
        remarks.append(f"Oracle: {', '.join(oracles)} knew how long every pause would last.")
    for measure in ("rejected", "failed", "unfinished"):
        if count := int(comparison.runs[measure].sum()):
            reason = comparison.commonest_reason(measure)
            remarks.append(f"{count:,} sessions {measure}{f' (most often: {reason})' if reason else ''}.")
    if kept:
        remarks.append(f"{kept} of {len(comparison.folders)} runs were there already.")
    remarks.append(f"Report: {comparison.report}")
    return remarks
