"""``caesura validate`` from a command line: real runs of the tiny model on this CPU, their replays, the report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml

pytest.importorskip("torch")

from typer.testing import CliRunner

from caesura.cli.main import app
from tests.caesura.fidelity.small_real_runs import GUESSED, short_trace

HOW = [
    "--profile", "guessed.yaml", "--device", "cpu", "--systems", "vllm,swap", "--loads", "8,16",
    "--trace", "short.jsonl", "--duration", "500 ms", "--horizon", "10 s", "--max-context", "256",
    "--kv-capacity", "512 tokens", "--host-capacity", "512 tokens", "--check", "3", "--jobs", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trace, a profile, and a validation in ``out``."""
    folder = tmp_path_factory.mktemp("bench")
    short_trace(folder)
    (folder / "guessed.yaml").write_text(yaml.safe_dump(GUESSED.model_dump(mode="json")))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = CliRunner().invoke(app, ["validate", *HOW, "--out", "out"])
    assert done.exit_code == 0, done.stderr
    (folder / "said").write_text(done.stdout)
    return folder


@pytest.fixture
def here(bench: Path, folder: Path) -> Path:
    """A copy of it as the current folder."""
    shutil.copytree(bench, folder, dirs_exist_ok=True)
    return folder


def test_every_system_and_load_is_run_replayed_and_reported(bench: Path):
    said = (bench / "said").read_text()
    for words in ("swap @ 8", "vllm @ 16", "Kendall's tau", "2 of 2", "errors are within the aim", "out/report.html"):
        assert words in said
    table = pd.read_csv(bench / "out" / "fidelity.csv")
    assert list(zip(table["load"], table["system"], strict=True)) == [
        (8, "swap"),
        (8, "vllm"),
        (16, "swap"),
        (16, "vllm"),
    ]
    measures = ("normalized latency", "TTFT", "TPOT", "session time")
    expected = {f"{measure} {s}" for measure in measures for s in ("mean", "p50", "p90", "p99")}
    assert expected | {"throughput", "MAPE", "preserve points", "swap points"} <= set(table.columns)
    assert table.notna().all().all()


def test_the_facts_hold_real_and_simulated_figures_rankings_and_agreement(bench: Path):
    facts = json.loads((bench / "out" / "fidelity.json").read_text())
    assert [one["load"] for one in facts["rankings"]] == [8.0, 16.0]
    for run in facts["runs"]:
        name = "TTFT mean"
        assert run["error_pct"][name] == pytest.approx(100 * (run["simulated"][name] / run["real"][name] - 1))
        assert run["provenance"]["agreement"]["equal"] == run["provenance"]["agreement"]["sessions"] > 0
        assert run["arrived"] == run["finished"]


def test_the_report_stands_alone(bench: Path):
    page = (bench / "out" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "<script" not in page and "http://" not in page and "https://" not in page
    assert "Do the systems rank the same?" in page


def test_recorded_runs_give_the_same_report_again_and_nothing_is_run(here: Path, caesura: Callable):
    words = ["--recorded", "out/recordings", "--profile", "guessed.yaml", "--jobs", "1", "--quiet"]
    said = caesura("validate", *words, "--out", "again")
    assert said.code == 0, said.err
    assert (here / "again" / "fidelity.csv").read_bytes() == (here / "out" / "fidelity.csv").read_bytes()
    assert not (here / "again" / "recordings").exists()
    assert (said.out, said.err) == ("", "")


def test_only_some_of_the_recorded_runs(here: Path, caesura: Callable):
    said = caesura(
        "validate", "--recorded", "out/recordings", "--systems", "swap", "--loads", "16", "--out", "one", "--jobs", "1"
    )
    assert said.code == 0, said.err
    assert list(pd.read_csv(here / "one" / "fidelity.csv")["system"]) == ["swap"]
    assert "the one recorded with the run" in said.out


def test_the_same_command_makes_no_run_twice(here: Path, caesura: Callable):
    shutil.rmtree(here / "out" / "recordings" / "swap.load-16")
    said = caesura("validate", *HOW, "--out", "out")
    assert said.code == 0, said.err
    assert said.err.count("recorded already") == 3 and "swap at 16/s (4 of 4): 0.5 s of arrivals" in said.err


def test_a_run_in_other_memory_is_not_compared(here: Path, caesura: Callable):
    file = here / "out" / "recordings" / "swap.load-16" / "run.json"
    facts = json.loads(file.read_text())
    facts["totals"]["gpu_blocks"] += 1
    file.write_text(json.dumps(facts))
    said = caesura("validate", "--recorded", "out/recordings", "--out", "again", "--jobs", "1")
    assert said.code == 2
    assert said.err == "caesura: out/recordings/swap.load-16: gpu_blocks is 33 in the real run, 32 simulated\n"
    assert not (here / "again").exists()


def test_what_is_wrong_with_all_recordings_is_said_once(here: Path, caesura: Callable):
    said = caesura("validate", "--recorded", "out/recordings", "--profile", "h200/llama-3.1-8b", "--out", "again")
    assert said.code == 2
    assert said.err.startswith("caesura: out/recordings/swap.load-") and said.err.count("\n") == 1
    assert " and 3 more: the profile h200/llama-3.1-8b is of llama-3.1-8b; the runs are of tiny" in said.err


@pytest.mark.parametrize("damage", ["run.json", "calls.parquet", "iterations.parquet", "workload"])
def test_a_damaged_recording_is_named(damage: str, here: Path, caesura: Callable):
    folder = here / "out" / "recordings"
    file = next(folder.glob("workload-*")) if damage == "workload" else folder / "swap.load-16" / damage
    file.write_text("{")
    said = caesura("validate", "--recorded", "out/recordings", "--out", "again", "--jobs", "1")
    assert said.code == 2
    assert "out/recordings" in said.err and "Traceback" not in said.err
    assert not (here / "again").exists()


WRONG = {
    "no GPU": (["--model", "llama-3.1-8b"], "no CUDA GPU here"),
    "no profile": ([], "--profile"),
    "no profile ships": (["--model", "tiny", "--device", "cpu"], "caesura profile --model tiny --device cpu --out"),
    "another model": (["--model", "llama-3.1-8b", "--profile", "guessed.yaml"], "is of tiny, not of llama-3.1-8b"),
    "pool": (["--profile", "guessed.yaml", "--kv-capacity", "512"], "--kv-capacity: '512' needs a unit"),
    "too large a pool": (
        ["--profile", "guessed.yaml", "--host-capacity", "1000 TB", "--device", "cpu"],
        "does not fit here; choose smaller ones with --kv-capacity and --host-capacity",
    ),
    "duration": (["--profile", "guessed.yaml", "--duration", "1 week"], "--duration: '1 week' has an unknown unit"),
    "loads": (["--profile", "guessed.yaml", "--loads", "a"], "--loads 'a': expected numbers"),
    "no load": (["--profile", "guessed.yaml", "--loads", "0", "--device", "cpu"], "--loads: 0 must be more than 0"),
    "system": (["--profile", "guessed.yaml", "--systems", "swop", "--device", "cpu"], "did you mean 'swap'?"),
    "trace": (["--profile", "guessed.yaml", "--trace", "no.jsonl", "--device", "cpu"], "no.jsonl is not there"),
    "context": (["--profile", "guessed.yaml", "--max-context", "9999", "--device", "cpu"], "lower --max-context"),
    "folder alone": (["out/recordings"], "--recorded out/recordings"),
    "no recordings": (["--recorded", "nothing"], "there are no recorded runs in nothing"),
    "no such load": (["--recorded", "out/recordings", "--loads", "3"], "--loads: no recorded run of 3 in"),
    "the loads that there are": (["--recorded", "--loads", "3"], "there is 8, 12, 16"),
    "no such system": (["--recorded", "out/recordings", "--systems", "swop"], "there is swap, vllm"),
    "how to run": (["--recorded", "--device", "cpu"], "--device says how to make real runs"),
    "costs of another model": (
        ["--recorded", "out/recordings", "--profile", "h200/llama-3.1-8b"],
        "the runs are of tiny",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_command_line_is_one_line_and_writes_nothing(case: str, here: Path, caesura: Callable):
    words, expected = WRONG[case]
    said = caesura("validate", *words, "--out", "new", "--jobs", "1")
    assert said.code == 2
    assert expected in said.err and "Traceback" not in said.err
    assert not (here / "new").exists()


def test_a_folder_with_something_else_is_left_alone(here: Path, caesura: Callable):
    (here / "mine").mkdir()
    (here / "mine" / "letter.txt").write_text("keep me")
    said = caesura("validate", "--recorded", "out/recordings", "--out", "mine")
    assert said.code == 2
    assert "mine is not empty and holds no validation" in said.err
