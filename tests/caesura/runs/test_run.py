"""Runs: the same inputs give the same bytes, a killed comparison goes on, and nothing is left half-written."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import caesura as package
from caesura.cli.progress import Lines
from caesura.config.experiment import read_experiment_file
from caesura.config.overrides import parse_override
from caesura.runs.run import expand
from caesura.runs.run_folder import clear_unfinished, is_complete

SAME_BYTES = (
    "sessions.parquet",
    "calls.parquet",
    "timeline.parquet",
    "replicas.parquet",
    "summary.json",
    "config.yaml",
)
ALL_FILES = {*SAME_BYTES, "provenance.json"}


def run_folders(out: Path) -> list[Path]:
    return sorted(folder for folder in (out / "runs").iterdir() if not folder.name.startswith("."))


def contents(out: Path) -> dict[str, bytes]:
    return {f"{folder.name}/{name}": (folder / name).read_bytes() for folder in run_folders(out) for name in SAME_BYTES}


def keys(file: Path, *overrides: str) -> list[str]:
    return [run.key for run in expand(read_experiment_file(file, [parse_override(text) for text in overrides]))]


def test_the_same_experiment_gives_the_same_bytes_on_one_process_or_two(
    caesura: Callable, experiment: Callable
) -> None:
    experiment()
    for out, jobs in (("one", "1"), ("again", "1"), ("two", "2")):
        assert caesura("run", "x.yaml", "--out", out, "--jobs", jobs).code == 0
    assert contents(Path("one")) == contents(Path("again")) == contents(Path("two"))
    assert len(contents(Path("one"))) == 4 * len(SAME_BYTES)


def test_another_seed_gives_another_workload(caesura: Callable, experiment: Callable) -> None:
    experiment()
    caesura("run", "x.yaml", "--out", "o", "--set", "seeds=2", "--set", "systems=[vllm]")
    hashes = {
        json.loads((folder / "provenance.json").read_text())["workload_sha256"] for folder in run_folders(Path("o"))
    }
    assert len(hashes) == 4, "two loads, two seeds"


def test_any_trace_can_be_run_with_several_samples(caesura: Callable, experiment: Callable) -> None:
    """The same sessions, each call of which generates three times the tokens, of which the prompt is not."""
    experiment()
    for out, more in (("one", ()), ("three", ("--set", "workload.samples=3"))):
        assert caesura("run", "x.yaml", "--out", out, "--set", "systems=[cache-lru]", *more).code == 0
    one, three = package.load("one").runs, package.load("three").runs
    assert list(three["total_output_tokens"]) == [3 * tokens for tokens in one["total_output_tokens"]]
    assert list(three["total_input_tokens"]) == list(one["total_input_tokens"])
    assert set(package.load("three").sessions["samples"]) == {3}
    assert "samples" not in package.load("one").sessions


def test_the_config_of_a_run_repeats_it(caesura: Callable, experiment: Callable) -> None:
    experiment()
    caesura("run", "x.yaml", "--out", "o")
    first = run_folders(Path("o"))[0]
    caesura("run", str(first / "config.yaml"), "--out", "again")
    (second,) = run_folders(Path("again"))
    assert second.name == first.name
    assert (second / "sessions.parquet").read_bytes() == (first / "sessions.parquet").read_bytes()


def test_the_resolved_experiment_repeats_the_comparison(caesura: Callable, experiment: Callable) -> None:
    experiment()
    caesura("run", "x.yaml", "--out", "o")
    caesura("run", "o/experiment.yaml", "--out", "again")
    assert contents(Path("o")) == contents(Path("again"))


def test_runs_that_are_there_are_not_done_again(caesura: Callable, experiment: Callable) -> None:
    experiment()
    caesura("run", "x.yaml", "--out", "o")
    before = {folder: (folder / "summary.json").stat().st_mtime_ns for folder in run_folders(Path("o"))}
    said = caesura("compare", "x.yaml", "--out", "o", "--rates", "1,2,3")
    assert "4 of 6 runs were there already" in said.out
    assert {folder: (folder / "summary.json").stat().st_mtime_ns for folder in before} == before
    assert len(run_folders(Path("o"))) == 6


def test_another_objective_needs_no_run(caesura: Callable, experiment: Callable) -> None:
    experiment()
    caesura("run", "x.yaml", "--out", "o")
    said = caesura("compare", "x.yaml", "--out", "o", "--objective", "16 ms")
    assert "4 of 4 runs were there already" in said.out
    assert package.load("o").objective == 0.016


@pytest.mark.parametrize(
    "change",
    [
        "workload.duration=11 s",
        "workload.too_long=reject",
        "workload.max_context=1000",
        "workload.samples=2",
        "replica.kv_capacity=40000 tokens",
        "replica.host_capacity=40000 tokens",
        "replica.horizon=60 s",
        "systems=[vllm-chunked, cache-lru]",
        "seeds=[1]",
        "workload.trace={generate: {}}",
    ],
)
def test_whatever_changes_a_result_changes_its_key(change: str, experiment: Callable) -> None:
    file = experiment()
    assert not set(keys(file)) & set(keys(file, change))


def test_a_key_follows_the_content_of_trace_profile_and_policy_and_not_their_names(
    folder: Path, experiment: Callable
) -> None:
    trace = '{{"id": "a", "arrival": 0, "prompt": {prompt}, "calls": [{{"output": 3}}]}}\n'
    policy = "from policies.contract import Discard, InterceptPolicy\nclass Mine(InterceptPolicy):\n    {body}\n"
    profile = (Path(__file__).parents[3] / "configs/profiles/published/gpt-j-6b-a100-40g/profile.yaml").read_text()

    def write(prompt: int = 5, body: str = "pass", saturation: str = "384") -> None:
        (folder / "t.jsonl").write_text(trace.format(prompt=prompt))
        (folder / "policy_in_key.py").write_text(policy.format(body=body))
        (folder / "gpu.yaml").write_text(profile.replace("saturation_tokens: 384", f"saturation_tokens: {saturation}"))

    file = experiment(
        "workload: {trace: t.jsonl, arrivals: {poisson: {rate: 20}}, duration: 10 s}\n"
        "replica: {profile: gpu.yaml}\nsystems: [{name: mine, policy: 'policy_in_key:Mine'}]\n"
    )
    write()
    first = keys(file)
    assert keys(file) == first
    changed = []
    for change in ({"body": "x = 1"}, {"saturation": "256"}):
        write(**change)
        changed.append(keys(file))
    write(prompt=6)
    (folder / "t.jsonl").rename(folder / "u.jsonl")  # a trace is read once per process and path
    changed.append(keys(file, "workload.trace=u.jsonl"))
    assert len({tuple(key) for key in [first, *changed]}) == 4
    write()
    (folder / "t.jsonl").rename(folder / "v.jsonl")
    assert keys(file, "workload.trace=v.jsonl") == first


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended by itself: make the experiment larger"
        assert time.monotonic() < end
        time.sleep(0.01)


LONG = """\
workload: {trace: infercept-mix, arrivals: {poisson: {rate: [1, 2, 3, 4, 5, 6]}}, duration: 60 s}
systems: [vllm, swap, infercept]
"""


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_killed_comparison_leaves_whole_runs_and_goes_on(
    jobs: str, caesura: Callable, experiment: Callable, process: Callable
) -> None:
    """SIGKILL for the process group after three runs."""
    experiment(LONG)
    out = Path("o")
    started = process("run", "x.yaml", "--out", "o", "--jobs", jobs)
    wait_for(lambda: (out / "runs").is_dir() and len(run_folders(out)) >= 3, started)
    os.killpg(started.pid, signal.SIGKILL)
    started.communicate()

    whole = run_folders(out)
    assert 3 <= len(whole) < 18
    for folder in whole:
        assert {file.name for file in folder.iterdir()} == ALL_FILES
        assert json.loads((folder / "summary.json").read_text())["completed"] > 0
    assert not (out / "comparison.json").exists()
    with pytest.raises(package.UserError, match="no comparison ended there"):
        package.load("o")

    said = caesura("run", "x.yaml", "--out", "o", "--set", "workload.arrivals.poisson.rate=[6]")
    assert said.code == 0
    kept = sum(".load-6." in folder.name for folder in whole)
    assert f"{kept} of 3 runs were there already" in said.out
    assert not list((out / "runs").glob(".*")), "drafts of the killed process are gone"


def told(err: str) -> list[str]:
    """Lines of stderr but for those of progress, which a slow machine sees."""
    return [
        line
        for line in err.splitlines()
        if not re.fullmatch(r"caesura: x: \d+ of \d+ runs, \d+ % of the work, \d+ s", line)
    ]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_is_one_line_and_exit_code_130(jobs: str, experiment: Callable, process: Callable) -> None:
    experiment(LONG)
    started = process("run", "x.yaml", "--out", "o", "--jobs", jobs)
    wait_for(lambda: Path("o/runs").is_dir() and len(run_folders(Path("o"))) >= 1, started)
    os.killpg(started.pid, signal.SIGINT)
    out, err = started.communicate(timeout=30)
    assert started.returncode == 130
    assert out == ""
    assert told(err) == ["caesura: interrupted; runs that ended are kept, and the same command goes on from there"]
    assert not list(Path("o/runs").glob(".*"))
    for folder in run_folders(Path("o")):
        assert {file.name for file in folder.iterdir()} == ALL_FILES


@pytest.mark.parametrize(
    ("everybody", "words"),
    [(False, ("run",)), (True, ("sweep", "--over", "systems[*].engine.max_running=16,64"))],
    ids=["kill", "timeout"],
)
def test_sigterm_is_one_line_and_exit_code_143(
    everybody: bool, words: tuple[str, ...], experiment: Callable, process: Callable
) -> None:
    """To the first process alone, as ``kill`` sends it; or to the workers, to it, and to all, as ``timeout`` may do:
    a worker must not look as if its run had killed it."""
    experiment(LONG)
    started = process(words[0], "x.yaml", *words[1:], "--out", "o", "--jobs", "2")
    wait_for(lambda: Path("o/runs").is_dir() and len(run_folders(Path("o"))) >= 1, started)
    if everybody:
        children = psutil.Process(started.pid).children()
        for child in children:
            child.terminate()
        time.sleep(0.1)
        assert len(children) >= 2
        assert all(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    started.terminate()
    if everybody:
        time.sleep(0.02)
        os.killpg(started.pid, signal.SIGTERM)
    out, err = started.communicate(timeout=30)
    assert started.returncode == 143
    assert out == ""
    assert [line.split(";")[0] for line in told(err)] == ["caesura: interrupted"]
    assert not list(Path("o/runs").glob(".*"))
    assert not list(Path("o/runs").glob("*.failed.json"))


def test_progress_in_lines_is_one_for_each_tenth_and_none_within_ten_seconds() -> None:
    """Asked every second from 100 s on, 1 % a second: 12 % is told at 10 s at the earliest, the next tenth at 20."""
    stream = io.StringIO()
    lines = Lines("x", 200, stream, begin=100.0)
    for second in range(101):
        lines.tell(min(1.0, (second + 2) / 100), 2 * second, 100.0 + second)
    told = stream.getvalue().splitlines()
    assert told[:2] == [
        "caesura: x: 20 of 200 runs, 12 % of the work, 10 s",
        "caesura: x: 40 of 200 runs, 22 % of the work, 20 s",
    ]
    assert len(told) == 10


def test_a_write_that_fails_leaves_nothing(
    caesura: Callable, experiment: Callable, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """The disk is full at the last file of the first run."""
    experiment()

    write = Path.write_bytes

    def full(file: Path, data: bytes) -> int:
        if file.name == "summary.json":
            raise OSError(28, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    said = caesura("run", "x.yaml", "--out", "o", "--jobs", "1")
    assert said.code == 2
    assert "cannot be written: No space left on device" in said.err
    assert not (folder / "o").exists()


def test_drafts_of_living_processes_are_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / f".unfinished-{os.getpid()}-run"
    gone = tmp_path / ".unfinished-999999999-run"
    mine.mkdir()
    gone.mkdir()
    clear_unfinished(tmp_path)
    assert mine.exists()
    assert not gone.exists()
    assert not is_complete(mine)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_policy_file_that_was_edited_is_loaded_anew(
    jobs: str, caesura: Callable, experiment: Callable, folder: Path
) -> None:
    """First the policy keeps every context, then it drops them: only then is there recomputation."""
    module = f"edited_policy_{jobs}"
    experiment(
        "workload: {arrivals: {poisson: {rate: [1, 2]}}, duration: 10 s}\n"
        f"systems: [{{name: mine, policy: '{module}:Mine'}}]\n"
    )
    recomputed = []
    for verdict in ("Preserve", "Discard"):
        (folder / f"{module}.py").write_text(
            f"from policies.contract import InterceptPolicy, {verdict}\n"
            f"class Mine(InterceptPolicy):\n    def on_pause(self, paused, view):\n        return {verdict}()\n"
        )
        assert caesura("run", "x.yaml", "--out", "o", "--jobs", jobs).code == 0
        recomputed.append(package.load("o").runs["recomputed_tokens"].sum())
    assert recomputed[0] == 0
    assert recomputed[1] > 0


def test_another_experiment_in_the_same_folder_is_said_to_replace_the_first(
    experiment: Callable[[str], Path], caesura: Callable
) -> None:
    text = "workload: {trace: infercept-mix, arrivals: {poisson: {rate: 1}}, duration: 3 s}\nsystems: [vllm]\n"
    file = experiment(text)
    assert "held the results" not in caesura("run", str(file), "--out", "here").err
    assert "held the results" not in caesura("run", str(file), "--out", "here").err
    file.write_text(text.replace("vllm", "preserve"))
    said = caesura("run", str(file), "--out", "here")
    assert said.code == 0
    assert "here held the results of another experiment; its runs stay" in said.err
