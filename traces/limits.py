"""Sessions too long for a model: cut or rejected, and counted.

Cutting ends a session at the last of its tokens that fits, as a server does that reaches the model's limit:

- a call that would outgrow the limit generates only what fits, and the session ends with it;
- after a call whose pause would leave no room for the answer and one more token, the session ends without that pause
  (a pause after which nothing follows anyway stays);
- a first prompt that leaves no room for one token is cut to the limit less one, to generate that one; the leading
  prompt tokens stay, so that shared prefixes and block hashes keep their meaning.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from traces.session import Call, PromptPart, Session

TooLong = Literal["cut", "reject"]


@dataclass(frozen=True, slots=True)
class Limited:
    """Sessions that fit a limit, in their order, and how many were changed or left out to get there."""

    sessions: tuple[Session, ...]
    cut: int
    rejected: int


def fit_to_limit(sessions: Iterable[Session], max_context: int, too_long: TooLong = "cut") -> Limited:
    """Make every session fit a model's longest context.

    Args:
        sessions: the workload.
        max_context: tokens, prompt and output and all that tools returned; at least 2.
        too_long: what becomes of a session that has more at any time.

    Raises:
        ValueError: a limit below 2 tokens, or another word for ``too_long``.
    """
    if max_context < 2:
        raise ValueError(f"max_context is {max_context!r}; it must be at least 2: one prompt token and one of output")
    if too_long not in ("cut", "reject"):
        raise ValueError(f"too_long is {too_long!r}; it must be 'cut' or 'reject'")
    fitting: list[Session] = []
    count = 0
    for session in sessions:
        if session.max_context <= max_context:
            fitting.append(session)
            continue
        count += 1
        if too_long == "cut":
            fitting.append(cut(session, max_context))
    return Limited(tuple(fitting), cut=count * (too_long == "cut"), rejected=count * (too_long == "reject"))


def cut(session: Session, max_context: int) -> Session:
    """The session up to its last token that fits ``max_context`` (at least 2); itself when it fits.

    Where there is no room for inferences from a prompt that streams in, none are made.
    """
    if session.stream and session.max_context > max_context:
        session = replace(session, stream=tuple(replace(part, output=0) for part in session.stream))
    if session.prompt > max_context - 1:
        return replace(_with_prompt(session, max_context - 1), calls=(Call(1),))
    context = session.prompt
    calls: list[Call] = []
    for index, call in enumerate(session.calls):
        room = max_context - context
        if call.output > room:
            calls.append(Call(room))
            break
        context += call.output
        if call.pause is None or index + 1 == len(session.calls):
            calls.append(call)
            break
        if call.pause.keeps is not None:
            context = min(context, call.pause.keeps)
        context += call.pause.returned
        if context + 1 > max_context:
            calls.append(Call(call.output))
            break
        calls.append(call)
    return replace(session, calls=tuple(calls))


def _with_prompt(session: Session, prompt: int) -> Session:
    """The session with only its first ``prompt`` prompt tokens, and all that describes them cut alike."""
    prefix = session.prefix
    if prefix is not None:
        prefix = replace(prefix, tokens=min(prefix.tokens, prompt))
    whole_blocks = prompt // session.hash_block if session.hash_block else 0
    return replace(
        session,
        prompt=prompt,
        stream=_stream_without(session.stream, session.prompt - prompt),
        prefix=prefix,
        block_hashes=session.block_hashes[:whole_blocks],
    )


def _stream_without(stream: tuple[PromptPart, ...], tokens: int) -> tuple[PromptPart, ...]:
    """The parts that remain when the last ``tokens`` of a prompt are dropped."""
    kept: list[PromptPart] = []
    for part in reversed(stream):
        dropped = min(part.tokens, tokens)
        tokens -= dropped
        if part.tokens > dropped:
            kept.append(replace(part, tokens=part.tokens - dropped))
    return tuple(reversed(kept))
