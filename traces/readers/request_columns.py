"""Sessions of one call column by column: for tables whose rows are requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from traces.session import Call, Session


@dataclass(frozen=True, slots=True)
class Requests:
    """Sessions of one call each, column by column; all columns are equally long.

    Attributes:
        ids: unique in the trace.
        arrivals: seconds since the trace's start.
        prompts: tokens.
        outputs: tokens, at least 1.
        kinds: the sessions' kinds, free text.
    """

    ids: list[str]
    arrivals: list[float]
    prompts: list[int]
    outputs: list[int]
    kinds: list[str]

    @property
    def columns(self) -> tuple[list[Any], ...]:
        """Ids, arrivals, prompts, outputs and kinds."""
        return self.ids, self.arrivals, self.prompts, self.outputs, self.kinds

    def sessions(self) -> Iterator[Session]:
        """These sessions, one object each."""
        for id, arrival, prompt, output, kind in zip(
            self.ids, self.arrivals, self.prompts, self.outputs, self.kinds, strict=True
        ):
            yield Session(id, arrival, prompt, (Call(output),), kind)
