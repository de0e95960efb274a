"""The loss model: what it costs that tokens of a paused context are gone when its session returns."""

from __future__ import annotations

from itertools import accumulate

from policies.contract import Costs, EngineView, Paused, is_incomplete


class LossModel:
    """What tokens of a paused context cost when they are gone at its return, in seconds that sessions wait for it.

    Args:
        view: the engine now. The terms that all contexts share are computed once.
        queued_s: what a session that must be admitted waits for it, s.

    Attributes:
        wait_s: one more iteration, which a session waits for its copy if it had nothing on the host before, s.
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
        """Loss if the last ``tokens`` tokens are on the host: a copy, and one more iteration if none was there
        before."""
        return self._costs.swap_time(tokens) + (0.0 if paused.offloaded_tokens else self.wait_s)

    def discarded_s(self, paused: Paused, tokens: int) -> float:
        """Loss if the last ``tokens`` resident tokens are gone, and the offloaded ones with them. They are recomputed
        in the chunks that the decoding sessions leave room for, and all running sessions wait for each chunk; the
        session
        queues for it, unless it had to before."""
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


class LossBounds:
    """Lower bounds of losses beside about a number of running sessions, for contexts without tokens on the host.

    T_fwd may fall where tiles fit a size better, so the least or greatest over a range of sizes is taken. A chunk takes
    no less after other tokens than it takes alone.

    Args:
        costs: gives T_fwd and T_swap.
        token_budget: the longest batch.

    Attributes:
        fewest, most: running sessions for which the bounds hold.
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
        """Make bounds for about ``running`` sessions: a third more or less."""
        spare = 2 + running // 3
        self.fewest, self.most = max(0, running - spare), running + spare
        self._token_s.clear()

    def token_s(self, tokens: int) -> tuple[float, float]:
        """The least that each token loses when all ``tokens`` of a context are swapped, without the iteration that the
        copy is waited for, and when they are discarded; seconds that sessions wait."""
        known = self._token_s.get(tokens)
        if known is None:
            decoding, most = min(self.fewest, self._budget - 1), min(self.most, self._budget - 1)
            longer = self._least_s[min(decoding + tokens, self._budget)] - self._most_s[most]
            discarded = longer / min(tokens, self._budget - decoding) * max(1, self.fewest)
            known = self._token_s[tokens] = self._costs.swap_time(tokens) / tokens, discarded
        return known
