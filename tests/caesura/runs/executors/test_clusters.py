"""The same sweep on one process, two processes, a Dask cluster and Ray: the same bytes."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from caesura.cli.progress import Progress
from caesura.config.experiment import read_experiment_file
from caesura.config.workload import read_trace
from caesura.errors import UserError
from caesura.runs.code_hash import CodeMismatch
from caesura.runs.executors.choose import executor
from caesura.runs.executors.dask import DaskExecutor
from caesura.runs.executors.executor import DIED
from caesura.runs.executors.ray import RayExecutor
from caesura.runs.run import expand
from caesura.runs.simulate import RunError, run_safely

BASE = """\
workload: {trace: own.jsonl, arrivals: {poisson: {rate: [1, 2]}}, duration: 20 s}
systems: [vllm, {name: mine, policy: {name: "cluster_policy:Mine"}}]
"""
POLICY = """
from policies.contract import Discard, InterceptPolicy

class Mine(InterceptPolicy):
    def __init__(self, fails=False):
        self.fails = fails

    def on_pause(self, paused, view):
        if self.fails:
            raise RuntimeError("on purpose")
        return Discard()
"""
DYING = """
import os

from policies.contract import InterceptPolicy

class Dying(InterceptPolicy):
    def on_pause(self, paused, view):
        os._exit(3)
"""
THREE = """\
workload: {trace: own.jsonl, arrivals: {poisson: {rate: 5}}, duration: 2 s}
systems: [vllm, {name: dying, policy: {name: "dying_policy:Dying"}}, swap]
"""
OVER = ("--over", "systems[mine].policy.fails=false,true", "--seeds", "2")
TABLES = ("results.parquet", "results.csv", "failures.csv")


def write_trace(file: Path) -> None:
    """Nine sessions of two calls."""
    calls = [{"output": 20, "returned": 7, "pause_s": 2.5}, {"output": 9}]
    sessions = [
        {"id": str(i), "calls": [{"prompt": 40 + i, **calls[0]}, {"prompt": 67 + i, **calls[1]}]} for i in range(9)
    ]
    file.write_text("".join(json.dumps(session) + "\n" for session in sessions))


@pytest.fixture
def sweep(folder: Path, experiment: Callable, caesura: Callable) -> Callable[..., list[bytes]]:
    """``sweep(*words)``: the tables of one sweep over 8 runs that end and 4 that fail, carried out as the words say."""
    (folder / "cluster_policy.py").write_text(POLICY)
    write_trace(folder / "own.jsonl")
    experiment(BASE)

    def run_experiment(*words: str) -> list[bytes]:
        out = "-".join(words).replace(":", "").replace("/", "")
        said = caesura("sweep", "x.yaml", *OVER, *words, "--out", out)
        assert said.code == 1, said.err
        assert "4 runs failed" in said.err
        return [(Path(out) / name).read_bytes() for name in TABLES]

    return run_experiment


@pytest.fixture
def dask_address(folder: Path) -> Iterator[str]:
    """A Dask cluster of two worker processes."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster.scheduler_address


def test_processes_and_a_dask_cluster_give_the_same_bytes(sweep: Callable, dask_address: str) -> None:
    alone = sweep("--jobs", "1")
    assert sweep("--jobs", "2") == alone
    assert sweep("--on", f"dask={dask_address}") == alone


def test_ray_gives_the_same_bytes(sweep: Callable) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    assert sweep("--on", "ray", "--jobs", "2") == sweep("--jobs", "1")


@pytest.mark.parametrize(("place", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_run_that_takes_its_worker_along_fails_alone(
    place: str, package: str, folder: Path, experiment: Callable
) -> None:
    """The run in the middle ends the process that simulates it, twice; those beside it end as they should, also in the
    processes that came for those that died, without the file of the trace. A worker with other code ends the sweep."""
    pytest.importorskip(package)
    (folder / "dying_policy.py").write_text(DYING)
    write_trace(folder / "own.jsonl")
    runs = expand(read_experiment_file(experiment(THREE)))
    read_trace(folder / "own.jsonl")
    (folder / "own.jsonl").unlink()
    foreign = replace(runs[0], sources={**runs[0].sources, "caesura": "other"})
    where = executor(place, jobs=2)
    with where.keeping_workers():
        outcomes = dict(where.outcomes(runs, Progress(folder / "shares", [1.0, 1.0, 1.0])))
        with pytest.raises(CodeMismatch, match="has not the same caesura as this process"):
            list(where.outcomes([foreign], Progress(folder / "shares", [1.0])))
    assert [outcomes[index] == DIED for index in range(3)] == [False, True, False]
    assert all("summary.json" in outcomes[index] for index in (0, 2))


def test_a_ray_cluster_that_is_there_is_used_by_its_address(
    folder: Path, experiment: Callable, caesura: Callable, process: Callable
) -> None:
    """The other process finds the cluster of this one, whose token Ray has put into the environment."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    experiment()
    over = ("--over", "replica.kv_capacity=20000 tokens,30000 tokens")
    with executor("ray", jobs=1).keeping_workers():
        address = ray.get_runtime_context().gcs_address
        there = process("sweep", "x.yaml", *over, "--on", f"ray={address}", "--out", "there")
        assert there.communicate()[1] == ""
    assert caesura("sweep", "x.yaml", *over, "--out", "here").code == there.returncode == 0
    assert Path("there/results.parquet").read_bytes() == Path("here/results.parquet").read_bytes()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "nonsense", "127.0.0.1:port"])
def test_a_ray_cluster_that_is_not_there_is_said_plainly_and_at_once(address: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    said = rf"--on ray={address}: no Ray cluster lets us in there \(.*RAY_AUTH_MODE=token"
    with pytest.raises(UserError, match=said):
        next(RayExecutor(address, None).outcomes([], None))  # type: ignore[arg-type]


@pytest.mark.parametrize(("address", "named"), [(None, "--on ray: "), ("head:6379", "--on ray=head:6379: ")])
def test_a_ray_cluster_that_goes_away_is_named_as_it_was_asked_for(
    address: str | None, named: str, experiment: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connected until the first run is waited for."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")

    def gone(*_: object, **__: object) -> None:
        raise ConnectionError

    for name in ("put", "cancel", "cluster_resources"):
        monkeypatch.setattr(ray, name, lambda *_, **__: {})
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "remote", lambda **_: lambda _: SimpleNamespace(remote=lambda *_: object()))
    monkeypatch.setattr(ray, "wait", gone)
    with pytest.raises(UserError, match=f"^{named}the cluster has gone away"):
        next(RayExecutor(address, 1).outcomes(expand(read_experiment_file(experiment())), None))  # type: ignore[arg-type]


def test_where_ray_has_the_address_of_a_cluster_that_is_gone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself would say nothing for over a minute."""
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(UserError, match=r"--on ray=auto: no Ray .* \(127\.0\.0\.1:9, from RAY_ADDRESS: .*refused"):
        next(RayExecutor("auto", None).outcomes([], None))  # type: ignore[arg-type]


def test_the_address_of_a_ray_client_needs_rays_client(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"Ray's client is not installed; pip install -e '\.\[ray\]'"):
        executor("ray=ray://127.0.0.1:10001")


def test_a_cluster_that_is_not_there_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("caesura.runs.executors.dask.ANSWER_WITHIN_S", 1.0)
    cluster = DaskExecutor("tcp://127.0.0.1:9", None)
    with pytest.raises(UserError, match=r"--on dask=tcp://127\.0\.0\.1:9: no Dask scheduler answers there"):
        next(cluster.outcomes([], None))  # type: ignore[arg-type]


@pytest.mark.parametrize(("place", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_cluster_whose_library_is_missing_names_the_extra(
    place: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(importlib.import_module("sys").modules, package, None)
    with pytest.raises(UserError, match=rf"pip install -e '\.\[{place}\]'"):
        executor(place)


def test_a_worker_with_other_code_refuses(experiment: Callable) -> None:
    """Other rules would give other results under the same name, so this is no failure of the run."""
    file = experiment("workload: {arrivals: {poisson: {rate: 5}}, duration: 1 s}\nsystems: [vllm]\n")
    (run,) = expand(read_experiment_file(file))
    assert not isinstance(run_safely(run), RunError)
    with pytest.raises(CodeMismatch, match="has not the same caesura as this process"):
        run_safely(replace(run, sources={**run.sources, "caesura": "other"}))
