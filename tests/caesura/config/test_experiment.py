"""From a file and the command line to an experiment with nothing left to look up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from caesura.config import paths
from caesura.config.experiment import Setup, parse_override, read_setup
from caesura.config.profiles import profile_names, read_profile
from caesura.config.systems import differences, load_preset, preset_names
from caesura.config.yaml_source import parse_yaml
from caesura.errors import ConfigError


def setup(file: Path, *overrides: str) -> Setup:
    return read_setup(file, [parse_override(text) for text in overrides])


def test_defaults(experiment: Callable) -> None:
    file = experiment("workload: {arrivals: {poisson: {rate: 2}}}\nsystems: [vllm]\n")
    found = setup(file)
    assert found.trace == "infercept-mix"
    assert found.experiment.workload.duration == 600
    assert found.experiment.workload.arrivals.loads == [2.0]
    assert found.experiment.seeds == [0]
    assert found.experiment.objective.normalized_latency == 0.1
    assert found.profile.name == "published/gpt-j-6b-a100-40g"


def test_units_and_capacities(experiment: Callable) -> None:
    """24 GiB at 458,752 bytes a token are 56,173 tokens."""
    file = experiment(
        "workload: {arrivals: {gamma: {rate: [1, 2], burstiness: 0.5}}, duration: 5 min}\n"
        "replica: {kv_capacity: 24 GiB, host_capacity: 1000 tokens, horizon: 1 h}\n"
        "systems: [vllm]\nseeds: 3\nobjective: {normalized_latency: 50 ms}\n"
    )
    found = setup(file)
    assert found.experiment.workload.duration == 300
    assert found.experiment.workload.arrivals.loads == [1.0, 2.0]
    assert (found.profile.kv_capacity_tokens, found.profile.host_capacity_tokens) == (56_173, 1000)
    assert found.experiment.replica.horizon == 3600
    assert found.experiment.seeds == [0, 1, 2]
    assert found.experiment.objective.normalized_latency == 0.05


def test_overrides_reach_everything(experiment: Callable) -> None:
    found = setup(
        experiment(),
        "workload.duration=2 min",
        "workload.arrivals.poisson.rate=[5, 6]",
        "systems[1]={preset: vllm, name: v2, engine: {block_size: 32}}",
        "replica.kv_capacity=9000 tokens",
        "seeds=[4]",
    )
    assert found.experiment.workload.duration == 120
    assert found.experiment.workload.arrivals.loads == [5.0, 6.0]
    assert [(one.name, one.engine.block_size) for one in found.systems] == [("vllm", 16), ("v2", 32)]
    assert found.profile.kv_capacity_tokens == 9000
    assert found.experiment.seeds == [4]


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
    assert read_setup(file).systems


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
