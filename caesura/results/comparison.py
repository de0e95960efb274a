"""The results of an experiment: read from its folder, given as data frames and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caesura.errors import UserError
from caesura.results.comparison_tables import ComparisonTables
from caesura.results.sustained import load_text
from caesura.runs.run_folder import read_json

if TYPE_CHECKING:
    from caesura.results.figures import Picture

MARK = "comparison.json"
RUNS = "runs"


class Comparison(ComparisonTables):
    """What an experiment found: tables (see ``ComparisonTables``) and figures."""

    def figure(self, name: str) -> Picture:
        """A figure by name: ``latency``, ``waste`` or ``memory``.

        Raises:
            UserError: there is no such figure.
        """
        from caesura.results.figures import FIGURES

        if name not in FIGURES:
            raise UserError(f"there is no figure {name!r}; there are {', '.join(FIGURES)}")
        return FIGURES[name](self)

    def __repr__(self) -> str:
        size = f"{len(self.systems)} systems, {len(self.loads)} loads, {len(self.seeds)} seeds"
        return f"<Comparison {self.name!r}: {size}; {self.folder}>"

    def _repr_html_(self) -> str:
        return self.sustained_table.to_html(index=False, float_format=load_text)


def load(path: str | Path) -> Comparison:
    """The results in a folder that ``caesura compare`` or ``caesura run`` wrote.

    Raises:
        UserError: the folder holds no comparison, or a damaged one.
    """
    folder = Path(path)
    if not (folder / MARK).is_file():
        inside = ": it holds runs, but no comparison ended there" if (folder / RUNS).is_dir() else ""
        raise UserError(f"{folder} holds no results of Caesura{inside} ({MARK} is missing)")
    facts = read_json(folder / MARK)
    rows: Sequence[Mapping[str, Any]] = facts["runs"]
    folders = {(row["system"], row["load"], row["seed"]): folder / RUNS / row["folder"] for row in rows}
    return Comparison(folder, facts["name"], facts, folders)
