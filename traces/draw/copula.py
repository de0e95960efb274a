"""Correlated uniform numbers, whatever distributions they are turned into afterwards: a Gaussian copula."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from traces.draw.distributions import Values

BELOW_1 = np.nextafter(1.0, 0.0)


def uniform_of(scores: Values) -> Values:
    """Standard normal numbers as uniform ones, 0 <= u < 1."""
    from scipy.special import ndtr

    return np.minimum(ndtr(scores), BELOW_1)


def normal_of(uniform: Values) -> Values:
    """Uniform numbers as standard normal ones."""
    from scipy.special import ndtri

    scores: Values = ndtri(np.clip(uniform, np.finfo(np.float64).tiny, None))
    return scores


def carried_over(own: Values, lengths: np.ndarray, along: float) -> Values:
    """Standard normal numbers, ``lengths[i]`` of the i-th chain, of which each has ``along`` of the one before it."""
    fresh, numbers = math.sqrt(1 - along**2), own.tolist()
    begins = set((np.cumsum(lengths) - lengths).tolist())
    for index in range(len(numbers)):
        if index not in begins:
            numbers[index] = along * numbers[index - 1] + fresh * numbers[index]
    return np.array(numbers, dtype=np.float64)


def by_bands(uniform: Values, given: Values, bands: Sequence[Sequence[float]]) -> Values:
    """Uniform numbers that depend on given ones: those in the i-th of equal bands fall into bands by ``bands[i]``."""
    table = np.array(bands, dtype=np.float64)
    reached = np.cumsum(table, axis=1) / table.sum(axis=1, keepdims=True)
    rows = reached[np.minimum((given * len(table)).astype(int), len(table) - 1)]
    chosen = np.minimum((uniform[:, np.newaxis] >= rows).sum(axis=1), table.shape[1] - 1)
    at = np.arange(len(uniform))
    before = np.where(chosen > 0, rows[at, np.maximum(chosen - 1, 0)], 0.0)
    inside = (uniform - before) / np.maximum(rows[at, chosen] - before, np.finfo(np.float64).tiny)
    drawn: Values = (chosen + np.clip(inside, 0.0, 1.0)) / table.shape[1]
    return np.minimum(drawn, BELOW_1)


def bands_of(given: Values, values: Values, count: int) -> list[list[float]]:
    """How the ranks of values depend on those of given ones: for each of ``count`` equal bands of the given ones, the
    shares of the values in equally many bands. Equal values are told apart by their order."""
    places = [np.argsort(np.argsort(some, kind="stable")) * count // len(some) for some in (given, values)]
    table = np.zeros((count, count))
    np.add.at(table, tuple(places), 1.0)
    shares: list[list[float]] = np.round(table / table.sum(axis=1, keepdims=True), 4).tolist()
    return shares


def distance_from_independence(bands: Sequence[Sequence[float]]) -> float:
    """Half the sum of the differences to equal shares, 0 to 1."""
    table = np.array(bands)
    return float(np.abs(table - 1 / table.shape[1]).sum() / len(table) / 2)


def check_bands(what: str, bands: Sequence[Sequence[float]]) -> None:
    """Refuse what `by_bands` could not draw from; raises `ValueError`."""
    if bands and (not bands[0] or any(len(row) != len(bands[0]) for row in bands)):
        raise ValueError(f"the rows of {what} must be equally long, with at least one share")
    if any(not any(row) or min(row) < 0 or not all(map(math.isfinite, row)) for row in bands):
        raise ValueError(f"the shares of {what} must be finite and >= 0, in each row one above 0")
