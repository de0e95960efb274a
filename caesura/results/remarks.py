"""What a reader must know beside the tables: one list feeds the terminal and the report alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from caesura.errors import listed
from caesura.results.extrapolation import extrapolations, runs_beyond

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from caesura.results.comparison_tables import ComparisonTables
    from caesura.results.sweep_tables import SweepTables


class Remark(NamedTuple):
    """One remark.

    Attributes:
        kind: one or a few words that it is headed with.
        text: sentences.
    """

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def comparison_remarks(comparison: ComparisonTables) -> list[Remark]:
    """Where costs come from, how far they are extrapolated, which systems are oracles, what did not finish."""
    remarks = [one for profile in comparison.facts["replicas"] for one in _of_profile(profile)]
    remarks += [Remark("Extrapolated", note) for note in extrapolations(comparison)]
    if oracles := comparison.oracles():
        knew = "knew how long pauses last, or how much is generated; no real server does"
        remarks.append(Remark("Oracle", f"{', '.join(oracles)} {knew}."))
    if lost := list(_lost_sessions(comparison)):
        text = f"{listed(lost, ' and ')}. Latencies are those of finished sessions."
        remarks.append(Remark("Not all sessions finished", text))
    if count := int(comparison.runs["cut"].sum()):
        remarks.append(Remark("Cut", f"{count:,} sessions were cut to the model's context."))
    return list(dict.fromkeys(remarks))


def sweep_remarks(sweep: SweepTables) -> list[Remark]:
    """Where costs come from, and how far they are extrapolated."""
    remarks = list(_of_profile(sweep.facts["profile"]))
    if note := runs_beyond(sweep.table):
        remarks.append(Remark("Extrapolated", note))
    return remarks


def _of_profile(profile: Mapping[str, Any]) -> Iterator[Remark]:
    """What limits the trust in a profile, by its origin."""
    if profile["origin"] == "estimate":
        yield Remark("Estimate", f"{profile['name']} was not measured: {profile['source']}")
    if profile["origin"] == "published":
        yield Remark("Published constants", f"{profile['name']} was not measured on your GPU: {profile['source']}")
    if profile.get("misses_aim"):
        yield Remark("Measured, with a fit that misses its aim", str(profile["source"]))


def _lost_sessions(comparison: ComparisonTables) -> Iterator[str]:
    """How many sessions did not finish, by status, each with the commonest reason."""
    for status in ("rejected", "failed", "unfinished"):
        if count := int(comparison.runs[status].sum()):
            reason = comparison.commonest_reason(status)
            yield f"{count:,} sessions {status}{f' (most often: {reason})' if reason else ''}"
