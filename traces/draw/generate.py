"""Sessions drawn from the published figures of the six augmentations of InferCept (arXiv 2402.01869, table 1).

Published there, as mean and deviation: the pause, the number of calls, and the context. A context is taken as that of
the finished session (the released chat sessions end at 752 tokens on average; the table says 753). What is not
published is taken from the mix that was released, or chosen, as follows.

**Distributions.** Pauses, contexts and numbers of calls are gamma distributed: never negative, and with the wanted mean
and deviation exactly, so that nothing needs clipping and no mean shifts. A lognormal would have these properties too,
but a longer tail: for the mix's pauses and contexts it lies further off than a gamma of the same mean and deviation, in
every kind (by Kolmogorov-Smirnov distance: 0.04 to 0.28 for gamma, so neither is a close fit).
The number of calls is 1 + a gamma, rounded up or down at random so that its mean stays; in sessions that alternate two
sorts of pause it counts pairs, as these are always complete in the mix.

**Pauses.** The published deviation is over the sessions' mean pauses (the released mix has the same one over these).
So a session draws its mean, and its pauses vary around that by `Wait.variation`, chosen to give all pauses together the
deviation that they have in the mix. Image and speech sessions alternate a pause for the tool with one for a person:
with the tool times of the mix and chat's pauses for the person, mean and deviation come out nearly as published (20.05
and 7.8 s for images, 17.3 and 7.8 s for speech). The means that drawn sessions end up with spread up to a sixth more
than published, and pauses for a person are not capped at 60 s as in the mix.

**Tokens.** A context is split into prompt, outputs and returned tokens in proportion to the mean lengths in the mix;
outputs and returned lengths vary by gamma factors with the variation that they have there. The number of calls and
the context are drawn independently; a context below one token for the prompt and one a call is raised to that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from traces.session import Call, Pause, Session


@dataclass(frozen=True, slots=True)
class MeanSd:
    """A mean and a standard deviation."""

    mean: float
    sd: float


@dataclass(frozen=True, slots=True)
class Wait:
    """One sort of pause.

    Attributes:
        waits_for: what the pause waits for: ``tool``, ``user``, ...
        seconds: the sessions' mean times.
        variation: of the pauses of one session around its mean, deviation / mean.
    """

    waits_for: str
    seconds: MeanSd
    variation: float = 0.0


@dataclass(frozen=True, slots=True)
class Augmentation:
    """The published figures that sessions of one kind are drawn from.

    Attributes:
        waits: the sorts of pause, taken in turn.
        calls: calls a session.
        context: tokens of the finished session.
        prompt: mean tokens of the first prompt in the released mix; like the next two, only their proportions count.
        output: mean tokens of a call in the mix, and the variation between calls (deviation / mean).
        returned: mean tokens that a pause returned in the mix, and the variation between pauses.
        ends_with_pause: whether a pause follows the last call, too.
    """

    waits: tuple[Wait, ...]
    calls: MeanSd
    context: MeanSd
    prompt: float
    output: tuple[float, float]
    returned: tuple[float, float]
    ends_with_pause: bool


_PERSON = Wait("user", MeanSd(28.6, 15.6), variation=0.30)

AUGMENTATIONS: Mapping[str, Augmentation] = {
    "math": Augmentation(
        waits=(Wait("tool", MeanSd(9e-5, 6e-5)),),
        calls=MeanSd(3.75, 1.3),
        context=MeanSd(1422, 738),
        prompt=405,
        output=(125, 1.1),
        returned=(21, 0.23),
        ends_with_pause=False,
    ),
    "qa": Augmentation(
        waits=(Wait("tool", MeanSd(0.69, 0.17), variation=0.17),),
        calls=MeanSd(2.52, 1.73),
        context=MeanSd(1846, 428),
        prompt=934,
        output=(183, 0.75),
        returned=(57, 0.15),
        ends_with_pause=False,
    ),
    "ve": Augmentation(
        waits=(Wait("tool", MeanSd(0.09, 0.014), variation=0.05),),
        calls=MeanSd(28.18, 15.2),
        context=MeanSd(2185, 115),
        prompt=1973,
        output=(4, 0.0),
        returned=(10, 1.05),
        ends_with_pause=True,
    ),
    "chat": Augmentation(
        waits=(_PERSON,),
        calls=MeanSd(4.45, 1.96),
        context=MeanSd(753, 703),
        prompt=108,
        output=(114, 1.4),
        returned=(40, 2.8),
        ends_with_pause=False,
    ),
    "image": Augmentation(
        waits=(Wait("image", MeanSd(11.5, 0.0), variation=0.081), _PERSON),
        calls=MeanSd(6.91, 3.93),
        context=MeanSd(1247, 792),
        prompt=108,
        output=(33, 0.87),
        returned=(24, 3.4),
        ends_with_pause=True,
    ),
    "tts": Augmentation(
        waits=(Wait("tts", MeanSd(6.06, 0.0), variation=0.44), _PERSON),
        calls=MeanSd(6.91, 3.93),
        context=MeanSd(1251, 792),
        prompt=108,
        output=(33, 0.87),
        returned=(24, 3.3),
        ends_with_pause=True,
    ),
}

MIX_WEIGHTS: Mapping[str, float] = {"math": 98, "qa": 50, "ve": 54, "chat": 65, "image": 65, "tts": 65}
"""Sessions of each kind in the released mix."""


def generate(count: int, seed: int, weights: Mapping[str, float] = MIX_WEIGHTS) -> list[Session]:
    """Draw sessions of the six augmentations, all with arrival 0.

    Args:
        count: how many; the first sessions of a longer draw are those of a shorter one.
        seed: fixes every draw.
        weights: how often each kind comes, relative to the others; kinds that are missing do not come.

    Raises:
        ValueError: a kind that does not exist, or weights that are negative, not finite, or all zero.
    """
    chances = _chances(weights)
    kinds = list(chances)
    rng = np.random.default_rng(seed)
    sessions = []
    for index in range(count):
        kind = kinds[int(rng.choice(len(kinds), p=list(chances.values())))]
        sessions.append(generate_session(f"{kind}-{index}", kind, rng))
    return sessions


def generate_session(id: str, kind: str, rng: np.random.Generator) -> Session:
    """Draw one session of a kind in `AUGMENTATIONS`, with arrival 0."""
    what = AUGMENTATIONS[kind]
    calls = _number_of_calls(what, rng)
    context = max(round(_gamma(what.context, rng)), 1 + calls)
    outputs = [what.output[0] * _factor(what.output[1], rng) for _ in range(calls)]
    returns = [what.returned[0] * _factor(what.returned[1], rng) for _ in range(calls)]
    between = [length for pair in zip(outputs, returns, strict=True) for length in pair][:-1]
    shares = np.array([what.prompt, *between])
    lengths = _split(context, shares, at_least=np.array([1, *([1, 0] * calls)[:-1]]))
    tail = round(returns[-1] * context / float(shares.sum()))
    means = [_gamma(wait.seconds, rng) for wait in what.waits]
    pauses = [
        Pause(
            duration=means[i % len(means)] * _factor(what.waits[i % len(means)].variation, rng),
            returned=returned,
            waits_for=what.waits[i % len(means)].waits_for,
            tool=kind,
        )
        for i, returned in enumerate([*lengths[2::2], tail])
    ]
    followed = pauses if what.ends_with_pause else [*pauses[:-1], None]
    return Session(id, 0.0, lengths[0], tuple(map(Call, lengths[1::2], followed)), kind)


def _number_of_calls(what: Augmentation, rng: np.random.Generator) -> int:
    """Calls of a session: whole rounds of all its waits, 1 + a gamma rounded at random.

    The variance that the rounding adds, about 1/6, is taken off beforehand.
    """
    turns = len(what.waits)
    beyond_first = MeanSd(what.calls.mean / turns - 1, math.sqrt((what.calls.sd / turns) ** 2 - 1 / 6))
    return turns * (1 + math.floor(_gamma(beyond_first, rng) + rng.random()))


def _split(total: int, shares: np.ndarray, at_least: np.ndarray) -> list[int]:
    """Whole numbers in proportion to ``shares``, over their least values, that add up to ``total``."""
    free = total - int(at_least.sum())
    edges = np.rint(np.cumsum(shares) / shares.sum() * free).astype(int)
    parts: list[int] = (np.diff(edges, prepend=0) + at_least).tolist()
    return parts


def _gamma(wanted: MeanSd, rng: np.random.Generator) -> float:
    return wanted.mean * _factor(wanted.sd / wanted.mean, rng)


def _factor(variation: float, rng: np.random.Generator) -> float:
    """A gamma variate with mean 1 and deviation ``variation``; exactly 1 without variation."""
    if variation == 0:
        return 1.0
    shape = variation**-2
    return float(rng.gamma(shape, 1 / shape))


def _chances(weights: Mapping[str, float]) -> dict[str, float]:
    for kind, weight in weights.items():
        if kind not in AUGMENTATIONS:
            raise ValueError(f"no augmentation {kind!r}; there are {', '.join(AUGMENTATIONS)}")
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"the weight of {kind!r} is {weight!r}; it must be finite and >= 0")
    total = sum(weights.values())
    if total <= 0:
        raise ValueError("the weights add up to 0; at least one kind must have a weight above 0")
    return {kind: weights[kind] / total for kind in AUGMENTATIONS if weights.get(kind, 0) > 0}
