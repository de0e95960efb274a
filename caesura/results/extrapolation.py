"""Says in words how far runs went beyond what their profile was measured over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caesura.errors import listed
from caesura.runs.run_folder import read_provenance

if TYPE_CHECKING:
    import pandas as pd

    from caesura.results.comparison_tables import ComparisonTables

NEGLIGIBLE = 0.001
"""A run with less than this share of its forward time, and of its calls, beyond the range is not named in notes."""
_FEW = 3
_IN_WORDS = {
    "context": "tokens a context",
    "decodes": "decoding sessions a batch",
    "decode_context": "context tokens of decoding sessions a batch",
    "chunk_tokens": "tokens of chunks a batch",
    "chunk_context": "context tokens of chunks a batch",
}
EXTRAPOLATED = {"extrapolated_call_share": "the calls", "extrapolated_forward_share": "the forward time"}


@dataclass(frozen=True)
class _Excess:
    """One system reached more of something than its profile was measured over. Keys as in
    ``sim.costs.measured_range``."""

    profile: str
    system: str
    key: str
    measured: int
    reached: int


def extrapolations(comparison: ComparisonTables) -> list[str]:
    """One note for each profile that runs of a comparison went beyond; none where all stayed within."""
    found = list(_excesses(comparison))
    return [
        _note(profile, [one for one in found if one.profile == profile], comparison)
        for profile in dict.fromkeys(one.profile for one in found)
    ]


def _note(profile: str, excesses: Sequence[_Excess], comparison: ComparisonTables) -> str:
    clauses = []
    for key, words in _IN_WORDS.items():
        those = [one for one in excesses if one.key == key]
        if those:
            systems = list(dict.fromkeys(one.system for one in those))
            most = f"{'up to ' if len(systems) > 1 else ''}{max(one.reached for one in those):,}"
            clauses.append(f"{those[0].measured:,} {words} (here {_named(systems, comparison.systems)}: {most})")
    return f"{profile} was measured on up to {_and(clauses)}. {_how_much(_shares(comparison.runs))}"


def runs_beyond(table: pd.DataFrame) -> str:
    """How many of the runs of a table, a row each, went beyond what their profile was measured over; empty for none."""
    shares = _shares(table)
    count = int((shares.max(axis=1) >= NEGLIGIBLE).sum())
    if not count:
        return ""
    return f"{count} of {len(table)} runs go beyond what their profile was measured over. {_how_much(shares)}"


def _how_much(shares: pd.DataFrame) -> str:
    most = shares.max()
    parts = [f"{_percent(most[column])} of {words}" for column, words in EXTRAPOLATED.items() if most[column] > 0]
    return f"Costs beyond that are extrapolated: those of up to {_and(parts)} of a run."


def _shares(runs: pd.DataFrame) -> pd.DataFrame:
    """What was extrapolated in each run; 0 where that is not known."""
    return runs.reindex(columns=list(EXTRAPOLATED)).astype(float).fillna(0.0)


def _and(parts: Sequence[str]) -> str:
    return listed([listed(parts[:-1]), parts[-1]] if len(parts) > 1 else parts, " and ")


def _named(systems: Sequence[str], every: Sequence[str]) -> str:
    if len(systems) <= _FEW:
        return listed(systems)
    return f"all {len(systems)} systems" if len(systems) == len(every) else f"{len(systems)} of {len(every)} systems"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1f} %" if share >= 0.001 else "0.1 %"


def _excesses(comparison: ComparisonTables) -> Iterator[_Excess]:
    """Every one of every run that is worth a note, replica by replica."""
    profiles = [group["name"] for group in comparison.facts["replicas"] for _ in range(group["count"])]
    most = _shares(comparison.runs).max(axis=1)
    for share, ((system, _, _), folder) in zip(most, comparison.folders.items(), strict=True):
        beyond = read_provenance(folder)["facts"]["beyond_measured"] if share >= NEGLIGIBLE else []
        for one in beyond:
            for key, reached in one["reached"].items():
                yield _Excess(profiles[one["replica"]], system, key, one["measured"][key], reached)
