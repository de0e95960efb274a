"""From a file and the command line to an experiment with nothing left to look up."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from caesura.config import paths
from caesura.config.experiment import ResolvedExperiment, read_experiment, read_experiment_file, write_experiment
from caesura.config.overrides import parse_override
from caesura.config.profiles import profile_names, read_profile
from caesura.config.systems import differences, load_preset, preset_names
from caesura.config.yaml_source import Source, parse_yaml
from caesura.errors import ConfigError
from tests.caesura.conftest import Said
from traces.readers import write_own
from traces.session import Call, Session


def setup(file: Path, *overrides: str) -> ResolvedExperiment:
    return read_experiment_file(file, [parse_override(text) for text in overrides])


def test_defaults(experiment: Callable) -> None:
    file = experiment("workload: {arrivals: {poisson: {rate: 2}}}\nsystems: [vllm]\n")
    found = setup(file)
    assert found.trace == "infercept-mix"
    assert found.workload.duration == 600
    assert found.workload.arrivals.loads == [2.0]
    assert found.seeds == [0]
    assert found.objective.normalized_latency == 0.1
    assert found.profile.name == "published/gpt-j-6b-a100-40g"


def test_units_and_capacities(experiment: Callable) -> None:
    """24 GiB at 458,752 bytes a token are 56,173 tokens."""
    file = experiment(
        "workload: {arrivals: {gamma: {rate: [1, 2], burstiness: 0.5}}, duration: 5 min}\n"
        "replica: {kv_capacity: 24 GiB, host_capacity: 1000 tokens, horizon: 1 h}\n"
        "systems: [vllm]\nseeds: 3\nobjective: {normalized_latency: 50 ms}\n"
    )
    found = setup(file)
    assert found.workload.duration == 300
    assert found.workload.arrivals.loads == [1.0, 2.0]
    assert (found.profile.kv_capacity_tokens, found.profile.host_capacity_tokens) == (56_173, 1000)
    assert found.horizon == 3600
    assert found.seeds == [0, 1, 2]
    assert found.objective.normalized_latency == 0.05


def test_overrides_reach_everything(experiment: Callable) -> None:
    found = setup(
        experiment(),
        "workload.duration=2 min",
        "workload.arrivals.poisson.rate=[5, 6]",
        "systems[1]={preset: vllm, name: v2, engine: {block_size: 32}}",
        "replica.kv_capacity=9000 tokens",
        "seeds=[4]",
    )
    assert found.workload.duration == 120
    assert found.workload.arrivals.loads == [5.0, 6.0]
    assert [(one.name, one.engine.block_size) for one in found.systems] == [("vllm", 16), ("v2", 32)]
    assert found.profile.kv_capacity_tokens == 9000
    assert found.seeds == [4]


def test_an_entry_overrides_its_preset_and_nothing_else(experiment: Callable) -> None:
    file = experiment(
        "workload: {arrivals: {poisson: {rate: 2}}}\n"
        "systems: [cache-lru, {preset: cache-lru, name: mine, engine: {max_running: 8}}]\n"
    )
    assert differences(setup(file).systems) == {"engine.max_running": ["256", "8"]}


def test_paths_in_a_file_refer_to_the_file(folder: Path, experiment: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "mine.jsonl").write_text('{"id": "a", "arrival": 0, "prompt": 5, "calls": [{"output": 3}]}\n')
    (folder / "own.yaml").write_text("extends: vllm\nengine: {block_size: 8}\n")
    file = experiment("workload: {trace: mine.jsonl, arrivals: {poisson: {rate: 2}}}\nsystems: [vllm, own.yaml]\n")
    monkeypatch.chdir("/")
    found = setup(file)
    assert found.trace == (folder / "mine.jsonl").resolve()
    assert differences(found.systems) == {"engine.block_size": ["16", "8"]}


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_holds(name: str) -> None:
    system = load_preset(name)
    assert system.name == name
    assert system.summary
    assert system.origin


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_holds(name: str) -> None:
    profile = read_profile(name)
    assert profile.name
    assert profile.source


@pytest.mark.parametrize("twin", [name for name in preset_names() if name.endswith("chunked")])
def test_twins_differ_in_batching_alone(twin: str) -> None:
    base = twin.removesuffix("-chunked").removesuffix("-unchunked")
    keys = set(differences([load_preset(base), load_preset(twin)]))
    assert keys
    assert keys <= {"engine.token_budget", "engine.chunked_prefill", "engine.mixed_batches"}


SHIPPED = sorted([*paths.configs().glob("quickstart*.yaml"), *(paths.configs() / "experiments").glob("*.yaml")])


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_shipped_experiment_holds(file: Path) -> None:
    assert read_experiment_file(file).systems


def test_lines_are_remembered() -> None:
    source = parse_yaml("a:\n  - b: 1\n    c: 2\n  -\n    d: 3\n", "f")
    assert source.data == {"a": [{"b": 1, "c": 2}, {"d": 3}]}
    assert source.where(("a", 0, "c")) == "f, line 3"
    assert source.where(("a", 1, "d")) == "f, line 5"
    assert source.where(("a", 1, "missing")) == "f, line 5"


def test_anchors_are_ordinary_yaml() -> None:
    assert parse_yaml("a: &x {k: 1}\nb: *x\n", "f").data == {"a": {"k": 1}, "b": {"k": 1}}


def test_keys_must_be_words() -> None:
    with pytest.raises(ConfigError, match="a key must be a plain word"):
        parse_yaml("? [1, 2]\n: 3\n", "f")


SHIPPED = sorted([*paths.configs().glob("quickstart*.yaml"), *(paths.configs() / "experiments").glob("*.yaml")])
OWN = """\
workload: {trace: t.jsonl, arrivals: {diurnal: {rate: [1, 2], swing: 0.5, period: 60}}, max_context: 300, samples: 2}
cluster: {replicas: [{count: 2, engine: {max_running: 7}}], kv_transfer: {bandwidth: 25 GB/s}}
replica: {kv_capacity: 9000 tokens, horizon: 1 min}
systems: [vllm, {preset: infercept, name: mine, router: affinity, engine: {max_running: 8}}]
seeds: [3, 5]
objective: {normalized_latency: 50 ms}
"""


def again(experiment: ResolvedExperiment) -> ResolvedExperiment:
    """What ``read_experiment`` makes of what ``write_experiment`` wrote, through YAML and from another folder."""
    text = yaml.safe_dump(write_experiment(experiment), sort_keys=False)
    return read_experiment(parse_yaml(text, "again"), "again", Path("/"))


def check_read_back(experiment: ResolvedExperiment) -> None:
    assert again(experiment) == experiment
    system, load, seed = experiment.systems[-1], experiment.loads[-1], experiment.seeds[-1]
    one = experiment.of_one_run(system, load, seed)
    assert again(one) == one
    assert (one.systems, one.loads, one.seeds) == ((system,), [load], [seed])


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_an_experiment_that_is_written_is_read_as_the_same(file: Path) -> None:
    data = yaml.safe_load(file.read_text())
    data.pop("sweep", None)
    check_read_back(read_experiment(Source(file.name, data), file.stem, file.parent))


def test_an_experiment_with_paths_units_and_lists_is_read_as_the_same(tmp_path: Path) -> None:
    write_own(tmp_path / "t.jsonl", [Session("a", 0.0, 100, (Call(5),))])
    (tmp_path / "x.yaml").write_text(OWN)
    found = read_experiment_file(tmp_path / "x.yaml")
    check_read_back(found)
    for change in ("seeds: [3, 6]", "horizon: 2 min", "max_running: 9", "rate: [1, 3]", "samples: 3", "swing: 0.4"):
        key = change.partition(":")[0]
        (tmp_path / "x.yaml").write_text(re.sub(rf"{key}: (\[[^]]*\]|[^,}}\n]*)", change, OWN))
        assert read_experiment_file(tmp_path / "x.yaml") != found, change


def test_results_of_the_same_experiment_are_replaced_without_a_word(
    caesura: Callable[..., Said], experiment: Callable[[str], Path], folder: Path
) -> None:
    """An older file lacks a setting, or calls it by an older name: by meaning it is the same experiment."""
    text = "workload: {arrivals: {poisson: {rate: 2}}, duration: 5 s}\nsystems: [vllm]\n"
    experiment(text)
    assert caesura("run", "x.yaml", "--out", "o").code == 0
    file = folder / "o" / "experiment.yaml"
    written = yaml.safe_load(file.read_text())
    engine = written["systems"][0]["engine"]
    del engine["sample_layout"]
    engine["reentry"] = engine.pop("requeue_at")
    file.write_text(yaml.safe_dump(written))
    assert "another experiment" not in caesura("run", "x.yaml", "--out", "o").err
    experiment(text.replace("rate: 2", "rate: 1"))
    assert "held the results of another experiment" in caesura("run", "x.yaml", "--out", "o").err
