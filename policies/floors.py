"""Who is cheapest, without pricing everybody: below its floor the price of a context cannot fall for a while."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush

from policies.contract import DurationEstimator, EngineView, Paused
from policies.estimators import tool_of
from policies.losses import LeastLosses, Losses

Priced = tuple[float, Paused]
Floor = tuple[float, float, float]
"""Of the price of a context that is swapped, what stays and what comes for each second that an iteration takes; and of
the price of one that is discarded."""
_AHEAD = 64
"""Floors hold for so many iterations as long as the present one."""
_ROUNDING = 1e-9
"""More than prices and floors are off by, as a share."""
_NONE: Floor = (-math.inf, 0.0, math.inf)
_HIGHEST: Floor = (math.inf, 0.0, math.inf)


class Floors:
    """Lower bounds of the prices of contexts whose answers have not come.

    A context that is left alone loses a sum per token when it goes, and its price is that over the rest of its pause.
    What it loses at least is known as long as about as many sessions run (``LeastLosses``). Of the rest of its pause
    the estimator says what it does not exceed (``at_most``), until a pause of the same tool ends. Without a floor, and
    so always priced, are contexts of which a part is on the host.

    Args:
        estimator: expects how long pauses still last.
    """

    def __init__(self, estimator: DurationEstimator) -> None:
        self._estimator = estimator
        self._floors: dict[str, Floor] = {}
        self._tools: dict[str, str] = {}
        self._of_tool: dict[str, set[str]] = defaultdict(set)
        self._until = -math.inf
        self._least: LeastLosses | None = None

    def cheapest_first(self, view: EngineView, losses: Losses, price: Callable[[Paused], float]) -> Iterator[Priced]:
        """``view.unanswered`` by their prices, of equal ones as they come there: all of them, if so many are asked for.

        Meanwhile contexts that have been handed out may change, and those with tokens on the host; nobody else.
        """
        contexts, wait_s = view.unanswered, losses.wait_s
        floors = [
            swapped if (swapped := fixed + wait_s * waits) < discarded else discarded
            for fixed, waits, discarded in self._held(contexts, view, wait_s)
        ]
        lowest_first = sorted(range(len(floors)), key=floors.__getitem__)
        priced: list[tuple[float, int]] = []
        looked = 0
        while priced or looked < len(floors):
            while looked < len(floors) and not (priced and floors[lowest_first[looked]] > priced[0][0]):
                place = lowest_first[looked]
                heappush(priced, (price(contexts[place]), place))
                looked += 1
            cheapest, place = heappop(priced)
            self._floors[contexts[place].id] = _NONE
            yield cheapest, contexts[place]

    def pause_ended(self, paused: Paused) -> None:
        """An answer has come: the estimator may expect something else of pauses of that tool."""
        tool = self._tools.pop(paused.id, None) or tool_of(paused)
        self._of_tool[tool].discard(paused.id)
        self._floors.pop(paused.id, None)
        if self._estimator.unsettled(paused):
            for other in self._of_tool[tool]:
                self._floors.pop(other, None)

    def _held(self, contexts: Sequence[Paused], view: EngineView, wait_s: float) -> list[Floor]:
        """What is known of the floors of ``contexts``, made anew where it may not hold any more."""
        now, running = view.now, view.running_sessions
        if self._least is None:
            self._least = LeastLosses(view.costs, view.token_budget)
        if now > self._until or not self._least.fewest <= running <= self._least.most:
            self._floors.clear()
            self._until = now + _AHEAD * wait_s
            self._least.begin(running)
        known, least = self._floors.get, self._least
        return [known(paused.id) or self._floor(paused, now, least) for paused in contexts]

    def _floor(self, paused: Paused, now: float, least: LeastLosses) -> Floor:
        if paused.id not in self._tools:
            tool = self._tools[paused.id] = tool_of(paused)
            self._of_tool[tool].add(paused.id)
        floor, tokens = _NONE, paused.resident_tokens
        swapped_s, discarded_s = least.token_s(tokens)
        if discarded_s > 0 and not paused.offloaded_tokens:
            remaining = self._estimator.at_most(paused, now, self._until)
            floor = _HIGHEST
            if remaining > 0:
                a_second = (1 - _ROUNDING) / remaining
                floor = swapped_s * a_second, a_second / tokens, discarded_s * a_second
        self._floors[paused.id] = floor
        return floor
