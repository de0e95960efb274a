"""Recorded session files, whose calls state the whole prompt: the InferCept mix and recorded coding-agent sessions.

One JSON object a line, ``{"id", "kind", "calls": [{"prompt", "output", ...}]}``; neither holds arrivals, so sessions
come with arrival 0. Two shapes exist and are told apart by their calls:

- *returned* (InferCept mix): ``returned`` says what each pause appended. A session is the first call's ``prompt`` and
  then outputs, pauses and returned tokens; later prompts only confirm the sum, within `PROMPT_SLACK` tokens a call,
  because the recorded client rebuilt its prompt. A missing ``returned`` is 0. After the last call, where nothing can
  follow any more, the mix has a few negative ones (answers that fell to a context limit): they count as 0.
- *prefix* (coding agents): calls carry ``prefix``, the leading prompt tokens that the recorded service had cached, and
  every prompt is taken at its word. What a pause returned is the next prompt less the context; when that is negative
  the client rewrote its context, which keeps the next call's ``prefix`` and gets the rest of the prompt as returned. At
  least one token of a prompt is always returned in that case, for some token must be computed to go on. Two successive
  calls without ``pause_s`` overlapped in time: they get a pause of 0 s that waits for ``overlap``.
  A prompt of 0 means that it was not recorded. With an output of 0 too, the call failed: it is dropped and its pause
  added to the one before. Otherwise the call is taken to continue the context as it stood.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace

from traces.readers.reading import Reading
from traces.readers.records import Record, shown
from traces.readers.trace_format import Format, Head
from traces.readers.writing import Writing
from traces.session import Call, Pause, Session

PROMPT_SLACK = 8

SESSION = ("id", "kind", "calls")
CALL = ("prompt", "output", "returned", "pause_s", "waits_for", "tool", "prefix")


def read(reading: Reading) -> Iterator[Session]:
    """The sessions of a recorded session file, in the order of its lines, all with arrival 0."""
    return reading.each(reading.records(), session_from)


def write(writing: Writing, sessions: Iterable[Session]) -> None:
    """Write sessions so that they read back alike, less their arrivals.

    Where a context was rewritten the calls carry ``prefix``, else ``returned``.
    """
    for session in sessions:
        writing.require_plain(session)
        writing.lose("arrivals", session.arrival != 0)
        rewritten = any(pause.keeps is not None for pause in session.pauses)
        calls = _calls_with_prefixes(writing, session) if rewritten else _calls_with_returns(session)
        writing.line(json.dumps({"id": session.id, "kind": session.kind, "calls": calls}))


def session_from(record: Record) -> Session:
    """The session that one line describes; raises `TraceError` when it describes none."""
    record.only(SESSION)
    name, kind = record.text("id"), record.text("kind", "")
    calls = record.some_records("calls")
    for call in calls:
        call.only(CALL)
    if any(call.has("prefix") for call in calls):
        prompt, chain = _from_prefixes(record, calls)
    else:
        prompt, chain = _from_returns(calls)
    return Session(name, 0.0, prompt, tuple(chain), kind)


def _from_returns(calls: list[Record]) -> tuple[int, list[Call]]:
    """First prompt and calls of a session whose pauses state what they returned."""
    chain = []
    for record, following in zip(calls, [*calls[1:], None], strict=True):
        prompt, output = record.whole("prompt", least=1), record.whole("output", least=1)
        if following is None:
            chain.append(Call(output, _recorded_pause(record, _trailing_returned(record))))
            continue
        returned = record.whole("returned", 0)
        pause = _recorded_pause(record, returned)
        if pause is None:
            fix = "add it, with 0 where the next call follows at once"
            raise record.wrong("pause_s", "no such field", "a pause: another call follows", fix)
        chain.append(Call(output, pause))
        expected = prompt + output + returned
        if abs(following.whole("prompt", least=1) - expected) > PROMPT_SLACK:
            rule = f"about {expected}: the prompt, output and returned tokens of the call before it"
            raise following.wrong("prompt", shown(following.values["prompt"]), rule, 'correct "returned" or "prompt"')
    return calls[0].whole("prompt", least=1), chain


def _from_prefixes(session: Record, calls: list[Record]) -> tuple[int, list[Call]]:
    """First prompt and calls of a session whose later prompts state what pauses returned."""
    first, context = 0, 0
    chain: list[Call] = []
    for record in calls:
        prompt, output, prefix = record.whole("prompt"), record.whole("output"), record.whole("prefix", 0)
        if prefix > prompt:
            raise record.wrong("prefix", str(prefix), f"at most the prompt, {prompt}", "correct one of the two")
        pause = _recorded_pause(record, 0)
        if prompt == 0 and output == 0:
            _lengthen_last_pause(chain, pause)
            continue
        if output == 0:
            raise record.wrong("output", "0", "a whole number >= 1", "remove the call, or give its output")
        if chain:
            chain[-1] = _followed(chain[-1], context, prompt, prefix)
        elif prompt == 0:
            raise record.wrong("prompt", "0", "a whole number >= 1 in the first call", "remove the call")
        else:
            first = prompt
        context = (prompt or context) + output
        chain.append(Call(output, pause))
    if not chain:
        raise session.wrong("calls", "only calls without prompt and output", "at least one", "remove the line")
    return first, chain


def _followed(call: Call, context: int, prompt: int, prefix: int) -> Call:
    """A call whose pause leads from ``context`` tokens to the next ``prompt``; 0 says that it is not recorded."""
    pause = call.pause if call.pause is not None else Pause(0.0, waits_for="overlap")
    if prompt == 0:
        return replace(call, pause=pause)
    if prompt >= context:
        return replace(call, pause=replace(pause, returned=prompt - context))
    keeps = min(prefix, prompt - 1)
    return replace(call, pause=replace(pause, keeps=keeps, returned=prompt - keeps))


def _lengthen_last_pause(chain: list[Call], pause: Pause | None) -> None:
    """Add the pause after a dropped call to the one before it."""
    if not chain or pause is None:
        return
    before = chain[-1].pause
    joined = pause if before is None else replace(before, duration=before.duration + pause.duration)
    chain[-1] = replace(chain[-1], pause=joined)


def _recorded_pause(record: Record, returned: int) -> Pause | None:
    if not record.has("pause_s"):
        return None
    return Pause(record.seconds("pause_s"), returned, record.text("waits_for", "tool"), record.text("tool", ""))


def _trailing_returned(record: Record) -> int:
    return max(record.whole("returned", 0, least=-PROMPT_SLACK), 0)


def _calls_with_returns(session: Session) -> list[dict[str, object]]:
    calls, context = [], session.prompt
    for call in session.calls:
        written: dict[str, object] = {"prompt": context, "output": call.output}
        context += call.output
        if call.pause is not None:
            context += call.pause.returned
            written |= {"returned": call.pause.returned, **_written_pause(call.pause)}
        calls.append(written)
    return calls


def _calls_with_prefixes(writing: Writing, session: Session) -> list[dict[str, object]]:
    calls: list[dict[str, object]] = []
    context, prefix = session.prompt, 0
    for index, call in enumerate(session.calls):
        written: dict[str, object] = {"prompt": context, "output": call.output, "prefix": prefix}
        calls.append(written)
        pause = call.pause
        if pause is None:
            continue
        written |= _written_pause(pause)
        before = context + call.output
        kept = before if pause.keeps is None else min(before, pause.keeps)
        context, prefix = kept + pause.returned, kept
        followed = index + 1 < len(session.calls)
        writing.lose("returned tokens of last pauses", not followed and pause.returned > 0)
        writing.lose("rewritten contexts that grew", followed and pause.keeps is not None and context >= before)
    return calls


def _written_pause(pause: Pause) -> dict[str, object]:
    return {
        "pause_s": pause.duration,
        "waits_for": pause.waits_for,
        **({"tool": pause.tool} if pause.tool else {}),
    }


def calls_state_prompt(head: Head) -> bool:
    """Whether the calls of the first session state their prompts, as only recorded session files do."""
    calls = head.value.get("calls")
    if not isinstance(calls, list):
        return head.has("prompt")
    return not calls or any(isinstance(call, dict) and "prompt" in call for call in calls)


FORMAT = Format(
    "session-files",
    "recorded session files whose calls state their whole prompt (InferCept mix, coding agents)",
    recognises=lambda head: head.has("calls") and not head.has("arrival") and calls_state_prompt(head),
    read=read,
    lacks=frozenset({"arrivals"}),
    write=write,
)
