"""Sessions that come as columns are those that their rows say one by one, in files and in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import traces
from traces import Session
from traces.readers import grouping, source
from traces.readers.continuation import Turn, calls_of
from traces.readers.grouping import ColumnGathering

HEAD = "Timestamp,Session ID,Elapsed time,Request tokens,Response tokens,Log Type\n"


class Row(NamedTuple):
    time: float
    key: str
    elapsed: float
    prompt: int
    output: int
    kind: str


rows_of_sessions = st.lists(
    st.builds(
        Row,
        st.integers(0, 400).map(lambda quarters: 5 + quarters / 4),
        st.sampled_from(["a", "b", "c d", "e", ""]),
        st.sampled_from([0.0, 3.0, 0.1]),
        st.integers(0, 12),
        st.integers(0, 4),
        st.sampled_from(["", "API log", '"with, a comma"']),
    ),
    min_size=1,
    max_size=30,
).map(lambda rows: [rows[0]._replace(time=5.0), *rows[1:]])


def by_rows(rows: list[Row]) -> list[Session]:
    """The rule read off the format: rows of one key, where its last one stands, those without answer left out."""
    keys = [row.key or f"burstgpt-{line}" for line, row in enumerate(rows, start=2)]
    found = []
    for last, key in enumerate(keys):
        if key in keys[last + 1 :]:
            continue
        own = [row for row, other in zip(rows, keys, strict=True) if other == key and row.prompt and row.output]
        if own:
            pauses = [
                max(row.time - one.time - one.elapsed, 0.0) for one, row in zip([own[0], *own], own, strict=False)
            ]
            turns = [Turn(row.prompt, row.output, pause, None, "user") for row, pause in zip(own, pauses, strict=True)]
            found.append(
                Session(key, own[0].time - rows[0].time, own[0].prompt, calls_of(turns), own[0].kind.strip('"'))
            )
    return found


@settings(max_examples=60, deadline=None)
@given(rows=rows_of_sessions, block=st.sampled_from([40, 200, 2**19]))
def test_interleaved_rows_become_the_sessions_that_they_say(
    rows: list[Row], block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Read a row, a few rows, or the whole file at a time; converted by columns, the file is that of the objects."""
    folder = tmp_path_factory.mktemp("columns")
    path, columns, objects = (folder / name for name in ("rows.csv", "columns.jsonl", "objects.jsonl"))
    path.write_text(HEAD + "".join(",".join(map(str, row)) + "\n" for row in rows))
    expected = by_rows(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "BLOCK_BYTES", block)
        trace = traces.read(path)
        assert list(trace.sessions) == expected
        if expected:
            assert traces.convert(trace, columns).sessions == len(expected)
            traces.write(objects, expected)
            assert columns.read_bytes() == objects.read_bytes()


def test_groups_come_in_the_order_of_their_last_rows_and_what_is_left_in_that_of_their_first() -> None:
    """Of a and b all rows come, of x and y one each is missing; b ends first."""
    keys = ["x", "a", "b", "y", "b", "a"]
    gathering = ColumnGathering([*keys, "x", "y"])
    groups = [group for number, key in enumerate(keys) for group in gathering.add([key], [np.array([number])])]
    groups += gathering.rest()
    assert [key for group in groups for key in group.keys] == ["b", "a", "x", "y"]
    assert [group.columns[0].tolist() for group in groups] == [[2, 4, 1, 5], [0, 3]]
    assert [group.begins.tolist() for group in groups] == [[0, 2], [0, 1]]


def test_many_groups_come_in_parts_of_some_thousand_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of 2, 1, 3 and 1 rows, at least 3 rows a part: 2 + 1, then 3, then 1."""
    monkeypatch.setattr(grouping, "ROWS_AT_ONCE", 3)
    keys = ["a", "a", "b", "c", "c", "c", "d"]
    parts = list(ColumnGathering(keys).add(keys, [np.arange(7)]))
    assert [part.keys for part in parts] == [["a", "b"], ["c"], ["d"]]
    assert [part.begins.tolist() for part in parts] == [[0, 2], [0], [0]]
    assert [part.columns[0].tolist() for part in parts] == [[0, 1, 2], [3, 4, 5], [6]]


def test_long_pauses_of_columns_are_warned_of_like_those_of_objects(tmp_path: Path) -> None:
    """One pause of 9,000,000 s is named with its session; twelve of 84,000 s look like milliseconds."""
    path = tmp_path / "long.csv"
    path.write_text(HEAD + "0,a,0,5,5,\n0,b,0,5,5,\n9000000,b,0,50,5,\n")
    trace = traces.read(path)
    assert len(list(trace.sessions)) == 2
    assert "session 'b' pauses for 9,000,000 s" in trace.warnings[0]
    path.write_text(HEAD + "".join(f"{n * 84_000},a,0,{n * 10 + 5},5,\n" for n in range(13)))
    assert len(list(trace.sessions)) == 1
    assert "half of the user pauses last 84,000 s or more" in trace.warnings[0]


def test_memory_holds_the_sessions_that_are_open_and_16_bytes_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three rows of 50 bytes a session, next to each other, read some hundred at a time."""
    monkeypatch.setattr(source, "BLOCK_BYTES", 2**14)
    path, peaks = tmp_path / "rows.csv", []
    for count in (3_000, 15_000):
        path.write_text(
            HEAD + "".join(f"{n},a-long-name-of-session-{n // 3:012},3,90,20,API log\n" for n in range(count))
        )
        tracemalloc.start()
        assert sum(len(session.calls) for session in traces.read(path).sessions) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 4_000 < 60
