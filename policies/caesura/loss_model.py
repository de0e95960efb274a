"""What it costs that tokens of a paused context are gone at its return."""

from __future__ import annotations

from itertools import accumulate

from policies.contract import Costs, EngineView, Paused, is_incomplete


class Losses:
    """What tokens of a paused context cost when they are gone at its return, in seconds that sessions wait for it.

    What is the same for all contexts that are asked about at once is computed once. ``queued_s`` is what who must be
    admitted waits for it, s.

    Attributes:
        wait_s: an iteration more, for who has nothing on the host before, s.
    """

    def __init__(self, view: EngineView, queued_s: float = 0.0) -> None:
        costs = view.costs
        self._queued_s = queued_s
        self._costs = costs
        self.wait_s = costs.forward_time(max(1, view.running_query_tokens))
        self._sharing = max(1, view.running_sessions)
        self._decoding = min(view.running_sessions, view.token_budget - 1)
        self._decoding_s = costs.forward_time(self._decoding) if self._decoding else 0.0
        self._chunk = view.token_budget - self._decoding
        self._longer_by: dict[tuple[int, int], float] = {}  # seconds, by the tokens of a chunk and those before it

    def swapped_s(self, paused: Paused, tokens: int) -> float:
        """The last ``tokens`` tokens are on the host: a copy, and an iteration more if nothing was there before."""
        return self._costs.swap_time(tokens) + (0.0 if paused.offloaded_tokens else self.wait_s)

    def discarded_s(self, paused: Paused, tokens: int) -> float:
        """The last ``tokens`` resident tokens are gone, and what is on the host with them: they must be recomputed in
        the chunks that the decoding sessions leave room for, and everybody waits for each; the session queues for it,
        if it did not have to before."""
        gone = tokens + paused.offloaded_tokens
        there = paused.resident_tokens - tokens
        if not gone:
            return 0.0
        chunk = gone if gone < self._chunk else self._chunk
        halfway = (there + gone // 2) // self._chunk * self._chunk
        longer = self._longer_by.get((chunk, halfway))
        if longer is None:
            longer = self._costs.forward_time(self._decoding + chunk, halfway) - self._decoding_s
            self._longer_by[chunk, halfway] = longer
        queued_s = 0.0 if self._queued_s and is_incomplete(paused) else self._queued_s
        return longer * gone / chunk * self._sharing + queued_s


class LeastLosses:
    """Below what losses cannot fall beside a number of running sessions, for contexts of which nothing is on the host.

    T_fwd may fall where tiles fit a size better, so of a range of sizes its least or greatest is taken. A chunk takes
    no less after other tokens than it takes alone.

    Args:
        costs: gives T_fwd and T_swap.
        token_budget: the longest batch.

    Attributes:
        fewest, most: of the running sessions.
    """

    def __init__(self, costs: Costs, token_budget: int) -> None:
        times = [0.0, *map(costs.forward_time, range(1, token_budget + 1))]
        self._costs = costs
        self._budget = token_budget
        self._most_s = list(accumulate(times, max))  # of at most so many tokens
        self._least_s = list(accumulate(reversed(times), min))[::-1]  # of at least so many
        self.fewest, self.most = 0, -1
        self._token_s: dict[int, tuple[float, float]] = {}

    def begin(self, running: int) -> None:
        """From now on it is about as many as ``running`` sessions, or a third more or less."""
        spare = 2 + running // 3
        self.fewest, self.most = max(0, running - spare), running + spare
        self._token_s.clear()

    def token_s(self, tokens: int) -> tuple[float, float]:
        """The least that each token loses when all ``tokens`` of a context are swapped, the iteration that is waited
        for left out, and when they are discarded; seconds that sessions wait."""
        known = self._token_s.get(tokens)
        if known is None:
            decoding, most = min(self.fewest, self._budget - 1), min(self.most, self._budget - 1)
            longer = self._least_s[min(decoding + tokens, self._budget)] - self._most_s[most]
            discarded = longer / min(tokens, self._budget - decoding) * max(1, self.fewest)
            known = self._token_s[tokens] = self._costs.swap_time(tokens) / tokens, discarded
        return known
