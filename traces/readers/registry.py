"""Which trace formats there are: those of Caesura, and those that others install in ``caesura.readers``."""

from __future__ import annotations

import difflib
import functools
import itertools
from importlib.metadata import entry_points

from traces.errors import TraceError
from traces.readers.formats import (
    agentic_mooncake,
    aiperf,
    applied_compute,
    azure,
    burstgpt,
    llmservingsim,
    mooncake,
    openai_chat,
    own,
    session_files,
    sharegpt,
    vidur,
    weka,
)
from traces.readers.source import TraceSource
from traces.readers.trace_format import Format, Head, head_of

GROUP = "caesura.readers"
UNDECODABLE = "\ufffd"
BUILT_IN = (
    own.FORMAT,
    session_files.FORMAT,
    agentic_mooncake.FORMAT,
    mooncake.FORMAT,
    azure.FORMAT,
    burstgpt.FORMAT,
    vidur.FORMAT,
    weka.FORMAT,
    llmservingsim.FORMAT,
    applied_compute.FORMAT,
    aiperf.FORMAT,
    sharegpt.FORMAT,
    openai_chat.FORMAT,
)


class UnknownFormat(ValueError):
    """A format that does not exist, or an entry point that names none."""


@functools.cache
def all_formats() -> dict[str, Format]:
    """Every format by name: first Caesura's own, in the order in which they are tried, then those installed.

    Raises:
        UnknownFormat: an installed entry point of the group ``caesura.readers`` that is no `Format`.
    """
    found = {format.name: format for format in BUILT_IN}
    for entry in entry_points(group=GROUP):
        format = entry.load()
        if not isinstance(format, Format):
            raise UnknownFormat(f"the reader {entry.name!r} is {format!r}, not a traces.readers.Format")
        found[entry.name] = format
    return found


def format_named(name: str) -> Format:
    """The format of this name; raises `UnknownFormat`, which says what there is."""
    known = all_formats()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ";"
        raise UnknownFormat(f"no trace format {name!r}{hint} there are {', '.join(known)}")
    return known[name]


def writable(name: str) -> Format:
    """The format of this name; raises `UnknownFormat` when it does not exist or can only be read."""
    format = format_named(name)
    if format.write is None:
        can = ", ".join(known.name for known in all_formats().values() if known.write is not None)
        raise UnknownFormat(f"the format {name!r} can only be read; {can} can be written")
    return format


def detected(source: TraceSource) -> Format:
    """The first format that recognises the beginning of a trace.

    Raises:
        TraceError: the file cannot be read, is empty, or is of no known format.
    """
    head = head_of(source)
    if not head.text:
        raise TraceError(source.name, "an empty file", "a trace", "name a trace that holds sessions")
    for format in all_formats().values():
        if format.recognises(head):
            return format
    if UNDECODABLE in head.text:
        for number, line in itertools.islice(source.lines(), head.text.count("\n") + 1):
            source.decoded(line, number)
    fix = "name the format, or convert the trace to one of them"
    raise TraceError(source.name, _described(head), f"one of the formats {', '.join(all_formats())}", fix, 1)


def _described(head: Head) -> str:
    """The beginning of a trace that no format recognises."""
    if "\0" in head.text:
        return "no text (it has zero bytes, as UTF-16 and binary files have)"
    if head.columns:
        return f"the columns {', '.join(head.columns[:8])[:200]}"
    if head.value:
        return f"an object with the fields {', '.join(list(head.value)[:8])[:200]}"
    if head.keys:
        whole = "a first object that is cut off or malformed," if head.whole else "an object"
        return f"{whole} with the fields {', '.join(sorted(head.keys)[:8])[:200]}"
    return "no JSON object"
