"""Every format: recognised by content, and read as the hand-made example says."""

from __future__ import annotations

import gzip
import json
import os
import threading
from pathlib import Path

import pyarrow as pa
import pytest

import traces
from tests.traces.readers.examples import AZURE, EXAMPLES, MOONCAKE, SHAREGPT, Example, lines
from traces import Call, Pause, Session, SharedPrefix, TraceError

IDS = [example.format for example in EXAMPLES]


def written(tmp_path: Path, content: str | bytes, name: str = "trace") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("example", EXAMPLES, ids=IDS)
def test_every_format_is_recognised_by_content_and_read_as_it_says(tmp_path: Path, example: Example) -> None:
    path = written(tmp_path, example.text)
    assert traces.detect(path) == example.format
    trace = traces.read(path, tokenizer=example.tokenizer)
    assert list(trace.sessions) == example.sessions
    assert list(trace.sessions) == example.sessions  # a trace can be read again
    assert trace.skipped.count == 0


def test_every_format_has_an_example() -> None:
    assert {example.format for example in EXAMPLES} == set(traces.all_formats())


@pytest.mark.parametrize("example", EXAMPLES, ids=IDS)
def test_a_compressed_trace_is_the_same_trace(tmp_path: Path, example: Example) -> None:
    plain = example.text.encode()
    zstd = pa.BufferOutputStream()
    with pa.CompressedOutputStream(zstd, "zstd") as stream:
        stream.write(plain)
    for name, content in (("gz", gzip.compress(plain)), ("zst", zstd.getvalue().to_pybytes())):
        trace = traces.read(written(tmp_path, content, name), tokenizer=example.tokenizer)
        assert list(trace.sessions) == example.sessions


@pytest.mark.parametrize("name", ["gz", "zst"])
def test_damaged_compression_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"trace.{name}"
    traces.write(path, [Session(f"s{i}", i / 7, 1 + i * i, (Call(1 + i),)) for i in range(3000)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TraceError, match=r"trace\.(gz|zst): found damaged (gzip|zstd) data"):
        list(traces.read(path).sessions)


def test_what_the_formats_own_rules_leave_out_is_counted(tmp_path: Path) -> None:
    trace = traces.read(written(tmp_path, SHAREGPT.text), tokenizer="words")
    list(trace.sessions)
    assert trace.left_out == {"conversations without an answer": 1}


def test_text_needs_a_tokenizer_even_when_errors_are_skipped(tmp_path: Path) -> None:
    path = written(tmp_path, SHAREGPT.text)
    for on_error in ("stop", "skip"):
        with pytest.raises(TraceError, match=r"expected a tokenizer .*words, chars:4"):
            list(traces.read(path, on_error=on_error).sessions)  # type: ignore[arg-type]


def test_characters_estimate_tokens_rounded_up(tmp_path: Path) -> None:
    """10 characters are 3 tokens of 4; 6 are 2; 6 are 2; 4 are 1."""
    (session,) = traces.read(written(tmp_path, SHAREGPT.text), tokenizer="chars:4").sessions
    assert session == Session("x", 0.0, 3, (Call(2, Pause(0.0, 2, "user")), Call(1)))


def test_a_tokenizer_file_counts_its_own_tokens(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.models.WordLevel({"a": 0, "test": 1, "?": 2}, unk_token="?")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for name in (tmp_path, tmp_path / "tokenizer.json"):
        (session,) = traces.read(written(tmp_path, SHAREGPT.text), tokenizer=str(name)).sessions
        assert [session.prompt, session.calls[0].output] == [3, 2]


@pytest.mark.parametrize("name", ["gpt2", "chars:0", "chars:x", "chars:nan"])
def test_a_tokenizer_that_is_not_there_is_refused_and_never_downloaded(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"no tokenizer at .*nothing is downloaded|such as chars:4"):
        traces.read(written(tmp_path, SHAREGPT.text), tokenizer=name)


def test_chat_logs_become_sessions_with_tools_people_and_a_shared_prefix(tmp_path: Path) -> None:
    """Prompt: system 2 + user 2. The call has 3 words; its answer comes 105 - 102 s later, the person 166 - 106 s."""
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "the weather"}], "timestamp": 100},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "t", "function": {"name": "search", "arguments": '{"q": 1}'}}],
            "timestamp": 102,
        },
        {"role": "tool", "tool_call_id": "t", "content": "rain all day", "timestamp": 105},
        {"role": "assistant", "content": "it rains", "timestamp": 106},
        {"role": "user", "content": "thanks", "timestamp": 166},
        {"role": "assistant", "content": "bye", "timestamp": 167},
    ]
    text = lines({"id": "one", "messages": messages}, {"id": "two", "messages": messages[:5]})
    first, second = traces.read(written(tmp_path, text), tokenizer="words").sessions
    assert first.calls == (
        Call(3, Pause(3.0, 3, "tool", "search")),
        Call(2, Pause(60.0, 1, "user")),
        Call(1),
    )
    assert (first.id, first.arrival, first.prompt) == ("one", 0.0, 4)
    assert first.prefix == second.prefix
    assert first.prefix == SharedPrefix(first.prefix.name, 2) if first.prefix else False


def test_turns_without_stated_outputs_say_so(tmp_path: Path) -> None:
    trace = traces.read(written(tmp_path, lines({"turns": [{"text": "a b"}]})), tokenizer="words")
    assert [session.calls for session in trace.sessions] == [(Call(1),)]
    assert "no length of their answers" in trace.warnings[0]


def test_waiting_for_another_session_is_said(tmp_path: Path) -> None:
    rows = lines(
        {"request_id": "r", "session_id": "a", "input_length": 4, "output_length": 1, "wait_for": []},
        {"request_id": "q", "session_id": "b", "input_length": 4, "output_length": 1, "wait_for": ["r"], "delay": 5},
    )
    trace = traces.read(written(tmp_path, rows))
    assert [session.id for session in trace.sessions] == ["a", "b"]
    assert "1 requests wait for other sessions" in trace.warnings[0]


def test_azure_times_may_have_zones_and_lose_nothing_to_the_microsecond(tmp_path: Path) -> None:
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,1,1\n2024-05-10 01:00:00+01:00,2,2\n"
    )
    trace = traces.read(written(tmp_path, text), on_error="skip")
    assert [session.prompt for session in trace.sessions] == [1]
    error = trace.skipped.first[0]
    assert (error.line, "0.00993 s before" in error.found) == (3, True)


def test_rows_of_other_sessions_in_between_do_not_matter(tmp_path: Path) -> None:
    """A session comes where its last row stands, whatever lies between."""
    turns = [
        {"session_id": s, "delay": 1000 * k, "input_length": 5, "output_length": 1 + k} for k in range(3) for s in "ab"
    ]
    found = list(traces.read(written(tmp_path, lines(*turns))).sessions)
    assert [session.id for session in found] == ["a", "b"]
    assert [call.output for call in found[0].calls] == [1, 2, 3]
    assert [pause.duration for pause in found[1].pauses] == [1.0, 2.0]


def test_an_array_is_read_object_by_object_and_its_lines_are_known(tmp_path: Path) -> None:
    good = {"id": "x", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    text = json.dumps([good, {"id": "y", "conversations": [{"from": 7, "value": "a"}]}], indent=1)
    with pytest.raises(TraceError) as caught:
        list(traces.read(written(tmp_path, text), tokenizer="words").sessions)
    begins = text[: text.index('"y"')].count("\n")  # a line above its id, as lines count from 1
    assert (caught.value.field, caught.value.line) == ("conversations[0].from", begins)
    malformed = json.dumps([good]) + "\n" + "x"
    trace = traces.read(written(tmp_path, malformed[:-3] + ', {"id": }]'), on_error="skip", tokenizer="words")
    assert [session.id for session in trace.sessions] == ["x"]
    assert "malformed JSON" in trace.skipped.first[0].found


def test_standard_input_is_read_like_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Standard:
        buffer = written(tmp_path, gzip.compress(AZURE.text.encode())).open("rb")

    monkeypatch.setattr("sys.stdin", Standard)
    trace = traces.read("-")
    assert list(trace.sessions) == AZURE.sessions
    assert list(trace) == AZURE.sessions
    assert trace.source.name == "standard input"


def test_a_named_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    """As in ``caesura trace describe <(zcat trace.gz)``: a pipe gives its bytes only once."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(AZURE.text))
    writer.start()
    trace = traces.read(pipe)
    writer.join()
    assert list(trace.sessions) == AZURE.sessions
    assert list(trace.sessions) == AZURE.sessions


def test_a_format_of_ones_own_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = traces.Format(
        "mine", "a test", lambda head: head.has("mine"), lambda reading: iter([Session("m", 0.0, 1, (Call(1),))])
    )

    class Entry:
        name = "mine"

        @staticmethod
        def load() -> traces.Format:
            return mine

    monkeypatch.setattr("traces.readers.registry.entry_points", lambda group: [Entry])
    traces.all_formats.cache_clear()
    try:
        assert traces.detect(written(tmp_path, '{"mine": 1}')) == "mine"
        assert [session.id for session in traces.read(tmp_path / "trace")] == ["m"]
    finally:
        traces.all_formats.cache_clear()


def test_a_format_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(traces.UnknownFormat, match=r"'sharegpt' can only be read; own, .*aiperf can be written"):
        traces.write(tmp_path / "out", MOONCAKE.sessions, "sharegpt")
    with pytest.raises(traces.UnknownFormat, match="no trace format 'moncake'; did you mean 'mooncake'"):
        traces.write(tmp_path / "out", MOONCAKE.sessions, "moncake")


def test_the_documented_table_is_what_the_formats_say() -> None:
    text = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
    table = text.split("| name | what | lacks | written |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| `")]
    said = {row[0].strip("`"): (row[2], row[3] != "no") for row in rows}
    formats = traces.all_formats().values()
    assert said == {f.name: (", ".join(sorted(f.lacks)) or "–", f.write is not None) for f in formats}
