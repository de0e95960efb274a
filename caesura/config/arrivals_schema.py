"""What an experiment or generator file may say about arrivals."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from caesura.config.reject_bool import Rates, Strict, one_or_many, reject_bool
from caesura.config.units import PositiveSeconds
from traces.draw.arrivals import LEAST_BURSTINESS, LEAST_WEIBULL_SHAPE

ShareOfOne = Annotated[float, BeforeValidator(reject_bool), Field(ge=0, le=1, allow_inf_nan=False)]


class PoissonArrivals(Strict):
    """Sessions arrive independently of each other."""

    rate: Rates = Field(description="sessions per second; a list runs every one of them")

    @field_validator("rate", mode="before")
    @classmethod
    def _rates(cls, value: object) -> object:
        return one_or_many(reject_bool(value))


class GammaArrivals(PoissonArrivals):
    """Arrivals with gamma-distributed gaps: burstier than Poisson below 1, steadier above."""

    burstiness: float = Field(
        ge=LEAST_BURSTINESS,
        le=1e6,
        allow_inf_nan=False,
        description="shape of the gaps as in `vllm bench serve`; 1 is Poisson",
    )


class WeibullArrivals(PoissonArrivals):
    """Arrivals with Weibull-distributed gaps: below 1 a heavier tail than gamma's."""

    shape: float = Field(
        ge=LEAST_WEIBULL_SHAPE, le=1e6, allow_inf_nan=False, description="shape of the gaps; 1 is Poisson"
    )


class BurstArrivals(PoissonArrivals):
    """Poisson arrivals in busy and idle phases of exponential length."""

    busy: PositiveSeconds = Field(description="mean length of a busy phase")
    quiet: PositiveSeconds = Field(description="mean length of a quiet phase")
    quiet_rate: ShareOfOne = Field(default=0.0, description="rate in quiet phases as a share of that in busy ones")


class DiurnalArrivals(PoissonArrivals):
    """Poisson arrivals whose rate follows a sine."""

    swing: ShareOfOne = Field(description="how far the rate rises above and falls below its mean, as a share of it")
    period: PositiveSeconds = Field(default=86400.0, description="one cycle; a day when left out")
    peak: PositiveSeconds | None = Field(
        default=None, description="when the rate is highest, after the begin; half a period when left out"
    )


class ReplayedArrivals(Strict):
    """Arrivals as a trace recorded them."""

    speed: Rates = Field(
        default=[1.0], description="how many times faster than recorded; a list runs every one of them"
    )
    trace: str | None = Field(
        default=None,
        min_length=1,
        description="another trace, whose arrivals the sessions of this one get, drawn with replacement",
    )

    @field_validator("speed", mode="before")
    @classmethod
    def _speeds(cls, value: object) -> object:
        return one_or_many(reject_bool(value))


def _arrivals_schema(schema: dict[str, Any]) -> None:
    """Say in JSON schema what the validators of Arrivals say: the word replay, or a mapping with one key."""
    mapping = {key: schema.pop(key) for key in ("properties", "additionalProperties", "type")}
    schema["anyOf"] = [{"const": "replay"}, {**mapping, "minProperties": 1, "maxProperties": 1}]


class ArrivalsSection(Strict):
    """How sessions arrive: exactly one of these processes."""

    model_config = ConfigDict(json_schema_extra=_arrivals_schema)

    poisson: PoissonArrivals | None = None
    gamma: GammaArrivals | None = None
    weibull: WeibullArrivals | None = None
    bursts: BurstArrivals | None = None
    diurnal: DiurnalArrivals | None = None
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
        processes = list(ArrivalsSection.model_fields)
        chosen = [name for name in processes if getattr(self, name) is not None]
        if len(chosen) != 1:
            given = " and ".join(chosen) or "none"
            known = f"{', '.join(processes[:-1])} and {processes[-1]}"
            raise ValueError(f"expected exactly one of {known}; {given} given")
        return self

    @property
    def drawn(self) -> PoissonArrivals | None:
        """The process that draws arrivals; None for a replay."""
        return self.poisson or self.gamma or self.weibull or self.bursts or self.diurnal

    @property
    def loads(self) -> list[float]:
        """The sweep: rates in sessions per second, or speeds of a replay."""
        if self.drawn is not None:
            return self.drawn.rate
        assert self.replay is not None
        return self.replay.speed

    def at(self, load: float) -> ArrivalsSection:
        """The process at one load alone."""
        name = next(name for name in ArrivalsSection.model_fields if getattr(self, name) is not None)
        process = getattr(self, name)
        alone = process.model_copy(update={"speed" if name == "replay" else "rate": [load]})
        return self.model_copy(update={name: alone})

    def written(self) -> dict[str, Any]:
        """As an experiment file says it; one load alone is no list."""
        data = self.model_dump(exclude_none=True)
        (process,) = data.values()
        key = "speed" if self.replay is not None else "rate"
        if len(process[key]) == 1:
            (process[key],) = process[key]
        return data

    @property
    def load_unit(self) -> str:
        """What a load counts."""
        return "times the recorded speed" if self.replay is not None else "sessions/s"
