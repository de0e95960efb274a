"""What an experiment file may say. Every field's meaning stands here once; the JSON schema is made from it."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, WithJsonSchema, field_validator, model_validator

from caesura.units import PoolSize, PositiveSeconds
from sim.settings import EngineSettings
from traces.arrivals import LEAST_BURSTINESS

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")

Kind = Literal["math", "qa", "ve", "chat", "image", "tts"]
Rate = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
_RATES_SCHEMA = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "array", "minItems": 1, "items": {"type": "number", "exclusiveMinimum": 0}},
    ]
}
Rates = Annotated[list[Rate], Field(min_length=1), WithJsonSchema(_RATES_SCHEMA)]
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
Rule = Annotated[str, Field(min_length=1)] | dict[str, Any]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _one_or_many(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _no_switch(value: object) -> object:
    """YAML's on, off, yes and no are no numbers, whatever Python says."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, bool):
            raise ValueError("expected a number, not true or false")
    return value


class PoissonArrivals(_Strict):
    """Sessions arrive independently of each other."""

    rate: Rates = Field(description="sessions per second; a list runs every one of them")

    @field_validator("rate", mode="before")
    @classmethod
    def _rates(cls, value: object) -> object:
        return _one_or_many(_no_switch(value))


class GammaArrivals(PoissonArrivals):
    """Arrivals with gamma-distributed gaps: burstier than Poisson below 1, steadier above."""

    burstiness: float = Field(
        ge=LEAST_BURSTINESS,
        le=1e6,
        allow_inf_nan=False,
        description="shape of the gaps as in `vllm bench serve`; 1 is Poisson",
    )


class ReplayedArrivals(_Strict):
    """Arrivals as the trace recorded them."""

    speed: Rates = Field(
        default=[1.0], description="how many times faster than recorded; a list runs every one of them"
    )

    @field_validator("speed", mode="before")
    @classmethod
    def _speeds(cls, value: object) -> object:
        return _one_or_many(_no_switch(value))


def _arrivals_schema(schema: dict[str, Any]) -> None:
    """Say in JSON schema what the validators of Arrivals say: the word replay, or a mapping with one key."""
    mapping = {key: schema.pop(key) for key in ("properties", "additionalProperties", "type")}
    schema["anyOf"] = [{"const": "replay"}, {**mapping, "minProperties": 1, "maxProperties": 1}]


class Arrivals(_Strict):
    """How sessions arrive: exactly one of these processes."""

    model_config = ConfigDict(json_schema_extra=_arrivals_schema)

    poisson: PoissonArrivals | None = None
    gamma: GammaArrivals | None = None
    replay: ReplayedArrivals | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: object) -> object:
        if value == "replay" or value == {"replay": None}:
            return {"replay": {}}
        if isinstance(value, str):
            raise ValueError(f"expected {{poisson: {{rate: 2}}}}, {{gamma: ...}} or replay, not {value!r}")
        return value

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        chosen = [name for name in ("poisson", "gamma", "replay") if getattr(self, name) is not None]
        if len(chosen) != 1:
            given = " and ".join(chosen) or "none"
            raise ValueError(f"expected exactly one of poisson, gamma and replay; {given} given")
        return self

    @property
    def loads(self) -> list[float]:
        """The sweep: rates in sessions per second, or speeds of a replay."""
        process = self.poisson or self.gamma
        if process is not None:
            return process.rate
        assert self.replay is not None
        return self.replay.speed


class Generate(_Strict):
    """Sessions drawn from the means and deviations that InferCept published for its six augmentations."""

    sessions: int = Field(default=1000, ge=1, le=10**6, strict=True, description="how many different ones to draw")
    weights: dict[Kind, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = Field(
        default=None, min_length=1, description="how often each kind comes, relative to the others; as in the mix"
    )

    @field_validator("weights", mode="after")
    @classmethod
    def _some(cls, value: dict[Kind, float] | None) -> dict[Kind, float] | None:
        if value is not None and not any(value.values()):
            raise ValueError("all weights are 0; nothing could be drawn")
        return value


class GeneratedTrace(_Strict):
    """A trace that is drawn, not read."""

    generate: Generate

    @field_validator("generate", mode="before")
    @classmethod
    def _empty(cls, value: object) -> object:
        return {} if value is None else value


def _trace_kind(value: object) -> str | None:
    if isinstance(value, str):
        return "<name>"
    return "<generate>" if isinstance(value, dict | GeneratedTrace) else None


Trace = Annotated[
    Annotated[str, Field(min_length=1), Tag("<name>")] | Annotated[GeneratedTrace, Tag("<generate>")],
    Discriminator(
        _trace_kind,
        custom_error_type="trace",
        custom_error_message="expected infercept-mix, the path of a .jsonl file, or {generate: {...}}",
    ),
]


class Workload(_Strict):
    """What the users send."""

    trace: Trace = Field(default="infercept-mix", description="infercept-mix, the path of a .jsonl file, or a draw")
    arrivals: Arrivals
    duration: PositiveSeconds = Field(default=600.0, description="sessions arrive for this long")
    too_long: Literal["cut", "reject"] = Field(
        default="cut", description="what happens to a session that outgrows the model's context"
    )
    max_context: int | None = Field(
        default=None, ge=2, strict=True, description="longest context in tokens; the profile's when left out"
    )


class Replica(_Strict):
    """The engine's model and GPU."""

    profile: str = Field(
        default="published/gpt-j-6b-a100-40g", min_length=1, description="name below configs/profiles, or a path"
    )
    kv_capacity: PoolSize | None = Field(default=None, description="KV pool on the GPU; the profile's when left out")
    host_capacity: PoolSize | None = Field(default=None, description="KV pool on the host; the profile's when left out")
    horizon: PositiveSeconds | None = Field(
        default=None, description="stop after this much simulated time; without it every session is served to its end"
    )


class SystemEntry(_Strict):
    """A system: a preset, perhaps with changes, or one of your own."""

    preset: str | None = Field(default=None, description="a name from `caesura systems`, or the path of a preset file")
    name: str | None = Field(default=None, description="what tables and figures call it")
    policy: Rule | None = Field(
        default=None, description="intercept policy: a name, module:Class, or {name: ..., parameter: value}"
    )
    order: Rule | None = Field(default=None, description="queue order, written like a policy")
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


System = Annotated[
    Annotated[str, Field(min_length=1), Tag("<name>")] | Annotated[SystemEntry, Tag("<system>")],
    Discriminator(
        _system_kind,
        custom_error_type="system",
        custom_error_message="expected a preset's name or {preset: NAME, ...}; see `caesura systems`",
    ),
]


class Objective(_Strict):
    """What a system must hold for a load to count as sustained."""

    normalized_latency: PositiveSeconds = Field(default=0.1, description="mean seconds per output token")


class Experiment(_Strict):
    """Systems compared on one workload and one replica, over loads and seeds."""

    workload: Workload
    replica: Replica = Replica()
    systems: list[System] = Field(min_length=1, description="in the order of tables; ratios refer to the first")
    seeds: Seeds = Field(default=[0], description="a number n stands for seeds 0 to n-1")
    objective: Objective = Objective()

    @field_validator("seeds", mode="before")
    @classmethod
    def _count(cls, value: object) -> object:
        _no_switch(value)
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
