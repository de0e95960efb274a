"""How the values of a session correlate: with its first prompt, with each other, and each with the one before.

All are correlations of normal scores (the values' ranks, made standard normal), so that they say nothing about the
distributions themselves: a Gaussian copula, which `traces.draw.shapes` draws from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from traces.draw.distributions import Values
from traces.fit.distributions import likeness

FEWEST_SESSIONS = 20
FEWEST_STEPS = 50
MOST = 0.95


@dataclass(frozen=True, slots=True)
class Association:
    """One quantity of the sessions of one kind.

    Attributes:
        with_prompt: correlation with the first prompt of the session, -0.95 to 0.95.
        alike: correlation of two values of one session, 0 to 0.95; 0 where there is one value a session.
        next: correlation of a value and the next one of the session; None where too few follow each other.
    """

    with_prompt: float
    alike: float = 0.0
    next: float | None = None

    @property
    def along(self) -> float:
        """The correlation of a value with the next one beyond that with any value of the session, -0.95 to 0.95."""
        common = max(self.alike, self.with_prompt**2)
        beyond = 0.0 if self.next is None else (self.next - common) / (1 - common)
        return float(np.clip(round(beyond, 2), -MOST, MOST))


def association(prompts: Values, groups: Sequence[Values]) -> Association:
    """The correlations of some values; ``groups[i]`` are the values of the session with the first prompt
    ``prompts[i]``."""
    sizes = np.array([len(group) for group in groups], dtype=np.int64)
    scores = normal_scores(np.concatenate([np.empty(0), *groups]))
    of_prompts = np.repeat(normal_scores(prompts), sizes)
    before, after = scores[:-1], scores[1:]
    ends = np.zeros(len(scores), dtype=np.bool_)
    ends[np.cumsum(sizes[sizes > 0]) - 1] = True
    inside = ~ends[:-1] if len(scores) else np.zeros(0, dtype=np.bool_)
    following = _correlation(before[inside], after[inside]) if inside.sum() >= FEWEST_STEPS else None
    with_prompt = _correlation(of_prompts, scores) if (sizes > 0).sum() >= FEWEST_SESSIONS else 0.0
    return Association(with_prompt, likeness(groups), following)


def normal_scores(values: Values) -> Values:
    """Ranks as values of a standard normal distribution; equal values have equal ones."""
    from scipy.stats import norm, rankdata

    if not len(values):
        return np.empty(0)
    scores: Values = norm.ppf((rankdata(values) - 0.5) / len(values))
    return scores


def _correlation(one: Values, other: Values) -> float:
    if len(one) < 2 or one.std() == 0 or other.std() == 0:
        return 0.0
    return float(np.clip(round(float(np.corrcoef(one, other)[0, 1]), 2), -MOST, MOST))
