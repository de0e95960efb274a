"""What an experiment file may say about a cluster."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, field_validator

from caesura.config.reject_bool import Rule, Strict
from caesura.config.units import Bandwidth, Delay, PoolSize
from sim.engine.settings import EngineSettings

_MOST_REPLICAS = 10_000


class ReplicaGroup(Strict):
    """Replicas that are alike. What is left out is as under ``replica``."""

    count: int = Field(default=1, ge=1, le=_MOST_REPLICAS, strict=True, description="how many of them")
    profile: str | None = Field(default=None, min_length=1, description="name below configs/profiles, or a path")
    kv_capacity: PoolSize | None = Field(default=None, description="KV pool on the GPU of each")
    host_capacity: PoolSize | None = Field(default=None, description="KV pool on the host of each")
    engine: EngineSettings = Field(default=EngineSettings(), description="engine settings in which they differ")

    @field_validator("engine", mode="after")
    @classmethod
    def _same_blocks(cls, value: EngineSettings) -> EngineSettings:
        if "block_size" in value.model_fields_set:
            raise ValueError("the replicas of a cluster share one block_size; set it in the system's engine")
        return value


class KvTransfer(Strict):
    """A network that copies contexts between replicas."""

    bandwidth: Bandwidth = Field(description="of each replica, in and out, as in 25 GB/s")
    latency: Delay = Field(default=0.0, description="before the first byte of a copy")


def _cluster_schema(schema: dict[str, Any]) -> None:
    """A number of replicas stands for a list of one group, and none for no network."""
    properties = schema["properties"]
    groups = properties["replicas"]
    items = {key: groups.pop(key) for key in ("type", "items", "minItems")}
    groups["anyOf"] = [{"type": "integer", "minimum": 1, "maximum": _MOST_REPLICAS}, items]
    properties["kv_transfer"]["anyOf"].append({"const": "none"})


class ClusterSection(Strict):
    """Replicas behind a router."""

    model_config = ConfigDict(json_schema_extra=_cluster_schema)

    replicas: list[ReplicaGroup] = Field(
        min_length=1, description="how many like `replica`, or a list of groups: {count: 2, profile: ...}"
    )
    router: Rule = Field(
        default="round-robin",
        description="chooses the replica: a name (`caesura routers`), module:Class, or {name: ..., parameter: value}",
    )
    kv_transfer: KvTransfer | None = Field(
        default=None, description="how a context follows its session to another replica; none: it is recomputed there"
    )

    @field_validator("replicas", mode="before")
    @classmethod
    def _count(cls, value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool):
            return [{"count": value}]
        return value

    @field_validator("kv_transfer", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return None if value == "none" else value
