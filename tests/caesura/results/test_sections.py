"""One list of sections feeds the terminal, the report and ``tables.md``; one declaration makes a metric."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import caesura as package
from caesura.results import metrics
from caesura.results.metric import RunTables, of_sessions
from caesura.results.metrics import METRICS, call_table, session_table, summarize
from caesura.results.remarks import comparison_remarks
from caesura.results.sections import Section, fill, for_terminal, markdown
from caesura.results.sweep_tables import SECTIONS as SWEEP_SECTIONS
from caesura.results.tables import DETAIL, SECTIONS
from caesura.results.text_table import TextTable
from tests.caesura.results.test_metrics import record
from traces.readers import write_own
from traces.session import Call, PromptPart, Session

CODE = Path(package.__file__).parent


def streamed_trace(folder: Path) -> Path:
    """Twenty prompts of which a half comes in two parts after the session."""
    stream = (PromptPart(25, 0.5, output=4), PromptPart(25, 1.0))
    file = folder / "streamed.jsonl"
    write_own(file, [Session(f"s{n}", float(n), 100, (Call(8),), stream=stream) for n in range(20)])
    return file


def test_what_streamed_prompts_cost_one_replica_is_in_the_report_as_on_the_terminal(
    caesura: Callable, experiment: Callable, folder: Path
) -> None:
    streamed_trace(folder)
    experiment(
        "workload: {trace: streamed.jsonl, arrivals: replay}\n"
        "systems: [vllm, {preset: vllm, name: parts, engine: {streamed_prompts: parts}}]\n"
    )
    said = caesura("run", "x.yaml", "--out", "o")
    title = "From the end of the input to the complete answer, and work a session"
    assert title in said.out
    assert title in (folder / "o/report.html").read_text()
    assert title in (folder / "o/tables.md").read_text()


def test_every_section_that_has_rows_is_in_every_place(
    caesura: Callable, experiment: Callable, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment(
        "workload: {arrivals: {poisson: {rate: 4}}, duration: 10 s}\n"
        "cluster: {replicas: 2, router: least-outstanding, kv_transfer: {bandwidth: 25 GB/s}}\n"
        "systems: [infercept, {preset: vllm, engine: {prefix_sharing: true}}]\n"
    )
    said = caesura("run", "x.yaml", "--out", "o")
    assert said.code == 0, said.err
    filled = fill(SECTIONS, package.load(folder / "o"))
    assert len(filled) >= 4
    page, text = html.unescape((folder / "o/report.html").read_text()), (folder / "o/tables.md").read_text()
    for one in filled:
        assert one.table.title in page and one.table.title in text, one.name
        assert (one.table.title in said.out) == (one.on_terminal and bool(one.table.rows)), one.name


def test_every_remark_is_on_the_terminal_and_in_the_report(
    caesura: Callable, experiment: Callable, folder: Path
) -> None:
    """Published constants, an oracle, sessions that had not finished at the horizon, sessions that were cut."""
    experiment(
        "workload: {arrivals: {poisson: {rate: 4}}, duration: 20 s, max_context: 600}\n"
        "replica: {horizon: 15 s}\nsystems: [infercept-oracle]\n"
    )
    said = caesura("run", "x.yaml", "--out", "o")
    remarks = comparison_remarks(package.load(folder / "o"))
    kinds = [remark.kind for remark in remarks]
    assert kinds == ["Published constants", "Oracle", "Not all sessions finished", "Cut"]
    page = html.unescape((folder / "o/report.html").read_text())
    for remark in remarks:
        assert f"<strong>{remark.kind}.</strong> {remark.text}" in page
        assert f"{remark.kind}: {remark.text}\n" in said.out


def test_a_sweep_shows_its_sections_in_every_place(caesura: Callable, experiment: Callable, folder: Path) -> None:
    experiment("workload: {arrivals: {poisson: {rate: 2}}, duration: 5 s}\nsystems: [vllm]\n")
    said = caesura("sweep", "x.yaml", "--over", "replica.kv_capacity=20000 tokens,30000 tokens", "--out", "o")
    assert said.code == 0, said.err
    page, text = (folder / "o/report.html").read_text(), (folder / "o/tables.md").read_text()
    filled = fill(SWEEP_SECTIONS, package.load_sweep(folder / "o"))
    assert [one.name for one in filled] == [key for _, key, _ in DETAIL], "nothing failed"
    for one in filled:
        assert one.table.title in page and one.table.title in text
    assert filled[0].table.title in said.out


def test_sections_without_rows_are_left_out_and_neighbours_share_a_heading() -> None:
    def table(title: str, rows: int) -> Callable[[None], TextTable]:
        return lambda _: TextTable(title, ["a", "b"], [["x", "1"]] * rows)

    sections: list[Section[None]] = [
        Section("one", "First", table("T1", 1)),
        Section("two", "First", table("T2", 0)),
        Section("three", "First", table("T3", 2), on_terminal=False),
        Section("four", "Second", table("T4", 0), otherwise="Nothing."),
    ]
    filled = fill(sections, None)
    assert [(one.name, one.heading) for one in filled] == [("one", "First"), ("three", ""), ("four", "Second")]
    assert [one.title for one in for_terminal(filled)] == ["T1"]
    assert markdown("X", filled).decode() == (
        "# X\n\n## First\n\nT1\n\n| a | b |\n| --- | ---: |\n| x | 1 |\n"
        "\nT3\n\n| a | b |\n| --- | ---: |\n| x | 1 |\n| x | 1 |\n"
        "\n## Second\n\nNothing.\n"
    )


def test_what_is_counted_of_a_session_is_summarized_without_another_declaration() -> None:
    """``time_paused_s`` is a counter of ``SessionStats``: sessions that paused for 5, 2 and 0 s."""
    assert not [file for file in CODE.rglob("*.py") if "time_paused_s" in file.read_text()]
    one = record(time_paused_s=[5.0, 2.0, 0.0])
    summary = summarize(one, session_table(one), call_table(one))
    assert summary["mean_time_paused_s"] == pytest.approx(7 / 3) and summary["p50_time_paused_s"] == 2.0
    older = record()
    assert "mean_time_paused_s" not in summarize(older, session_table(older), call_table(older))


def test_a_metric_is_one_declaration(monkeypatch: pytest.MonkeyPatch) -> None:
    one = record(preemptions=[3, 0, 0])
    more = of_sessions("times_preempted", "preemptions", unit="times", meaning="how often a session was preempted")
    monkeypatch.setattr(metrics, "METRICS", (*METRICS, more))
    assert summarize(one, session_table(one), call_table(one))["mean_times_preempted"] == 1


def test_metrics_have_a_name_of_their_own_a_unit_and_a_meaning() -> None:
    one = record()
    run = RunTables(
        one, session_table(one), call_table(one), 0, 0, metrics.window_shares(one), metrics.extrapolated_shares(one)
    )
    keys = [key for metric in METRICS for key in metric.summarize(run)]
    assert len(set(keys)) == len(keys)
    assert all(metric.unit and metric.meaning for metric in METRICS)
    assert {key for _, key, _ in DETAIL} <= set(keys), "tables show nothing that no summary has"
    assert replace(METRICS[0], name="x").summarize(run) == {"x": 3}
