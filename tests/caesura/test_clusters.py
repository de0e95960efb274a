"""The same sweep on one process, two processes, a Dask cluster and Ray: the same bytes."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from caesura.clusters import DaskCluster
from caesura.config import read_setup
from caesura.errors import UserError
from caesura.executors import executor
from caesura.runs import Fault, ForeignCode, attempt, expand

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
OVER = ("--over", "systems[mine].policy.fails=false,true", "--seeds", "2")
TABLES = ("results.parquet", "results.csv", "failures.csv")


@pytest.fixture
def sweep(folder: Path, experiment: Callable, caesura: Callable) -> Callable[..., list[bytes]]:
    """``sweep(*words)``: the tables of one sweep over 8 runs that end and 4 that fail, carried out as the words say."""
    (folder / "cluster_policy.py").write_text(POLICY)
    calls = [{"output": 20, "returned": 7, "pause_s": 2.5}, {"output": 9}]
    sessions = [
        {"id": str(i), "calls": [{"prompt": 40 + i, **calls[0]}, {"prompt": 67 + i, **calls[1]}]} for i in range(9)
    ]
    (folder / "own.jsonl").write_text("".join(json.dumps(session) + "\n" for session in sessions))
    experiment(BASE)

    def carry_out(*words: str) -> list[bytes]:
        out = "-".join(words).replace(":", "").replace("/", "")
        said = caesura("sweep", "x.yaml", *OVER, *words, "--out", out)
        assert said.code == 1, said.err
        assert "4 runs failed" in said.err
        return [(Path(out) / name).read_bytes() for name in TABLES]

    return carry_out


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


def test_a_cluster_that_is_not_there_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("caesura.clusters._ANSWER_WITHIN", "1 s")
    cluster = DaskCluster("tcp://127.0.0.1:9", None)
    with pytest.raises(UserError, match=r"--on dask=tcp://127\.0\.0\.1:9: no Dask scheduler answers there"):
        next(cluster.outcomes([], None))  # type: ignore[arg-type]


@pytest.mark.parametrize(("place", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_cluster_whose_library_is_missing_names_the_extra(
    place: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(importlib.import_module("sys").modules, package, None)
    with pytest.raises(UserError, match=rf"pip install 'caesura\[{place}\]'"):
        executor(place)


def test_a_worker_with_other_code_refuses(experiment: Callable) -> None:
    """Other rules would give other results under the same name, so this is no failure of the run."""
    file = experiment("workload: {arrivals: {poisson: {rate: 5}}, duration: 1 s}\nsystems: [vllm]\n")
    (run,) = expand(read_setup(file))
    assert not isinstance(attempt(run), Fault)
    with pytest.raises(ForeignCode, match="has not the same caesura as this process"):
        attempt(replace(run, sources={**run.sources, "caesura": "other"}))
