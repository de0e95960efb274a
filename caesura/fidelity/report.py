"""Writes what a validation found: ``fidelity.csv``, ``fidelity.json``, figures and one self-contained report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from caesura.errors import UserError
from caesura.fidelity.fidelity import AIM_PCT, AIM_POINTS, CLEAR_GAP, table
from caesura.fidelity.figures import FIGURES
from caesura.fidelity.replays import Replayed, rankings
from caesura.fidelity.tables import SECTIONS, pace_verdict, remarks, verdict
from caesura.results.html import embed_image, render_html
from caesura.results.json_safe import json_safe
from caesura.results.sections import FilledSection, fill, markdown
from caesura.runs.code_hash import versions
from caesura.runs.run_folder import write_bytes, write_file, write_json

MARK = "fidelity.json"
RECORDINGS = "recordings"
REPORT = "report.html"


def prepare(out: Path) -> None:
    """Check that ``out`` is a validation's folder, or can become one.

    Raises:
        UserError: it holds something else.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose another folder with --out")
    ours = (out / MARK).is_file() or (out / RECORDINGS).is_dir()
    if out.is_dir() and any(out.iterdir()) and not ours:
        raise UserError(f"{out} is not empty and holds no validation; choose another folder with --out")


def write_validation(replayed: Sequence[Replayed], out: Path) -> None:
    """Write everything; ``fidelity.json`` comes last, so that a folder that has it is whole.

    Raises:
        UserError: the folder cannot be written.
    """
    images = {name: draw(replayed).png() for name, draw in FIGURES.items()}
    sections = fill(SECTIONS, replayed)
    page = _page(replayed, images, sections)
    write_file(out / "fidelity.csv", lambda draft: _write_csv(draft, replayed))
    for name, image in images.items():
        write_bytes(out / "figures" / f"{name}.png", image)
    write_bytes(out / "tables.md", markdown("How right is the simulator?", sections))
    write_bytes(out / REPORT, page.encode())
    write_file(out / MARK, lambda draft: write_json(draft, json_safe(_facts(replayed))))


def _write_csv(file: Path, replayed: Sequence[Replayed]) -> None:
    table([one.fidelity for one in replayed]).to_csv(file, index=False)


def _facts(replayed: Sequence[Replayed]) -> dict[str, Any]:
    """All figures."""
    runs = [
        {
            **asdict(one.fidelity),
            "bench": one.bench,
            "costs": one.costs,
            "arrived": one.arrived,
            "finished": one.finished,
            "provenance": dict(one.provenance),
            "shares": None if one.time_split is None else asdict(one.time_split),
            "missing": list(one.missing),
            "at_its_pace": None if one.at_its_pace is None else asdict(one.at_its_pace),
        }
        for one in replayed
    ]
    return {
        "aim": {"pct": AIM_PCT, "waste_points": AIM_POINTS, "clear_gap": CLEAR_GAP},
        "verdict": verdict(replayed),
        "pace_verdict": pace_verdict(replayed),
        "runs": runs,
        "rankings": [{"bench": bench, **asdict(found)} for bench, found in rankings(replayed)],
        "versions": versions(),
    }


def _page(replayed: Sequence[Replayed], images: Mapping[str, bytes], sections: Sequence[FilledSection]) -> str:
    return render_html(
        "fidelity.html.j2",
        benches=list(dict.fromkeys(one.bench for one in replayed)),
        costs=list(dict.fromkeys(one.costs for one in replayed)),
        verdict=verdict(replayed),
        sections=sections,
        checked=any(one.name == "tokens" and one.table.rows for one in sections),
        remarks=remarks(replayed),
        runs=replayed,
        aim=AIM_PCT,
        aim_points=AIM_POINTS,
        versions=versions(),
        images={name: embed_image(image) for name, image in images.items()},
    )
