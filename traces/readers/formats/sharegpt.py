"""ShareGPT's JSON: ``[{"id", "conversations": [{"from": "human" or "gpt", "value"}]}]``, text only.

Lengths are counted with the tokenizer that the caller names. There are no times: arrivals and pauses are 0 s.
Conversations without an answer are left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from traces.readers.conversation import Message, session_of
from traces.readers.reading import Reading
from traces.readers.records import Record
from traces.readers.trace_format import Format
from traces.readers.values import objects
from traces.session import Session

ANSWERS = frozenset({"gpt", "chatgpt", "bing", "bard", "assistant", "model"})
TOOLS = frozenset({"tool", "function", "observation", "function_response"})


def read(reading: Reading) -> Iterator[Session]:
    """The sessions in the order of the file, all with arrival 0."""
    return reading.each(objects(reading), lambda record: _session(record, reading))


def _session(record: Record, reading: Reading) -> Session | None:
    id = record.identity("id", f"sharegpt-{record.line}")
    messages = record.records("conversations" if record.has("conversations") else "items")
    session = session_of(id, [_message(message, reading) for message in messages])
    if session is None:
        reading.left_out["conversations without an answer"] += 1
    return session


def _message(message: Record, reading: Reading) -> Message:
    values = message.values
    speaker = message.text("role" if values.get("from") is None else "from").lower()
    text = message.text("content" if values.get("value") is None else "value", "")
    role = "answer" if speaker in ANSWERS else "tool" if speaker in TOOLS else "user"
    return Message(role, reading.tokens(text))


FORMAT = Format(
    "sharegpt",
    "ShareGPT conversations (JSON)",
    recognises=lambda head: head.has("conversations"),
    read=read,
    lacks=frozenset({"arrivals", "pauses"}),
)
