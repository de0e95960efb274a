"""``caesura trace`` as a person uses it: files, pipes, and what goes wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from caesura.config.experiment import read_experiment_file
from caesura.config.workload import make_sessions
from caesura.runs.run import expand
from tests import child_processes
from traces import Session, read_sessions, shipped

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:15:{second:02d}.5000000,{100 * second + 100},{second + 1}\n" for second in range(6)
)


@pytest.fixture
def csv(folder: Path) -> Path:
    """Six requests, one a second, with prompts of 100 to 600 tokens."""
    file = folder / "a.csv"
    file.write_text(AZURE)
    return file


def described(caesura: Callable, *words: str) -> dict[str, Any]:
    said = caesura("trace", "describe", *words, "--json")
    assert said.code == 0, said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def test_describe_counts_what_a_person_would(caesura: Callable, csv: Path) -> None:
    """Six arrivals a second apart: 1 session/s, gaps that do not vary. At 1 s a token they last 1 to 6 s."""
    found = described(caesura, "a.csv", "--token-time", "1 s")
    assert (found["sessions"], found["calls"], found["pauses"], found["format"]) == (6, 6, 0, "azure")
    assert found["arrivals"]["rate"] == pytest.approx(1.0)
    assert found["arrivals"]["gap_cv"] == pytest.approx(0.0, abs=1e-6)
    prompts = found["kinds"]["all"]["prompt"]
    assert (prompts["mean"], prompts["min"], prompts["p50"], prompts["max"]) == (350.0, 100.0, 300.0, 600.0)
    # The k-th is open from k to 2 k + 1, 21 s in all until 11 s: at 5 s the third leaves as the sixth arrives.
    assert found["concurrency"]["peak"] == 3
    assert found["concurrency"]["mean"] == pytest.approx(21 / 11)


def test_describe_shows_tables(caesura: Callable) -> None:
    said = caesura("trace", "describe", "infercept-mix")
    assert said.code == 0
    for words in ("397 sessions, 2,054 calls, 1,841 pauses", "Arrivals: none recorded", "user:chat", "chat", "12.2 %"):
        assert words in said.out


@pytest.mark.parametrize("trace", shipped.names())
def test_describe_says_what_the_kinds_of_a_shipped_trace_stand_for(trace: str, caesura: Callable) -> None:
    kinds = {session.kind for session in shipped.load(trace)} - {""}
    said = caesura("trace", "describe", trace).out
    explained = re.search(r"^Kinds: (.*)\.$", said, re.MULTILINE)
    assert {kind for kind in kinds if explained and re.search(rf"\b{kind}\b[^;]*:", explained[1])} == kinds
    assert ("before it had ended" in said) == (re.search("^overlap ", said, re.MULTILINE) is not None)


def test_describe_draws_figures_of_what_is_recorded(caesura: Callable, csv: Path, folder: Path) -> None:
    assert caesura("trace", "describe", "a.csv", "--figures", "figures").code == 0
    assert {file.name for file in (folder / "figures").iterdir()} == {"lengths.png", "arrivals.png"}
    assert (folder / "figures" / "arrivals.png").read_bytes().startswith(b"\x89PNG")


def test_convert_filter_and_scale_each_do_what_they_say(caesura: Callable, csv: Path) -> None:
    assert caesura("trace", "convert", "a.csv", "a.jsonl").code == 0
    assert read_sessions("a.jsonl") == read_sessions("a.csv")
    assert caesura("trace", "filter", "a.jsonl", "prompt>=300", "output<6", "-o", "b.jsonl").code == 0
    assert [session.prompt for session in read_sessions("b.jsonl")] == [300, 400, 500]
    assert caesura("trace", "scale", "b.jsonl", "--rate", "2", "--lengths", "0.5", "--out", "c.jsonl").code == 0
    assert [(s.arrival, s.prompt) for s in read_sessions("c.jsonl")] == [(1.0, 150), (1.5, 200), (2.0, 250)]


def test_convert_takes_the_new_file_after_the_trace_or_as_its_sisters_do(
    caesura: Callable, csv: Path, folder: Path
) -> None:
    for words in (["x.jsonl"], ["--out", "y.jsonl"], ["-o", "z.jsonl"]):
        assert caesura("trace", "convert", str(csv), *words).code == 0
    assert (folder / "x.jsonl").read_bytes() == (folder / "y.jsonl").read_bytes() == (folder / "z.jsonl").read_bytes()
    said = caesura("trace", "convert", str(csv), "a.jsonl", "-o", "b.jsonl")
    assert said.code == 2 and "two new files, a.jsonl and b.jsonl; name it once" in said.err
    assert not (folder / "a.jsonl").exists() and not (folder / "b.jsonl").exists()


def test_a_filter_that_keeps_nobody_says_so_and_writes_nothing(caesura: Callable, csv: Path) -> None:
    said = caesura("trace", "filter", "a.csv", "kind=qqq", "-o", "none.jsonl")
    assert said.code != 0
    assert "filter: there is no session for which kind=qqq" in said.err
    assert not Path("none.jsonl").exists()


def test_a_rate_where_nobody_arrives_at_a_time_of_their_own_is_warned_of(caesura: Callable, csv: Path) -> None:
    said = caesura("trace", "scale", "infercept-mix", "--rate", "2", "-o", "x.jsonl")
    assert said.code == 0
    assert "records no arrivals: a rate changes nothing, and all of its 397 sessions come at 0 s" in said.err
    assert "warning" not in caesura("trace", "scale", "infercept-mix", "--pauses", "2", "-o", "y.jsonl").err
    assert "warning" not in caesura("trace", "scale", "a.csv", "--rate", "2", "-o", "z.jsonl").err


def test_sample_keeps_order_and_depends_on_the_seed_alone(caesura: Callable, folder: Path) -> None:
    for out, seed in (("a.jsonl", "0"), ("b.jsonl", "0"), ("c.jsonl", "1")):
        assert caesura("trace", "sample", "infercept-mix", "-n", "50", "--seed", seed, "--out", out).code == 0
    ids = [[session.id for session in read_sessions(file)] for file in ("a.jsonl", "b.jsonl", "c.jsonl")]
    assert ids[0] == ids[1] != ids[2]
    order = [session.id for session in shipped.load("infercept-mix")]
    assert len(ids[0]) == 50
    assert sorted(ids[0], key=order.index) == ids[0]


def test_merge_warns_of_a_trace_that_records_no_arrivals(caesura: Callable, csv: Path, folder: Path) -> None:
    said = caesura("trace", "merge", "a.csv", "infercept-mix", "-o", "both.jsonl")
    assert said.code == 0
    assert "warning: infercept-mix records no arrivals: all of its 397 sessions come at 0 s" in said.err


def test_merge_orders_by_arrival_and_keeps_ids_apart(caesura: Callable, csv: Path, folder: Path) -> None:
    (folder / "late.csv").write_text(AZURE.replace("18:15:0", "18:15:1"))
    assert caesura("trace", "merge", "a.csv", "late.csv", "-o", "both.jsonl").code == 0
    both = read_sessions("both.jsonl")
    assert len(both) == len({session.id for session in both}) == 12
    assert [session.arrival for session in both] == sorted(session.arrival for session in both)


def test_validate_lists_what_is_wrong_and_fails(caesura: Callable, csv: Path) -> None:
    assert caesura("trace", "validate", "a.csv").out == "a.csv: 6 sessions with 6 calls, nothing wrong (azure)\n"
    csv.write_text(AZURE.replace(",300,3", ",-300,3").replace(",500,5", ",many,5"))
    said = caesura("trace", "validate", "a.csv")
    assert said.code == 2
    assert "a.csv, line 4, field ContextTokens: found" in said.err
    assert "a.csv, line 6, field ContextTokens: found" in said.err
    assert "a.csv: 2 wrong, 4 right (azure)" in said.err


def test_wrong_lines_stop_or_are_skipped_and_counted(caesura: Callable, csv: Path, folder: Path) -> None:
    csv.write_text(AZURE.replace(",300,3", ",-300,3"))
    said = caesura("trace", "convert", "a.csv", "b.jsonl")
    assert (said.code, said.out) == (2, "")
    assert "a.csv, line 4, field ContextTokens" in said.err
    assert not (folder / "b.jsonl").exists()
    said = caesura("trace", "convert", "a.csv", "b.jsonl", "--on-error", "skip")
    assert said.code == 0
    assert "skipped 1" in said.err
    assert "wrote 5 sessions to b.jsonl" in said.err


MISTAKES: dict[str, tuple[Sequence[str], str]] = {
    "no such file": (["describe", "b.csv"], "b.csv: there is no such file"),
    "a name misspelt": (["describe", "infercept-mx"], "did you mean 'infercept-mix'?"),
    "no such format": (["describe", "a.csv", "--format", "azur"], "did you mean 'azure'?"),
    "the wrong format": (["describe", "a.csv", "--format", "own"], "a.csv, line 1: found"),
    "a format to write": (["convert", "a.csv", "b", "--to", "azzure"], "no trace format 'azzure'"),
    "no condition": (["filter", "a.csv", "kind"], "'kind' is no condition; write FIELD, a comparison and a value"),
    "an unknown field": (["filter", "a.csv", "prompts<5"], "no field 'prompts'; did you mean 'prompt'?"),
    "a word as a number": (["filter", "a.csv", "prompt<many"], "prompt is a number, and 'many' is not"),
    "an order of words": (["filter", "a.csv", "kind<qa"], "kind is a word; it can be compared with = and != only"),
    "nothing left": (["filter", "a.csv", "prompt>1e9", "-o", "b"], "filter: there is no session for which prompt>1e9"),
    "neither count nor share": (["sample", "a.csv"], "give either --count or --share"),
    "a rate of nothing": (["scale", "a.csv", "--rate", "0"], "scale: rate is 0.0; it must be > 0"),
    "a time that is none": (["describe", "a.csv", "--token-time", "soon"], "--token-time: 'soon' is not a quantity"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_gives_one_clear_message(case: str, caesura: Callable, csv: Path, folder: Path) -> None:
    words, expected = MISTAKES[case]
    said = caesura("trace", *words)
    assert said.code == 2
    assert said.out == ""
    assert expected in said.err
    assert "Traceback" not in said.err
    assert [file.name for file in folder.iterdir()] == ["a.csv"]


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line as a shell would, ``caesura`` being this one."""
    line = line.replace("caesura ", f"{sys.executable} -m caesura ")
    root = str(Path(__file__).resolve().parents[3])
    words = ["bash", "-o", "pipefail", "-c", line]
    return child_processes.run(words, cwd=folder, check=False, timeout=120, env={**os.environ, "PYTHONPATH": root})


def test_commands_compose_through_pipes(csv: Path, folder: Path) -> None:
    parts = ("convert a.csv -", "filter - 'prompt>150'", "scale - --rate 2 --out x.jsonl")
    done = shell(" | ".join(f"caesura trace {part}" for part in parts), folder)
    assert done.returncode == 0, done.stderr
    found: list[Session] = read_sessions(folder / "x.jsonl")
    assert [(s.arrival, s.prompt) for s in found] == [(k / 2, 100 * k + 100) for k in range(1, 6)]


def test_a_pipe_that_is_closed_ends_quietly(folder: Path) -> None:
    done = shell("caesura trace convert infercept-mix - | head -n 1", folder)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert done.returncode == 0


def test_generate_draws_as_many_or_as_long_as_asked(caesura: Callable, folder: Path) -> None:
    assert caesura("trace", "generate", "-n", "30", "--weight", "qa=1", "--weight", "ve=1", "-o", "a.jsonl").code == 0
    sessions = read_sessions("a.jsonl")
    assert len(sessions) == 30
    assert {session.kind for session in sessions} == {"qa", "ve"}
    assert caesura("trace", "generate", "--duration", "50 s", "--rate", "2", "-o", "b.jsonl").code == 0
    arrivals = [session.arrival for session in read_sessions("b.jsonl")]
    assert abs(len(arrivals) - 100) < 50
    assert 0 < arrivals[0] <= arrivals[-1] < 50


def test_what_a_fitted_generator_draws_wrong_by_much_is_marked(caesura: Callable, folder: Path) -> None:
    """Each session's second answer begins anew with a context of one token: drawn apart, final contexts are far off."""
    ends = [10, 4000] * 200
    lines = [
        f'{{"id":"s{n}","arrival":{n},"prompt":100,"calls":[{{"output":10,"pause":{{"duration":1,"returned":{end}}}}},'
        f'{{"output":{4010 - end}}}]}}'
        for n, end in enumerate(ends)
    ]
    (folder / "a.jsonl").write_text("\n".join(lines))
    said = caesura("trace", "fit", "a.jsonl", "-o", "g.yaml", "--page", "fit.html")
    assert "final context (tokens) by a KS of 0." in said.out
    assert "of the gaps, 0.01" not in said.out
    page = (folder / "fit.html").read_text()
    assert page.count('<td class="off">') >= 1
    assert "How values go together" in page


def test_a_fitted_generator_is_a_workload_and_its_page_stands_alone(caesura: Callable, folder: Path) -> None:
    assert caesura("trace", "generate", "-n", "300", "--rate", "3", "--weight", "chat=1", "-o", "a.jsonl").code == 0
    said = caesura("trace", "fit", "a.jsonl", "-o", "g.yaml", "--page", "fit.html")
    assert said.code == 0, said.err
    assert "Described: the trace, and one drawn from the generator" in said.out
    page = (folder / "fit.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "http" not in page.replace("http://www.w3.org", "")
    (folder / "x.yaml").write_text("workload: {generator: g.yaml, duration: 10 s}\nsystems: [vllm]\n")
    run = expand(read_experiment_file(folder / "x.yaml"))[0]
    assert {session.kind for session in make_sessions(run.workload).sessions} == {"chat"}
    recorded = described(caesura, "a.jsonl")
    assert caesura("trace", "generate", "g.yaml", "-n", "3000", "-o", "b.jsonl").code == 0
    drawn = described(caesura, "b.jsonl")
    for quantity in ("calls", "output", "pause_s", "context"):
        means = [figures["kinds"]["all"][quantity]["mean"] for figures in (recorded, drawn)]
        assert means[1] == pytest.approx(means[0], rel=0.2), quantity
    assert drawn["arrivals"]["rate"] == pytest.approx(recorded["arrivals"]["rate"], rel=0.1)


GENERATE_MISTAKES = {
    "neither": (["generate"], "give either --count or --duration"),
    "both": (["generate", "-n", "5", "--duration", "5 s"], "give either --count or --duration"),
    "no arrivals": (["generate", "--duration", "5 s"], "--duration needs arrivals; give --rate"),
    "nobody comes": (["generate", "--duration", "1 ms", "--rate", "0.01"], "no session arrives within 0.001 s"),
    "too many": (["generate", "-n", "5000000"], "5,000,000 sessions; at most 1,000,000"),
    "no such kind": (["generate", "-n", "5", "--weight", "maths=1"], "--weight: weights.maths"),
    "no weight": (["generate", "-n", "5", "--weight", "math"], "--weight math: expected KIND=WEIGHT"),
    "no such file": (["generate", "g.yaml", "-n", "5"], "g.yaml: there is no such file"),
    "a replay of itself": (
        ["generate", "replay.yaml", "-n", "5"],
        "replay.yaml, line 1: arrivals: drawn sessions have no",
    ),
    "nothing to fit": (["fit", "empty.jsonl"], "empty.jsonl: found an empty file"),
}


@pytest.mark.parametrize("case", GENERATE_MISTAKES)
def test_a_mistake_in_generators_gives_one_clear_message(case: str, caesura: Callable, folder: Path) -> None:
    (folder / "replay.yaml").write_text("arrivals: replay\nkinds: {a: {augmentation: chat}}\n")
    (folder / "empty.jsonl").write_text("")
    words, expected = GENERATE_MISTAKES[case]
    said = caesura("trace", *words)
    assert said.code == 2
    assert said.out == ""
    assert expected in said.err
