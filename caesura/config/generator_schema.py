"""What a generator file, or ``{generate: ...}`` in an experiment, may say about the sessions to draw."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from caesura.config.arrivals_schema import ArrivalsSection, ShareOfOne
from caesura.config.reject_bool import Share, Strict
from traces.draw.distributions import Constant, Distribution, Quantiles, Scipy, WeightedValues, WithZeros
from traces.draw.shapes import AugmentationShape, KindShape, PauseShape, Rewrites, SessionShape
from traces.draw.typed import Typing

Kind = Literal["math", "qa", "ve", "chat", "image", "tts"]
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]
_SORTS = ("dist", "values", "quantiles")


def _drawn_schema(schema: dict[str, Any]) -> None:
    schema["additionalProperties"] = {"type": "number"}
    schema["anyOf"] = [{"required": [sort]} for sort in _SORTS]


class Drawn(Strict):
    """A distribution: one of scipy's with its parameters, recorded values, or a curve through quantiles."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_drawn_schema)
    __pydantic_extra__: dict[str, Number]

    dist: str | None = Field(default=None, description="a name in scipy.stats; its parameters stand beside it")
    values: list[Number] | None = Field(default=None, min_length=1, description="values to draw from")
    weights: list[Share] | None = Field(default=None, description="how often each of the values comes")
    quantiles: list[Number] | None = Field(default=None, description="from the least value to the greatest")
    at: list[Number] | None = Field(default=None, description="their probabilities, 0 to 1; evenly spaced if left out")
    zeros: ShareOfOne = Field(default=0.0, description="share of exact zeros; the rest is as described")
    min: Number | None = Field(default=None, description="least value; a distribution is cut off there")
    max: Number | None = Field(default=None, description="greatest value")

    @model_validator(mode="after")
    def _exists(self) -> Self:
        chosen = [sort for sort in _SORTS if getattr(self, sort) is not None]
        if len(chosen) != 1:
            raise ValueError(
                f"expected exactly one of dist, values and quantiles; {' and '.join(chosen) or 'none'} given"
            )
        if self.dist is None:
            for key in (*(self.__pydantic_extra__ or ()), *(k for k in ("min", "max") if getattr(self, k) is not None)):
                raise ValueError(f"{key} goes with dist, not with {chosen[0]}")
        if self.weights is not None and self.values is None:
            raise ValueError("weights go with values")
        if self.at is not None and self.quantiles is None:
            raise ValueError("at goes with quantiles")
        self.distribution(0.0)
        return self

    def distribution(self, least: float) -> Distribution:
        """What to draw from, cut off below ``least``; raises ValueError when nothing is left."""
        floor = least if self.min is None else max(self.min, least)
        rest: Distribution
        recorded = self.values or self.quantiles or ()
        if any(value < 0 for value in recorded):
            raise ValueError(f"{min(recorded):g} is below 0; neither a length nor a time can be")
        if self.dist is not None:
            ceiling = float("inf") if self.max is None else self.max
            rest = Scipy(self.dist, dict(self.__pydantic_extra__ or {}), floor, ceiling)
        elif self.values is not None:
            rest = WeightedValues(tuple(self.values), tuple(self.weights or ()))
        else:
            rest = Quantiles(tuple(self.quantiles or ()), tuple(self.at or ()))
        return WithZeros(self.zeros, rest) if self.zeros else rest


def _amount_kind(value: object) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "<number>"
    return "<drawn>" if isinstance(value, dict | Drawn) else None


AmountField = Annotated[
    Annotated[Number, Tag("<number>")] | Annotated[Drawn, Tag("<drawn>")],
    Discriminator(
        _amount_kind,
        custom_error_type="amount",
        custom_error_message="expected a number, or a distribution such as {dist: lognorm, s: 1.2, scale: 2.0}",
    ),
]


class PauseSort(Strict):
    """One sort of pause."""

    waits_for: str = Field(default="tool", min_length=1, description="what the pause waits for: tool, user, ...")
    tool: str = Field(default="", description="the tool's name")
    seconds: AmountField = Field(description="how long it lasts")
    returned: AmountField = Field(default=0, description="tokens that the answer appends")
    share: Share = Field(default=1.0, description="how often it comes, relative to the kind's other pauses")
    then: dict[str, Share] | None = Field(
        default=None, description="the same for the pause after it; pauses are named user, or tool:search"
    )


class RewrittenContexts(Strict):
    """Contexts that the client rewrites in a pause."""

    share: ShareOfOne = Field(description="of all pauses that a call follows")
    shrinks_to: AmountField = Field(description="the new context, as a part of the old one")
    keeps: AmountField = Field(description="the leading part of the new context that is as it was, 0 to 1")


class Alike(Strict):
    """How alike the values of one session are: the correlation of two of them, 0 to below 1."""

    output: float = Field(default=0.0, ge=0, lt=1, strict=True)
    pause: float = Field(default=0.0, ge=0, lt=1, strict=True)
    returned: float = Field(default=0.0, ge=0, lt=1, strict=True)


class WithPrompt(Strict):
    """How values go with the first prompt of their session: correlations of normal scores, above -1 to below 1."""

    calls: float = Field(default=0.0, gt=-1, lt=1, strict=True)
    output: float = Field(default=0.0, gt=-1, lt=1, strict=True)
    pause: float = Field(default=0.0, gt=-1, lt=1, strict=True)
    returned: float = Field(default=0.0, gt=-1, lt=1, strict=True)


class Along(Strict):
    """How much of what a value has to itself goes over into the next one of its session, above -1 to below 1."""

    output: float = Field(default=0.0, gt=-1, lt=1, strict=True)
    pause: float = Field(default=0.0, gt=-1, lt=1, strict=True)
    returned: float = Field(default=0.0, gt=-1, lt=1, strict=True)


class TypedPrompt(Strict):
    """A prompt that is typed, sentence by sentence or clause by clause."""

    segments: AmountField = Field(description="sentences or clauses of a prompt")
    tokens: AmountField = Field(description="tokens of a segment")
    characters_per_minute: Number = Field(default=240.0, gt=0, description="how fast it is typed")
    characters_per_token: Number = Field(default=4.0, gt=0, description="characters that a token stands for")
    sent_along: AmountField = Field(default=0, description="tokens that come with the last segment without being typed")
    inference: AmountField = Field(
        default=0, description="tokens generated when a segment but the last is there, by a system that works ahead"
    )
    answer: AmountField | None = Field(
        default=None, description="tokens of the answer after inferences; as without them when left out"
    )


class KindOfSession(Strict):
    """Sessions of one kind: one of InferCept's augmentations, or distributions of one's own."""

    weight: Share = Field(default=1.0, description="how often this kind comes, relative to the others")
    augmentation: Kind | None = Field(
        default=None, description="draw from InferCept's published figures; only durations of pauses can be changed"
    )
    calls: AmountField | None = Field(default=None, description="calls a session; 1 when left out")
    prompt: AmountField | None = Field(default=None, description="tokens of the first prompt")
    output: AmountField | None = Field(default=None, description="tokens of a call")
    pauses: list[PauseSort] = Field(default=[], description="the sorts of pause between calls")
    ends_with_pause: ShareOfOne = Field(default=0.0, description="share of sessions that end with a pause")
    rewrites: RewrittenContexts | None = None
    alike: Alike = Alike()
    with_prompt: WithPrompt = WithPrompt()
    along: Along = Along()
    output_by_prompt: list[list[Share]] | None = Field(
        default=None, description="for equal bands of prompts, shortest first: the shares of equal bands of outputs"
    )
    stream: TypedPrompt | None = Field(default=None, description="what is typed after the prompt's tokens")

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        self.shape()
        return self

    def shape(self) -> KindShape:
        """What to draw from; raises ValueError when it cannot be drawn from."""
        if self.augmentation is not None:
            return self._augmentation(self.augmentation)
        for key in ("prompt", "output"):
            if getattr(self, key) is None:
                raise ValueError(f"{key} is missing; give its tokens, or name an augmentation")
        return SessionShape(
            calls=_amount("calls", 1 if self.calls is None else self.calls, 0.5),
            prompt=_amount("prompt", self.prompt, 0.5),
            output=_amount("output", self.output, 0.5),
            pauses=tuple(_pause(pause) for pause in self.pauses),
            ends_with_pause=self.ends_with_pause,
            rewrites=None if self.rewrites is None else _rewrites(self.rewrites),
            alike=self.alike.model_dump(),
            with_prompt=self.with_prompt.model_dump(),
            along=self.along.model_dump(),
            output_by_prompt=self.output_by_prompt or (),
            typing=None if self.stream is None else _typing(self.stream),
        )

    def _augmentation(self, name: str) -> KindShape:
        for key in sorted(type(self).model_fields.keys() - {"weight", "augmentation", "pauses"}):
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} cannot be given with an augmentation; leave one of the two out")
        for pause in self.pauses:
            if pause != PauseSort(waits_for=pause.waits_for, seconds=pause.seconds):
                raise ValueError("a pause of an augmentation may only have waits_for and seconds")
        seconds = {pause.waits_for: _amount("seconds", pause.seconds, 0.0) for pause in self.pauses}
        return AugmentationShape(name, seconds)


class Generate(Strict):
    """Sessions that are drawn: InferCept's six augmentations by weight, or kinds that are described."""

    sessions: int = Field(default=1000, ge=1, le=10**6, strict=True, description="how many different ones to draw")
    weights: dict[Kind, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = Field(
        default=None, min_length=1, description="how often each kind comes, relative to the others; as in the mix"
    )
    kinds: dict[str, KindOfSession] | None = Field(
        default=None, min_length=1, description="what the sessions of each kind are drawn from"
    )

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.weights is not None and self.kinds is not None:
            raise ValueError("weights and kinds cannot be given together; each of the kinds has its weight")
        if self.weights is not None and not any(self.weights.values()):
            raise ValueError("all weights are 0; nothing could be drawn")
        if self.kinds is not None and not any(kind.weight for kind in self.kinds.values()):
            raise ValueError("all weights are 0; nothing could be drawn")
        return self


class GeneratedTrace(Strict):
    """A trace that is drawn, not read."""

    generate: Generate

    @field_validator("generate", mode="before")
    @classmethod
    def _empty(cls, value: object) -> object:
        return {} if value is None else value


class GeneratorFile(Generate):
    """A workload's shape: what ``workload.generator`` names, and ``caesura trace fit`` writes."""

    description: str | None = Field(default=None, description="where the shape comes from")
    arrivals: ArrivalsSection | None = Field(
        default=None, description="how sessions arrive, unless the experiment says"
    )

    @field_validator("arrivals", mode="after")
    @classmethod
    def _of_another(cls, value: ArrivalsSection | None) -> ArrivalsSection | None:
        if value is not None and value.replay is not None and value.replay.trace is None:
            raise ValueError("drawn sessions have no arrivals to replay; name a trace: {replay: {trace: FILE}}")
        return value

    @property
    def generate(self) -> Generate:
        """The sessions alone."""
        return Generate(sessions=self.sessions, weights=self.weights, kinds=self.kinds)


def _pause(pause: PauseSort) -> PauseShape:
    seconds, returned = _amount("seconds", pause.seconds, 0.0), _amount("returned", pause.returned, -0.5)
    return PauseShape(pause.waits_for, seconds, returned, pause.tool, pause.share, pause.then or {})


def _rewrites(rewrites: RewrittenContexts) -> Rewrites:
    shrinks_to = _amount("rewrites.shrinks_to", rewrites.shrinks_to, 0.0)
    return Rewrites(rewrites.share, shrinks_to, _amount("rewrites.keeps", rewrites.keeps, 0.0))


def _typing(typed: TypedPrompt) -> Typing:
    return Typing(
        segments=_amount("stream.segments", typed.segments, 0.5),
        tokens=_amount("stream.tokens", typed.tokens, 0.5),
        seconds_per_token=60 * typed.characters_per_token / typed.characters_per_minute,
        sent_along=_amount("stream.sent_along", typed.sent_along, -0.5),
        inference=_amount("stream.inference", typed.inference, -0.5),
        answer=None if typed.answer is None else _amount("stream.answer", typed.answer, 0.5),
    )


def _amount(name: str, amount: float | Drawn | None, least: float) -> Distribution:
    assert amount is not None
    try:
        return Constant(amount) if isinstance(amount, int | float) else amount.distribution(least)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
