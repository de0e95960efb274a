"""The one error that a bad trace raises."""

from __future__ import annotations


class TraceError(ValueError):
    """A trace file that cannot be read or written as asked.

    Its text names the file, the line, the field, what was found, what was expected, and what to do about it.

    Attributes:
        file: path of the trace.
        found: what stands there.
        expected: what should stand there.
        fix: what the reader of the message can do.
        line: line number, from 1; None when the whole file is meant.
        field: dotted path of the field, such as ``calls[2].pause.duration``; empty when the whole line is meant.
    """

    def __init__(
        self, file: str, found: str, expected: str, fix: str, line: int | None = None, field: str = ""
    ) -> None:
        super().__init__(file, found, expected, fix, line, field)
        self.file = file
        self.found = found
        self.expected = expected
        self.fix = fix
        self.line = line
        self.field = field

    def __str__(self) -> str:
        place = self.file
        if self.line is not None:
            place += f", line {self.line}"
        if self.field:
            place += f", field {self.field}"
        return f"{place}: found {self.found}; expected {self.expected}. Fix: {self.fix}."
