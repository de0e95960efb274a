"""Repeat a measurement until its median is stable."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Repeats:
    """The rule that says when a point has been measured often enough.

    Attributes:
        warm_up: runs that do not count.
        least, most: repeats.
        tolerance: stop when the median is known to this share of itself, with 95 % confidence.
    """

    warm_up: int
    least: int
    most: int
    tolerance: float

    def collect(self, run: Callable[[], T], seconds_of: Callable[[T], float], allowance_s: float) -> list[T]:
        """Call ``run`` until the median of ``seconds_of`` is stable, ``most`` is reached or ``allowance_s`` is spent,
        but ``least`` times in any case."""
        begun = time.perf_counter()
        for _ in range(self.warm_up):
            run()
        found: list[T] = []
        while len(found) < self.most:
            found.append(run())
            if len(found) < self.least:
                continue
            if time.perf_counter() - begun > allowance_s or uncertainty([seconds_of(one) for one in found]) < (
                self.tolerance
            ):
                break
        return found


def uncertainty(values: list[float]) -> float:
    """Half the width of the median's 95 % interval, as a share of the median; from order statistics, so that no
    distribution is assumed. Infinite for fewer than five values."""
    n = len(values)
    if n < 5:
        return math.inf
    ordered = sorted(values)
    reach = 0.98 * math.sqrt(n)
    low, high = max(0, math.floor(n / 2 - reach)), min(n - 1, math.ceil(n / 2 + reach) - 1)
    median = ordered[n // 2]
    return (ordered[high] - ordered[low]) / 2 / median if median > 0 else math.inf
