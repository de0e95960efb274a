"""Several samples or beams of one context: which GPU blocks their responses hold beside the tokens that they share.

A call of n samples computes its context once, the *fork* being its length, and then decodes n *branches* that have as
many tokens each. Here is how many blocks a branch set holds once ``resident`` tokens of each of its branches are
resident, in three layouts. A session's other contexts, those of one branch, hold ceil(resident / block) in all of them.
"""

from __future__ import annotations

from typing import Literal

from sim.kv.block_pool import blocks_for
from sim.session import SessionState
from traces.session import Session

Layout = Literal["paged-sharing", "segment", "contiguous"]
"""How branches lie in memory; the formulas are those of ``SampleLayout``."""


class SampleLayout:
    """Blocks of branch sets in one layout, for blocks of b tokens, a fork at F, n branches and F + e resident tokens.

    - ``paged-sharing``: floor(F / b) + n (ceil((F + e) / b) - floor(F / b)). Whole blocks of the shared tokens are held
      by reference; the part-full last one is shared until the branches first write, when all but one copy it, as in
      vLLM (arXiv 2309.06180, section 4.4).
    - ``segment``: ceil(F / b) + n ceil(e / b). The responses lie apart from what is shared, and grow in steps of a
      block (arXiv 2401.05391; the formula is derived from its description).
    - ``contiguous``: n ceil((F + R) / b) from the first token computed, R being the response's length, which it is
      told beforehand: a buffer for each branch with its own copy of what the others share.

    Args:
        layout: one of the three.
        block_size: tokens of a block, and the step in which responses grow.
    """

    def __init__(self, layout: Layout, block_size: int) -> None:
        self.layout, self.block_size = layout, block_size

    def blocks(self, state: SessionState, resident: int) -> int:
        """GPU blocks of a session of several samples in its call, with ``resident`` tokens of each branch."""
        return self._blocks(state.samples, state.fork or state.context, state.call.output, resident)

    def max_blocks(self, session: Session) -> int:
        """GPU blocks that a session of several samples holds at most."""
        return max(
            self._blocks(session.samples, begin, call.output, end)
            for (begin, end), call in zip(session.call_contexts(), session.calls, strict=True)
        )

    def _blocks(self, samples: int, fork: int, response: int, resident: int) -> int:
        size = self.block_size
        if resident == 0:
            return 0
        if self.layout == "contiguous":
            return samples * blocks_for(fork + response, size)
        if resident <= fork:
            return blocks_for(resident, size)
        if self.layout == "segment":
            return blocks_for(fork, size) + samples * blocks_for(resident - fork, size)
        shared = fork // size
        return shared + samples * (blocks_for(resident, size) - shared)

    def steps_at(self, state: SessionState) -> int | None:
        """Resident tokens, modulo the block size, at which each branch of a decoding set takes one more block; None if
        none ever does."""
        if self.layout == "contiguous":
            return None
        return state.fork % self.block_size if self.layout == "segment" else 0

    def copied_at_fork(self, state: SessionState) -> int:
        """Blocks that a decoding set takes in its next iteration because that is the first to write to a block that its
        branches share."""
        partly = state.fork % self.block_size > 0
        return state.samples - 1 if self.layout == "paged-sharing" and partly and state.resident == state.fork else 0
