"""Clusters in experiments: what a file may say, what a run leaves, and that shards are the whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import caesura
from caesura.config.experiment import read_experiment
from caesura.config.schema import json_schema
from caesura.config.units import parse_bandwidth
from caesura.config.yaml_source import Source
from caesura.results.metrics import call_table, session_table, summarize
from caesura.runs.executors.local import LocalExecutor
from caesura.runs.run import expand
from caesura.runs.run_experiment import run_experiment
from caesura.runs.run_folder import read_summary
from caesura.runs.simulate import simulate
from sim.world.cluster import Link
from tests.caesura.conftest import Said


def experiment_data(**more: Any) -> dict[str, Any]:
    return {
        "workload": {"trace": "infercept-mix", "arrivals": {"poisson": {"rate": 8}}, "duration": "10 s"},
        "systems": ["infercept"],
        **more,
    }


def setup(**more: Any) -> Any:
    return read_experiment(Source("x.yaml", experiment_data(**more)), "x", Path.cwd())


def test_a_number_of_replicas_is_one_group_like_the_replica() -> None:
    cluster = setup(cluster={"replicas": 3}, replica={"kv_capacity": "9000 tokens"}).cluster
    (group,) = cluster.groups
    assert (group.count, group.profile.kv_capacity_tokens, cluster.count) == (3, 9000, 3)
    assert cluster.router == {"name": "round-robin"} and cluster.link is None


def test_groups_differ_in_profile_sizes_and_settings() -> None:
    """A group with a profile of its own has that profile's pools; one without has the replica's."""
    groups = [
        {"count": 2, "engine": {"max_running": 7}},
        {"profile": "analytic/llama-3.1-8b-h200"},
        {"profile": "published/gpt-j-6b-a100-40g", "kv_capacity": "7000 tokens"},
    ]
    made = setup(cluster={"replicas": groups}, replica={"kv_capacity": "9000 tokens"})
    first, second, third = made.cluster.groups
    assert first.profile.kv_capacity_tokens == 9000 and third.profile.kv_capacity_tokens == 7000
    assert second.profile.kv_capacity_tokens > 100_000
    specs = made.cluster.specs(made.systems[0])
    assert [spec.settings.max_running for spec in specs] == [7, 7, 256, 256]
    assert specs[0].policy() is not specs[0].policy()


def test_a_network_is_written_with_units() -> None:
    transfer = {"bandwidth": "25 GB/s", "latency": "1 ms"}
    assert setup(cluster={"replicas": 2, "kv_transfer": transfer}).cluster.link == Link(25e9, 1e-3)
    assert setup(cluster={"replicas": 2, "kv_transfer": "none"}).cluster.link is None


@pytest.mark.parametrize(("text", "bytes_per_s"), [("25 GB/s", 25e9), ("400MB/s", 4e8), ("1.5 GiB/s", 1.5 * 2**30)])
def test_bandwidths(text: str, bytes_per_s: float) -> None:
    assert parse_bandwidth(text) == bytes_per_s


@pytest.mark.parametrize("text", ["25", "25 GB", "fast", "0 GB/s", "25 Gb/s", "-1 GB/s"])
def test_no_bandwidths(text: str) -> None:
    with pytest.raises(ValueError, match="write, for example, '25 GB/s'"):
        parse_bandwidth(text)


FAULTS = {
    "unknown router": ("{replicas: 2, router: round-robbin}", "cluster.router", "did you mean 'round-robin'?"),
    "unknown router of a system": ("{replicas: 2}", "systems[0].router", "no such name in routers: 'x'"),
    "no replicas": ("{replicas: 0}", "cluster.replicas", "at least 1"),
    "empty list": ("{replicas: []}", "cluster.replicas", "at least one"),
    "unknown key": ("{replicas: 2, routr: affinity}", "cluster.routr", "did you mean 'router'?"),
    "bad bandwidth": ("{replicas: 2, kv_transfer: {bandwidth: 25 GB}}", "kv_transfer.bandwidth", "25 GB/s"),
    "negative latency": ("{replicas: 2, kv_transfer: {bandwidth: 1 GB/s, latency: -1}}", "latency", "at least 0"),
    "unknown profile": ("{replicas: [{profile: nope}]}", "cluster.replicas[0].profile", "unknown profile 'nope'"),
    "tiny pool": ("{replicas: [{kv_capacity: 16 tokens}]}", "cluster.replicas[0].kv_capacity", "needs at least 32"),
    "block size": ("{replicas: [{engine: {block_size: 8}}]}", "cluster.replicas[0].engine", "share one block_size"),
    "bytes differ": (
        "{replicas: [{}, {profile: analytic/llama-3.1-8b-h200}], router: affinity-spill}",
        "cluster.replicas",
        "differ in bytes of KV per token",
    ),
}


@pytest.mark.parametrize(("cluster", "key", "said"), FAULTS.values(), ids=FAULTS)
def test_faults_name_line_and_key(
    cluster: str, key: str, said: str, experiment: Callable[[str], Path], caesura: Callable[..., Said]
) -> None:
    router = ", router: x" if "systems" in key else ""
    text = f"workload: {{arrivals: {{poisson: {{rate: 2}}}}, duration: 5 s}}\ncluster: {cluster}\n"
    experiment(f"{text}systems: [{{preset: vllm{router}}}]\n")
    result = caesura("run", "x.yaml")
    assert result.code == 2 and key in result.err and said in result.err, result.err
    assert "line" in result.err and not Path("runs").exists()


def test_a_router_without_a_cluster_is_refused(experiment: Callable[[str], Path], caesura: Callable[..., Said]) -> None:
    text = "workload: {arrivals: {poisson: {rate: 2}}, duration: 5 s}\n"
    experiment(f"{text}systems: [{{preset: vllm, router: affinity}}]\n")
    assert "systems[0].router: there is no cluster" in caesura("run", "x.yaml").err


@pytest.mark.parametrize(
    ("cluster", "holds"),
    [
        ({"replicas": 4}, True),
        ({"replicas": [{"count": 2}, {"profile": "a", "kv_capacity": "8 GB", "engine": {"max_running": 4}}]}, True),
        ({"replicas": 4, "router": {"name": "two-choices", "seed": 1}, "kv_transfer": "none"}, True),
        ({"replicas": 4, "kv_transfer": {"bandwidth": "25 GB/s", "latency": 0}}, True),
        ({"replicas": 0}, False),
        ({"replicas": []}, False),
        ({"router": "affinity"}, False),
        ({"replicas": 4, "kv_transfer": {"bandwidth": "25 GB"}}, False),
    ],
)
def test_the_json_schema_says_the_same(cluster: dict[str, Any], holds: bool) -> None:
    import json

    schema = jsonschema.Draft202012Validator(json.loads(json_schema()))
    assert schema.is_valid(experiment_data(cluster=cluster)) == holds


def test_the_resolved_configuration_repeats_the_run() -> None:
    """Read back, it gives the run with the same key."""
    groups = [{"count": 2, "engine": {"max_running": 7}}, {"kv_capacity": "40000 tokens"}]
    transfer = {"bandwidth": "24.7 GB/s", "latency": "1 ms"}
    first = setup(cluster={"replicas": groups, "router": "affinity-spill", "kv_transfer": transfer})
    (run,) = expand(first)
    again = read_experiment(Source("x.yaml", run.config), "x", Path.cwd())
    assert expand(again)[0].key == run.key
    other = setup(cluster={"replicas": groups, "router": "affinity", "kv_transfer": transfer})
    assert expand(other)[0].key != run.key


def test_shards_give_the_same_folder_to_the_last_byte(tmp_path: Path) -> None:
    """Three replicas in one process, and dealt to two."""
    made = setup(cluster={"replicas": 3, "router": "hash-affinity"})
    folders = []
    for jobs in (1, 2):
        runs, _ = run_experiment(made, tmp_path / str(jobs), LocalExecutor(jobs), progress=False)
        folders.append(tmp_path / str(jobs) / "runs" / runs[0].name)
    names = sorted(file.name for file in folders[0].iterdir() if file.name != "provenance.json")
    assert "replicas.parquet" in names
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    assert read_summary(folders[0])["completed"] > 50


def test_measures_of_a_cluster_add_up() -> None:
    """Sessions, tokens and memory of the replicas are those of the whole; busy_share is the mean of the replicas'."""
    (run,) = expand(setup(cluster={"replicas": 2, "router": "least-outstanding"}))
    record, _ = simulate(run)
    summary = summarize(record, session_table(record), call_table(record))
    replicas = record.replicas
    assert sum(replicas["sessions"]) == summary["num_prompts"] == summary["completed"]
    assert sum(replicas["emitted_tokens"]) == summary["emitted_tokens"] == summary["total_output_tokens"]
    assert sum(replicas["calls"]) == len(record.calls["call"])
    assert sum(replicas["memory_token_s"]) == pytest.approx(2 * 50_000 // 16 * 16 * summary["duration"], rel=1e-3)
    assert summary["moves"] == sum(record.sessions["moves"]) > 0
    assert 0 < summary["busy_share"] < 1
    assert summary["window_s"] < summary["duration"]
    assert sorted(set(record.timeline["replica"])) == [0, 1]
    seconds = [
        sum(s for s, r in zip(record.timeline["seconds"], record.timeline["replica"], strict=True) if r == index)
        for index in (0, 1)
    ]
    assert seconds[0] == pytest.approx(summary["duration"]) == seconds[1]


def test_a_comparison_of_routers_has_its_tables_and_page(tmp_path: Path) -> None:
    systems = [
        {"preset": "vllm", "name": "stays", "router": "round-robin"},
        {"preset": "vllm", "name": "moves", "router": {"name": "two-choices", "seed": 3}},
    ]
    data = experiment_data(cluster={"replicas": 2, "kv_transfer": {"bandwidth": "1 GB/s"}}, systems=systems)
    found = caesura.run(data, out=tmp_path / "out", jobs=1, progress=False)
    assert list(found.replicas["system"]) == ["stays", "stays", "moves", "moves"]
    assert list(found.replicas["replica"]) == [0, 1, 0, 1]
    moves = found.runs.set_index("system")["moves"]
    assert moves["stays"] == 0 < moves["moves"]
    page = found.report.read_text()
    for text in ("How is the work spread?", "moves / 1", "2 × GPT-J-6B", "two-choices (seed: 3)"):
        assert text in page, text


def test_a_page_about_one_replica_says_nothing_of_replicas(tmp_path: Path) -> None:
    found = caesura.run(experiment_data(), out=tmp_path / "out", jobs=1, progress=False)
    page = found.report.read_text()
    assert "How is the work spread?" not in page and "1 ×" not in page
    assert list(found.replicas["replica"]) == [0]


def test_the_routers_are_listed(caesura: Callable[..., Said]) -> None:
    said = caesura("routers")
    assert said.code == 0 and "affinity-spill" in said.out and "can be simulated in parts" in said.out


def test_a_router_of_the_users_own(
    folder: Path, experiment: Callable[[str], Path], caesura: Callable[..., Said]
) -> None:
    """Everything to the last replica; and one that answers nonsense is named with session and time."""
    (folder / "my_routers.py").write_text(
        "from policies.routing import Router\n\n\n"
        "class ToTheLast(Router):\n"
        "    def on_arrival(self, session, replicas):\n"
        "        return len(replicas) - 1\n\n\n"
        "class Astray(ToTheLast):\n"
        "    def on_resume(self, session, replicas):\n"
        "        return len(replicas)\n"
    )
    text = "workload: {arrivals: {poisson: {rate: 4}}, duration: 5 s}\nsystems: [vllm]\n"
    experiment(text + "cluster: {replicas: 3, router: 'my_routers:ToTheLast'}\n")
    assert caesura("run", "x.yaml", "--out", "last").code == 0
    import caesura as package

    assert set(package.load("last").sessions["replica"]) == {2}
    experiment(text + "cluster: {replicas: 3, router: 'my_routers:Astray'}\n")
    result = caesura("run", "x.yaml", "--out", "astray")
    assert result.code == 2
    assert "router my_routers:Astray failed in on_resume for session" in result.err and "got 3" in result.err
