"""Tables of text: what the terminal, the reports and ``tables.md`` show of results."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

STANDS_OUT = " !"
"""The end of a cell that stands out in a report."""


@dataclass(frozen=True)
class TextTable:
    """A table: a title, the headings, and rows of text; the first column names the row."""

    title: str
    headings: list[str]
    rows: list[list[str]]

    def first(self, count: int) -> TextTable:
        """The table with at most ``count`` rows."""
        return replace(self, rows=self.rows[:count])

    def markdown(self) -> str:
        """The table under its title, in Markdown."""
        lines = [self.headings, ["---", *["---:"] * (len(self.headings) - 1)], *self.rows]
        cells = (" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines)
        return f"{self.title}\n\n" + "\n".join(f"| {line} |" for line in cells) + "\n"


def number(value: Any) -> str:
    """Three significant digits, no exponents; a dash for what was not measured."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 4)}f}"
