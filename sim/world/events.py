"""What can happen to an engine from outside, and in which order the events of one instant are applied.

Events of one instant are applied by ``EventKind``, those of one kind by the number of their session; then the next
iteration is planned. An event during an iteration is applied at its end, with the time at which it happened.
"""

from __future__ import annotations

from enum import IntEnum
from operator import itemgetter
from typing import Any


class EventKind(IntEnum):
    """A kind of event. Smaller comes first.

    Attributes:
        what: what happened.
        reason: why it comes before the next kind.
    """

    what: str
    reason: str

    def __new__(cls, priority: int, what: str, reason: str) -> EventKind:
        kind = int.__new__(cls, priority)
        kind._value_ = priority
        kind.what, kind.reason = what, reason
        return kind

    COPY_COMPLETED = (
        0,
        "a copy between GPU and host, or from another replica, has ended",
        "Its blocks change hands: every later event finds them free, or filled.",
    )
    SESSION_LEAVING = (
        1,
        "a paused session goes on at another replica",
        "Its memory is given up, or pinned for the network, before sessions that stay ask for memory.",
    )
    CONTEXT_RELEASED = (
        2,
        "another replica has read the context of a session that left",
        "Its memory is free before sessions queue. It comes after the leaving, which may be of the same instant.",
    )
    TOOL_RETURNED = (
        3,
        "a pause is over: the tool, the service or the person has answered",
        "Sessions that are here already queue before those that come.",
    )
    SESSION_MOVED_IN = (
        4,
        "a session that paused on another replica goes on here",
        "It has been served before, so it queues before new requests.",
    )
    REQUEST_ARRIVED = (
        5,
        "a session makes its first request",
        "It comes last: nothing waits for it, and it has waited for nothing yet.",
    )


PendingEvent = tuple[float, EventKind, int, Any]
"""When it happened, what, the number by which events of one kind and instant are ordered, and what it is about."""

in_order = itemgetter(0, 1, 2)
"""Sort key of pending events."""


def event_table() -> str:
    """All kinds in their order, as a table in Markdown."""
    rows = [f"| {kind.value} | `{kind.name}` | {kind.what} | {kind.reason} |" for kind in EventKind]
    return "\n".join(["| | event | what happened | why it comes here |", "| --- | --- | --- | --- |", *rows])
