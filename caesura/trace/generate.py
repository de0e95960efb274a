"""``caesura trace generate``: a trace drawn from a generator file, or from InferCept's six augmentations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from caesura.config.arrivals_schema import ArrivalsSection
from caesura.config.generator_file import read_generator
from caesura.config.generator_schema import Generate, GeneratorFile
from caesura.config.units import parse_seconds
from caesura.config.validation import validated
from caesura.config.workload import arrival_process, draw_sessions
from caesura.config.yaml_source import Source
from caesura.errors import ConfigError, UserError
from traces.draw.arrivals import MOST_ARRIVALS
from traces.session import Session

MOST_SESSIONS = 10**6


@dataclass(frozen=True)
class Amount:
    """How much is drawn: a number of sessions, or the seconds in which they arrive; one of them is None."""

    sessions: int | None
    seconds: float | None


def amount(count: int | None, duration: str | None) -> Amount:
    """What the options ask for; raises UserError when it is neither or both, or no time."""
    if (count is None) == (duration is None):
        raise UserError("generate: give either --count or --duration, such as --count 1000 or --duration '10 min'")
    if duration is None:
        return Amount(count, None)
    try:
        seconds = parse_seconds(duration)
    except ValueError as error:
        raise UserError(f"--duration: {error}") from None
    if seconds <= 0:
        raise UserError(f"--duration {duration}: expected more than 0 s")
    return Amount(None, seconds)


def generator_from(path: Path | None, weights: Sequence[str], rate: float | None) -> GeneratorFile:
    """The generator that a file or the options describe.

    Raises:
        UserError: a file that cannot be read, or weights beside a file.
        ConfigError: a file or weights that do not hold.
    """
    if path is not None and weights:
        raise UserError("--weight goes with the six augmentations; a generator file has its own weights")
    file = _augmentations(weights) if path is None else read_generator(path)
    if rate is None:
        return file
    return file.model_copy(update={"arrivals": _at_rate(file.arrivals, rate)})


def generate_trace(file: GeneratorFile, wanted: Amount, seed: int) -> list[Session]:
    """Draw the sessions of a generator, with arrivals where it has some.

    Every session is drawn anew; an experiment draws from ``sessions`` different ones with replacement. Sessions and
    arrivals come from streams of their own, so that the k-th session does not depend on the arrivals.

    Raises:
        UserError: a duration without arrivals, or more sessions than can be drawn.
    """
    arrivals = file.arrivals
    stream = np.random.default_rng(np.random.SeedSequence(seed).spawn(2)[1])
    if arrivals is None:
        if wanted.sessions is None:
            raise UserError("generate: --duration needs arrivals; give --rate, or arrivals in the generator file")
        return draw_sessions(_as_many(file.generate, wanted.sessions), seed)
    process = arrival_process(arrivals, arrivals.loads[0])
    try:
        if wanted.sessions is None:
            times = process.times(min(wanted.seconds or 0.0, float(MOST_ARRIVALS)), stream)
        else:
            times = process.first(wanted.sessions, stream)
    except ValueError as error:
        raise UserError(f"generate: {error}") from None
    if not len(times):
        raise UserError(f"generate: no session arrives within {wanted.seconds:g} s; raise --duration or --rate")
    sessions = draw_sessions(_as_many(file.generate, len(times)), seed)
    return [replace(session, arrival=time) for session, time in zip(sessions, times.tolist(), strict=True)]


def _as_many(what: Generate, count: int) -> Generate:
    if count > MOST_SESSIONS:
        raise UserError(f"generate: {count:,} sessions; at most {MOST_SESSIONS:,} can be drawn at once")
    return what.model_copy(update={"sessions": count})


def _augmentations(weights: Sequence[str]) -> GeneratorFile:
    """The six augmentations, by the weights of the released mix or by ``KIND=WEIGHT`` each."""
    given = {}
    for text in weights:
        kind, _, weight = text.partition("=")
        try:
            given[kind.strip()] = float(weight)
        except ValueError:
            raise UserError(f"--weight {text}: expected KIND=WEIGHT, such as --weight chat=2") from None
    try:
        return validated(GeneratorFile, Source("--weight", {"weights": given} if given else {}))
    except ConfigError as error:
        raise UserError(str(error)) from None


def _at_rate(arrivals: ArrivalsSection | None, rate: float) -> ArrivalsSection:
    """The arrival process at another rate; Poisson where there was none, or a replay."""
    drawn = arrivals.drawn if arrivals is not None else None
    if arrivals is None or drawn is None:
        return ArrivalsSection.model_validate({"poisson": {"rate": rate}})
    (name,) = (name for name in ArrivalsSection.model_fields if getattr(arrivals, name) is drawn)
    return arrivals.model_copy(update={name: drawn.model_copy(update={"rate": [rate]})})
