"""What an iteration computes, as the sums that its cost depends on, and the two ways of a copy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class Direction(Enum):
    """Which way a copy goes."""

    OUT = "out"
    """From the GPU to the host."""
    IN = "in"
    """From the host to the GPU."""

    __hash__ = object.__hash__  # an Enum's own goes by the name, in Python


class BranchSet(Protocol):
    """A context of several samples: see ``sim.session``."""

    fork: int
    samples: int


@dataclass(slots=True)
class Batch:
    """The sums that an iteration's cost depends on. Tokens; ``pairs`` are query-key pairs of chunk attention,
    ``new_calls`` calls that begin to compute, ``first_calls`` the first calls among them. ``decode_spread`` is
    n * (c1^2 + ... + cn^2) - (c1 + ... + cn)^2 of the contexts of n decoding sessions: n^2 times their variance, 0
    where all are equally long, and unchanged after each has grown by a token."""

    decode_sessions: int = 0
    decode_context: int = 0
    prefill_sessions: int = 0
    prefill_tokens: int = 0
    prefill_context: int = 0
    prefill_pairs: int = 0
    new_calls: int = 0
    first_calls: int = 0
    decode_spread: int = 0

    def add_missing(self, state: BranchSet, start: int, tokens: int) -> None:
        """Add missing tokens of a context; beyond the fork of a branch set each branch has a chunk of its own."""
        if not state.fork or start + tokens <= state.fork:
            self.add_chunk(start, tokens)
            return
        shared = max(0, state.fork - start)
        if shared:
            self.add_chunk(start, shared)
        for _ in range(state.samples):
            self.add_chunk(start + shared, tokens - shared)

    @property
    def query_tokens(self) -> int:
        """Tokens computed."""
        return self.decode_sessions + self.prefill_tokens

    @property
    def sums(self) -> tuple[int, ...]:
        """All of them: equal for batches of equal cost."""
        return (
            self.decode_sessions,
            self.decode_context,
            self.prefill_sessions,
            self.prefill_tokens,
            self.prefill_context,
            self.prefill_pairs,
            self.new_calls,
            self.first_calls,
            self.decode_spread,
        )

    def add_chunk(self, start: int, tokens: int) -> None:
        """Add ``tokens`` computed after ``start`` resident ones."""
        self.prefill_sessions += 1
        self.prefill_tokens += tokens
        self.prefill_context += start + tokens
        self.prefill_pairs += tokens * start + tokens * (tokens + 1) // 2
