"""Whatever a format can say is read back as it was written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import traces
from traces import Call, Pause, Session, TraceError
from traces.readers import writing

TOKENS = st.integers(1, 9_000)
MILLISECONDS = st.integers(0, 10**9).map(lambda value: value / 1000)
MICROSECONDS = st.integers(0, 10**10).map(lambda value: value / 1_000_000)
IDS = st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=6)
WAITS = st.sampled_from(["tool", "user", "image"])


def one_call(arrivals: st.SearchStrategy[float], kinds: st.SearchStrategy[str]) -> st.SearchStrategy[Session]:
    return st.builds(Session, IDS, arrivals, TOKENS, st.tuples(st.builds(Call, TOKENS)), kinds)


@st.composite
def growing(draw: st.DrawFn, waits: st.SearchStrategy[str]) -> Session:
    """A session of several calls whose context only grows."""
    pauses = draw(st.lists(st.builds(Pause, MILLISECONDS, st.integers(0, 50), waits), max_size=4))
    calls = [Call(draw(TOKENS), pause) for pause in [*pauses, None]]
    return Session(draw(IDS), draw(MILLISECONDS), draw(TOKENS), tuple(calls))


@st.composite
def rewriting(draw: st.DrawFn) -> Session:
    """A recorded session: some pauses leave a shorter, rewritten context."""
    prompt = context = draw(TOKENS)
    calls = []
    for _ in range(draw(st.integers(0, 3))):
        context += (output := draw(st.integers(1, 50)))
        keeps = draw(st.none() | st.integers(0, context - 2))
        returned = draw(st.integers(0, 50)) if keeps is None else draw(st.integers(1, context - keeps - 1))
        context = (context if keeps is None else keeps) + returned
        calls.append(Call(output, Pause(draw(MILLISECONDS), returned, draw(WAITS), draw(IDS), keeps)))
    last = draw(st.none() | st.builds(Pause, MILLISECONDS, st.just(0), WAITS, IDS))
    return Session(draw(IDS), 0.0, prompt, (*calls, Call(draw(TOKENS), last)), draw(IDS))


def sorted_by_arrival(sessions: list[Session]) -> list[Session]:
    return sorted(sessions, key=lambda session: session.arrival)


def from_zero(sessions: list[Session]) -> list[Session]:
    """Sorted, the first at 0, as formats whose times count from the first row give them."""
    ordered = sorted_by_arrival(sessions)
    return [replace(session, arrival=session.arrival - ordered[0].arrival) for session in ordered]


def without_ids(sessions: list[Session]) -> list[Session]:
    return [replace(session, id="") for session in sessions]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("round")


def there_and_back(path: Path, sessions: list[Session], format: str, tokenizer: str | None = None) -> list[Session]:
    assert traces.write(path, sessions, format).sessions == len(sessions)
    assert traces.detect(path) == format
    trace = traces.read(path, tokenizer=tokenizer)
    found = list(trace.sessions)
    again = path.with_name(f"again-{path.name}")
    traces.write(again, found, format)
    assert list(traces.read(again, format, tokenizer=tokenizer).sessions) == found
    return found


def unique(of: st.SearchStrategy[Session]) -> st.SearchStrategy[list[Session]]:
    return st.lists(of, min_size=1, max_size=6, unique_by=lambda session: session.id)


CSV: dict[str, tuple[st.SearchStrategy[float], st.SearchStrategy[str], Callable[[list[Session]], list[Session]]]] = {
    "vidur": (st.floats(0, 1e9), st.just(""), list),
    "burstgpt": (MICROSECONDS.map(lambda value: round(value * 4) / 4), st.text("ab, \"'", max_size=5), from_zero),
    "azure": (MICROSECONDS, st.just(""), from_zero),
}


@pytest.mark.parametrize("format", CSV)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_single_requests_survive_csv(folder: Path, format: str, data: st.DataObject) -> None:
    arrivals, kinds, expected = CSV[format]
    sessions = sorted_by_arrival(data.draw(unique(one_call(arrivals, kinds))))
    found = there_and_back(folder / f"{format}.csv", sessions, format)
    for one, other in zip(found, expected(sessions), strict=True):
        assert one.arrival == pytest.approx(other.arrival, abs=1e-6 if format == "azure" else 0)
    settled = [replace(session, arrival=0.0) for session in without_ids(expected(sessions))]
    assert [replace(session, arrival=0.0) for session in without_ids(found)] == settled


@given(sessions=unique(rewriting()))
@settings(max_examples=40, deadline=None)
def test_recorded_sessions_survive_session_files(folder: Path, sessions: list[Session]) -> None:
    assert there_and_back(folder / "recorded.jsonl", sessions, "session-files") == sessions


@given(sessions=unique(growing(st.just("tool"))))
@settings(max_examples=40, deadline=None)
def test_growing_sessions_survive_mooncake(folder: Path, sessions: list[Session]) -> None:
    found = there_and_back(folder / "mooncake.jsonl", sessions, "mooncake")
    single = [session.id for session in sessions if len(session.calls) == 1]
    expected = [replace(session, id="" if session.id in single else session.id) for session in sessions]
    assert [replace(s, id="" if s.id.startswith("mooncake-") else s.id) for s in found] == expected


def test_block_hashes_survive_mooncake(folder: Path) -> None:
    sessions = [Session("x", 1.25, 700, (Call(3),), block_hashes=(5, 2**62), hash_block=512)]
    found = there_and_back(folder / "hashes.jsonl", sessions, "mooncake")
    assert without_ids(found) == without_ids(sessions)


@given(sessions=unique(growing(st.just("user"))))
@settings(max_examples=25, deadline=None)
def test_all_but_the_answers_lengths_survives_aiperf(folder: Path, sessions: list[Session]) -> None:
    answers_of_one = [replace(s, calls=tuple(replace(call, output=1) for call in s.calls)) for s in sessions]
    assert there_and_back(folder / "aiperf.jsonl", sessions, "aiperf", "words") == answers_of_one


@given(sessions=unique(one_call(st.floats(0, 1e12), IDS)))
@settings(max_examples=25, deadline=None)
def test_converting_by_columns_gives_the_same_file(folder: Path, sessions: list[Session]) -> None:
    source, columns, objects = (folder / name for name in ("source.csv", "columns.jsonl.gz", "objects.jsonl.gz"))
    traces.write(source, sessions, "vidur")
    trace = traces.read(source)
    assert traces.convert(trace, columns).sessions == len(sessions)
    traces.write(objects, trace.sessions)
    assert columns.read_bytes() == objects.read_bytes()


def test_ids_are_compared_among_as_many_sessions_as_memory_allows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three remembered ids, the fourth session may not repeat one; the fifth may repeat the fourth."""
    monkeypatch.setattr(writing, "MOST_IDS", 3)
    sessions = [Session(id, 0.0, 1, (Call(1),)) for id in "abcdd"]
    assert traces.write(folder / "many", sessions).sessions == 5
    with pytest.raises(TraceError, match='"b" a second time'):
        traces.write(folder / "many", [*sessions[:4], sessions[1]])


def test_what_a_format_cannot_say_is_counted_or_refused(folder: Path) -> None:
    grown = Session("a", 5.0, 9, (Call(1, Pause(1.0, 2, "user")), Call(1)), "chat")
    assert traces.write(folder / "m", [grown], "mooncake").lost == {"kinds": 1, "what pauses wait for": 1}
    assert traces.write(folder / "s", [grown], "session-files").lost == {"arrivals": 1}
    single = Session("a", 5.0, 9, (Call(1, Pause(1.0)),), "chat")
    for format in ("azure", "burstgpt", "vidur"):
        lost = {"ids": 1, "pauses after the last call": 1} | ({} if format == "burstgpt" else {"kinds": 1})
        assert traces.write(folder / "single", [single], format).lost == lost
        with pytest.raises(TraceError, match='session "a" with 2 calls; expected sessions of one call'):
            traces.write(folder / "refused", [grown], format)
    rewritten = replace(grown, calls=(Call(1, Pause(1.0, 2, keeps=4)), Call(1)))
    for format in ("mooncake", "aiperf"):
        with pytest.raises(TraceError, match="a rewritten context"):
            traces.write(folder / "refused", [rewritten], format)
    assert not (folder / "refused").exists()
    assert not list(folder.glob(".*unfinished"))
