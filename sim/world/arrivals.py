"""When sessions arrive, and prompts that stream in as calls and pauses: what an engine needs no further rule for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Literal

from traces.session import Call, Pause, Session

if TYPE_CHECKING:
    from sim.world.clock import Clock  # the wall-clock server needs no SimPy


def as_calls(session: Session, streamed: Literal["whole", "parts"]) -> Session:
    """The session as an engine serves it: itself where its prompt is there at once.

    ``whole`` waits: the session arrives when its prompt is complete. ``parts`` works ahead, as LiveMind does
    (arXiv 2406.14319): it arrives when the first text is there from which an inference is made; each inference is a
    call and is followed by a pause that ends when the next such text comes, or at once if that came meanwhile; the
    answer is what is generated from all of these together. The context only grows, prompt and inferences in the order
    in which they came, so that a policy that keeps it reuses its KV, and one that discards it in each pause prefills
    every call's prompt anew.
    """
    if not session.stream:
        return session
    last, answer = session.stream[-1], session.calls[0]
    texts = _texts(session) if streamed == "parts" else []
    if not texts:
        return replace(session, arrival=session.arrival + last.at, stream=())
    prompt, begin, _ = texts[0]
    rest = session.prompt - sum(tokens for tokens, _, _ in texts)
    following = [*texts[1:], (rest, last.at, 0)]
    inferences = [
        Call(output, Pause(0.0, tokens, "input", not_before=at - begin))
        for (_, _, output), (tokens, at, _) in zip(texts, following, strict=True)
    ]
    prefix = session.prefix
    return replace(
        session,
        arrival=session.arrival + begin,
        prompt=prompt,
        calls=(*inferences, replace(answer, output=last.output or answer.output), *session.calls[1:]),
        stream=(),
        prefix=prefix and replace(prefix, tokens=min(prefix.tokens, prompt)),
        block_hashes=session.block_hashes[: prompt // session.hash_block] if session.hash_block else (),
    )


def by_arrival(sessions: Iterable[Session], streamed: Literal["whole", "parts"] = "whole") -> Iterator[Session]:
    """The sessions as an engine serves them, as they reach it; an iterator must give them by arrival.

    A session whose prompt streams in reaches the engine when as much of it is there as the engine waits for.
    """
    if isinstance(sessions, Sequence):
        yield from sorted((as_calls(session, streamed) for session in sessions), key=lambda session: session.arrival)
        return
    last = 0.0
    typed: list[tuple[float, int, Session]] = []  # drawn, but not there yet
    for number, session in enumerate(sessions):
        if session.arrival < last:
            raise ValueError(f"session {session.id} arrives at {session.arrival} s, after one that came at {last} s")
        last = session.arrival
        served = as_calls(session, streamed)
        heappush(typed, (served.arrival, number, served))
        while typed and typed[0][0] <= last:
            yield heappop(typed)[-1]
    while typed:
        yield heappop(typed)[-1]


class Arrivals:
    """Lets sessions arrive at their times, each drawn when the one before it has come.

    Args:
        clock: the SimPy environment.
        arrive: told of each session and its number.
        sessions: numbers and sessions, by arrival.

    Attributes:
        count: sessions that have arrived.
        over: whether all have arrived.
    """

    def __init__(
        self, clock: Clock, arrive: Callable[[Session, int], None], sessions: Iterator[tuple[int, Session]]
    ) -> None:
        self._clock, self._tell, self._sessions = clock, arrive, sessions
        self.count = 0
        self._next = next(sessions, None)
        self._await_next()

    def _await_next(self) -> None:
        self.over = self._next is None
        if self._next is not None:
            self._clock.first_at(self._next[1].arrival, self._arrive)

    def _arrive(self, _: object) -> None:
        """All that come at this instant come in one event, so that nothing else of the instant parts them."""
        now = self._clock.now
        while self._next is not None and self._next[1].arrival == now:
            number, session = self._next
            self._tell(session, number)
            self.count += 1
            self._next = next(self._sessions, None)
        self._await_next()


def _texts(session: Session) -> list[tuple[int, float, int]]:
    """What an inference is made from before the prompt is complete: its new tokens, when they are all there, and how
    many tokens are generated then."""
    texts = []
    tokens = session.prompt - sum(part.tokens for part in session.stream)
    for part in session.stream[:-1]:
        tokens += part.tokens
        if part.output and tokens:
            texts.append((tokens, part.at, part.output))
            tokens = 0
    return texts
