"""Logs of OpenAI-style chats: conversations with their messages, or single requests with their usage.

- ``{"messages": [{"role", "content", "tool_calls"}], "tools": [...]}`` is a session: every ``assistant`` message is a
  call. Lengths are counted with the tokenizer that the caller names, without the few tokens that a chat template adds.
  Messages may have a ``timestamp`` or ``created_at`` (seconds or a date), from which pauses follow. The tool
  definitions and the ``system`` messages before anything else are a named shared prefix: a hash of their text names it.
- An object with ``usage`` {``prompt_tokens``, ``completion_tokens``}, itself or in its ``response`` (or that one's
  ``body``, as batches write it), is a single request, with ``created`` (s) as its time. Nothing is counted.

Arrivals count from the first session of the file that has a time.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime

from traces.readers.conversation import Message, session_of
from traces.readers.reading import Reading
from traces.readers.records import Record, shown
from traces.readers.trace_format import Format, Head
from traces.readers.values import objects
from traces.session import Call, Session, SharedPrefix

TIMES = ("timestamp", "created_at", "created")
TEXTS = ("text", "content", "refusal")


class _Chats:
    """Chats of one log; it knows when the first of them began."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.begin: float | None = None

    def session(self, record: Record) -> Session | None:
        """The session that one object describes; None when nothing was generated."""
        id = next(
            (record.identity(name, "") for name in ("id", "conversation_id", "custom_id") if record.has(name)), ""
        )
        id = id or f"chat-{record.line}"
        response = _response(record)
        session = self._request(id, response) if response is not None else self._conversation(id, record)
        if session is None:
            self.reading.left_out["chats without an answer"] += 1
        return session

    def _request(self, id: str, response: Record) -> Session | None:
        usage = response.record("usage")
        assert usage is not None
        prompt, output = usage.whole("prompt_tokens"), usage.whole("completion_tokens")
        if prompt == 0 or output == 0:
            return None
        return Session(id, self._arrival(_time(response), response), prompt, (Call(output),))

    def _conversation(self, id: str, record: Record) -> Session | None:
        records = record.some_records("messages")
        names: dict[str, str] = {}
        messages = [self._message(message, names) for message in records]
        definitions = json.dumps(record.values["tools"]) if record.has("tools") else ""
        count = self.reading.tokens
        if definitions:
            messages.insert(0, Message("system", count(definitions)))
        leading = [_text(one) for one in records[: _leading(records)]]
        prefix = None
        if definitions or leading:
            name = hashlib.sha256("\0".join([definitions, *leading]).encode("utf-8", "replace")).hexdigest()[:16]
            prefix = SharedPrefix(name, sum(one.tokens for one in messages[: len(leading) + bool(definitions)]))
        first = next((message.at for message in messages if message.at is not None), _time(record))
        return session_of(id, messages, self._arrival(first, record), prefix if prefix and prefix.tokens else None)

    def _message(self, message: Record, names: dict[str, str]) -> Message:
        role = message.text("role")
        text, tool = _text(message), ""
        for call in message.records("tool_calls") if message.has("tool_calls") else []:
            function = call.record("function")
            if function is not None:
                tool = function.text("name", "")
                names[call.identity("id", "")] = tool
                text += f" {tool} {function.values.get('arguments') or ''}"
        if role == "assistant":
            return Message("answer", self.reading.tokens(text), _time(message), tool)
        speaker = "tool" if role in ("tool", "function") else "user" if role == "user" else "system"
        tool = names.get(message.identity("tool_call_id", ""), message.text("name", "")) if speaker == "tool" else ""
        return Message(speaker, self.reading.tokens(text), _time(message), tool)

    def _arrival(self, time: float | None, record: Record) -> float:
        if time is None:
            return 0.0
        if self.begin is None:
            self.begin = time
        if time < self.begin:
            found = f"a time {self.begin - time:g} s before that of the first session"
            raise record.wrong("", found, "a time that is not before it", "sort the log by time, or remove the line")
        return time - self.begin


def read(reading: Reading) -> Iterator[Session]:
    """The sessions in the order of the log."""
    return reading.each(objects(reading), _Chats(reading).session)


def _response(record: Record) -> Record | None:
    """The object that has the ``usage``, if any."""
    found: Record | None = record
    for name in ("response", "body"):
        if found is not None and not found.has("usage") and isinstance(found.values.get(name), dict):
            found = found.record(name)
    return found if found is not None and isinstance(found.values.get("usage"), dict) else None


def _leading(messages: list[Record]) -> int:
    """The number of system messages before all others."""
    roles = [message.values.get("role") for message in messages]
    return next((i for i, role in enumerate(roles) if role not in ("system", "developer")), len(roles))


def _text(message: Record) -> str:
    content = message.values.get("content")
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(_part(part) for part in content)
    raise message.wrong("content", shown(content), "a text, or a list of parts", "correct the value")


def _part(part: object) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict):
        return " ".join(str(part[name]) for name in TEXTS if isinstance(part.get(name), str))
    return ""


def _time(record: Record) -> float | None:
    """Seconds since 1970 or since anything else, in the first of the fields that hold times."""
    for name in TIMES:
        if not record.has(name):
            continue
        value = record.values[name]
        if isinstance(value, str):
            try:
                moment = datetime.fromisoformat(value)
                return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
            except (ValueError, OverflowError):
                value = math.nan
        try:
            seconds = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
        except (TypeError, OverflowError):
            seconds = math.nan
        if not math.isfinite(seconds):
            raise record.wrong(name, shown(record.values[name]), "seconds, or a date with a time", "correct the value")
        return seconds
    return None


def _recognised(head: Head) -> bool:
    return head.has("messages") or head.has("usage") or (head.has("response") and "usage" in head.text)


FORMAT = Format(
    "openai-chat",
    "OpenAI-style chat logs: messages, or requests with their usage",
    recognises=_recognised,
    read=read,
)
