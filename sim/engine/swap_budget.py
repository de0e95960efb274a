"""The swap budget: how many tokens may be copied beside the iteration that is planned.

A budget is in tokens of a copy that the batch hides: N with T_swap(N) = T_fwd(batch) (InferCept, arXiv 2402.01869,
section 4.2). The engine says what a plan hides; here it is spent.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from sim.costs.batch import Direction
from sim.engine.settings import EngineSettings
from sim.kv.copy import Copy


class SwapBudget:
    """Copies of one plan, and what is left for more of them.

    Args:
        settings: whether copies overlap the batch, and whether both directions share one budget.
        block_size: tokens of a block.

    Attributes:
        limited: whether copies run beside the batch, and no more of them than it hides.
        copies: copies begun since the last plan was handed out.
    """

    def __init__(self, settings: EngineSettings, block_size: int) -> None:
        self.limited = settings.swap == "overlapped" and settings.swap_budget != "unlimited"
        self.copies: list[Copy] = []
        self._block_size = block_size
        self._hidden: Callable[[], float] = lambda: math.inf
        self._account = {way: way if settings.swap_budget == "hidden-each-way" else Direction.OUT for way in Direction}
        self._left: dict[Direction, float] = {}  # tokens, by account

    def open(self, hidden: Callable[[], float]) -> None:
        """A plan begins; ``hidden`` tells how many tokens' copies its batch, as far as it is planned, hides."""
        self._hidden = hidden
        self._left.clear()

    def settle(self) -> None:
        """The batch has grown: what it hides is asked anew. Copies begun beside it are subtracted."""
        self._left.clear()

    def tokens(self, way: Direction) -> float:
        """Tokens that may still be copied beside this iteration; infinite when nothing limits it."""
        account = self._account[way]
        left = self._left.get(account)
        if left is None:
            left = self._hidden()
            for copy in self.copies:
                if not copy.blocking and self._account[copy.direction] is account:
                    left -= copy.tokens
            left = self._left[account] = max(0, left)
        return left

    def blocks(self, way: Direction) -> float:
        """Whole blocks that the budget still covers."""
        tokens = self.tokens(way)
        return tokens if tokens == math.inf else tokens // self._block_size

    def covers_a_block(self, way: Direction) -> bool:
        """Whether the budget still covers a block."""
        return self.blocks(way) >= 1

    def spend(self, copy: Copy) -> None:
        """A copy begins within the budget."""
        self._left[self._account[copy.direction]] -= copy.tokens

    @property
    def overlapping(self) -> bool:
        """Whether this plan has begun copies that run beside the batch, under a budget."""
        return self.limited and any(not copy.blocking for copy in self.copies)
