"""Who is cheapest, without pricing everybody: below its floor the price of a context cannot fall for a while."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heappush

from policies.caesura.loss_model import LeastLosses, Losses
from policies.contract import EngineView, Paused
from policies.estimation import DurationEstimator, tool_of

Priced = tuple[float, Paused]
Floor = tuple[float, float, float]
"""Of the price of a context that is swapped, what stays and what comes for each second that an iteration takes; and of
the price of one that is discarded."""
_AHEAD = 64
"""Floors hold for so many iterations as long as the present one."""
_ROUNDING = 1e-9
"""More than prices and floors are off by, as a share."""
_FEW = 16
"""Open contexts that are priced before floors are gone through."""
_NONE: Floor = (-math.inf, 0.0, math.inf)
_HIGHEST: Floor = (math.inf, 0.0, math.inf)


class Floors:
    """Lower bounds of the prices of contexts whose answers have not come.

    A context that is left alone loses a sum per token when it goes, and its price is that over the rest of its pause.
    What it loses at least is known as long as about as many sessions run (``LeastLosses``). Of the rest of its pause
    the estimator says what it does not exceed (``at_most``), until a pause of the same tool unsettles it. Contexts are
    *open*, and always priced, that have no floor because a part of them is on the host, or that have paused or been
    handed out since floors were gone through. Mostly the one that is on its way out is cheapest, and it is enough to
    know that it costs less than the lowest floor of the others.

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
        self._open: dict[str, Paused] = {}
        self._lowest, self._lowest_at = -math.inf, 0.0

    def cheapest_first(self, view: EngineView, losses: Losses, price: Callable[[Paused], float]) -> Iterator[Priced]:
        """``view.unanswered`` by their prices, of equal ones as they come there: all of them, if so many are asked for.

        Contexts may change once they are handed out, and those with tokens on the host then too; nobody else may.
        """
        asked = self._ask_open(view, price)
        first = self._surely_first(asked, losses.wait_s)
        if first is not None:
            self._hand_out(first)
            yield asked.pop(first.id), first
        contexts = [one for one in view.unanswered if one is not first]
        floors = self._look_at(contexts, view, losses.wait_s)
        if first is not None:
            self._open[first.id] = first
        priced = [(asked[one.id], place) for place, one in enumerate(contexts) if one.id in asked]
        heapify(priced)
        unasked = [place for place, one in enumerate(contexts) if one.id not in asked]
        unasked.sort(key=floors.__getitem__, reverse=True)
        while priced or unasked:
            while unasked and not (priced and floors[unasked[-1]] > priced[0][0]):
                place = unasked.pop()
                heappush(priced, (price(contexts[place]), place))
            cheapest, place = heappop(priced)
            self._hand_out(contexts[place])
            yield cheapest, contexts[place]

    def pause_begun(self, paused: Paused) -> None:
        """A session has paused."""
        self._open[paused.id] = paused

    def pause_ended(self, paused: Paused) -> None:
        """An answer has come: the estimator may expect something else of pauses of that tool."""
        tool = self._tools.pop(paused.id, None) or tool_of(paused)
        self._of_tool[tool].discard(paused.id)
        self._floors.pop(paused.id, None)
        self._open.pop(paused.id, None)
        if self._estimator.unsettled(paused):
            self._lowest = -math.inf
            for other in self._of_tool[tool]:
                self._floors.pop(other, None)

    def _hand_out(self, paused: Paused) -> None:
        self._floors[paused.id], self._open[paused.id] = _NONE, paused

    def _ask_open(self, view: EngineView, price: Callable[[Paused], float]) -> dict[str, float]:
        """Prices of open contexts, if it may be enough to know these."""
        if self._lowest <= 0 or len(self._open) > _FEW or not self._hold(view):
            return {}
        return {one.id: price(one) for one in self._open.values() if one.resident_tokens and not one.moving}

    def _surely_first(self, asked: dict[str, float], wait_s: float) -> Paused | None:
        """The cheapest of the open contexts, if no other may be as cheap: a floor falls no faster than ``wait_s``."""
        others = self._lowest if wait_s >= self._lowest_at else self._lowest * wait_s / self._lowest_at
        least = min(asked.values(), default=math.inf)
        cheapest = [name for name, price in asked.items() if price == least < others]
        return self._open[cheapest[0]] if len(cheapest) == 1 else None

    def _hold(self, view: EngineView) -> bool:
        """Whether floors still hold."""
        least = self._least
        return least is not None and view.now <= self._until and least.fewest <= view.running_sessions <= least.most

    def _look_at(self, contexts: Sequence[Paused], view: EngineView, wait_s: float) -> list[float]:
        """The floors of ``contexts``, made anew where they may not hold any more."""
        now = view.now
        if self._least is None:
            self._least = LeastLosses(view.costs, view.token_budget)
        if not self._hold(view):
            self._floors.clear()
            self._until = now + _AHEAD * wait_s
            self._least.begin(view.running_sessions)
        known, least = self._floors.get, self._least
        floors = [
            swapped if (swapped := fixed + wait_s * waits) < discarded else discarded
            for fixed, waits, discarded in [known(one.id) or self._floor(one, now, least) for one in contexts]
        ]
        self._lowest, self._lowest_at = min([floor for floor in floors if floor > -math.inf], default=math.inf), wait_s
        away = [one for one in self._open.values() if one.moving]
        self._open = {one.id: one for one, floor in zip(contexts, floors, strict=True) if floor == -math.inf}
        self._open.update({one.id: one for one in away})
        return floors

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
