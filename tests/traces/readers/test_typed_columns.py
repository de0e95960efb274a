"""Plain blocks of CSV read by pyarrow give what the careful way gives, value by value and error by error."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import traces
from traces.readers import tables
from traces.readers.typed_columns import typed_columns

NUMBERS = ["0", "1", "007", "12", "2147483647"]
ODD = ["+1", " 1", "1 ", "\t1", "0x1F", "0X1", "1_0", "1e3", "1.", ".5", "1.5", "-1", "-0", "", "nan", "inf", "1e999"]
ODDER = ["9" * 25, "٣", "é", "x", '"1"', "1\r", "1,1", "\ufeff1", "\x00", "1\n", "NULL", "N/A", "true", "1e-400"]


def values(odd: list[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(NUMBERS) | st.sampled_from([*NUMBERS, *odd])


rows = st.lists(
    st.tuples(values(ODD), values(ODD), values(ODD), st.sampled_from(["API log", "chat", *ODDER])), max_size=6
)
odder_rows = st.lists(st.tuples(*[values(ODD + ODDER)] * 4), max_size=4)


def read(path: Path) -> object:
    trace = traces.read(path, "burstgpt", on_error="skip")
    try:
        sessions = list(trace.sessions)
    except traces.TraceError as error:
        return str(error)
    return [repr(session) for session in sessions], list(map(str, trace.skipped.first)), trace.left_out, trace.warnings


@settings(max_examples=300, deadline=None)
@given(rows=rows | odder_rows)
def test_values_and_errors_are_those_of_the_careful_way(
    rows: list[tuple[str, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("typed") / "a.csv"
    lines = ["Timestamp,Request tokens,Response tokens,Log Type", *map(",".join, rows)]
    path.write_text("\n".join(lines) + "\n", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "typed_columns", lambda block, width, types: None)
        carefully = read(path)
    assert read(path) == carefully


@pytest.mark.parametrize(
    "block", [b"1,2\n\n3,4\n", b"1,2\n3\n", b"1,2,3\n", b"1,0x2\n", b"1,\n", b'1,"2"\n', b"1,2.0\n", b"1,2\r\n"]
)
def test_what_is_not_plain_is_left_alone(block: bytes) -> None:
    assert typed_columns(block, 2, {0: "double", 1: "int64"}) is None


def test_plain_lines_become_columns_of_their_types() -> None:
    found = typed_columns(b"1.5,a,7\n2,b,8", 3, {0: "double", 2: "int64", 1: "string"})
    assert found is not None
    assert {place: column.tolist() for place, column in found.items()} == {0: [1.5, 2.0], 1: ["a", "b"], 2: [7, 8]}
