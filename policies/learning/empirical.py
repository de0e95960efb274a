"""Empirical distributions: the last durations seen of one thing, kept sorted."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict, deque
from itertools import accumulate

ALL_TOOLS = ""
_SPARE = 0.02
"""Share of the durations, and of their sum, that may come and go before bounds are made anew."""
_ALMOST = 0.99
"""Factor below 1 that covers rounding."""


class EmpiricalDistribution:
    """A sliding window of durations, s. Adding costs O(window), a question O(log window).

    Args:
        window: durations kept; the oldest leaves when one more comes.

    Attributes:
        ordered: the durations, the shortest first.
        longest: upper bound of the durations until ``drifted``.
    """

    def __init__(self, window: int) -> None:
        self._recent: deque[float] = deque()
        self._window = window
        self._sums = [0.0]  # of the shortest ones, as far as they have been added up since the last was added
        self.ordered: list[float] = []
        self._added_s, self._dropped = 0.0, 0  # since ``drifted`` was last true
        self._spare_s, self._spare = 0.0, 0  # how much of either ``beyond_at_most`` allows for
        self.longest = math.inf

    def __len__(self) -> int:
        return len(self.ordered)

    def add(self, seconds: float) -> None:
        """Add a duration that was just seen."""
        ordered = self.ordered
        self._added_s += seconds
        if len(self._recent) == self._window:
            self._dropped += 1
            gone = bisect_right(ordered, self._recent.popleft()) - 1
            del ordered[gone], self._sums[gone + 1 :]
        self._recent.append(seconds)
        place = bisect_right(ordered, seconds)
        ordered.insert(place, seconds)
        del self._sums[place + 1 :]

    def share_within(self, seconds: float) -> float:
        """The empirical distribution function: the share of durations of at most ``seconds``."""
        return bisect_right(self.ordered, seconds) / len(self.ordered)

    def quantile(self, share: float) -> float:
        """The smallest duration that at least ``share`` of the durations do not exceed, s."""
        return self.ordered[max(0, math.ceil(share * len(self.ordered) - 1e-9) - 1)]

    def mean_beyond(self, seconds: float) -> float | None:
        """Mean of the durations above ``seconds``, s; None if there is none."""
        ordered, sums = self.ordered, self._summed()
        below = bisect_right(ordered, seconds)
        beyond = len(ordered) - below
        return (sums[-1] - sums[below]) / beyond if beyond else None

    def beyond_at_most(self, seconds: float) -> float | None:
        """Upper bound of ``mean_beyond`` of up to ``seconds``, until ``drifted``, s; None if no duration may be left.

        Of n durations above s whose mean is s + x at least n - r stay, and those that come add at most their sum a:
        the mean is at most s + (n x + a) / (n - r). It can only be smaller beyond less than s.
        """
        ordered, sums = self.ordered, self._summed()
        below = bisect_right(ordered, seconds)
        beyond = len(ordered) - below
        if beyond <= self._spare:
            return None
        return seconds + (sums[-1] - sums[below] - beyond * seconds + self._spare_s) / (beyond - self._spare)

    def drifted(self) -> bool:
        """Whether ``beyond_at_most`` or ``longest`` may have ceased to hold. If so they are made anew, with room for a
        few more durations."""
        ordered = self.ordered
        if self._added_s <= self._spare_s * _ALMOST and self._dropped <= self._spare and ordered[-1] <= self.longest:
            return False
        self._added_s, self._dropped, self.longest = 0.0, 0, ordered[-1]
        self._spare_s = _SPARE * self._summed()[-1]
        self._spare = int(_SPARE * self._window) if len(ordered) == self._window else 0
        return True

    def _summed(self) -> list[float]:
        ordered, sums = self.ordered, self._sums
        known = len(sums) - 1
        if known < len(ordered):
            sums[known:] = accumulate(ordered[known:], initial=sums[known])
        return sums


class PerTool:
    """Durations of each tool, and of all together, by the names that ``tool_of`` gives.

    Args:
        window: durations kept of each.
    """

    def __init__(self, window: int) -> None:
        if window < 1:
            raise ValueError("window is at least 1")
        self._by_tool: dict[str, EmpiricalDistribution] = defaultdict(lambda: EmpiricalDistribution(window))
        self._all = EmpiricalDistribution(window)
        self._unsorted: deque[float] = deque(maxlen=window)  # of all tools, since the last question about all of them

    def add(self, tool: str, seconds: float) -> None:
        """Add a duration of ``tool``."""
        self._by_tool[tool].add(seconds)
        self._unsorted.append(seconds)

    def of(self, tool: str, enough: int) -> EmpiricalDistribution | None:
        """Durations of the tool, else of all tools, else None: the first that are at least ``enough``."""
        own = self.own(tool, enough)
        return own if own is not None else self.of_all(enough)

    def own(self, tool: str, enough: int) -> EmpiricalDistribution | None:
        """Durations of the tool, if they are at least ``enough``."""
        durations = self._by_tool.get(tool)
        return durations if durations is not None and len(durations.ordered) >= enough else None

    def of_all(self, enough: int) -> EmpiricalDistribution | None:
        """Durations of all tools, if they are at least ``enough``. Sorted when asked for: a tool's own mostly
        suffice."""
        while self._unsorted:
            self._all.add(self._unsorted.popleft())
        return self._all if len(self._all.ordered) >= enough else None
