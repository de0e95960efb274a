"""Whatever is wrong with a trace: the message names file, line, field and what was expected; skipping counts it."""

from __future__ import annotations

import contextlib
import tracemalloc
from pathlib import Path

import pytest

import traces
from tests.traces.readers.examples import BURSTGPT_3, EXAMPLES, MOONCAKE, Example, lines
from traces import Call, Pause, Session, TraceError
from traces.readers import grouping, source

CSV_HEAD = "arrived_at,num_prefill_tokens,num_decode_tokens\n"


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "some.trace"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def error_of(tmp_path: Path, content: str | bytes, format: str | None = None) -> TraceError:
    path = written(tmp_path, content)
    with pytest.raises(TraceError) as caught:
        list(traces.read(path, format, tokenizer="words").sessions)
    assert str(path) in str(caught.value)
    assert "Fix: " in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("rows", "line", "field", "expected"),
    [
        ("0,x,1\n", 2, "num_prefill_tokens", "a whole number >= 0"),
        ("0,1,1\n0,-4,1\n", 3, "num_prefill_tokens", "a whole number >= 0"),
        ("0,1,1.5\n", 2, "num_decode_tokens", "a whole number >= 0"),
        ("0,1,nan\n", 2, "num_decode_tokens", "a whole number >= 0"),
        ("0,1,99999999999\n", 2, "num_decode_tokens", "a whole number >= 0"),
        ("nan,1,1\n", 2, "arrived_at", "a finite number of seconds >= 0"),
        ("inf,1,1\n", 2, "arrived_at", "a finite number of seconds >= 0"),
        ("-1,1,1\n", 2, "arrived_at", "a finite number of seconds >= 0"),
        (",1,1\n", 2, "arrived_at", "a finite number of seconds >= 0"),
        ("0,1,1\n0,1\n", 3, "", "3 values, one a column"),
        ("0,1,1,7\n", 2, "", "3 values, one a column"),
        ('0,"1"1,1\n', 2, "", "one row of values"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path: Path, rows: str, line: int, field: str, expected: str) -> None:
    error = error_of(tmp_path, CSV_HEAD + rows)
    assert (error.line, error.field, error.expected) == (line, field, expected)


def test_a_date_that_is_none_is_named(tmp_path: Path) -> None:
    head = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    error = error_of(tmp_path, head + "2023-11-16 18:15:46,1,1\nyesterday,1,1\n")
    assert (error.line, error.field, error.found) == (3, "TIMESTAMP", "'yesterday'")


def test_a_column_that_is_missing_is_named_with_one_that_is_like_it(tmp_path: Path) -> None:
    error = error_of(tmp_path, "arrived_at,num_prefil_tokens,num_decode_tokens\n0,1,1\n", "vidur")
    assert (error.line, error.field) == (1, "num_prefill_tokens")
    assert error.fix == 'rename "num_prefil_tokens" to "num_prefill_tokens"'


def test_columns_and_fields_of_no_known_format_are_listed(tmp_path: Path) -> None:
    assert "the columns when, what" in error_of(tmp_path, "when,what\n1,2\n").found
    assert "when, what" in error_of(tmp_path, '{"when": 1, "what": 2}\n').found
    assert error_of(tmp_path, "[1, 2]").found == "no JSON object"
    assert "one of the formats own, session-files, " in error_of(tmp_path, b"\x00\x01\x02").expected


def test_columns_that_are_not_used_are_noted(tmp_path: Path) -> None:
    trace = traces.read(written(tmp_path, "arrived_at,colour,num_prefill_tokens,num_decode_tokens\n0,red,1,1\n"))
    assert len(list(trace.sessions)) == 1
    assert trace.warnings == [f"{tmp_path}/some.trace: the columns colour are not used"]


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.format for example in EXAMPLES])
def test_an_empty_or_headless_file_is_an_error_in_every_format(tmp_path: Path, example: Example) -> None:
    for content in ("", "\n \n", "\ufeff"):
        error = error_of(tmp_path, content, example.format)
        assert error.found == "an empty file" or "columns" in error.found or "malformed" in error.found


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.format for example in EXAMPLES])
def test_a_truncated_trace_is_an_error_or_ends_between_sessions(tmp_path: Path, example: Example) -> None:
    """Cut anywhere: the reader's own error and no other, or sessions that are there in the whole file."""
    whole = [session.id for session in example.sessions]
    for end in range(0, len(example.text), 7):
        path = written(tmp_path, example.text[:end])
        with contextlib.suppress(TraceError):
            found = list(traces.read(path, example.format, tokenizer=example.tokenizer).sessions)
            assert {session.id for session in found} <= set(whole)


def test_bytes_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    error = error_of(tmp_path, CSV_HEAD.encode() + b"0,1,1\n0,\xff,1\n")
    assert (error.line, error.found) == (3, "bytes that are not UTF-8 (byte 0xff at column 3)")
    error = error_of(tmp_path, b'[{"id": "a", "conversations": [\n{"from": "human", "value": "\xff"}]}]')
    assert (error.line, "not UTF-8" in error.found) == (2, True)
    assert error_of(tmp_path, CSV_HEAD.encode("utf-16"), "vidur").line == 1


def test_skipping_counts_what_was_wrong_and_reads_the_rest(tmp_path: Path) -> None:
    trace = traces.read(written(tmp_path, CSV_HEAD + "0,1,1\n0,x,1\n0,1\n1,2,-3\n2,3,4\n"), on_error="skip")
    assert [session.id for session in trace.sessions] == ["vidur-2", "vidur-6"]
    assert trace.skipped.count == 3
    assert [error.line for error in trace.skipped.first] == [3, 4, 5]
    assert trace.skipped.by_field == {"num_prefill_tokens": 1, "": 1, "num_decode_tokens": 1}
    rows = ['{"timestamp": 0, "input_length": 5, "output_length": 2}', "{broken", '{"timestamp": 1}', "[]", "7"]
    trace = traces.read(written(tmp_path, "\n".join(rows)), on_error="skip")
    assert [session.prompt for session in trace.sessions] == [5]
    assert trace.skipped.count == 4


def test_only_the_first_errors_are_kept(tmp_path: Path) -> None:
    trace = traces.read(written(tmp_path, CSV_HEAD + "x,1,1\n" * 500), on_error="skip")
    assert list(trace.sessions) == []
    assert (trace.skipped.count, len(trace.skipped.first)) == (500, 20)


def test_a_wrong_turn_does_not_hold_up_its_session(tmp_path: Path) -> None:
    text = MOONCAKE.text.replace('"delay": 250', '"delay": -1')
    trace = traces.read(written(tmp_path, text), on_error="skip")
    assert [(session.id, len(session.calls)) for session in trace.sessions] == [("mooncake-1", 1), ("s", 2)]
    text = BURSTGPT_3.text.replace("60.0,s", "sixty,s")
    trace = traces.read(written(tmp_path, text), on_error="skip")
    assert [(session.id, len(session.calls)) for session in trace.sessions] == [("burstgpt-3", 1), ("s", 1)]
    assert trace.skipped.count == 1


@pytest.mark.parametrize("name", ["mooncake", "agentic-mooncake"])
def test_more_block_hashes_than_a_prompt_has_blocks_are_refused(tmp_path: Path, name: str) -> None:
    row = {"request_id": "r", "session_id": "s", "input_length": 1, "output_length": 2, "hash_ids": [1, 2]}
    error = error_of(tmp_path, lines(row), name)
    assert (error.line, error.found) == (1, "block_hashes is 2; it must be at most 1 for the prompt")


def test_a_row_before_the_first_rows_time_is_out_of_order(tmp_path: Path) -> None:
    head = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    error = error_of(tmp_path, head + "2023-11-16 18:00:09,1,1\n2023-11-16 18:00:04,1,1\n")
    assert (error.line, error.found) == (3, "a time 5 s before that of the first row")


def test_arrivals_that_go_back_are_kept_and_counted(tmp_path: Path) -> None:
    trace = traces.read(written(tmp_path, CSV_HEAD + "5,1,1\n3,1,1\n4,1,1\n1,1,1\n"))
    assert [session.arrival for session in trace.sessions] == [5, 3, 4, 1]
    assert "2 sessions arrive before the one above them" in trace.warnings[0]


def test_the_same_id_twice_names_both_lines(tmp_path: Path) -> None:
    row = {"session_id": "s", "input_toks": 5, "output_toks": 1}
    error = error_of(tmp_path, lines(row, row))
    assert (error.line, error.field, "line 1 has already" in error.found) == (2, "id", True)


def workload(pause: float = 1.0, gap: float = 0.5, waits_for: str = "tool") -> list[Session]:
    calls = (Call(5, Pause(pause, 3, waits_for)), Call(5))
    return [Session(f"s{index}", index * gap, 100, calls) for index in range(30)]


@pytest.mark.parametrize(
    ("sessions", "warned"),
    [
        (workload(), None),
        (workload(pause=1_096.0), "half of the tool pauses last 1,096 s or more; expected a median below 600 s"),
        (workload(pause=84_000.0, waits_for="user"), "half of the user pauses last 84,000 s or more"),
        (workload(gap=181.0), "sessions arrive 181 s apart on average; expected at most 100 s"),
        (workload(gap=0.0003), "3,333 sessions arrive a second; expected at most 1,000"),
        ([Session("s", 0.0, 10**9, (Call(1),))], "a prompt has 1,000,000,000 tokens"),
        ([Session("s", 0.0, 9, (Call(1, Pause(9e6)), Call(1)))], "session 's' pauses for 9,000,000 s"),
    ],
)
def test_times_in_the_wrong_unit_are_warned_of(tmp_path: Path, sessions: list[Session], warned: str | None) -> None:
    """Milliseconds taken for seconds: a tool's median second becomes a quarter of an hour, and so on."""
    path = tmp_path / "w.jsonl"
    traces.write(path, sessions)
    trace = traces.read(path)
    list(trace.sessions)
    assert len(trace.warnings) == (warned is not None)
    if warned is not None:
        assert warned in trace.warnings[0]
        assert str(path) in trace.warnings[0]


@pytest.mark.parametrize("text", ['{"prompt": 1, "id": "' + "x" * 5000, '[{"conversations": "' + "x" * 5000])
def test_a_line_or_an_object_without_end_is_refused(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (source, traces.readers.values):
        monkeypatch.setattr(module, "MOST_LINE_BYTES", 1024)
    monkeypatch.setattr(traces.readers.values, "CHUNK_BYTES", 100)
    error = error_of(tmp_path, text, "own" if text.startswith("{") else "sharegpt")
    assert "more than 0 MiB" in error.found


def test_turns_are_gathered_however_many_are_counted_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five sessions of three turns, dealt out in turn; their names are counted four lines at a time."""
    monkeypatch.setattr(grouping, "KEYS_AT_ONCE", 4)
    rows = [{"session_id": f"s{n % 5}", "delay": n, "input_length": 1 + n, "output_length": 1 + n} for n in range(15)]
    found = list(traces.read(written(tmp_path, lines(*rows))).sessions)
    assert [(session.id, len(session.calls)) for session in found] == [(f"s{n}", 3) for n in range(5)]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Sessions of three turns, 90 bytes a row in the file: 16 bytes of each stay, for the session's name and count."""
    peaks = []
    for count in (2_000, 10_000):
        row = '{{"session_id": "{}", "timestamp": {}, "input_length": 900, "output_length": 2, "hash_ids": [{}, 2]}}\n'
        path = written(tmp_path, "".join(row.format(i // 3, i * 10, i) for i in range(count)))
        tracemalloc.start()
        assert sum(len(session.calls) for session in traces.read(path)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 8_000 < 60
