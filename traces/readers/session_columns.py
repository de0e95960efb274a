"""Sessions of several calls column by column: for tables whose rows are turns, and for writers that need no objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from traces.session import Call, Pause, Session

NumberColumn = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class SessionColumns:
    """Some successive sessions of a trace; a value a session, then a value a call, session after session.

    Attributes:
        ids: unique in the trace.
        arrivals: seconds since the trace's start.
        prompts: tokens of the first prompt.
        kinds: free text.
        begins: where each session's first call stands among all calls.
        outputs: tokens of each call, at least 1.
        durations: seconds of the pause after each call; None after the last call of a session.
        returned: tokens that the pause appends.
        keeps: leading tokens that survive the pause; None keeps all.
        waits_for: what every pause waits for.
    """

    ids: list[str]
    arrivals: list[float]
    prompts: list[int]
    kinds: list[str]
    begins: list[int]
    outputs: list[int]
    durations: list[float | None]
    returned: list[int]
    keeps: list[int | None]
    waits_for: str

    @property
    def ends(self) -> list[int]:
        """For each session, where the calls of the next one begin."""
        return [*self.begins[1:], len(self.outputs)] if self.begins else []

    def sessions(self) -> Iterator[Session]:
        """These sessions, one object each."""
        wait = self.waits_for
        pauses = (
            None if duration is None else Pause(duration, returned, wait, "", keeps)
            for duration, returned, keeps in zip(self.durations, self.returned, self.keeps, strict=True)
        )
        calls = list(map(Call, self.outputs, pauses))
        for id, arrival, prompt, kind, begin, end in zip(
            self.ids, self.arrivals, self.prompts, self.kinds, self.begins, self.ends, strict=True
        ):
            yield Session(id, arrival, prompt, tuple(calls[begin:end]), kind)


@dataclass(frozen=True, slots=True)
class TurnColumns:
    """Requests of sessions, session after session, that each state their whole prompt, as `continuation.Turn` does.

    Attributes:
        begins: the place of each session's first turn.
        prompts: tokens of the whole prompt, at least 1.
        outputs: tokens generated, at least 1.
        pauses: seconds from the end of the turn before; of a session's first turn the value is not used.
    """

    begins: NumberColumn
    prompts: NumberColumn
    outputs: NumberColumn
    pauses: NumberColumn

    def chained(self) -> tuple[list[float | None], list[int], list[int | None]]:
        """The duration, returned and keeps columns of `SessionColumns`, by the rule of `continuation.calls_of` where
        nothing is known about sharing: a prompt no shorter than the context continues it, any other is all new."""
        following = np.append(self.prompts[1:], 0)
        grown = following - self.prompts - self.outputs
        rewritten = grown < 0
        returned = np.where(rewritten, following, grown)
        durations: list[float | None] = np.append(self.pauses[1:], 0.0).tolist()
        for begin in self.begins.tolist():
            durations[begin - 1] = None
        return durations, returned.tolist(), [0 if anew else None for anew in rewritten.tolist()]
