"""The tables that the terminal and the report share, as rows of text."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from caesura.results.comparison_tables import ComparisonTables
from caesura.results.metrics import METRICS, USES, WASTES
from caesura.results.sections import Section
from caesura.results.sustained import SAME, load_text, ratio_text
from caesura.results.text_table import TextTable, number

if TYPE_CHECKING:
    import pandas as pd


NEGLIGIBLE = 0.005
"""Share of memory x time: saving less gains nothing."""
DETAIL = tuple(
    (one.heading, one.key, one.scale)
    for one in sorted((one for metric in METRICS for one in metric.shown), key=lambda one: one.place)
)
"""The columns that tables have of metrics: heading, key of the summary, factor."""


def latency_rows(comparison: ComparisonTables) -> TextTable:
    """One row a system: its sustained load, the ratio to the first system, mean normalized latency at each load."""
    reference = comparison.sustained[comparison.systems[0]]
    several = len(comparison.seeds) > 1
    rows = []
    for system in comparison.systems:
        found = comparison.sustained[system]
        loads = [one.load for one in comparison.sustained_by_seed(system)]
        spread = [f"{load_text(min(loads))} to {load_text(max(loads))}"] if several else []
        ratio = SAME if system == comparison.systems[0] else ratio_text(found, reference)
        latencies = ["–" if value is None else number(1e3 * value) for value in comparison.latency(system)]
        rows.append([system, str(found), *spread, ratio, *latencies])
    headings = ["system", "sustained", *(["over seeds"] if several else []), f"vs {comparison.systems[0]}"]
    objective = f"{1e3 * comparison.objective:g} ms"
    title = f"Mean normalized latency (ms per token) by load ({comparison.load_unit}); sustained: at most {objective}"
    return TextTable(title, [*headings, *(f"{load:g}" for load in comparison.loads)], rows)


def detail_rows(comparison: ComparisonTables, load: float) -> TextTable:
    """One row a system: the measures at one load."""
    table = comparison.at(load)
    savings = possible_saving(table)
    rows = [
        [str(row["system"]), *(number(scale * float(row[column])) for _, column, scale in DETAIL), number(saved)]
        for (_, row), saved in zip(table.iterrows(), savings, strict=True)
    ]
    headings = ["system", *(name for name, _, _ in DETAIL), "waste saved, % of possible"]
    title = f"At load {load:g} ({comparison.load_unit})"
    if all(map(math.isnan, savings)):
        bounded = "waste_bound_token_s" in table and table["waste_bound_token_s"].notna().all()
        little = f"less than {100 * NEGLIGIBLE:g} % of the memory could be saved"
        title += f"; waste saved: –, for {little if bounded else 'no bound is known of clusters and prefix caches'}"
    return TextTable(title, headings, rows)


def possible_saving(table: pd.DataFrame) -> list[float]:
    """Of the waste that the most wasteful system of a load could have been spared, how much each system is, percent.

    (W_max - W) / (W_max - W_bound), wastes in token-seconds over the whole run, W_bound what no policy can go below
    (``sim.results.waste_bound``): 0 for the most wasteful, 100 for one that no policy could improve. NaN
    where no bound is known, and where what could be saved is less than ``NEGLIGIBLE`` of memory x time.
    """
    if "waste_bound_token_s" not in table:
        return [math.nan] * len(table)
    wasted = table[[USES[waste] for waste in WASTES]].astype(float).sum(axis=1)
    possible = wasted.max() - table["waste_bound_token_s"].astype(float)
    memory = table[list(USES.values())].astype(float).sum(axis=1)
    saved = wasted.max() - wasted
    return [
        100 * one / most if most > NEGLIGIBLE * whole else math.nan
        for one, most, whole in zip(saved, possible, memory, strict=True)
    ]


def split_rows(comparison: ComparisonTables) -> TextTable:
    """For each baseline that ran under both batching rules, what its gap to infercept is made of."""
    rows = [[s.baseline, s.system, s.total, s.batching, s.rest] for s in comparison.splits]
    headings = ["baseline", "system", "gain in sustained load", "of it by batching", "the rest"]
    return TextTable("What the gain is made of: total = batching × rest", headings, rows)


def difference_rows(comparison: ComparisonTables) -> TextTable:
    """One row a setting in which the systems differ."""
    rows = [[key, *values] for key, values in comparison.facts["differences"].items()]
    return TextTable("Settings that differ; all others are equal", ["setting", *comparison.systems], rows)


def replica_rows(comparison: ComparisonTables, load: float) -> TextTable:
    """One row a replica at one load, first seed; none where no run has a cluster."""
    table = comparison.replicas
    table = table[(table["load"] == load) & (table["seed"] == comparison.seeds[0])]
    rows = []
    for _, row in table.iterrows() if table["replica"].max() > 0 else ():
        seconds, memory = row["end_time"], row["memory_token_s"]
        waste = sum(row[name] for name in table.columns if name.startswith("waste_"))
        measures = [row["sessions"], row["calls"], row["emitted_tokens"] / seconds]
        shares = [row["forward_s"] / seconds, row["useful_token_s"] / memory, waste / memory]
        name = f"{row['system']} / {row['replica']}"
        rows.append([name, str(row["gpu"]), *map(number, measures), *(number(100 * share) for share in shares)])
    headings = ["system / replica", "GPU", "sessions", "calls", "output tok/s", "busy %", "useful memory %", "waste %"]
    return TextTable(
        f"Each replica over the whole run, at load {load:g} ({comparison.load_unit}), first seed", headings, rows
    )


def move_rows(comparison: ComparisonTables, load: float) -> TextTable:
    """What moving sessions cost, one row a system; none where no session moved."""
    names = ("moves", "transferred_bytes", "move_recomputed_tokens")
    table = comparison.at(load)
    rows = [
        [str(row["system"]), number(row["moves"]), number(row["transferred_bytes"] / 1e9), number(row[names[2]])]
        for _, row in table.iterrows()
        if comparison.runs["moves"].sum()
    ]
    headings = ["system", "moves between replicas", "KV copied, GB", "tokens recomputed for moves"]
    title = f"Sessions that went on at another replica, at load {load:g} ({comparison.load_unit})"
    return TextTable(title, headings, rows)


def streamed_rows(comparison: ComparisonTables, load: float) -> TextTable:
    """Prompts that streamed in, one row a system: the latency from the end of the input, and what it cost; none where
    no prompt was worked on before it was complete."""
    latencies = ("mean_e2el_ms", "p50_e2el_ms", "p99_e2el_ms")
    rows = []
    for _, row in comparison.at(load).iterrows() if comparison.runs["streamed"].sum() else ():
        done, inferred = row["completed"], row["total_inference_tokens"]
        tokens = [row["total_output_tokens"] - inferred, inferred, row["computed_tokens"], row["recomputed_tokens"]]
        work = [*(each / done if done else math.nan for each in (*tokens, row["forward_s"]))]
        rows.append([str(row["system"]), *(number(1e-3 * row[name]) for name in latencies), *map(number, work)])
    headings = ["system", "latency s", "its p50", "its p99", "answer tokens", "inference tokens"]
    return TextTable(
        f"From the end of the input to the complete answer, and work a session, at load {load:g} "
        f"({comparison.load_unit})",
        [*headings, "tokens computed", "of them again", "forward s"],
        rows,
    )


def prefix_rows(comparison: ComparisonTables, load: float) -> TextTable:
    """What systems that share prefixes found, one row a system; none where no run found anything."""
    found = "prefix_hit_tokens"
    names = (found, "total_input_tokens", "prefix_hit_share", "mean_ttft_ms", "p99_ttft_ms")
    scales = (1, 1, 100, 1, 1)
    rows = [
        [str(row["system"]), *(number(scale * row[name]) for name, scale in zip(names, scales, strict=True))]
        for _, row in comparison.at(load).iterrows()
        if found in comparison.runs and comparison.runs[found].sum()
    ]
    headings = ["system", "prompt tokens found", "of", "%", "TTFT ms", "its p99 ms"]
    return TextTable(f"Prompts found in the prefix cache, at load {load:g} ({comparison.load_unit})", headings, rows)


def _at_knee(rows: Callable[[ComparisonTables, float], TextTable]) -> Callable[[ComparisonTables], TextTable]:
    return lambda comparison: rows(comparison, comparison.knee)


_SPREAD = "How is the work spread?"
SECTIONS: tuple[Section[ComparisonTables], ...] = (
    Section("latency", "Which load does each system sustain?", latency_rows),
    Section("splits", "Which load does each system sustain?", split_rows),
    Section("detail", "What does the memory go to?", _at_knee(detail_rows)),
    Section("streamed", "What did prompts that streamed in cost?", _at_knee(streamed_rows)),
    Section("prefixes", "What did the prefix cache find?", _at_knee(prefix_rows)),
    Section("moves", _SPREAD, _at_knee(move_rows)),
    Section("replicas", _SPREAD, _at_knee(replica_rows), on_terminal=False),
    Section(
        "differences",
        "In what do the systems differ?",
        difference_rows,
        otherwise="In nothing: their rules and settings are the same.",
        on_terminal=False,
        wrap=True,
    ),
)
"""The sections of a comparison."""
