"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from caesura.results.capacities import SECTIONS as CAPACITY_SECTIONS
from caesura.results.capacities import Capacities
from caesura.results.comparison import Comparison
from caesura.results.remarks import comparison_remarks, sweep_remarks
from caesura.results.sections import FilledSection, fill, for_terminal
from caesura.results.sweep import Sweep
from caesura.results.sweep_tables import SECTIONS as SWEEP_SECTIONS
from caesura.results.tables import SECTIONS
from caesura.results.text_table import TextTable

_PIPED_WIDTH = 132
_SCREENFUL = 60


def show_comparison(comparison: Comparison, kept: int) -> None:
    """Print the sections of a comparison, its remarks, and where the report lies."""
    console = page()
    for table in for_terminal(fill(SECTIONS, comparison)):
        _print_table(console, table)
    for line in _closing(comparison, kept):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def show_sweep(sweep: Sweep, kept: int, quiet: bool = False) -> None:
    """Print a sweep's first measure, and where the rest lies; runs that failed are listed even with --quiet."""
    console = page()
    for one in fill(SWEEP_SECTIONS, sweep):
        if one.urgent:
            _print_urgent(one)
        elif one.on_terminal and not quiet:
            _print_table(console, one.table.first(_SCREENFUL))
            if len(one.table.rows) > _SCREENFUL:
                console.print(f"... and {len(one.table.rows) - _SCREENFUL} more rows", highlight=False)
    if not quiet:
        lines = [f"{kept} of {sweep.facts['runs']} runs were there already."] if kept else []
        lines += [str(remark) for remark in sweep_remarks(sweep)]
        lines += [f"Table: {sweep.folder / 'results.csv'} ({len(sweep.table)} rows)", f"Report: {sweep.report}"]
        for line in lines:
            console.print(line, soft_wrap=True, highlight=False, markup=False)


def _print_table(console: Console, table: TextTable) -> None:
    console.print(table.title, style="bold", highlight=False)
    console.print(_table(table), "")


def _print_urgent(one: FilledSection) -> None:
    """What went wrong, on standard error; long cells of the last column fold."""
    errors = Console(stderr=True, width=max(Console(stderr=True).width, _PIPED_WIDTH))
    errors.print(one.table.title, style="bold", highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in one.table.headings:
        table.add_column(heading, no_wrap=heading != one.table.headings[-1], overflow="fold")
    for row in one.table.rows[:_SCREENFUL]:
        table.add_row(*(escape(cell) for cell in row))
    errors.print(table, highlight=False)


def show_rows(lines: Sequence[str], tables: Sequence[TextTable]) -> None:
    """Lines of text, and tables under their titles."""
    console = page()
    for line in lines:
        console.print(line, soft_wrap=not console.is_terminal, highlight=False, markup=False)
    for rows in tables:
        console.print("")
        console.print(rows.title, style="bold", highlight=False, markup=False)
        console.print(_table(rows))


def show_capacities(capacities: Capacities) -> None:
    """Print the highest load that each system sustains, and where the rest lies."""
    console = page()
    for table in for_terminal(fill(CAPACITY_SECTIONS, capacities)):
        _print_table(console, table)
    lines = [*capacities.remarks(), f"Figure: {capacities.folder / 'figures' / 'capacity.png'}"]
    lines.append(f"Every run that it took: {capacities.folder / 'probes.csv'}")
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def show_list(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A list with a name in its first column; long texts wrap."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(heading, no_wrap=index == 0, ratio=None if index == 0 else 1)
    for row in rows:
        table.add_row(*row)
    page().print(table, highlight=False, markup=False)


def page() -> Console:
    """As wide as the terminal; a pipe or a file gets lines of a size that shows a table whole."""
    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, _PIPED_WIDTH))


def _table(rows: TextTable) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for index, heading in enumerate(rows.headings):
        table.add_column(heading, justify="left" if index == 0 else "right", no_wrap=index == 0, vertical="bottom")
    for row in rows.rows:
        table.add_row(*row)
    return table


def _closing(comparison: Comparison, kept: int) -> list[str]:
    """The lines below the tables."""
    lines = [str(remark) for remark in comparison_remarks(comparison)]
    if kept:
        lines.append(f"{kept} of {len(comparison.folders)} runs were there already.")
    return [*lines, f"Report: {comparison.report}"]
