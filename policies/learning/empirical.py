"""The last durations that were seen of one thing, kept sorted: an empirical distribution."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict, deque
from itertools import accumulate

ALL_TOOLS = ""
_SPARE = 0.02
"""Share of the samples and of their sum that may come and go before bounds are made anew."""
_ALMOST = 0.99
"""What is left of that covers rounding."""


class Samples:
    """A sliding window of durations, s. Adding costs O(window), asking O(log window).

    Args:
        window: samples kept; the oldest leaves when one more comes.

    Attributes:
        ordered: the samples, the shortest first.
        longest: what none of them exceeds, until ``drifted``.
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
        """One more was seen."""
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
        """The empirical distribution function: the share of samples of at most ``seconds``."""
        return bisect_right(self.ordered, seconds) / len(self.ordered)

    def quantile(self, share: float) -> float:
        """The smallest sample that at least ``share`` of the samples do not exceed."""
        return self.ordered[max(0, math.ceil(share * len(self.ordered) - 1e-9) - 1)]

    def mean_beyond(self, seconds: float) -> float | None:
        """Mean of the samples above ``seconds``; None if there is none."""
        ordered, sums = self.ordered, self._summed()
        below = bisect_right(ordered, seconds)
        beyond = len(ordered) - below
        return (sums[-1] - sums[below]) / beyond if beyond else None

    def beyond_at_most(self, seconds: float) -> float | None:
        """What ``mean_beyond`` of up to ``seconds`` does not exceed until ``drifted``; None if there may be no sample.

        Of n samples above s whose mean is s + x at least n - r stay, and those that come add at most their sum a:
        the mean is at most s + (n x + a) / (n - r). It can only be smaller beyond less than s.
        """
        ordered, sums = self.ordered, self._summed()
        below = bisect_right(ordered, seconds)
        beyond = len(ordered) - below
        if beyond <= self._spare:
            return None
        return seconds + (sums[-1] - sums[below] - beyond * seconds + self._spare_s) / (beyond - self._spare)

    def drifted(self) -> bool:
        """Whether ``beyond_at_most`` or ``longest`` may not hold any more. From now on they allow for a few samples."""
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
    """Samples of each tool, and of all together, by the names that ``tool_of`` gives.

    Args:
        window: samples kept of each.
    """

    def __init__(self, window: int) -> None:
        if window < 1:
            raise ValueError("window is at least 1")
        self._samples: dict[str, Samples] = defaultdict(lambda: Samples(window))
        self._all = Samples(window)
        self._unsorted: deque[float] = deque(maxlen=window)  # of all tools, since these were asked about

    def add(self, tool: str, seconds: float) -> None:
        """One more was seen."""
        self._samples[tool].add(seconds)
        self._unsorted.append(seconds)

    def of(self, tool: str, enough: int) -> Samples | None:
        """The tool's samples, or else those of all tools, or None: the first that are ``enough``."""
        own = self.own(tool, enough)
        return own if own is not None else self.of_all(enough)

    def own(self, tool: str, enough: int) -> Samples | None:
        """The tool's samples if they are ``enough``."""
        samples = self._samples.get(tool)
        return samples if samples is not None and len(samples.ordered) >= enough else None

    def of_all(self, enough: int) -> Samples | None:
        """The samples of all tools if they are ``enough``. Mostly a tool's own are: these are sorted when asked for."""
        while self._unsorted:
            self._all.add(self._unsorted.popleft())
        return self._all if len(self._all.ordered) >= enough else None
