"""Sessions from turns that each state their whole prompt: what a pause returned, and what a rewrite kept."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from traces.session import Call, Pause


class Turn(NamedTuple):
    """One request of a session.

    Attributes:
        prompt: tokens of the whole prompt.
        output: tokens generated.
        pause: seconds from the end of the turn before.
        shared: leading tokens that this prompt has in common with the one before; None when it is not known.
        waits_for: what the pause before this turn waited for.
        tool: the tool's name, where it is known.
    """

    prompt: int
    output: int
    pause: float = 0.0
    shared: int | None = None
    waits_for: str = "tool"
    tool: str = ""


def calls_of(turns: Sequence[Turn], block: int = 1) -> tuple[Call, ...]:
    """The calls of a session whose turns state their whole prompts.

    A prompt that is no shorter than the context before it continues that context, if all whole blocks of the prompt
    before are shared or nothing is known about sharing. Any other was rewritten: it keeps what is shared, and all else
    is returned anew; at least one token is, for there must be a token to go on from.

    Args:
        turns: at least one; the pause of the first is not used.
        block: tokens to which ``shared`` is rounded down in the trace.
    """
    calls = []
    for turn, following in itertools.pairwise(turns):
        context = turn.prompt + turn.output
        known = following.shared
        continued = known is None or known >= turn.prompt // block * block
        if following.prompt >= context and continued:
            keeps, returned = None, following.prompt - context
        else:
            keeps = min(known or 0, following.prompt - 1, context)
            returned = following.prompt - keeps
        pause = Pause(following.pause, returned, following.waits_for, following.tool, keeps)
        calls.append(Call(turn.output, pause))
    return (*calls, Call(turns[-1].output))


def shared_tokens(before: Sequence[int], after: Sequence[int], block: int) -> int:
    """Tokens in the leading blocks that two prompts have in common, by their block hashes."""
    length = min(len(before), len(after))
    if before[:length] == after[:length]:
        return length * block
    return next(index for index in range(length) if before[index] != after[index]) * block


def block_size_of(tokens: int, hashes: int, default: int) -> int:
    """Tokens a block when ``tokens`` have this many block hashes: the power of two that fits, else ``default``.

    Each hash stands for one block and the last block may be short: tokens / hashes <= size < tokens / (hashes - 1).
    """
    if hashes < 2 or -(-tokens // default) == hashes:
        return default
    size = 1
    while size * hashes < tokens:
        size *= 2
    return size if size * (hashes - 1) < tokens else default
