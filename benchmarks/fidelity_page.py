"""Renews what ``docs/fidelity.md`` shows of the shipped profiles and recorded runs: its tables and its figures.

    .venv/bin/python -m benchmarks.fidelity_page

Does what ``caesura validate --recorded`` does and takes the page's figures from there.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from benchmarks.profile_table import profile_rows
from caesura.cli.validate import validate_recorded
from caesura.fidelity.replays import Replayed
from caesura.fidelity.tables import ERRORS, SECTIONS, remarks, verdict
from caesura.results.sections import fill
from caesura.results.text_table import TextTable

PAGE = Path(__file__).resolve().parents[1] / "docs" / "fidelity.md"
FIGURES = ("errors", "real-and-simulated")
BEGIN, END = "<!-- made by python -m benchmarks.fidelity_page -->", "<!-- end of what is made -->"
PROFILES = "<!-- profiles, made by python -m benchmarks.fidelity_page -->", "<!-- end of profiles -->"


def main() -> None:
    """Replay, then write the page and its figures."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "validation"
        replayed = validate_recorded(None, out, profile=None, systems=None, loads=None, jobs=None, quiet=False)
        for name in FIGURES:
            shutil.copyfile(out / "figures" / f"{name}.png", PAGE.parent / "figures" / f"fidelity-{name}.png")
    page = with_made(PAGE.read_text(encoding="utf-8"), made(replayed))
    PAGE.write_text(with_made(page, markdown(profile_rows()), *PROFILES), encoding="utf-8")
    print(f"{PAGE}: {verdict(replayed)}")


def made(replayed: list[Replayed]) -> str:
    """What stands between the two marks."""
    benches = dict.fromkeys(one.bench for one in replayed)
    machines = dict.fromkeys(_machine(one) for one in replayed)
    costs: dict[str, list[str]] = {}
    for one in replayed:
        costs.setdefault(f"`{one.costs}` (card {one.provenance.get('card', 'unknown')})", []).append(one.label)
    sections = fill(SECTIONS, replayed)
    errors, rest = (
        [markdown(one.table) for one in sections if one.table.rows and (one.name in ERRORS) == about_errors]
        for about_errors in (True, False)
    )
    parts = [
        *(f"{bench}." for bench in benches),
        f"Recorded on: {'; '.join(machines)}. Replayed with the costs that were measured on the same card:",
        "\n".join(f"- {name}: {', '.join(labels)}" for name, labels in sorted(costs.items())),
        f"**{verdict(replayed)}**",
        "![Signed errors, one line a run](figures/fidelity-errors.png)",
        *errors,
        *remarks(replayed),
        "![Real and simulated values](figures/fidelity-real-and-simulated.png)",
        *rest,
    ]
    return "\n\n".join(parts)


def markdown(rows: TextTable) -> str:
    """A table under its title."""
    lines = [rows.headings, ["---", *["---:"] * (len(rows.headings) - 1)], *rows.rows]
    return f"{rows.title}:\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def with_made(page: str, text: str, begin: str = BEGIN, end: str = END) -> str:
    """The page with ``text`` between two marks."""
    before, rest = page.split(begin)
    return f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}"


def _machine(one: Replayed) -> str:
    facts = {name: one.provenance.get(name) for name in ("gpu", "driver", "torch", "flashinfer", "commit")}
    return ", ".join(f"{name} {value}" if name != "gpu" else str(value) for name, value in facts.items() if value)


if __name__ == "__main__":
    main()
