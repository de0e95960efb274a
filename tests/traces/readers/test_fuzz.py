"""Damaged traces of every format: sessions, or the readers' own error; nothing else, and no end of time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import traces
from tests.traces.readers.examples import EXAMPLES, Example
from traces import Session, TraceError

NUMBERS = st.one_of(
    st.integers(-3, 3), st.integers(), st.floats(), st.sampled_from([10**400, -(10**30), 1e308, 2**31, 2**63, 2**64])
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=6,
)
SIGNS = st.sampled_from([b"\x00", b"\xff", b'"', b"{", b"}", b"[", b"]", b",", b"\n", b"\r", b"-", b"9" * 400, b"NaN"])
NAMES = [f"{index}-{example.format}" for index, example in enumerate(EXAMPLES)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "damaged"


def outcome(path: Path, content: bytes, format: str | None) -> None:
    """Read a damaged file both ways; whatever comes out is a session or a TraceError about this file."""
    path.write_bytes(content)
    found, skipping = (everything(path, format, on_error) for on_error in ("stop", "skip"))
    for one in (found, skipping):
        assert not isinstance(one, TraceError) or (one.file == str(path) and str(path) in str(one))
    if isinstance(found, list):
        assert skipping == found


def everything(path: Path, format: str | None, on_error: Any) -> list[Session] | TraceError:
    """The sessions of a file, or what stopped it."""
    try:
        return list(traces.read(path, format, on_error, "words").sessions)
    except TraceError as error:
        return error


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file with a few pieces cut out, doubled, or overwritten."""
    content = whole
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, len(content)))
        end = draw(st.integers(begin, min(begin + 40, len(content))))
        piece = draw(st.one_of(st.just(b""), st.just(content[begin:end] * 2), SIGNS, st.binary(max_size=4)))
        content = content[:begin] + piece + content[end:]
    return content


@pytest.mark.parametrize("example", EXAMPLES, ids=NAMES)
@given(data=st.data(), detected=st.booleans())
@settings(max_examples=25, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_bytes(path: Path, example: Example, data: st.DataObject, detected: bool) -> None:
    content = data.draw(damaged(example.text.encode()))
    outcome(path, content, None if detected else example.format)


@st.composite
def odd(draw: st.DrawFn, value: Any) -> Any:
    """The same JSON with one value somewhere replaced by another, or left out."""
    if isinstance(value, dict) and value and draw(st.integers(0, 9)) > 0:
        key = draw(st.sampled_from(sorted(value)))
        if draw(st.integers(0, 9)) == 0:
            return {name: one for name, one in value.items() if name != key}
        return value | {key: draw(odd(value[key]))}
    if isinstance(value, list) and value and draw(st.integers(0, 9)) > 0:
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], draw(odd(value[place])), *value[place + 1 :]]
    return draw(VALUES)


JSON = [example for example in EXAMPLES if example.text[0] in "{["]


@pytest.mark.parametrize("example", JSON, ids=[f"{index}-{example.format}" for index, example in enumerate(JSON)])
@given(data=st.data())
@settings(max_examples=40, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
def test_odd_values(path: Path, example: Example, data: st.DataObject) -> None:
    try:
        content = json.dumps(data.draw(odd(json.loads(example.text))))
    except json.JSONDecodeError:
        rows = example.text.splitlines()
        place = data.draw(st.integers(0, len(rows) - 1))
        rows[place] = json.dumps(data.draw(odd(json.loads(rows[place]))))
        content = "\n".join(rows)
    outcome(path, content.encode("utf-8", "surrogatepass"), example.format)


TABLES = [example for example in EXAMPLES if example.text[0] not in "{["]


@pytest.mark.parametrize("example", TABLES, ids=[f"{index}-{example.format}" for index, example in enumerate(TABLES)])
@given(data=st.data())
@settings(max_examples=40, deadline=2000)
def test_odd_cells(path: Path, example: Example, data: st.DataObject) -> None:
    rows = [row.split(",") for row in example.text.splitlines()]
    row = data.draw(st.integers(1, len(rows) - 1))
    column = data.draw(st.integers(0, len(rows[0]) - 1))
    cell = data.draw(
        NUMBERS.map(str) | st.text(max_size=5) | st.sampled_from(["0001-01-01", "9999-12-31 23:59:59+14:00"])
    )
    rows[row][column] = cell
    outcome(path, "\n".join(map(",".join, rows)).encode("utf-8", "surrogatepass"), example.format)
    sessions = everything(path, example.format, "stop")
    if isinstance(sessions, list) and sessions:
        converted = path.with_name("converted")
        traces.convert(traces.read(path, example.format), converted)
        assert everything(converted, "own", "stop") == sessions


@given(content=st.binary(max_size=200), format=st.sampled_from([None, *traces.all_formats()]))
@settings(max_examples=100, deadline=2000)
def test_any_bytes(path: Path, content: bytes, format: str | None) -> None:
    outcome(path, content, format)
