"""Sections of results. One list for each kind of result feeds the terminal, the report and ``tables.md`` alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from caesura.results.text_table import TextTable

Found = TypeVar("Found")


@dataclass(frozen=True)
class Section(Generic[Found]):
    """One table of results and where it is shown. A table without rows is not shown at all.

    Attributes:
        name: a short word; report templates put figures and notes beside the table by it.
        heading: in the report; sections that follow each other share it.
        table: makes the table from the results.
        otherwise: what the report says in place of a table without rows; empty leaves the section out.
        on_terminal: whether the terminal shows the table, too.
        urgent: on the terminal, even where quiet was asked for.
        wrap: whether the report breaks long cells over lines.
    """

    name: str
    heading: str
    table: Callable[[Found], TextTable]
    otherwise: str = ""
    on_terminal: bool = True
    urgent: bool = False
    wrap: bool = False


@dataclass(frozen=True)
class FilledSection:
    """A section of some results.

    Attributes:
        name, otherwise, on_terminal, urgent, wrap: as in ``Section``.
        heading: empty where the section before has the same.
        table: its rows may be none where ``otherwise`` says something.
    """

    name: str
    heading: str
    table: TextTable
    otherwise: str
    on_terminal: bool
    urgent: bool
    wrap: bool


def fill(sections: Sequence[Section[Found]], found: Found) -> list[FilledSection]:
    """The sections that there is something to show of, in their order."""
    filled: list[FilledSection] = []
    before = ""
    for one in sections:
        table = one.table(found)
        if table.rows or one.otherwise:
            heading, before = "" if one.heading == before else one.heading, one.heading
            filled.append(FilledSection(one.name, heading, table, one.otherwise, one.on_terminal, one.urgent, one.wrap))
    return filled


def for_terminal(filled: Sequence[FilledSection]) -> list[TextTable]:
    """The tables that a terminal shows after a run."""
    return [one.table for one in filled if one.on_terminal and one.table.rows]


def markdown(name: str, filled: Sequence[FilledSection]) -> bytes:
    """The sections as the text of ``tables.md``."""
    parts = [f"# {name}\n"]
    for one in filled:
        parts += [f"## {one.heading}\n"] if one.heading else []
        parts.append(one.table.markdown() if one.table.rows else f"{one.otherwise}\n")
    return "\n".join(parts).encode()
