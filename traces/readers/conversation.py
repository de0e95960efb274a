"""Sessions from the messages of a conversation: every answer is a call, and what comes between is a pause."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from traces.session import Call, Pause, Session, SharedPrefix


class Message(NamedTuple):
    """One message.

    Attributes:
        role: ``answer`` for the model's messages; of all others the speaker, such as ``user``, ``tool`` or ``system``.
        tokens: of its text.
        at: when it was complete, in seconds; None when that is not known.
        tool: the tool that it calls (an answer) or comes from.
    """

    role: str
    tokens: int
    at: float | None = None
    tool: str = ""


def session_of(
    id: str, messages: Iterable[Message], arrival: float = 0.0, prefix: SharedPrefix | None = None
) -> Session | None:
    """The session of a conversation; None when there is nothing to generate, or nothing to answer.

    Answers that follow each other are one call, and an answer without tokens is none. The first prompt is everything
    before the first answer, so that a conversation which begins with an answer takes that as part of its prompt. A
    pause lasts from one answer to the last message before the next, and 0 s where times are missing.
    """
    prompt = 0
    outputs: list[int] = []
    pauses: list[Pause] = []
    heard: list[Message] = []
    answered: Message | None = None
    for message in messages:
        if message.role != "answer" or (prompt == 0 and not heard):
            heard.append(message)
        elif message.tokens == 0:
            continue
        elif not outputs:
            prompt = sum(one.tokens for one in heard)
            if prompt == 0:
                return None
            outputs, heard, answered = [message.tokens], [], message
        elif not heard:
            outputs[-1] += message.tokens
            answered = message
        else:
            pauses.append(_pause(answered, heard))
            outputs.append(message.tokens)
            heard, answered = [], message
    if not outputs:
        return None
    calls = (*(Call(output, pause) for output, pause in zip(outputs, pauses, strict=False)), Call(outputs[-1]))
    return Session(id, arrival, prompt, calls, prefix=prefix)


def _pause(answered: Message | None, heard: list[Message]) -> Pause:
    begin, end = answered.at if answered else None, heard[-1].at
    seconds = 0.0 if begin is None or end is None else max(end - begin, 0.0)
    tools = [message for message in heard if message.role == "tool"]
    waits_for = "user" if any(message.role == "user" for message in heard) or not tools else "tool"
    tool = (tools[0].tool or (answered.tool if answered else "")) if tools else ""
    return Pause(seconds, sum(message.tokens for message in heard), waits_for, tool)
