"""Traces that could be misread in silence: other encodings, unknown fields, ids and turns out of order, odd times."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

import traces
from tests.traces.readers.examples import AGENTIC, AGENTIC_2, AZURE, EXAMPLES, OWN, WEKA, Example, lines
from traces import Call, Session, TraceError
from traces.readers import source

SESSIONS_HEAD = "Timestamp,Session ID,Elapsed time,Request tokens,Response tokens\n"


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "some.trace"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def error_of(tmp_path: Path, content: str | bytes, format: str | None = None) -> TraceError:
    path = written(tmp_path, content)
    with pytest.raises(TraceError) as caught:
        list(traces.read(path, format, tokenizer="words").sessions)
    return caught.value


def warnings_of(tmp_path: Path, content: str, format: str | None = None) -> list[str]:
    trace = traces.read(written(tmp_path, content), format, tokenizer="words")
    assert list(trace.sessions)
    return trace.warnings


@pytest.mark.parametrize("example", [OWN, AZURE], ids=["json", "csv"])
def test_another_encoding_is_named_where_the_format_cannot_be_recognised(tmp_path: Path, example: Example) -> None:
    """UTF-16 begins with the bytes FF FE; without them its first letters lie between zeros."""
    error = error_of(tmp_path, example.text.encode("utf-16"))
    assert (error.line, error.found) == (1, "bytes that are not UTF-8 (byte 0xff at column 1)")
    error = error_of(tmp_path, example.text.encode("utf-16-le"))
    assert error.found == "no text (it has zero bytes, as UTF-16 and binary files have)"
    assert "\x00" not in str(error)


def test_a_first_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    error = error_of(tmp_path, AZURE.text.encode().replace(b"TIMESTAMP", b"TIMESTAMP\xe9"))
    assert (error.line, error.found) == (1, "bytes that are not UTF-8 (byte 0xe9 at column 10)")


@pytest.mark.parametrize("content", [AZURE.text, SESSIONS_HEAD + "0,a,1,5,5\n"], ids=["azure", "burstgpt"])
@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_line_ends_of_old_macs_are_named(tmp_path: Path, content: str, on_error: Literal["stop", "skip"]) -> None:
    """The header is recognised all the same; to skip the only line would leave a file that looks empty."""
    trace = traces.read(written(tmp_path, content.replace("\n", "\r")), on_error=on_error)
    with pytest.raises(TraceError) as caught:
        list(trace.sessions)
    assert (caught.value.line, caught.value.found) == (1, "a bare carriage return, as old Macs end lines")
    assert caught.value.fix == "save the file with line ends of Unix or Windows"


def test_a_first_object_that_is_cut_off_is_said_to_be(tmp_path: Path) -> None:
    error = error_of(tmp_path, '{"id": "a", "arrival": 0.5, "pro')
    assert error.found == "a first object that is cut off or malformed, with the fields arrival, id"


def test_a_request_id_twice_names_both_lines(tmp_path: Path) -> None:
    """The rows of the example once more; those of another play may have the same ids."""
    error = error_of(tmp_path, AGENTIC.text * 2)
    assert (error.line, error.field, "line 1 has already" in error.found) == (4, "request_id", True)
    header, first, second = AGENTIC_2.text.splitlines(keepends=True)
    plays = header + first + second + (first + second).replace('"play_id": "p"', '"play_id": "q"')
    assert [session.id for session in traces.read(written(tmp_path, plays)).sessions] == ["p s", "q s"]


@pytest.mark.parametrize(
    ("was", "field", "found"),
    [('"version": 2', "version", "3"), ('"schema": "dynamo.agentic_mooncake"', "schema", '"dynamo.other"')],
)
def test_a_header_of_another_version_is_refused(tmp_path: Path, was: str, field: str, found: str) -> None:
    error = error_of(tmp_path, AGENTIC_2.text.replace(was, f'"{field}": {found}'), "agentic-mooncake")
    assert (error.line, error.field, error.found) == (1, field, found)


NUMBERED = ("mooncake", "agentic-mooncake", "weka", "llmservingsim", "applied-compute", "aiperf")
JSON = [example for example in EXAMPLES if example.format in NUMBERED]


@pytest.mark.parametrize("example", JSON, ids=[example.format for example in JSON])
def test_fields_that_are_not_used_are_noted_once(tmp_path: Path, example: Example) -> None:
    """A misspelt field would be lost in silence; those that the format is known to have are passed over."""
    assert not [text for text in warnings_of(tmp_path, example.text) if "not used" in text]
    misspelt = example.text.replace('{"', '{"colour": 1, "').replace('{\n "id"', '{\n "colour": 1, "id"')
    noted = [text for text in warnings_of(tmp_path, misspelt, example.format) if "not used" in text]
    assert noted == [f"{tmp_path}/some.trace: the field colour is not used (first in line 1)"]


def test_fields_inside_turns_are_noted_with_their_place(tmp_path: Path) -> None:
    row = {"session_id": "s", "sub_requests": [{"input_toks": 5, "output_toks": 1, "tool_duration_ms": 7}]}
    assert warnings_of(tmp_path, lines(row)) == [
        f"{tmp_path}/some.trace: the field sub_requests[0].tool_duration_ms is not used (first in line 1)"
    ]


def test_fields_of_sub_agents_are_noted_with_their_place(tmp_path: Path) -> None:
    misspelt = WEKA.text.replace('"agent_id": "x"', '"agent_id": "x", "colour": 1')
    assert warnings_of(tmp_path, misspelt) == [
        f"{tmp_path}/some.trace: the field requests[1].colour is not used (first in line 1)"
    ]


@pytest.mark.parametrize("name", ["mooncake", "agentic-mooncake"])
@pytest.mark.parametrize("session_id", [["s"], 1.5, True])
def test_a_session_id_that_is_no_name_is_an_error(tmp_path: Path, name: str, session_id: object) -> None:
    row = {"request_id": "r", "session_id": session_id, "input_length": 1, "output_length": 2}
    error = error_of(tmp_path, lines(row), name)
    assert (error.line, error.field, error.expected) == (1, "session_id", "a text or a whole number")


def test_a_turn_before_the_first_rows_time_is_out_of_order(tmp_path: Path) -> None:
    """As with single requests: the row at 4 s stands after one at 9 s, with which the trace begins."""
    text = SESSIONS_HEAD + "9,a,1,5,5\n4,b,1,5,5\n12,a,1,50,5\n"
    error = error_of(tmp_path, text)
    assert (error.line, error.found) == (3, "a time 5 s before that of the first row")
    trace = traces.read(written(tmp_path, text), on_error="skip")
    assert [(session.id, len(session.calls)) for session in trace.sessions] == [("a", 2)]
    assert (trace.skipped.count, trace.warnings) == (1, [])


def test_a_block_of_rows_that_all_lie_before_the_first_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "BLOCK_BYTES", len(SESSIONS_HEAD) + 10)
    trace = traces.read(written(tmp_path, SESSIONS_HEAD + "9,a,1,5,5\n4,b,1,5,5\n3,b,1,5,5\n"), on_error="skip")
    assert [session.id for session in trace.sessions] == ["a"]
    assert trace.skipped.count == 2


@pytest.mark.parametrize(
    "text",
    [
        SESSIONS_HEAD + "0,a,1,5,5\n9,a,1,50,5\n4,a,1,90,5\n",
        lines(*({"session_id": "a", "timestamp": t, "input_length": 5, "output_length": 5} for t in (0, 9000, 4000))),
    ],
    ids=["burstgpt", "mooncake"],
)
def test_turns_of_a_session_that_go_back_in_time_are_counted(tmp_path: Path, text: str) -> None:
    """The third turn begins at 4 s, the second began at 9 s: there is no pause between them."""
    rows, turns = warnings_of(tmp_path, text)
    assert "1 rows are earlier than the one above them" in rows
    assert "1 turns begin before the turn above them in their session; the pauses before them are 0 s" in turns


@pytest.mark.parametrize(("elapsed", "warned"), [(3, False), (3000, True)])
def test_response_times_in_milliseconds_leave_no_pauses_and_are_warned_of(
    tmp_path: Path, elapsed: int, warned: bool
) -> None:
    """Turns a minute apart whose responses took 3 s pause for 57 s; had they taken 3,000 s, all would overlap."""
    rows = "".join(f"{60 * n},a,{elapsed},{100 * n + 100},20\n" for n in range(12))
    warnings = warnings_of(tmp_path, SESSIONS_HEAD + rows)
    assert len(warnings) == warned
    if warned:
        assert "11 of 11 turns begin before the response above them has ended" in warnings[0]
        assert "response times are not given in milliseconds" in warnings[0]


@pytest.mark.parametrize("name", ["burstgpt", "mooncake"])
def test_a_session_whose_turns_end_later_is_not_out_of_order_but_a_row_may_be(tmp_path: Path, name: str) -> None:
    """The session of 0 s comes after that of 1 s, as its last turn does: fine. A row of 5 s after one of 9 s is not."""

    def rows(*times_and_keys: tuple[int, str]) -> str:
        if name == "burstgpt":
            return SESSIONS_HEAD + "".join(f"{time},{key},0,{time + 5},1\n" for time, key in times_and_keys)
        turns = ({"session_id": key, "timestamp": time * 1000} for time, key in times_and_keys)
        return lines(*({**turn, "input_length": 5, "output_length": 1} for turn in turns))

    assert warnings_of(tmp_path, rows((0, "a"), (1, "b"), (2, "a"))) == []
    (warning,) = warnings_of(tmp_path, rows((0, "a"), (9, "b"), (5, "a")))
    assert "1 rows are earlier than the one above them" in warning


def test_arrivals_that_count_from_1970_are_warned_of(tmp_path: Path) -> None:
    sessions = [Session(f"s{index}", 1.7e9 + index, 9, (Call(1),)) for index in range(3)]
    path = tmp_path / "epoch.jsonl"
    traces.write(path, sessions)
    trace = traces.read(path)
    assert list(trace.sessions) == sessions
    assert "the first session arrives after 1,700,000,000 s; expected within 30 days" in trace.warnings[0]
