"""The cheapest context without pricing all: lower bounds (floors) of prices, which hold for a while."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from heapq import heapify, heappop, heappush

from policies.caesura.loss_model import LossBounds, LossModel
from policies.contract import EngineView, Paused
from policies.estimation import DurationEstimator, tool_of

Priced = tuple[float, Paused]
Floor = tuple[float, float, float]
"""Lower bounds of a context's price: if swapped, a fixed part and a part for each second that an iteration takes; and
if
discarded."""
_AHEAD = 64
"""Floors hold for as long as this many iterations like the present one."""
_ROUNDING = 1e-9
"""Upper bound of the rounding error of prices and floors, as a share."""
_FEW = 16
"""Open contexts that are priced before all floors are compared."""
_NONE: Floor = (-math.inf, 0.0, math.inf)
_HIGHEST: Floor = (math.inf, 0.0, math.inf)


class PriceBounds:
    """Lower bounds of the prices of contexts whose answers have not come.

    A context that is wholly on the GPU loses a sum per token when it leaves, and its price is that sum over the rest of
    its pause. The sum has a lower bound while about as many sessions run (``LossBounds``). The rest of the pause has an
    upper bound from the estimator (``at_most``), until a pause of the same tool unsettles it. *Open* contexts have no
    floor and are always priced: a part of them is on the host, or they have paused or been handed out since the floors
    were last compared. Mostly the context that is leaving is the cheapest, and it is enough to know that it costs less
    than the lowest floor of the others.

    Args:
        estimator: expects how long pauses still last.
    """

    def __init__(self, estimator: DurationEstimator) -> None:
        self._estimator = estimator
        self._floors: dict[str, Floor] = {}
        self._tools: dict[str, str] = {}
        self._of_tool: dict[str, set[str]] = defaultdict(set)
        self._until = -math.inf
        self._least: LossBounds | None = None
        self._open: dict[str, Paused] = {}
        self._lowest, self._lowest_at = -math.inf, 0.0

    def cheapest_first(self, view: EngineView, losses: LossModel, price: Callable[[Paused], float]) -> Iterator[Priced]:
        """``view.undecided`` by price, equal prices in their order there. All of them, if the caller asks for so many.

        Between two of them the context that was handed out may change, and contexts with tokens on the host; no other.
        """
        asked = self._price_open(view, price)
        first = self._certainly_cheapest(asked, losses.wait_s)
        if first is not None:
            self._hand_out(first)
            yield asked.pop(first.id), first
        contexts = [one for one in view.undecided if one is not first]
        floors = self._renewed_floors(contexts, view, losses.wait_s)
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
        """Take up a context whose session has paused."""
        self._open[paused.id] = paused

    def pause_ended(self, paused: Paused) -> None:
        """Drop a context whose answer has come, and the floors of its tool if the estimator has learnt."""
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

    def _price_open(self, view: EngineView, price: Callable[[Paused], float]) -> dict[str, float]:
        """Prices of the open contexts, where these may suffice; else none."""
        if self._lowest <= 0 or len(self._open) > _FEW or not self._floors_hold(view):
            return {}
        return {one.id: price(one) for one in self._open.values() if one.resident_tokens and not one.moving}

    def _certainly_cheapest(self, asked: dict[str, float], wait_s: float) -> Paused | None:
        """The cheapest open context, if no other context can be as cheap: a floor falls no faster than ``wait_s``."""
        others = self._lowest if wait_s >= self._lowest_at else self._lowest * wait_s / self._lowest_at
        least = min(asked.values(), default=math.inf)
        cheapest = [name for name, price in asked.items() if price == least < others]
        return self._open[cheapest[0]] if len(cheapest) == 1 else None

    def _floors_hold(self, view: EngineView) -> bool:
        """Whether the floors still hold."""
        least = self._least
        return least is not None and view.now <= self._until and least.fewest <= view.running_sessions <= least.most

    def _renewed_floors(self, contexts: Sequence[Paused], view: EngineView, wait_s: float) -> list[float]:
        """The floors of ``contexts``, made anew where they may have ceased to hold."""
        now = view.now
        if self._least is None:
            self._least = LossBounds(view.costs, view.token_budget)
        if not self._floors_hold(view):
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

    def _floor(self, paused: Paused, now: float, least: LossBounds) -> Floor:
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
