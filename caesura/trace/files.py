"""Traces on the command line: files, shipped names and pipes in; files and pipes out; remarks on standard error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from caesura.errors import UserError, did_you_mean, listed
from traces import shipped
from traces.readers import Trace, Written, read, write
from traces.session import Session

PIPE = "-"
_SHOWN = 5


class TraceInput:
    """A trace named on the command line.

    Raises:
        UserError: neither a file nor a shipped trace nor ``-``, or a tokenizer that is not there.
        TraceError, UnknownFormat: the trace cannot be opened.
    """

    def __init__(
        self,
        name: str,
        format: str | None = None,
        on_error: Literal["stop", "skip"] = "stop",
        tokenizer: str | None = None,
    ) -> None:
        self.name = name
        self.trace: Trace | None = None
        if name in shipped.names() and not Path(name).exists():
            return
        if name != PIPE and not Path(name).exists():
            names = listed(shipped.names())
            hint = did_you_mean(name, shipped.names())
            raise UserError(f"{name}: there is no such file{hint} (a trace is a file, - for a pipe, or {names})")
        try:
            self.trace = read(name, format, on_error, tokenizer)
        except FileNotFoundError as error:
            raise UserError(str(error)) from None

    @property
    def format(self) -> str:
        """The format's name; ``shipped`` for a trace that comes with Caesura."""
        return self.trace.format.name if self.trace is not None else "shipped"

    @property
    def stem(self) -> str:
        """A short name for the trace."""
        return "stdin" if self.name == PIPE else Path(self.name).name.split(".")[0]

    def sessions(self) -> Iterator[Session]:
        """Every session, with a counter on a terminal; when they have ended, what was odd is said on standard error."""
        everything: Iterable[Session] = shipped.load(self.name) if self.trace is None else self.trace.sessions
        yield from _counted(everything, f"reading {self.name}")
        self.report()

    def report(self) -> None:
        """Say on standard error what the last reading skipped, left out, or found odd."""
        if self.trace is None:
            return
        skipped = self.trace.skipped
        if skipped.count:
            say(f"{self.name}: skipped {skipped.count:,} that were wrong; the first of them:")
            for error in skipped.first[:_SHOWN]:
                say(f"  {error}")
        for reason, count in self.trace.left_out.items():
            say(f"{self.name}: left out {count:,}: {reason}")
        for warning in self.trace.warnings:
            say(f"warning: {warning}")


def say(text: str) -> None:
    """A line on standard error."""
    print(f"caesura: {text}", file=sys.stderr)


def write_trace(out: str, sessions: Iterable[Session], format: str) -> None:
    """Write a trace to a file, or to standard output; say where it is and what the format could not say.

    Raises:
        TraceError, UnknownFormat: as `traces.write` does.
    """
    report_written(out, write(out, sessions, format))


def report_written(out: str, written: Written) -> None:
    """Say on standard error what was written, unless it went into a pipe, and what was lost."""
    if out != PIPE:
        say(f"wrote {written.sessions:,} session{'s' if written.sessions != 1 else ''} to {out}")
    for what, count in written.lost.items():
        say(f"{out}: the format cannot say {what}; lost in {count:,} sessions")


def working(title: str) -> contextlib.AbstractContextManager[object]:
    """A sign of life on a terminal's standard error while the block runs; nothing elsewhere."""
    from rich.console import Console

    return Console(stderr=True).status(title)


def _counted(sessions: Iterable[Session], title: str) -> Iterator[Session]:
    """The sessions, with a running count on a terminal's standard error."""
    if not sys.stderr.isatty():
        yield from sessions
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}: {task.completed:,.0f} sessions"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        for number, session in enumerate(sessions, start=1):
            if number % 1000 == 0:
                bar.update(task, completed=number)
            yield session
