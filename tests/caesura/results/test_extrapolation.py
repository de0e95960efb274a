"""Results say where a run went beyond what its profile was measured over, and are silent where it did not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

import caesura as package
from caesura.config import paths
from caesura.results.extrapolation import extrapolations, runs_beyond

EXPERIMENT = """\
workload: {{trace: infercept-mix, arrivals: {{poisson: {{rate: [1, 2]}}}}, duration: 5 s}}
{machine}
systems: [vllm, infercept]
"""


@pytest.fixture
def compared(folder: Path, caesura: Callable, experiment: Callable) -> Callable[[str], tuple[str, str]]:
    """``compared(profile)``: what the terminal and the report say, every time in the same folder."""

    def compare(profile: str) -> tuple[str, str]:
        said = caesura(
            "run", str(experiment(EXPERIMENT.format(machine=f"replica: {{profile: {profile}}}"))), "--out", "out"
        )
        assert said.code == 0, said.err
        return said.out, (folder / "out" / "report.html").read_text()

    return compare


def measured_over(folder: Path, **most: int) -> str:
    """The shipped profile of an H200, measured over less."""
    profile = yaml.safe_load((paths.profiles() / "h200" / "llama-3.1-8b" / "profile.yaml").read_text())
    profile["measured"]["range"] |= most
    (folder / "mine.yaml").write_text(yaml.safe_dump(profile))
    return "mine.yaml"


def facts_of(folder: Path, name: str) -> list[dict]:
    return [json.loads(file.read_text()) for file in sorted(folder.glob(f"out/runs/*/{name}.json"))]


def test_a_run_within_the_range_is_silent_and_its_facts_say_so(folder: Path, compared: Callable) -> None:
    for said in compared("h200/llama-3.1-8b"):
        assert "Extrapolated" not in said
    assert [one["facts"]["beyond_measured"] for one in facts_of(folder, "provenance")] == [[]] * 4
    assert {one["extrapolated_call_share"] for one in facts_of(folder, "summary")} == {0.0}


def test_a_profile_that_nobody_measured_has_no_range(folder: Path, compared: Callable) -> None:
    for said in compared("published/gpt-j-6b-a100-40g"):
        assert "Extrapolated" not in said
    assert {one["facts"]["beyond_measured"] for one in facts_of(folder, "provenance")} == {None}
    assert {one["extrapolated_forward_share"] for one in facts_of(folder, "summary")} == {None}


def test_a_run_beyond_the_range_says_how_far_and_how_much(folder: Path, compared: Callable) -> None:
    """Prompts of the mix are far longer than 100 tokens; vllm computes a whole one in a pass, infercept 152 tokens."""
    name = measured_over(folder, context=100, chunk_tokens=200)
    terminal, report = compared(name)
    facts, found = facts_of(folder, "provenance"), package.load(folder / "out")
    (note,) = extrapolations(found)
    ends = found.calls["context_tokens"] + found.calls["output_tokens"]
    reached = max(one["reached"]["chunk_tokens"] for run in facts for one in run["facts"]["beyond_measured"]
                  if "chunk_tokens" in one["reached"])  # fmt: skip
    assert note.startswith(
        f"{folder / name} was measured on up to 100 tokens a context (here vllm, infercept: up to {ends.max():,}) and "
        f"200 tokens of chunks a batch (here vllm: {reached:,}). Costs beyond that are extrapolated: those of up to "
    )
    assert f"Extrapolated: {note}" in terminal
    assert f"<strong>Extrapolated.</strong> {note}" in report
    longer = (ends > 101).groupby([found.calls[one] for one in ("system", "load")], sort=False).mean()
    assert found.runs["extrapolated_call_share"].to_numpy() == pytest.approx(longer.to_numpy())


def test_of_a_cluster_the_profile_that_was_left_behind_is_named(
    folder: Path, caesura: Callable, experiment: Callable
) -> None:
    """Two replicas of an H200 as it ships, then two measured over less: the note is about the latter alone."""
    name = measured_over(folder, context=100)
    groups = f"[{{count: 2, profile: h200/llama-3.1-8b}}, {{count: 2, profile: {name}}}]"
    file = experiment(EXPERIMENT.format(machine=f"cluster: {{replicas: {groups}}}"))
    said = caesura("run", str(file), "--out", "out")
    assert said.code == 0, said.err
    (note,) = extrapolations(package.load(folder / "out"))
    assert note.startswith(f"{folder / name} was measured on up to 100 tokens a context")
    rows = [one for run in facts_of(folder, "provenance") for one in run["facts"]["beyond_measured"]]
    assert {one["replica"] for one in rows} == {2, 3}


def test_a_batch_that_hardly_ever_goes_beyond_is_not_worth_a_note() -> None:
    """Under a thousandth of the time and of the calls: the share is in the table, and nobody is told."""
    shares = {"extrapolated_forward_share": [0.0009, 0.0], "extrapolated_call_share": [0.0, 0.0]}
    assert runs_beyond(pd.DataFrame(shares)) == ""
    assert runs_beyond(pd.DataFrame({"load": [1.0, 2.0]})) == "", "results of before there were such shares"


def test_a_table_of_runs_says_how_many_went_beyond() -> None:
    table = pd.DataFrame(
        {"extrapolated_forward_share": [0.19, 0.0, None], "extrapolated_call_share": [0.944, 0.0, None]}
    )
    assert runs_beyond(table) == (
        "1 of 3 runs go beyond what their profile was measured over. "
        "Costs beyond that are extrapolated: those of up to 94 % of the calls and 19 % of the forward time of a run."
    )


def test_sweeps_and_searches_say_so_too(folder: Path, caesura: Callable, experiment: Callable) -> None:
    """One load, one system: every run goes beyond 100 tokens a context."""
    name = measured_over(folder, context=100)
    file = experiment(EXPERIMENT.format(machine=f"replica: {{profile: {name}}}"))
    alone = ("--set", "systems=[vllm]", "--set", "workload.arrivals.poisson.rate=[2]")
    pools = "replica.kv_capacity='30000 tokens','50000 tokens'"
    swept = caesura("sweep", str(file), "--over", pools, *alone, "--out", "swept")
    note = "2 of 2 runs go beyond what their profile was measured over. Costs beyond that are extrapolated"
    assert f"Extrapolated: {note}" in swept.out, swept.err
    assert f"<strong>Extrapolated.</strong> {note}" in (folder / "swept" / "report.html").read_text()
    search = ("--slo", "p90 normalized_latency<10", "--high", "2", "--tolerance", "0.5", "--seeds", "1", "--jobs", "1")
    searched = caesura("capacity", str(file), *alone, *search, "--out", "searched")
    assert "Extrapolated: " in searched.out, searched.err
    probes = pd.read_csv(folder / "searched" / "probes.csv")
    assert (probes["extrapolated_call_share"] > 0.5).all()
