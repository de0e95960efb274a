"""Read JSON that is no JSONL: an array of objects, or objects that span lines, one object at a time."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from traces.errors import TraceError
from traces.readers.reading import Reading
from traces.readers.records import ONE_OBJECT, Record, shown
from traces.readers.source import MOST_LINE_BYTES

CHUNK_BYTES = 2**20
SEPARATORS = re.compile(r"[\s,]*")


def objects(reading: Reading) -> Iterator[Record]:
    """The objects of a JSON file: one a line, the elements of an array, or one after the other.

    Raises:
        TraceError: as `Reading.records` does. After malformed JSON in an array nothing more can be read, so that
            skipping it skips the rest of the file.
    """
    return reading.records() if _is_jsonl(reading) else _Parser(reading).objects()


def _is_jsonl(reading: Reading) -> bool:
    for _, line in reading.source.lines():
        if line.isspace():
            continue
        if not line.lstrip().removeprefix(codecs.BOM_UTF8).startswith(b"{"):
            return False
        try:
            msgspec.json.decode(line)
        except (ValueError, RecursionError):
            return line.rstrip().endswith(b"}")
        return True
    return True


class _Parser:
    """Text read in pieces; what was parsed is dropped when the next piece comes."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.name = reading.source.name
        self.text = ""
        self.position = 0
        self.line = 1
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._parse = json.JSONDecoder().raw_decode

    def objects(self) -> Iterator[Record]:
        empty = True
        try:
            with self.reading.source.opened() as file:
                array = self._begins_array(file)
                while (value := self._next(file, array)) is not None:
                    empty = False
                    yield value
        except TraceError as error:
            self.reading.skip(error)
            return
        if empty:
            raise self.reading.empty("JSON objects")

    def _begins_array(self, file: BinaryIO) -> bool:
        self._skip_separators(file)
        if not self.text.startswith("[", self.position):
            return False
        self._advance(self.position + 1)
        return True

    def _next(self, file: BinaryIO, array: bool) -> Record | None:
        """The next object; None at the end."""
        while True:
            self._skip_separators(file)
            if self.position == len(self.text):
                if array:
                    found = "the end of the file inside an array"
                    raise TraceError(self.name, found, "a closing ]", "write or download the file again", self.line)
                return None
            if array and self.text[self.position] == "]":
                return None
            value, end, line = *self._parsed(file), self.line
            self._advance(end)
            if isinstance(value, dict):
                return Record(value, self.name, line)
            fix = "write objects, in curly brackets"
            self.reading.skip(TraceError(self.name, shown(value), ONE_OBJECT, fix, line))

    def _parsed(self, file: BinaryIO) -> tuple[object, int]:
        while True:
            try:
                return self._parse(self.text, self.position)
            except json.JSONDecodeError as error:
                unfinished = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - 16
                if unfinished and self._read(file, len(self.text) - self.position):
                    continue
                line = self.line + self.text.count("\n", self.position, error.pos)
                raise self._malformed(f"{error.msg} at character {error.colno}", line) from None
            except (ValueError, RecursionError) as error:
                raise self._malformed(str(error), self.line) from None

    def _malformed(self, why: str, line: int) -> TraceError:
        fix = "correct the file; nothing after this place can be read"
        return TraceError(self.name, f"malformed JSON ({why})", ONE_OBJECT, fix, line)

    def _skip_separators(self, file: BinaryIO) -> None:
        while True:
            matched = SEPARATORS.match(self.text, self.position)
            self._advance(matched.end() if matched else self.position)
            if self.position < len(self.text) or not self._read(file, 0):
                return

    def _advance(self, position: int) -> None:
        self.line += self.text.count("\n", self.position, position)
        self.position = position

    def _read(self, file: BinaryIO, unfinished: int) -> bool:
        """Read on, as much again as the object at hand already has; whether there was more."""
        if unfinished > MOST_LINE_BYTES:
            found = f"an object of more than {MOST_LINE_BYTES // 2**20} MiB"
            raise TraceError(self.name, found, "smaller objects", "check that this is a trace", self.line)
        raw = file.read(max(CHUNK_BYTES, unfinished))
        try:
            text = self._decode(raw, not raw)
        except UnicodeDecodeError as error:
            line = self.line + self.text.count("\n", self.position) + raw.count(b"\n", 0, error.start)
            found = f"bytes that are not UTF-8 ({error.reason})"
            raise TraceError(self.name, found, "UTF-8 text", "save the file as UTF-8", line) from None
        self.text, self.position = self.text[self.position :] + text, 0
        return bool(raw)
