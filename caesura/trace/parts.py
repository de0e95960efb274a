"""What commands on parts of traces have in common: sessions that wait for others, names, and a whole check."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from caesura.errors import UserError
from caesura.trace.files import TraceInput, say
from traces.session import Session


def warned_of_orphans(sessions: Iterable[Session]) -> Iterator[Session]:
    """The sessions; at their end, a warning about those that wait for a session which is not among them."""
    ids: set[str] = set()
    waited_for: set[str] = set()
    for session in sessions:
        ids.add(session.id)
        waited_for.update(pause.session for pause in session.pauses if pause.session)
        yield session
    if missing := waited_for - ids:
        say(f"warning: {len(missing):,} sessions that others wait for were left out, such as {min(missing)!r}")


def some_of(sessions: Iterable[Session], which: str) -> Iterator[Session]:
    """The sessions, of which there must be one.

    Raises:
        UserError: there is none; ``which`` says which were looked for.
    """
    found = False
    for session in sessions:
        found = True
        yield session
    if not found:
        raise UserError(f"filter: there is no session {which}; `caesura trace describe` shows what the trace holds")


def warned_of_no_arrivals(sessions: Iterable[Session], name: str, so: str = "") -> Iterator[Session]:
    """The sessions; at their end, a warning if all come at once, and what is ``so`` therefore."""
    count, arrive = 0, False
    for session in sessions:
        count, arrive = count + 1, arrive or session.arrival > 0
        yield session
    if count > 1 and not arrive:
        say(f"warning: {name} records no arrivals: {so}all of its {count:,} sessions come at 0 s")


def distinct_names(traces: Sequence[TraceInput]) -> list[str]:
    """A short name for each trace, no two alike."""
    names: list[str] = []
    for trace in traces:
        same = sum(name.split("~")[0] == trace.stem for name in names)
        names.append(f"{trace.stem}~{same + 1}" if same else trace.stem)
    return names


def validate_trace(name: str, format: str | None, tokenizer: str | None) -> None:
    """Print what a trace holds; say what is wrong or odd on standard error.

    Raises:
        UserError: something is wrong, with its count.
    """
    given = TraceInput(name, format, "skip", tokenizer)
    sessions, calls = 0, 0
    for session in warned_of_orphans(given.sessions()):
        sessions += 1
        calls += len(session.calls)
    wrong = given.trace.skipped.count if given.trace is not None else 0
    if wrong:
        raise UserError(f"{name}: {wrong:,} wrong, {sessions:,} right ({given.format})")
    print(f"{name}: {sessions:,} sessions with {calls:,} calls, nothing wrong ({given.format})")
