"""How far a replica went beyond what its profile was measured over: there, costs are extrapolated."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sim.costs.batch import Batch
from sim.costs.profile import Profile

SUMS = ("decodes", "decode_context", "chunk_tokens", "chunk_context")
"""Of a batch: decoding sessions and the tokens of their contexts; tokens of chunks and those of their contexts."""
CONTEXT = "context"
"""Tokens of one context in which a call generates."""
SLACK = 0.01
"""What is larger by this share is not worth a word: sweeps end just below the size of a pool."""


class MeasuredRange:
    """Watches the batches and the calls of one replica.

    Args:
        measured: the largest of everything that was measured, as in ``sim.costs.profile.Measurement.range``; what it
        does not
            name is not watched.
    """

    def __init__(self, measured: Mapping[str, int]) -> None:
        names = (*SUMS, CONTEXT)
        self._measured = {name: measured[name] for name in names if name in measured}
        most = {name: (1 + SLACK) * value for name, value in self._measured.items()}
        self._most = tuple(most.get(name, math.inf) for name in SUMS)
        self._longest = most.get(CONTEXT, math.inf)
        self._reached = dict.fromkeys(names, 0)
        self._seconds = 0.0
        self._calls = 0

    def took(self, batch: Batch, begin: float, ends: Sequence[float]) -> None:
        """Passes of ``batch``, each over contexts longer by what the one before it computed, ran from ``begin`` and
        ended at ``ends``, s."""
        later = len(ends) - 1
        decodes, chunks = batch.decode_sessions, batch.prefill_tokens
        decode_context, chunk_context = batch.decode_context + later * decodes, batch.prefill_context + later * chunks
        most = self._most
        if decodes > most[0] or decode_context > most[1] or chunks > most[2] or chunk_context > most[3]:
            self._exceeded((decodes, decode_context, chunks, chunk_context), (0, decodes, 0, chunks), begin, ends)

    def _exceeded(self, last: Sequence[int], steps: Sequence[int], begin: float, ends: Sequence[float]) -> None:
        """The last pass had the sums ``last``, each before it smaller ones by ``steps``."""
        passes, beyond = len(ends), 0
        for name, reached, step, most in zip(SUMS, last, steps, self._most, strict=True):
            if reached > most:
                self._reached[name] = max(self._reached[name], reached)
                beyond = max(beyond, min(passes, math.ceil((reached - most) / step)) if step else passes)
        self._seconds += ends[-1] - (begin if beyond == passes else ends[passes - beyond - 1])

    def called(self, context: int) -> None:
        """A call has generated, and its context holds ``context`` tokens now."""
        if context > self._longest:
            self._calls += 1
            self._reached[CONTEXT] = max(self._reached[CONTEXT], context)

    def beyond(self) -> dict[str, Any]:
        """Of what went beyond, how much was ``measured`` and ``reached``; ``forward_s``, seconds that larger batches
        took, and ``calls``, how many generated in longer contexts. Empty where nothing did."""
        reached = {name: value for name, value in self._reached.items() if value}
        if not reached:
            return {}
        measured = {name: self._measured[name] for name in reached}
        return {"measured": measured, "reached": reached, "forward_s": self._seconds, "calls": self._calls}


def measured_range_of(profile: Profile) -> MeasuredRange | None:
    """Watches for what ``profile`` was measured over; None where it says nothing of that."""
    return MeasuredRange(profile.measured.range) if profile.measured is not None and profile.measured.range else None
