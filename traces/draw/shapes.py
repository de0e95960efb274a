"""Sessions drawn from distributions: what a generator file says about each kind of session.

A kind's lengths and pauses are drawn independently of each other, with exceptions that change what a server sees: which
pause follows which (a tool, then a person, ...), how values go with the first prompt, with the others of their session
and with the one before (a Gaussian copula), and contexts that a client rewrites, which keep only a part.

Every quantity has a random stream of its own and is drawn by the inverse of its distribution. So the first sessions of
a longer draw are those of a shorter one, and two generators that differ in one distribution differ in nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from traces.draw.copula import by_bands, carried_over, check_bands, normal_of, uniform_of
from traces.draw.distributions import Distribution, Values, whole_numbers
from traces.draw.generate import AUGMENTATIONS, generate_session
from traces.draw.typed import Typing
from traces.session import Call, Pause, Session

ALIKE = ("output", "pause", "returned")
WITH_PROMPT = ("calls", *ALIKE)
MOST_CALLS = 10**7


@dataclass(frozen=True)
class PauseShape:
    """One sort of pause.

    Attributes:
        waits_for: what the pause waits for: ``tool``, ``user``, ...
        tool: the tool's name, empty where there is none.
        seconds: how long.
        returned: tokens that the answer appends.
        share: how often it comes, relative to the kind's other pauses.
        then: how often each pause comes right after it, by their labels; empty leaves ``share`` to decide.
    """

    waits_for: str
    seconds: Distribution
    returned: Distribution
    tool: str = ""
    share: float = 1.0
    then: Mapping[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Its name in ``then``: ``tool:search``, or only what the pause waits for."""
        return pause_label(self.waits_for, self.tool)


@dataclass(frozen=True)
class Rewrites:
    """Pauses after which the client has rewritten the context (compaction, dropped reasoning).

    Attributes:
        share: of all pauses that are followed by a call.
        shrinks_to: the new context, as a part of the old one.
        keeps: the leading part of the new context that is as it was, 0 to 1; the rest (at least a token) is returned.
    """

    share: float
    shrinks_to: Distribution
    keeps: Distribution


@dataclass(frozen=True)
class SessionShape:
    """The distributions that sessions of one kind are drawn from.

    Attributes:
        calls: calls a session.
        prompt: tokens of the first prompt.
        output: tokens of a call.
        pauses: the sorts of pause; empty where sessions have one call.
        ends_with_pause: share of sessions whose last call is followed by a pause.
        rewrites: contexts that the client rewrote.
        alike: for ``output``, ``pause`` and ``returned``, the correlation (0 to below 1) between the normal scores of
            two such values of one session.
        with_prompt: for ``calls`` and these three, the correlation (-1 to 1, without these) between their normal scores
            and that of the session's first prompt.
        along: for these three, how much (-1 to 1, without these) of what a value has to itself goes over into the next.
        output_by_prompt: how outputs depend on the first prompt where a correlation does not say it: for each of some
            equal bands of prompts, shortest first, how often an output falls into each of some equal bands of outputs.
        typing: a prompt that is typed comes after ``prompt``, which is there from the start; None where none is.
    """

    calls: Distribution
    prompt: Distribution
    output: Distribution
    pauses: tuple[PauseShape, ...] = ()
    ends_with_pause: float = 0.0
    rewrites: Rewrites | None = None
    alike: Mapping[str, float] = field(default_factory=dict)
    with_prompt: Mapping[str, float] = field(default_factory=dict)
    along: Mapping[str, float] = field(default_factory=dict)
    output_by_prompt: Sequence[Sequence[float]] = ()
    typing: Typing | None = None

    def __post_init__(self) -> None:
        _check_pauses(self.pauses)
        _check_correlations("alike", self.alike, ALIKE, 0.0)
        _check_correlations("along", self.along, ALIKE, math.nextafter(-1.0, 0.0))
        check_bands("output_by_prompt", self.output_by_prompt)
        if self.output_by_prompt and self.with_prompt.get("output"):
            raise ValueError(
                "output_by_prompt and with_prompt.output cannot be given together; leave one of the two out"
            )
        _check_correlations("with_prompt", self.with_prompt, WITH_PROMPT, math.nextafter(-1.0, 0.0))

    def draw(self, kind: str, count: int, seeds: np.random.SeedSequence) -> list[Session]:
        """``count`` sessions with arrival 0 and ids ``<kind>-<index>``.

        Raises:
            ValueError: a length above `MOST_TOKENS`, over `MOST_CALLS` calls, or several calls but no pauses.
        """
        streams = {
            name: np.random.default_rng(seed) for name, seed in zip(_STREAMS, seeds.spawn(len(_STREAMS)), strict=True)
        }
        of_prompts = streams["prompt"].random(count)
        prompts = whole_numbers(self.prompt.values(of_prompts), 1, "prompt")
        calls = whole_numbers(self.calls.values(self._of_calls(of_prompts, streams)), 1, "calls", MOST_CALLS)
        if calls.sum() > MOST_CALLS:
            raise ValueError(f"{kind}: {calls.sum():,} calls in {count} sessions; draw fewer sessions, or shorter ones")
        if not self.pauses and calls.max(initial=1) > 1:
            raise ValueError(
                f"{kind}: a session has {calls.max()} calls, but no pauses are given to stand between them"
            )
        of_outputs = self._together("output", calls, of_prompts, streams)
        if self.output_by_prompt:
            of_outputs = by_bands(of_outputs, np.repeat(of_prompts, calls), self.output_by_prompt)
        outputs = whole_numbers(self.output.values(of_outputs), 1, "output")
        sorts = self._sorts(calls, streams["sorts"])
        seconds, returned = self._pauses(sorts, calls, of_prompts, streams)
        ends = streams["ends"].random(count) < self.ends_with_pause
        pauses = [
            Pause(float(s), int(r), self.pauses[sort].waits_for, self.pauses[sort].tool)
            for s, r, sort in zip(seconds.tolist(), returned.tolist(), sorts, strict=True)
        ]
        edges = np.concatenate([[0], np.cumsum(calls)]).tolist()
        chains = [
            _chain(outputs[a:b].tolist(), pauses[a:b], bool(end))
            for a, b, end in zip(edges, edges[1:], ends, strict=False)
        ]
        if self.rewrites is not None:
            chains = self._rewritten(self.rewrites, prompts.tolist(), chains, streams["rewrites"])
        sessions = [
            Session(f"{kind}-{index}", 0.0, prompt, chain, kind)
            for index, (prompt, chain) in enumerate(zip(prompts.tolist(), chains, strict=True))
        ]
        return sessions if self.typing is None else self.typing.typed(sessions, streams["typing"])

    def _of_calls(self, of_prompts: Values, streams: Mapping[str, np.random.Generator]) -> Values:
        """One uniform number a session, correlated with its prompt's as ``with_prompt`` says."""
        uniform, part = streams["calls"].random(len(of_prompts)), self.with_prompt.get("calls", 0.0)
        return (
            uniform_of(part * normal_of(of_prompts) + math.sqrt(1 - part**2) * normal_of(uniform)) if part else uniform
        )

    def _together(
        self, name: str, calls: np.ndarray, of_prompts: Values, streams: Mapping[str, np.random.Generator]
    ) -> Values:
        """One uniform number a call, correlated as ``with_prompt``, ``alike`` and ``along`` say.

        Its normal score is ``p z + sqrt(c) s + sqrt(1 - p^2 - c) e``: z is the prompt's score, s the session's, e the
        call's own. Two calls have ``p^2 + c`` in common: ``alike``, or more if the prompt alone brings more.
        """
        own = streams[name].standard_normal(int(calls.sum()))
        common = np.repeat(streams[f"{name} of sessions"].standard_normal(len(calls)), calls)
        if along := self.along.get(name, 0.0):
            own = carried_over(own, calls, along)
        part = self.with_prompt.get(name, 0.0)
        share = max(self.alike.get(name, 0.0) - part**2, 0.0)
        scores: Values = math.sqrt(share) * common + math.sqrt(1 - part**2 - share) * own
        return uniform_of(scores + part * np.repeat(normal_of(of_prompts), calls) if part else scores)

    def _sorts(self, calls: np.ndarray, stream: np.random.Generator) -> list[int]:
        """Which sort of pause follows each call; a session's pauses form a chain."""
        uniform = stream.random(int(calls.sum())).tolist()
        if len(self.pauses) <= 1:
            return [0] * (len(uniform) if self.pauses else 0)
        labels = [pause.label for pause in self.pauses]
        first = _steps([pause.share for pause in self.pauses])
        after = [_steps([p.then.get(label, 0.0) for label in labels]) if p.then else first for p in self.pauses]
        sorts, position = [], 0
        for length in calls.tolist():
            steps = first
            for u in uniform[position : position + length]:
                sort = next(index for index, step in enumerate(steps) if u < step)
                sorts.append(sort)
                steps = after[sort]
            position += length
        return sorts

    def _pauses(
        self,
        sorts: Sequence[int],
        calls: np.ndarray,
        of_prompts: Values,
        streams: Mapping[str, np.random.Generator],
    ) -> tuple[Values, np.ndarray]:
        """Seconds and returned tokens of the pause after each call."""
        lasting, appended = (self._together(name, calls, of_prompts, streams) for name in ("pause", "returned"))
        seconds, returned = np.zeros(len(sorts)), np.zeros(len(sorts), dtype=np.int64)
        which = np.array(sorts, dtype=np.int64)
        for sort, pause in enumerate(self.pauses):
            here = which == sort
            seconds[here] = np.maximum(pause.seconds.values(lasting[here]), 0.0)
            returned[here] = whole_numbers(pause.returned.values(appended[here]), 0, "returned")
        return seconds, returned

    @staticmethod
    def _rewritten(
        rewrites: Rewrites, prompts: Sequence[int], chains: list[tuple[Call, ...]], stream: np.random.Generator
    ) -> list[tuple[Call, ...]]:
        total = sum(len(chain) for chain in chains)
        happens, sizes, parts = stream.random((total, 3)).T
        shrunk = rewrites.shrinks_to.values(sizes).tolist()
        keeps = np.clip(rewrites.keeps.values(parts), 0.0, 1.0).tolist()
        rewritten, position = [], 0
        for prompt, chain in zip(prompts, chains, strict=True):
            context, calls = prompt, []
            for index, call in enumerate(chain):
                context += call.output
                followed = call.pause is not None and index + 1 < len(chain)
                if call.pause is not None and followed and happens[position] < rewrites.share:
                    new = max(round(shrunk[position] * context), 1)
                    context = min(math.floor(keeps[position] * new), context, new - 1)
                    call = replace(call, pause=replace(call.pause, keeps=context, returned=new - context))
                context += call.pause.returned if call.pause is not None else 0
                calls.append(call)
                position += 1
            rewritten.append(tuple(calls))
        return rewritten


@dataclass(frozen=True)
class AugmentationShape:
    """Sessions of one of InferCept's six augmentations, perhaps with other pauses.

    Attributes:
        name: a key of `traces.AUGMENTATIONS`.
        seconds: durations that replace the published ones, by what the pause waits for.
    """

    name: str
    seconds: Mapping[str, Distribution] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in AUGMENTATIONS:
            raise ValueError(f"no augmentation {self.name!r}; there are {', '.join(AUGMENTATIONS)}")
        waits = [wait.waits_for for wait in AUGMENTATIONS[self.name].waits]
        for waits_for in self.seconds:
            if waits_for not in waits:
                raise ValueError(f"{self.name} sessions do not wait for {waits_for!r}, only for {' and '.join(waits)}")

    def draw(self, kind: str, count: int, seeds: np.random.SeedSequence) -> list[Session]:
        """``count`` sessions with arrival 0 and ids ``<kind>-<index>``."""
        stream, pauses = (np.random.default_rng(seed) for seed in seeds.spawn(2))
        drawn = [replace(generate_session(f"{kind}-{i}", self.name, stream), kind=kind) for i in range(count)]
        return [self._with_seconds(session, pauses) for session in drawn] if self.seconds else drawn

    def _with_seconds(self, session: Session, stream: np.random.Generator) -> Session:
        uniform = stream.random(len(session.calls))
        calls = []
        for call, u in zip(session.calls, uniform, strict=True):
            if call.pause is not None and call.pause.waits_for in self.seconds:
                (seconds,) = self.seconds[call.pause.waits_for].values(np.array([u]))
                call = replace(call, pause=replace(call.pause, duration=max(float(seconds), 0.0)))
            calls.append(call)
        return replace(session, calls=tuple(calls))


KindShape = SessionShape | AugmentationShape


def draw_mixture(shapes: Mapping[str, tuple[float, KindShape]], count: int, seed: int) -> list[Session]:
    """Sessions of several kinds, all with arrival 0.

    Args:
        shapes: weight (relative to the others) and shape of each kind.
        count: how many; the first sessions of a longer draw are those of a shorter one.
        seed: fixes every draw. What a kind's k-th session is does not depend on the other kinds, nor on
            their order.

    Raises:
        ValueError: weights that are negative or all zero, or a shape that cannot be drawn from.
    """
    shapes = dict(sorted(shapes.items()))
    weights = [weight for weight, _ in shapes.values()]
    if not any(weights) or any(not (math.isfinite(weight) and weight >= 0) for weight in weights):
        raise ValueError("weights must be finite and >= 0, and one of them above 0")
    steps = np.array(_steps(weights))
    chosen = np.searchsorted(steps, np.random.default_rng(seed).random(count), side="right").tolist()
    drawn = [
        iter(shape.draw(kind, chosen.count(index), np.random.SeedSequence([seed, *kind.encode()])))
        for index, (kind, (_, shape)) in enumerate(shapes.items())
    ]
    return [next(drawn[index]) for index in chosen]


def pause_label(waits_for: str, tool: str) -> str:
    """The name of a sort of pause: ``tool:search``, or only what the pause waits for."""
    return f"{waits_for}:{tool}" if tool else waits_for


_STREAMS = (
    *("calls", "prompt", "sorts", "ends", "rewrites"),
    *(name + suffix for name in ALIKE for suffix in ("", " of sessions")),
    "typing",
)


def _chain(outputs: Sequence[int], pauses: Sequence[Pause], ends_with_pause: bool) -> tuple[Call, ...]:
    following = [*pauses[: len(outputs) - 1], pauses[len(outputs) - 1] if ends_with_pause and pauses else None]
    return tuple(map(Call, outputs, following))


def _steps(weights: Sequence[float]) -> list[float]:
    """Cumulative shares; the last that can come is 1 exactly."""
    total = math.fsum(weights)
    steps = (np.cumsum(weights) / total).tolist()
    last = max(index for index, weight in enumerate(weights) if weight > 0)
    return [*steps[:last], *[1.0] * (len(weights) - last)]


def _check_correlations(what: str, given: Mapping[str, float], names: Sequence[str], least: float) -> None:
    for name, value in given.items():
        if name not in names or not least <= value < 1:
            low = "0" if least == 0 else "above -1"
            raise ValueError(f"{what}.{name} is {value!r}; there are {', '.join(names)}, each {low} to below 1")


def _check_pauses(pauses: Sequence[PauseShape]) -> None:
    labels = [pause.label for pause in pauses]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(f"two pauses are called {label!r}; give each its own waits_for or tool")
    if pauses and not any(pause.share for pause in pauses):
        raise ValueError("the shares of all pauses are 0; nothing could be drawn")
    for pause in pauses:
        unknown = [label for label in pause.then if label not in labels]
        if unknown:
            raise ValueError(f"{pause.label}.then names {unknown[0]!r}; the pauses are {', '.join(labels)}")
        if pause.then and not any(pause.then.values()):
            raise ValueError(f"the shares in {pause.label}.then are all 0; nothing could be drawn")
