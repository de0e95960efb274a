"""Compare the tokens of a real run with those of each session served alone. Where they part: was the choice close?

Greedy sampling and the same weights promise it up to rounding: other batches, other chunks and other kernels add the
same numbers in another order. In float64 nothing shows; in bfloat16 a choice between two near equals may fall the
other way, and all tokens after it are then others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch

from profiler.backend.backend import make_backend
from profiler.backend.executor import BatchExecutor, ChunkWork
from profiler.backend.model import Llama
from profiler.serving.prompts import common_beginning
from sim.session import SessionState, Status
from traces.session import Session


def sample(sessions: Sequence[Session], count: int) -> list[Session]:
    """Up to ``count`` sessions, spread evenly over the first half of the arrivals, whose runs are likely to finish.
    Sessions that rewrite their context are left out: where their tokens stood, others stand at the end."""
    early = sorted(sessions, key=lambda session: session.arrival)[: math.ceil(len(sessions) / 2)]
    fit = [session for session in early if all(pause.keeps is None for pause in session.pauses)]
    count = min(count, len(fit))
    return [fit[index * len(fit) // count] for index in range(count)]


class TokenKeeper:
    """Keeps the tokens of chosen sessions as they leave a server. The device copies a row in passing; nothing waits.

    Args:
        executor: where the sessions run.
        chosen: the sessions to keep the tokens of.
    """

    def __init__(self, executor: BatchExecutor, chosen: Sequence[Session]) -> None:
        self._executor = executor
        self._places = {session.id: place for place, session in enumerate(chosen)}
        store = executor.store.ids
        self._ids = torch.zeros((len(chosen), store.shape[1]), dtype=store.dtype, device=store.device)
        self._lengths: dict[str, int] = {}

    def leaving(self, state: SessionState) -> None:
        """Keep the tokens of a session that leaves finished; for ``Server.on_leave``."""
        key = state.session.id
        place = self._places.get(key)
        if place is None or state.status is not Status.FINISHED:
            return
        row = self._executor.tables.rows[key]
        self._ids[place].copy_(self._executor.store.ids[row])
        self._lengths[key] = int(self._executor.context[row])

    def tokens(self) -> dict[str, list[int]]:
        """All token ids of the chosen sessions that have left, by session. Waits for the device."""
        ids = self._ids.cpu()
        return {key: ids[self._places[key], :length].tolist() for key, length in self._lengths.items()}


@dataclass(frozen=True)
class Uninterrupted:
    """A session that was served alone.

    Attributes:
        tokens: its context's ids.
        margins: by position, the lead of the chosen token's logit over the second.
        generated: positions of the tokens that were generated.
    """

    tokens: list[int]
    margins: list[float]
    generated: list[int]


class Alone:
    """Serves each session alone, without pauses and without evictions. No rule of the engine has a part.

    Args:
        model: the decoder.
        longest: tokens of the longest context.
    """

    def __init__(self, model: Llama, longest: int, block_size: int) -> None:
        self._backend = make_backend(
            model, -(-longest // block_size) + 1, 0, block_size,
            max_sessions=1, max_context=longest, max_decodes=1, max_chunk_tokens=longest, margins=True,
        )  # fmt: skip
        self._backend.executor.capture()
        self._served: dict[Session, Uninterrupted] = {}

    def serve(self, session: Session) -> Uninterrupted:
        """Serve the session, or return what serving it before gave, whatever its arrival."""
        same = replace(session, arrival=0.0)
        if same not in self._served:
            self._served[same] = self._serve(session)
        return self._served[same]

    def _serve(self, session: Session) -> Uninterrupted:
        executor, key = self._backend.executor, session.id
        executor.open(key, session.prompt, begins_with=common_beginning(session))
        context, computed = session.prompt, 0
        generated: list[int] = []
        for index, call in enumerate(session.calls):
            executor.run((), [ChunkWork(key, computed, context - computed)]).wait()
            for _ in range(call.output - 1):
                executor.run([key]).wait()
            generated += range(context, context + call.output)
            context += call.output
            computed = context - 1
            if call.pause is not None and index + 1 < len(session.calls):
                executor.extend(key, call.pause.returned)
                context += call.pause.returned
        found = Uninterrupted(executor.tokens(key), executor.margins(key), generated)
        executor.close(key)
        return found


def match_tokens(kept: dict[str, list[int]], chosen: Sequence[Session], alone: Alone) -> dict[str, Any]:
    """Count the kept sessions that have the tokens that they have alone, and find how close the choices were at first
    differences.

    Args:
        kept: token ids by session, as a ``TokenKeeper`` gives them.
        chosen: the sessions that were to be kept; those that are not in ``kept`` had not finished.
    """
    equal, parted, elsewhere = 0, [], []
    for session in chosen:
        if session.id not in kept:
            continue
        reference = alone.serve(session)
        tokens = kept[session.id]
        first = next((n for n in reference.generated if tokens[n] != reference.tokens[n]), None)
        equal += tokens == reference.tokens
        if first is not None:
            parted.append(reference.margins[first])
        elsewhere += [reference.margins[n] for n in reference.generated if n != first]
    return {
        "sessions": sum(session.id in kept for session in chosen),
        "equal": equal,
        "first_difference_margins": sorted(parted),
        "first_difference_margin_median": median(parted) if parted else None,
        "margins_elsewhere_median": median(elsewhere) if elsewhere else None,
    }
