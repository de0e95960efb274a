"""AIPerf's multi-turn JSONL: ``{"session_id", "turns": [{"text" or "texts", "timestamp" or "delay" (ms), "role"}]}``.

Every turn adds its text to the conversation and asks for an answer; lengths are counted with the tokenizer that the
caller names. A turn whose ``role`` is ``assistant`` is the answer to the one before. The format states no other length
of an answer: such calls generate 1 token, unless the turn has an ``output_length``.

Written turns hold as many words as they have tokens, so that counting words gives the lengths again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from traces.readers.reading import Reading
from traces.readers.records import Record
from traces.readers.trace_format import Format, Head
from traces.readers.writing import Writing
from traces.session import Call, Pause, Session

WORD = "a"
SESSION = frozenset(("session_id", "turns"))
MEDIA = ("image", "images", "audio", "audios", "video", "videos")
TURN = frozenset((*MEDIA, "text", "texts", "timestamp", "delay", "role", "model", "output_length"))
NO_LENGTH = "turns state no length of their answers: such calls generate 1 token"


def read(reading: Reading) -> Iterator[Session]:
    """The sessions in the order of the lines."""
    return reading.each(reading.records(SESSION), lambda record: _session(record, reading))


def write(writing: Writing, sessions: Iterable[Session]) -> None:
    """Write the prompts and pauses of sessions; the lengths of answers are lost."""
    for session in sessions:
        writing.require_plain(session)
        if any(pause.keeps is not None for pause in session.pauses):
            raise writing.refuse(session, "a rewritten context", "contexts that only grow: the format says no more")
        writing.lose("outputs", any(call.output > 1 for call in session.calls))
        writing.lose("kinds", bool(session.kind))
        writing.lose("what pauses wait for", any(p.tool or p.waits_for != "tool" for p in session.pauses))
        writing.lose("named prefixes and block hashes", session.prefix is not None or bool(session.block_hashes))
        turns: list[dict[str, object]] = [{"text": _words(session.prompt), "timestamp": session.arrival * 1000}]
        for call in session.calls[:-1]:
            assert call.pause is not None
            turns.append({"text": _words(call.pause.returned), "delay": call.pause.duration * 1000})
        writing.lose("pauses after the last call", session.calls[-1].pause is not None)
        writing.line(json.dumps({"session_id": session.id, "turns": turns}))


def _session(record: Record, reading: Reading) -> Session:
    id = record.identity("session_id", f"aiperf-{record.line}")
    turns = record.some_records("turns")
    for turn in turns:
        reading.note_unused(turn, TURN)
    first = turns[0]
    prompt = _tokens(first, reading)
    if prompt == 0:
        raise first.wrong("text", "no token", "at least one token of prompt", "give the text, or remove the line")
    arrival = first.milliseconds("timestamp", 0.0)
    outputs, pauses, time = [_output(first, reading)], [], arrival
    for turn in turns[1:]:
        if turn.values.get("role") == "assistant":
            outputs[-1] = max(_tokens(turn, reading), 1)
            continue
        before, time = time, turn.milliseconds("timestamp", time)
        seconds = turn.milliseconds("delay") if turn.has("delay") else max(time - before, 0.0)
        waits_for = "tool" if turn.values.get("role") == "tool" else "user"
        pauses.append(Pause(seconds, _tokens(turn, reading), waits_for))
        outputs.append(_output(turn, reading))
    return Session(id, arrival, prompt, tuple(map(Call, outputs, [*pauses, None])))


def _output(turn: Record, reading: Reading) -> int:
    if turn.has("output_length"):
        return turn.whole("output_length", least=1)
    reading.note(NO_LENGTH)
    return 1


def _tokens(turn: Record, reading: Reading) -> int:
    if turn.has("text"):
        return reading.tokens(turn.text("text"))
    texts = turn.values.get("texts")
    if texts is None:
        return 0
    if not isinstance(texts, list):
        raise turn.wrong("texts", "no list", "a list of texts", "put it in square brackets")
    contents = (text.get("contents") if isinstance(text, dict) else text for text in texts)
    flat = (one for content in contents for one in (content if isinstance(content, list) else [content]))
    return sum(reading.tokens(one) for one in flat if isinstance(one, str))


def _words(count: int) -> str:
    return " ".join([WORD] * count)


def _recognised(head: Head) -> bool:
    return head.has("turns")


FORMAT = Format(
    "aiperf",
    "AIPerf multi-turn conversations (JSONL)",
    recognises=_recognised,
    read=read,
    lacks=frozenset({"outputs", "tools"}),
    write=write,
)
