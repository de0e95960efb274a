"""Sweeps: any key, one table, failures that stop nobody, and a kill that loses and repeats nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import caesura as package
from caesura.runs.sweep import parse_over

BASE = """\
workload: {trace: infercept-mix, arrivals: {poisson: {rate: [1, 2]}}, duration: 10 s}
systems: [vllm, infercept]
"""
TABLES = ("results.parquet", "results.csv")
FAILING = """
from policies.contract import InterceptPolicy

class Mine(InterceptPolicy):
    def __init__(self, fails=False):
        self.fails = fails

    def on_pause(self, paused, view):
        if self.fails:
            raise RuntimeError("on purpose")
        return super().on_pause(paused, view)
"""
OVER_FAILING = "systems[1].policy={name: 'MODULE:Mine'},{name: 'MODULE:Mine', fails: true}"


def tables(out: str) -> list[bytes]:
    return [(Path(out) / name).read_bytes() for name in TABLES]


def stamps(out: Path) -> dict[str, tuple[int, int]]:
    """Which file each run's summary is, and when it was written: another one if the run was done again."""
    found = {file.parent.name: file.stat() for file in (out / "runs").glob("[!.]*/summary.json")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


def test_rows_stand_by_swept_key_then_system_load_and_seed(caesura: Callable, experiment: Callable) -> None:
    """2 pools x 2 systems x 2 loads x 2 seeds; the last key changes fastest."""
    experiment(BASE)
    over = ("--over", "replica.kv_capacity=30000 tokens,20000 tokens")
    said = caesura("sweep", "x.yaml", *over, "--seeds", "2", "--out", "o")
    assert said.code == 0
    table = pd.read_csv("o/results.csv")
    expected = [
        (pool, system, load, seed)
        for pool in ("30000 tokens", "20000 tokens")
        for system in ("vllm", "infercept")
        for load in (1.0, 2.0)
        for seed in (0, 1)
    ]
    labels = ["replica.kv_capacity", "system", "load", "seed"]
    assert list(table.columns[:4]) == labels
    assert [tuple(row) for row in table[labels].itertuples(index=False)] == expected
    assert "data:image/png" in (page := Path("o/report.html").read_text())
    assert "http://" not in page and "https://" not in page.replace("https://arxiv", "")


def test_a_row_is_what_the_same_experiment_gives_alone(caesura: Callable, experiment: Callable) -> None:
    experiment(BASE)
    caesura("sweep", "x.yaml", "--over", "systems[*].engine.max_running=2,64", "--out", "o")
    caesura("run", "x.yaml", "--set", "systems[*].engine.max_running=2", "--out", "alone")
    alone = package.load("alone").runs
    rows = package.load_sweep("o").table
    rows = rows[rows["systems[*].engine.max_running"] == 2].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows[list(alone.columns)], alone, check_dtype=False, check_exact=True)


def test_a_folder_may_have_a_colon_in_its_name(caesura: Callable, experiment: Callable) -> None:
    experiment(BASE)
    said = caesura("sweep", "x.yaml", "--over", "workload.duration=5 s", "--out", "monday:1")
    assert said.code == 0
    assert len(package.load_sweep("monday:1").table) == 4
    assert caesura("run", "x.yaml", "--out", "tuesday:1").code == 0
    assert len(package.load("tuesday:1").sessions)


def test_a_system_is_swept_by_name_by_number_or_all_at_once(caesura: Callable, experiment: Callable) -> None:
    """Two values for one of two systems: the other one's runs are alike and done once, yet stand in every row."""
    experiment(BASE)
    for number, item in enumerate(("infercept", "1")):
        out = f"o{number}"
        caesura("sweep", "x.yaml", "--over", f"systems[{item}].engine.max_running=2,64", "--out", out)
        assert len(stamps(Path(out))) == 3 * 2
        assert len(package.load_sweep(out).table) == 4 * 2
    assert stamps(Path("o0")).keys() == stamps(Path("o1")).keys()


def test_swept_keys_may_stand_in_the_experiment(caesura: Callable, experiment: Callable) -> None:
    experiment(BASE + "sweep: {workload.duration: [5 s, 10 s], workload.too_long: [cut]}\n")
    assert caesura("sweep", "x.yaml", "--over", "workload.too_long=reject", "--out", "o").code == 0
    table = package.load_sweep("o").table
    assert list(table["workload.duration"].unique()) == ["5 s", "10 s"]
    assert set(table["workload.too_long"]) == {"reject"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--over", "workload.duratoin=5 s"], "unknown key; did you mean 'duration'?"),
        (["--over", "systems[infercpt].engine.max_running=1"], "no system 'infercpt'; did you mean 'infercept'?"),
        (
            ["--over", "workload.duration=5 s,never"],
            "--over workload.duration = never: 'never' is not a quantity; write a number of seconds",
        ),
        (["--over", "workload.duration=5 s,5 s"], "the value 5 s is listed twice"),
        (["--over", "workload.duration"], "expected KEY=V1,V2,..."),
        (["--over", "workload.duration=[5"], "are not YAML"),
        (["--over", "seeds=1,2"], "use --seeds N"),
        ([], "nothing to sweep over"),
        (["--over", "workload.duration=5 s", "--on", "dusk"], "did you mean 'dask'?"),
        (["--over", "workload.duration=5 s", "--on", "dask="], "expected local, dask, dask=ADDRESS"),
        (["--over", "workload.duration=5 s", "--on", "dask=tcp://127.0.0.1:9", "--jobs", "2"], "leave --jobs out"),
    ],
)
def test_a_sweep_that_does_not_hold_is_refused_before_anything_runs(
    words: list[str], message: str, caesura: Callable, experiment: Callable
) -> None:
    experiment(BASE)
    said = caesura("sweep", "x.yaml", *words, "--out", "o")
    assert said.code == 2
    assert message in said.err
    assert not Path("o").exists()


def test_only_a_sweep_carries_out_a_sweep_section(caesura: Callable, experiment: Callable) -> None:
    experiment(BASE + "sweep:\n  workload.duration: [5 s]\n")
    said = caesura("run", "x.yaml", "--out", "o")
    assert said.code == 2
    assert "x.yaml, line 3: sweep: only `caesura sweep` carries this out" in said.err


def test_values_are_read_as_the_items_of_a_yaml_list() -> None:
    assert parse_over("a.b=8 GB, 2,[x, y],{n: 1}").values == ("8 GB", 2, ["x", "y"], {"n": 1})


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_run_that_fails_is_noted_and_stops_nobody(
    jobs: str, caesura: Callable, experiment: Callable, folder: Path
) -> None:
    """One of two policies raises: 4 rows of 4 remain for vllm, 2 of 4 for mine. The note stays until a retry."""
    module = f"sometimes_fails_{jobs}"
    (folder / f"{module}.py").write_text(FAILING)
    experiment(BASE)
    words = ("sweep", "x.yaml", "--over", OVER_FAILING.replace("MODULE", module), "--set", "systems[1].name=mine")
    said = caesura(*words, "--out", "o", "--jobs", jobs)
    assert said.code == 1
    assert "2 runs failed" in said.err
    found = package.load_sweep("o")
    assert found.table["system"].value_counts().to_dict() == {"vllm": 4, "mine": 2}
    assert len(found.failures) == 2
    notes = {Path("o/runs") / name for name in found.failures["file"]}
    assert notes == set(Path("o/runs").glob("*.failed.json"))
    assert all("on purpose" in note.read_text() for note in notes)

    written = {note: note.stat().st_mtime_ns for note in notes}
    before = stamps(Path("o"))
    assert caesura(*words, "--out", "o", "--jobs", jobs).code == 1
    assert {note: note.stat().st_mtime_ns for note in notes} == written, "a failed run waits for --retry-failed"
    assert caesura(*words, "--out", "o", "--jobs", jobs, "--retry-failed").code == 1
    assert all(note.stat().st_mtime_ns > written[note] for note in notes)
    assert stamps(Path("o")) == before


def test_a_process_that_dies_fails_its_run_alone(caesura: Callable, experiment: Callable, folder: Path) -> None:
    """As the system's killer of memory hogs would end it."""
    dying = FAILING.replace('raise RuntimeError("on purpose")', "import os; os.kill(os.getpid(), 9)")
    (folder / "dies.py").write_text(dying)
    experiment(BASE)
    over = OVER_FAILING.replace("MODULE", "dies")
    said = caesura("sweep", "x.yaml", "--over", over, "--set", "systems[1].name=mine", "--out", "o", "--jobs", "2")
    assert said.code == 1
    assert "ended abruptly" in said.err
    found = package.load_sweep("o")
    assert len(found.failures) == 2
    assert len(found.table) == 6


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_killed_sweep_goes_on_and_repeats_nothing(
    jobs: str, caesura: Callable, experiment: Callable, process: Callable
) -> None:
    """SIGKILL for the first process only, as from a person; its workers end by themselves and write nothing."""
    experiment(BASE.replace("10 s", "40 s"))
    words = ("sweep", "x.yaml", "--over", "systems[*].engine.max_running=8,16,32", "--seeds", "3")
    started = process(*words, "--out", "o", "--jobs", jobs)
    end = time.monotonic() + 60
    while len(whole := stamps(Path("o"))) < 5:
        assert started.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    whole = stamps(Path("o"))
    assert 5 <= len(whole) < 36
    assert not (Path("o") / "sweep.json").exists()

    assert f"{len(whole)} of 36 runs were there already" in caesura(*words, "--out", "o").out
    after = stamps(Path("o"))
    assert len(after) == 36
    assert {name: after[name] for name in whole} == whole
    assert not list(Path("o/runs").glob(".*"))
    assert caesura(*words, "--out", "again").code == 0
    assert tables("o") == tables("again")
    os.killpg(started.pid, signal.SIGKILL) if _lives(started.pid) else None


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_policy_without_a_review_time_is_said_to_slow_the_run(
    caesura: Callable, experiment: Callable, folder: Path
) -> None:
    (folder / "unreviewed.py").write_text(
        "from policies.contract import NEVER, InterceptPolicy\n"
        "class Asked(InterceptPolicy):\n    def revise(self, view):\n        return ()\n"
        "class Reviewed(Asked):\n    def review_at(self, view):\n        return NEVER\n"
    )
    experiment(
        "workload: {arrivals: {poisson: {rate: 1}}, duration: 10 s}\n"
        "systems: [{name: one, policy: 'unreviewed:Asked'}, {name: two, policy: 'unreviewed:Reviewed'}, infercept]\n"
    )
    note = "caesura: note: one: its policy Asked has revise and no review_at; it is asked every iteration"
    for words in (("run", "x.yaml"), ("sweep", "x.yaml", "--over", "workload.duration=10 s")):
        said = caesura(*words, "--out", words[0])
        assert said.code == 0
        assert said.err.startswith(note)
        assert said.err.count("note:") == 1
