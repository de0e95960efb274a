"""Traces out of traces: a part of one, one scaled, several in one. All but merging take sessions one by one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from traces.session import Call, Pause, PromptPart, Session


@dataclass(frozen=True, slots=True)
class Scale:
    """The factor for each quantity of a trace. Lengths are rounded, and stay at least what they must be.

    Attributes:
        rate: of arrivals: 2 halves every arrival time.
        pauses: durations, those of tools within a pause included.
        prompt: tokens of the first prompt; what streams in, named prefixes and kept blocks shrink or grow with it.
        output: tokens of every call.
        returned: tokens that pauses return.
    """

    rate: float = 1.0
    pauses: float = 1.0
    prompt: float = 1.0
    output: float = 1.0
    returned: float = 1.0

    def __post_init__(self) -> None:
        for name in ("rate", "prompt", "output"):
            _require(math.isfinite(getattr(self, name)) and getattr(self, name) > 0, name, getattr(self, name), "> 0")
        for name in ("pauses", "returned"):
            _require(math.isfinite(getattr(self, name)) and getattr(self, name) >= 0, name, getattr(self, name), ">= 0")


def scaled(sessions: Iterable[Session], by: Scale) -> Iterator[Session]:
    """The sessions with every quantity scaled.

    A prompt that is scaled loses its block hashes, for the blocks would no longer be those that were hashed. What
    survives a rewritten context keeps its part of the context.
    """
    for session in sessions:
        yield _scaled_session(session, by)


def sampled(sessions: Iterable[Session], share: float, seed: int) -> Iterator[Session]:
    """Each session with probability ``share`` (0 to 1), in their order."""
    _require(0 <= share <= 1, "share", share, "0 to 1")
    rng = np.random.default_rng(seed)
    return (session for session in sessions if rng.random() < share)


def some(sessions: Iterable[Session], count: int, seed: int) -> list[Session]:
    """``count`` sessions drawn without replacement, in their order; all of them when there are no more.

    Only these are held in memory (reservoir sampling).
    """
    _require(count >= 1, "count", count, ">= 1")
    rng = np.random.default_rng(seed)
    kept: list[tuple[int, Session]] = []
    for index, session in enumerate(sessions):
        if index < count:
            kept.append((index, session))
        elif (place := int(rng.integers(index + 1))) < count:
            kept[place] = (index, session)
    return [session for _, session in sorted(kept, key=lambda pair: pair[0])]


def merged(traces: Mapping[str, Iterable[Session]]) -> list[Session]:
    """Several traces as one, by arrival; at one instant in the order of the traces.

    An id that an earlier trace has already gets its trace's name before it (``b/12``), and pauses that wait for that
    session follow.
    """
    taken: set[str] = set()
    everything: list[Session] = []
    for name, trace in traces.items():
        sessions = list(trace)
        names = _new_names(name, sessions, taken)
        taken.update(names.values())
        everything += [_renamed(session, names) for session in sessions]
    return sorted(everything, key=lambda session: session.arrival)


def _new_names(name: str, sessions: Sequence[Session], taken: set[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    own = {session.id for session in sessions}
    for session in sessions:
        new, number = session.id, 0
        while new in taken or (new != session.id and new in own):
            number += 1
            new = f"{name}/{session.id}" if number == 1 else f"{name}/{session.id}~{number}"
        names[session.id] = new
    return names


def _renamed(session: Session, names: Mapping[str, str]) -> Session:
    calls = tuple(
        replace(call, pause=replace(call.pause, session=names.get(call.pause.session, call.pause.session)))
        if call.pause is not None and call.pause.session
        else call
        for call in session.calls
    )
    return replace(session, id=names[session.id], calls=calls)


def _scaled_session(session: Session, by: Scale) -> Session:
    prompt = max(round(session.prompt * by.prompt), 1)
    calls = _scaled_calls(session, prompt, by)
    session = replace(session, arrival=session.arrival / by.rate, calls=calls)
    return session if prompt == session.prompt else _with_prompt(session, prompt)


def _with_prompt(session: Session, prompt: int) -> Session:
    prefix, factor = session.prefix, prompt / session.prompt
    return replace(
        session,
        prompt=prompt,
        prefix=prefix and replace(prefix, tokens=min(round(prefix.tokens * factor), prompt)),
        stream=_scaled_stream(session, prompt),
        block_hashes=(),
        hash_block=0,
    )


def _scaled_stream(session: Session, prompt: int) -> tuple[PromptPart, ...]:
    """The parts in which a prompt streams in, each at its share of the new prompt."""
    edges = np.rint(np.cumsum([part.tokens for part in session.stream]) / session.prompt * prompt).astype(int)
    tokens = np.diff(edges, prepend=0).tolist()
    return tuple(replace(part, tokens=count) for part, count in zip(session.stream, tokens, strict=True))


def _scaled_calls(session: Session, prompt: int, by: Scale) -> tuple[Call, ...]:
    before, after = session.prompt, prompt
    calls = []
    for call in session.calls:
        output = max(round(call.output * by.output), 1)
        before, after = before + call.output, after + output
        pause = call.pause
        if pause is not None:
            kept = None if pause.keeps is None else min(round(pause.keeps / before * after), after)
            scaled_pause = _scaled_pause(pause, kept, by)
            before = (before if pause.keeps is None else min(before, pause.keeps)) + pause.returned
            after = (after if kept is None else kept) + scaled_pause.returned
            pause = scaled_pause
        calls.append(Call(output, pause))
    return tuple(calls)


def _scaled_pause(pause: Pause, keeps: int | None, by: Scale) -> Pause:
    least = 1 if keeps is not None else 0
    return replace(
        pause,
        duration=pause.duration * by.pauses,
        returned=max(round(pause.returned * by.returned), least),
        keeps=keeps,
        tools=tuple(
            replace(run, duration=run.duration * by.pauses, returned=round(run.returned * by.returned))
            for run in pause.tools
        ),
    )


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}; it must be {rule}")
