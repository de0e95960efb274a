"""Every way in which a trace file can be wrong, and what the message says."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from traces import (
    Call,
    Pause,
    Session,
    TraceError,
    UnknownFormat,
    read_own,
    read_session_files,
    read_sessions,
    write_own,
)

GOOD_OWN = '{"id": "a", "arrival": 0.5, "prompt": 90, "calls": [{"output": 10}]}'
GOOD_RECORDED = '{"id": "a", "kind": "math", "calls": [{"prompt": 9, "output": 1}]}'


def own(calls: str = '[{"output": 10}]', **fields: str) -> str:
    """A line of Caesura's own format with some fields replaced, or left out by an empty text."""
    values = {"id": '"b"', "arrival": "0.5", "prompt": "90", "calls": calls} | fields
    return "{" + ", ".join(f'"{name}": {value}' for name, value in values.items() if value) + "}"


def recorded(*calls: str) -> str:
    return '{"id": "b", "kind": "math", "calls": [' + ", ".join("{" + call + "}" for call in calls) + "]}"


def error_of(tmp_path: Path, content: str | bytes, format: str | None = None) -> TraceError:
    path = tmp_path / "some.jsonl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(TraceError) as caught:
        read_sessions(path, format)
    message = str(caught.value)
    assert str(path) in message
    assert "Fix: " in message
    if caught.value.line is not None:
        assert f"line {caught.value.line}" in message
    assert caught.value.field in message
    return caught.value


def test_a_missing_file_a_folder_and_an_empty_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"absent\.jsonl: found no such file; .* Fix: check the path"):
        read_sessions(tmp_path / "absent.jsonl")
    with pytest.raises(TraceError, match=r"found a folder; expected a file.* Fix: name a file inside it"):
        read_sessions(tmp_path)
    for content in ("", "\n  \n"):
        assert error_of(tmp_path, content).found == "an empty file"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"id": "b", "arrival": 1, prompt: 3}\n', "malformed JSON"),
        ("[" * 100_000 + "\n", "malformed JSON"),
        ('{"id": ' + "9" * 5000 + "}\n", "malformed JSON"),
        ('["b", 1]\n', '["b", 1]'),
        ("17\n", "17"),
        ('{"id": "b", "arrival": 1, "pro', "a last line that is cut off"),
        (GOOD_OWN, '"a", which line 1 has already'),
    ],
)
def test_a_line_that_is_no_session_is_named(tmp_path: Path, line: str, found: str) -> None:
    error = error_of(tmp_path, GOOD_OWN + "\n" + line)
    assert (error.line, found in error.found) == (2, True)


def test_bytes_that_are_not_utf8_are_named_with_their_column(tmp_path: Path) -> None:
    error = error_of(tmp_path, GOOD_OWN.encode() + b'\n{"id": "\xff"}\n')
    assert error.line == 2
    assert error.found == "bytes that are not UTF-8 (byte 0xff at column 9)"
    assert error_of(tmp_path, GOOD_OWN.encode("utf-16")).line == 1


def test_a_byte_order_mark_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "bom.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD_OWN.encode() + b"\r\n\n")
    assert read_sessions(path) == [Session("a", 0.5, 90, (Call(10),))]


@pytest.mark.parametrize(
    ("line", "field", "found", "expected"),
    [
        (own(id=""), "id", "no such field", "a text"),
        (own(id="7"), "id", "7", "a text"),
        (own(arrival=""), "arrival", "no such field", "a finite number of seconds >= 0"),
        (own(arrival='"0.5"'), "arrival", '"0.5"', "a finite number of seconds >= 0"),
        (own(arrival="true"), "arrival", "true", "a finite number of seconds >= 0"),
        (own(arrival="NaN"), "arrival", "NaN", "a finite number of seconds >= 0"),
        (own(arrival="1e999"), "arrival", "Infinity", "a finite number of seconds >= 0"),
        (own(arrival="-1"), "arrival", "-1", "a finite number of seconds >= 0"),
        (own(arrival="1" + "0" * 400), "arrival", "1" + "0" * 56 + "...", "a finite number of seconds >= 0"),
        (own(prompt=""), "prompt", "no such field", "a whole number >= 1"),
        (own(prompt="null"), "prompt", "null", "a whole number >= 1"),
        (own(prompt="0"), "prompt", "0", "a whole number >= 1"),
        (own(prompt="90.0"), "prompt", "90.0", "a whole number >= 1"),
        (own(prompt="true"), "prompt", "true", "a whole number >= 1"),
        (own(prompt="NaN"), "prompt", "NaN", "a whole number >= 1"),
        (own(calls=""), "calls", "no such field", "a list of at least one object"),
        (own(calls="[]"), "calls", "an empty list", "at least one object"),
        (own(calls='{"output": 1}'), "calls", '{"output": 1}', "a list of objects"),
        (own(calls="[5]"), "calls[0]", "5", "an object"),
        (own(calls="[{}]"), "calls[0].output", "no such field", "a whole number >= 1"),
        (own(calls='[{"output": -3}]'), "calls[0].output", "-3", "a whole number >= 1"),
        (own(calls='[{"output": 1}, {"output": 1}]'), "calls[0].pause", "no pause", "a pause: another call follows"),
        (own(calls='[{"output": 1, "pause": 3}]'), "calls[0].pause", "3", "an object"),
        (own(calls='[{"output": 1, "pause": {}}]'), "calls[0].pause.duration", "no such field", "a finite number"),
        (
            own(calls='[{"output": 1, "pause": {"duration": -0.1}}]'),
            "calls[0].pause.duration",
            "-0.1",
            "a finite number of seconds >= 0",
        ),
        (
            own(calls='[{"output": 1, "pause": {"duration": 1, "keeps": -1}}]'),
            "calls[0].pause.keeps",
            "-1",
            "a whole number >= 0",
        ),
        (
            own(calls='[{"output": 1, "pause": {"duration": 1, "tools": [{"tool": "x", "duration": "1"}]}}]'),
            "calls[0].pause.tools[0].duration",
            '"1"',
            "a finite number of seconds >= 0",
        ),
        (own(samples="0"), "samples", "0", "a whole number >= 1"),
        (own(block_hashes="[1, 2.5]"), "block_hashes[1]", "2.5", "a whole number"),
        (own(prefix='{"tokens": 3}'), "prefix.name", "no such field", "a text"),
        (own(stream='[{"tokens": 3}]'), "stream[0].at", "no such field", "a finite number of seconds >= 0"),
    ],
)
def test_a_wrong_field_of_the_own_format_is_named(
    tmp_path: Path, line: str, field: str, found: str, expected: str
) -> None:
    error = error_of(tmp_path, GOOD_OWN + "\n" + line + "\n", "own")
    assert (error.line, error.field, error.found) == (2, field, found)
    assert error.expected.startswith(expected)


def test_a_misspelt_field_suggests_the_right_one(tmp_path: Path) -> None:
    error = error_of(tmp_path, own(arival="3") + "\n", "own")
    assert (error.field, error.fix) == ("arival", 'rename it to "arrival"')
    error = error_of(tmp_path, recorded('"prompt": 9, "output": 1, "pauses": 3') + "\n")
    assert (error.field, error.fix) == ("calls[0].pauses", 'rename it to "pause_s"')
    assert error_of(tmp_path, own(colour='"red"') + "\n", "own").fix == "remove it"


@pytest.mark.parametrize(
    ("line", "field", "found"),
    [
        ('{"kind": "math", "calls": [{"prompt": 9, "output": 1}]}', "id", "no such field"),
        ('{"id": "b", "calls": []}', "calls", "an empty list"),
        (recorded('"output": 1'), "calls[0].prompt", "no such field"),
        (recorded('"prompt": 9'), "calls[0].output", "no such field"),
        (recorded('"prompt": 9, "output": 0'), "calls[0].output", "0"),
        (recorded('"prompt": 9.5, "output": 1'), "calls[0].prompt", "9.5"),
        (recorded('"prompt": 9, "output": 1, "pause_s": -2'), "calls[0].pause_s", "-2"),
        (
            recorded('"prompt": 9, "output": 1, "returned": 1', '"prompt": 11, "output": 1'),
            "calls[0].pause_s",
            "no such",
        ),
        (
            recorded('"prompt": 9, "output": 1, "pause_s": 1, "returned": -1', '"prompt": 9, "output": 1'),
            "calls[0].returned",
            "-1",
        ),
        (
            recorded('"prompt": 9, "output": 1, "pause_s": 1, "returned": 5', '"prompt": 90, "output": 1'),
            "calls[1].prompt",
            "90",
        ),
        (recorded('"prompt": 9, "output": 1, "prefix": 10'), "calls[0].prefix", "10"),
        (recorded('"prompt": 9, "output": 0, "prefix": 0'), "calls[0].output", "0"),
        (recorded('"prompt": 0, "output": 1, "prefix": 0'), "calls[0].prompt", "0"),
        (recorded('"prompt": 0, "output": 0, "prefix": 0'), "calls", "only calls without prompt and output"),
    ],
)
def test_a_wrong_field_of_a_recorded_session_is_named(tmp_path: Path, line: str, field: str, found: str) -> None:
    error = error_of(tmp_path, GOOD_RECORDED + "\n" + line + "\n", "session-files")
    assert (error.line, error.field) == (2, field)
    assert error.found.startswith(found)


def test_duplicate_ids_of_recorded_sessions_name_both_lines(tmp_path: Path) -> None:
    error = error_of(tmp_path, f"{GOOD_RECORDED}\n\n{GOOD_RECORDED}\n")
    assert (error.line, error.field, error.found) == (3, "id", '"a", which line 1 has already')


def test_another_kind_of_trace_is_recognised_as_foreign(tmp_path: Path) -> None:
    error = error_of(tmp_path, '{"when": 0, "how_much": 67}\n')
    assert "when, how_much" in error.found
    with pytest.raises(UnknownFormat, match="no trace format 'cvs'; there are own, session-files"):
        read_sessions(tmp_path / "some.jsonl", "cvs")


def test_the_format_is_recognised_by_content(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text(GOOD_OWN)
    assert read_sessions(path) == read_own(path)
    path.write_text(GOOD_RECORDED)
    assert read_sessions(path) == read_session_files(path)


def test_writing_refuses_what_could_not_be_read_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    good = Session("a", 0.0, 5, (Call(1),))
    write_own(path, [good])
    with pytest.raises(TraceError, match="a second time"):
        write_own(path, [good, good])
    with pytest.raises(TraceError, match=r"line 1, field prompt: found 5\.5"):
        write_own(path, [Session("a", 0.0, 5.5, (Call(1),))])  # type: ignore[arg-type]
    with pytest.raises(TraceError, match="no session to write"):
        write_own(path, [])
    assert read_own(path) == [good]
    with pytest.raises(TraceError, match="a place that cannot be written"):
        write_own(tmp_path / "absent" / "out.jsonl", [good])
    with pytest.raises(TraceError, match="a place that cannot be written"):
        write_own(tmp_path, [good])
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]


def test_an_error_survives_the_way_between_processes() -> None:
    error = TraceError("f", "a", "b", "c", 3, "d")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.line, copy.field) == (str(error), 3, "d")


def test_pauses_are_checked_by_the_session_itself() -> None:
    with pytest.raises(ValueError, match=r"pause\.duration is nan"):
        Pause(float("nan"))
