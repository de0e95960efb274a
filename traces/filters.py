"""Conditions on sessions, as commands take them: ``kind=qa``, ``prompt<4096``, ``calls>=2``, ``tool=Bash*``."""

from __future__ import annotations

import difflib
import fnmatch
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping

from traces.session import Session

Condition = Callable[[Session], bool]

NUMBERS: Mapping[str, Callable[[Session], float]] = {
    "arrival": lambda session: session.arrival,
    "prompt": lambda session: session.prompt,
    "calls": lambda session: len(session.calls),
    "pauses": lambda session: len(session.pauses),
    "output": lambda session: session.output_tokens,
    "returned": lambda session: sum(pause.returned for pause in session.pauses),
    "context": lambda session: session.max_context,
    "pause": lambda session: session.pause_seconds,
    "longest_pause": lambda session: max((pause.duration for pause in session.pauses), default=0.0),
    "samples": lambda session: session.samples,
}
"""Fields with a number: seconds, tokens over the whole session, or counts."""

WORDS: Mapping[str, Callable[[Session], Iterable[str]]] = {
    "id": lambda session: (session.id,),
    "kind": lambda session: (session.kind,),
    "waits_for": lambda session: (pause.waits_for for pause in session.pauses),
    "tool": lambda session: (pause.tool for pause in session.pauses),
    "prefix": lambda session: (session.prefix.name,) if session.prefix is not None else (),
}
"""Fields with words; ``*`` and ``?`` stand for any. Of several words (the tools of a session) one must match."""

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
_EXPRESSION = re.compile(r"\s*([A-Za-z_]+)\s*(<=|>=|!=|==|<|>|=)\s*(.*?)\s*")
_EXAMPLE = "write FIELD, a comparison and a value, such as kind=qa or 'prompt<4096'"


def condition(text: str) -> Condition:
    """The condition that an expression states.

    Raises:
        ValueError: no such field or comparison, or a value of the wrong sort; the message says what to write.
    """
    match = _EXPRESSION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no condition; {_EXAMPLE}")
    name, sign, value = match[1], match[2].replace("==", "="), match[3]
    if name in NUMBERS:
        return _number(text, name, sign, value)
    if name in WORDS:
        return _word(text, name, sign, value)
    known = [*NUMBERS, *WORDS]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
    raise ValueError(f"{text!r}: no field {name!r}; {hint}")


def all_of(texts: Iterable[str]) -> Condition:
    """The condition that every one of these expressions holds; raises ValueError as `condition` does."""
    conditions = [condition(text) for text in texts]
    return lambda session: all(holds(session) for holds in conditions)


def _number(text: str, name: str, sign: str, value: str) -> Condition:
    try:
        limit = float(value.replace("_", ""))
    except ValueError:
        limit = math.nan
    if math.isnan(limit):
        raise ValueError(f"{text!r}: {name} is a number, and {value!r} is not; write, for example, {name}{sign}100")
    field, compare = NUMBERS[name], _COMPARISONS[sign]
    return lambda session: compare(field(session), limit)


def _word(text: str, name: str, sign: str, value: str) -> Condition:
    if sign not in ("=", "!="):
        raise ValueError(f"{text!r}: {name} is a word; it can be compared with = and != only")
    field, pattern = WORDS[name], re.compile(fnmatch.translate(value))
    wanted = sign == "="
    return lambda session: any(pattern.match(word) for word in field(session)) == wanted
