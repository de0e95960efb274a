"""What an experiment file may say. Every field's meaning stands here once; the JSON schema is made from it."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, WithJsonSchema, field_validator, model_validator

from caesura.config.arrivals_schema import ArrivalsSection
from caesura.config.cluster_schema import ClusterSection
from caesura.config.generator_schema import GeneratedTrace
from caesura.config.reject_bool import Rule, Strict, reject_bool
from caesura.config.units import PoolSize, PositiveSeconds
from sim.engine.settings import EngineSettings

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")

Seeds = Annotated[
    list[Annotated[int, Field(ge=0, strict=True)]],
    Field(min_length=1),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"type": "integer", "minimum": 0}},
            ]
        }
    ),
]


def _trace_kind(value: object) -> str | None:
    if isinstance(value, str):
        return "<name>"
    return "<generate>" if isinstance(value, dict | GeneratedTrace) else None


TraceField = Annotated[
    Annotated[str, Field(min_length=1), Tag("<name>")] | Annotated[GeneratedTrace, Tag("<generate>")],
    Discriminator(
        _trace_kind,
        custom_error_type="trace",
        custom_error_message="expected a shipped trace's name, the path of a trace file, or {generate: {...}}",
    ),
]


def _workload_schema(schema: dict[str, Any]) -> None:
    """A generator stands for a trace and may bring arrivals along."""
    schema["required"].remove("arrivals")
    schema["anyOf"] = [{"required": ["arrivals"]}, {"required": ["generator"]}]
    schema["not"] = {"required": ["trace", "generator"]}


class Workload(Strict):
    """What the users send."""

    model_config = ConfigDict(json_schema_extra=_workload_schema)

    trace: TraceField = Field(
        default="infercept-mix",
        description="a shipped trace (infercept-mix, coding-agents, azure-conv, azure-code, mooncake-conversation), "
        "the path of a trace file in any format, or a draw",
    )
    generator: str | None = Field(
        default=None, min_length=1, description="a generator file instead of a trace; it may say how sessions arrive"
    )
    arrivals: ArrivalsSection
    duration: PositiveSeconds = Field(default=600.0, description="sessions arrive for this long")
    samples: int | None = Field(
        default=None,
        ge=1,
        strict=True,
        description="samples or beams that every call decodes from its context; as the trace says when left out",
    )
    too_long: Literal["cut", "reject"] = Field(
        default="cut", description="what happens to a session that outgrows the model's context"
    )
    max_context: int | None = Field(
        default=None, ge=2, strict=True, description="longest context in tokens; the profile's when left out"
    )


class ReplicaSection(Strict):
    """The engine's model and GPU."""

    profile: str = Field(
        default="published/gpt-j-6b-a100-40g", min_length=1, description="name below configs/profiles, or a path"
    )
    kv_capacity: PoolSize | None = Field(default=None, description="KV pool on the GPU; the profile's when left out")
    host_capacity: PoolSize | None = Field(default=None, description="KV pool on the host; the profile's when left out")
    horizon: PositiveSeconds | None = Field(
        default=None, description="stop after this much simulated time; without it every session is served to its end"
    )


class SystemEntry(Strict):
    """A system: a preset, perhaps with changes, or one of your own."""

    preset: str | None = Field(default=None, description="a name from `caesura systems`, or the path of a preset file")
    name: str | None = Field(default=None, description="what tables and figures call it")
    policy: Rule | None = Field(
        default=None, description="intercept policy: a name, module:Class, or {name: ..., parameter: value}"
    )
    order: Rule | None = Field(default=None, description="queue order, written like a policy")
    router: Rule | None = Field(
        default=None, description="router of the cluster for this system, written like a policy"
    )
    engine: EngineSettings = Field(default=EngineSettings(), description="engine settings that differ from the preset")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.preset is None and self.policy is None:
            raise ValueError("a system needs a preset (see `caesura systems`) or a policy")
        if self.preset is None and self.name is None:
            raise ValueError("a system without a preset needs a name")
        if self.name is not None and not NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r} may hold only letters, digits and . _ + - (it names a folder)")
        return self


def _system_kind(value: object) -> str | None:
    if isinstance(value, str):
        return "<name>"
    return "<system>" if isinstance(value, dict | SystemEntry) else None


SystemField = Annotated[
    Annotated[str, Field(min_length=1), Tag("<name>")] | Annotated[SystemEntry, Tag("<system>")],
    Discriminator(
        _system_kind,
        custom_error_type="system",
        custom_error_message="expected a preset's name or {preset: NAME, ...}; see `caesura systems`",
    ),
]


class Objective(Strict):
    """What a system must hold for a load to count as sustained."""

    normalized_latency: PositiveSeconds = Field(default=0.1, description="mean seconds per output token")


class Experiment(Strict):
    """Systems compared on one workload and one replica, or a cluster of them, over loads and seeds."""

    workload: Workload
    replica: ReplicaSection = ReplicaSection()
    cluster: ClusterSection | None = Field(default=None, description="several replicas behind a router; one without")
    systems: list[SystemField] = Field(min_length=1, description="in the order of tables; ratios refer to the first")
    seeds: Seeds = Field(default=[0], description="a number n stands for seeds 0 to n-1")
    objective: Objective = Objective()
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default={}, description="for `caesura sweep`: the values of any keys, as in replica.kv_capacity: [8 GB, 16 GB]"
    )

    @field_validator("seeds", mode="before")
    @classmethod
    def _count(cls, value: object) -> object:
        reject_bool(value)
        if isinstance(value, int):
            if value < 1:
                raise ValueError(f"expected at least 1 seed, or a list of seeds, not {value}")
            return list(range(value))
        return value

    @field_validator("seeds", mode="after")
    @classmethod
    def _distinct(cls, value: list[int]) -> list[int]:
        if len(set(value)) != len(value):
            raise ValueError("a seed is listed twice")
        return value


def json_schema() -> str:
    """The JSON schema of an experiment file, as text."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Experiment.model_json_schema()}
    schema["title"] = "Caesura experiment"
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
