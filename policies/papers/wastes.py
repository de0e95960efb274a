"""What paused contexts waste at one moment, each looked at no closer than the question needs.

A context of C tokens, of which C' <= C are on the GPU, wastes t C' preserved for t seconds and, by equation 4 of
InferCept (arXiv 2402.01869) with n = ceil(C / c) chunks of at most c tokens,

    T_fwd(C) C / 2 + n T_fwd(ceil(C / n)) C_other  >=  C C_other min over m <= c of T_fwd(m) / m

recomputed, as m = ceil(C / n) is at most c and n at least C / m. So whoever is away for no longer than C_other times
that minimum wastes less preserved, however long its context: most are, and need not be looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from operator import mul

from policies.contract import Footprint, Paused
from policies.papers.waste import SAFE, RecomputeTerms

_FEW = 4
"""Contexts looked for one by one before all are sorted: mostly the first spends the budget."""


class Wastes:
    """What each of several contexts wastes, preserved or recomputed, token-seconds.

    Args:
        paused: the contexts; a place below is one in this list.
        footprints: where their tokens are, some of each on the GPU.
        rests: how long each is expected to be away yet, s.
        terms: of equation 4.
        chunk: tokens that an iteration may recompute.
        others: context tokens of the running sessions, C_other.
    """

    def __init__(
        self,
        paused: Sequence[Paused],
        footprints: Sequence[Footprint],
        rests: Sequence[float],
        terms: RecomputeTerms,
        chunk: int,
        others: int,
    ) -> None:
        self.paused = paused
        self._footprints, self._rests = footprints, rests
        self._terms, self._chunk, self._others = terms, chunk, others
        self._order: list[int] | None = None

    @cached_property
    def own(self) -> list[int]:
        """The tokens on the GPU that each alone holds."""
        return [resident - shared for resident, shared, _ in self._footprints]

    def kept(self, place: int) -> float:
        """Equation 2: what a context wastes preserved."""
        resident, shared, _ = self._footprints[place]
        return self._rests[place] * (resident - shared)

    def recomputed(self, place: int) -> float:
        """Equation 4: what it wastes recomputed in chunks."""
        resident, shared, offloaded = self._footprints[place]
        lost = resident - shared + offloaded
        alone, beside = self._terms[lost, -(-lost // self._chunk)]
        return alone + beside * self._others

    def both(self, place: int) -> dict[str, float]:
        """The two, as the reasons of a decision."""
        return {"preserve": self.kept(place), "recompute": self.recomputed(place)}

    @cached_property
    def dear(self) -> list[int]:
        """Contexts that waste less recomputed than preserved, the most wasteful first."""
        calm = self._terms.least_per_token(self._chunk) * self._others * SAFE
        away = [place for place, rest in enumerate(self._rests) if rest > calm]
        dear = [place for place in away if self.recomputed(place) < self.kept(place)]
        return sorted(dear, key=self.recomputed, reverse=True) if len(dear) > 1 else dear

    def ranked(self) -> Iterator[int]:
        """All that have tokens of their own, by the smaller of the two (equation 5): the most wasteful first, and of
        equal ones the first."""
        if self._order is not None:
            yield from self._order
            return
        own = self.own
        least = list(map(mul, self._rests, own))
        for place in self.dear:
            least[place] = self.recomputed(place)
        if 0 in own:
            self._order = [place for place in _by_size(least) if own[place]]
            yield from self._order
            return
        rest, few = least.copy(), min(_FEW, len(least))
        for _ in range(few):
            place = rest.index(max(rest))
            rest[place] = -math.inf
            yield place
        self._order = _by_size(least)
        yield from self._order[few:]


def _by_size(numbers: Sequence[float]) -> list[int]:
    """Places of the numbers, those of the largest first."""
    return sorted(range(len(numbers)), key=numbers.__getitem__, reverse=True)
