"""The last durations that were seen of one thing, kept sorted: an empirical distribution."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import defaultdict, deque
from itertools import accumulate

ALL_TOOLS = ""


class Samples:
    """A sliding window of durations, s. Adding costs O(window), asking O(log window).

    Args:
        window: samples kept; the oldest leaves when one more comes.
    """

    def __init__(self, window: int) -> None:
        self._recent: deque[float] = deque()
        self._window = window
        self._sums: list[float] | None = None
        self.ordered: list[float] = []

    def __len__(self) -> int:
        return len(self.ordered)

    def add(self, seconds: float) -> None:
        """One more was seen."""
        if len(self._recent) == self._window:
            del self.ordered[bisect_right(self.ordered, self._recent.popleft()) - 1]
        self._recent.append(seconds)
        insort(self.ordered, seconds)
        self._sums = None

    def share_within(self, seconds: float) -> float:
        """The empirical distribution function: the share of samples of at most ``seconds``."""
        return bisect_right(self.ordered, seconds) / len(self.ordered)

    def quantile(self, share: float) -> float:
        """The smallest sample that at least ``share`` of the samples do not exceed."""
        return self.ordered[max(0, math.ceil(share * len(self.ordered) - 1e-9) - 1)]

    def mean_beyond(self, seconds: float) -> float | None:
        """Mean of the samples above ``seconds``; None if there is none."""
        ordered, sums = self.ordered, self._sums
        if sums is None:
            sums = self._sums = list(accumulate(ordered, initial=0.0))
        below = bisect_right(ordered, seconds)
        beyond = len(ordered) - below
        return (sums[-1] - sums[below]) / beyond if beyond else None


class PerTool:
    """Samples of each tool, and of all together, by the names that ``tool_of`` gives.

    Args:
        window: samples kept of each.
    """

    def __init__(self, window: int) -> None:
        if window < 1:
            raise ValueError("window is at least 1")
        self._samples: dict[str, Samples] = defaultdict(lambda: Samples(window))

    def add(self, tool: str, seconds: float) -> None:
        """One more was seen."""
        for name in (tool, ALL_TOOLS):
            self._samples[name].add(seconds)

    def of(self, tool: str, enough: int) -> Samples | None:
        """The tool's samples, or else those of all tools, or None: the first that are ``enough``."""
        own = self.own(tool, enough)
        return own if own is not None else self.own(ALL_TOOLS, enough)

    def own(self, tool: str, enough: int) -> Samples | None:
        """The tool's samples if they are ``enough``."""
        samples = self._samples.get(tool)
        return samples if samples is not None and len(samples.ordered) >= enough else None
