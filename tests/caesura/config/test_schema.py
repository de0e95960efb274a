"""The published JSON schema says what the validation says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from caesura.config import paths
from caesura.config.schema import json_schema

SCHEMA = json.loads(json_schema())
SHIPPED = sorted([*paths.configs().glob("quickstart*.yaml"), *(paths.configs() / "experiments").glob("*.yaml")])


def holds(experiment: dict[str, Any]) -> bool:
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(experiment)


def test_the_published_schema_is_current() -> None:
    """Renew it with: caesura schema > configs/experiment.schema.json"""
    assert (paths.configs() / "experiment.schema.json").read_text(encoding="utf-8") == json_schema()


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_experiments_hold(file: Path) -> None:
    assert not list(jsonschema.Draft202012Validator(SCHEMA).iter_errors(yaml.safe_load(file.read_text())))


GOOD: dict[str, Any] = {"workload": {"arrivals": {"poisson": {"rate": 2}}}, "systems": ["vllm"]}


@pytest.mark.parametrize(
    "part",
    [
        {},
        {"seeds": 3},
        {"seeds": [1, 5]},
        {"objective": {"normalized_latency": "100 ms"}},
        {"replica": {"kv_capacity": "24 GiB", "host_capacity": "5000 tokens", "horizon": 60}},
        {"workload": {"arrivals": "replay", "trace": "t.jsonl", "duration": "5 min"}},
        {"workload": {"arrivals": {"gamma": {"rate": [1, 2.5], "burstiness": 0.5}}, "trace": {"generate": {}}}},
        {"systems": ["vllm", {"preset": "cache-lru", "name": "mine", "engine": {"requeue_at": "arrival"}}]},
        {"systems": [{"name": "mine", "policy": {"name": "heuristic", "swap_above": 4.0}}]},
    ],
)
def test_what_the_schema_takes(part: dict[str, Any]) -> None:
    assert holds(GOOD | part)


@pytest.mark.parametrize(
    "part",
    [
        {"seed": 3},
        {"seeds": 0},
        {"systems": []},
        {"objective": {"normalized_latency": "100 mss"}},
        {"replica": {"kv_capacity": 24}},
        {"workload": {"arrivals": "poisson"}},
        {"workload": {"arrivals": {"poisson": {"rate": -1}}}},
        {"workload": {"arrivals": {"poisson": {"rate": 1}, "gamma": {"rate": 1, "burstiness": 1}}}},
        {"systems": [{"preset": "vllm", "engine": {"swap": "sometimes"}}]},
    ],
)
def test_what_the_schema_refuses(part: dict[str, Any]) -> None:
    assert not holds(GOOD | part)
