"""Whatever session there is: it is read as it was written, and it can be made to fit a limit."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces import (
    Call,
    Pause,
    PromptPart,
    Session,
    SharedPrefix,
    ToolRun,
    cut,
    fit_to_limit,
    read_own,
    read_sessions,
    shipped,
    write_own,
)

SECONDS = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
TOKENS = st.integers(0, 200)
SOME_TOKENS = st.integers(1, 200)

PAUSES = st.builds(
    Pause,
    duration=SECONDS,
    returned=SOME_TOKENS,  # a rewritten context ends in something new
    waits_for=st.sampled_from(["tool", "user", "", "image"]),
    tool=st.text(max_size=5),
    keeps=st.none() | TOKENS,
    tools=st.lists(st.builds(ToolRun, st.text(max_size=5), SECONDS, TOKENS), max_size=2).map(tuple),
    session=st.text(max_size=3),
)


@st.composite
def streams(draw: st.DrawFn, prompt: int) -> tuple[PromptPart, ...]:
    """Up to three parts, in order, of at most ``prompt`` tokens in all."""
    times = sorted(draw(st.lists(SECONDS, max_size=3)))
    return tuple(PromptPart(draw(st.integers(0, prompt // len(times))), at, draw(st.integers(0, 9))) for at in times)


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    chain = [Call(draw(SOME_TOKENS), draw(PAUSES)) for _ in range(draw(st.integers(0, 4)))]
    prompt, block = draw(SOME_TOKENS), draw(st.integers(1, 32))
    return Session(
        id=draw(st.text(max_size=5)),
        arrival=draw(SECONDS),
        prompt=prompt,
        calls=(
            *chain,
            Call(draw(SOME_TOKENS), draw(st.none() | PAUSES)),
        ),
        kind=draw(st.text(max_size=5)),
        samples=draw(st.integers(1, 3)),
        stream=draw(streams(prompt)),
        prefix=draw(st.none() | st.builds(SharedPrefix, st.text(max_size=5), st.integers(0, prompt))),
        block_hashes=draw(st.lists(st.integers(), max_size=-(-prompt // block)).map(tuple)),
        hash_block=block,
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own") / "sessions.jsonl"


@given(workload=st.lists(sessions(), min_size=1, max_size=4, unique_by=lambda session: session.id))
@settings(max_examples=100, deadline=None)
def test_what_is_written_is_read_back_exactly(path: Path, workload: list[Session]) -> None:
    write_own(path, workload)
    assert read_sessions(path) == workload
    written = path.read_bytes()
    write_own(path, read_own(path))
    assert path.read_bytes() == written


def test_a_written_line_is_short_and_has_its_keys_in_order(path: Path) -> None:
    write_own(path, [Session("a", 0.5, 90, (Call(10, Pause(3.0, 20, "user")), Call(5)), "chat")])
    assert path.read_text() == (
        '{"id":"a","kind":"chat","arrival":0.5,"prompt":90,"calls":'
        '[{"output":10,"pause":{"duration":3.0,"returned":20,"waits_for":"user"}},{"output":5}]}\n'
    )


def test_the_shipped_mix_survives_the_own_format(path: Path) -> None:
    mix = shipped.load("infercept-mix")
    write_own(path, mix)
    assert read_sessions(path) == mix


@given(workload=st.lists(sessions(), max_size=5), limit=st.integers(2, 600))
@settings(max_examples=150, deadline=None)
def test_no_session_outgrows_the_limit_and_each_is_counted(workload: list[Session], limit: int) -> None:
    too_long = [session for session in workload if session.max_context > limit]
    shortened = fit_to_limit(workload, limit, "cut")
    assert (shortened.cut, shortened.rejected) == (len(too_long), 0)
    assert [session.id for session in shortened.sessions] == [session.id for session in workload]
    for before, after in zip(workload, shortened.sessions, strict=True):
        assert after.max_context <= limit
        assert (after == before) == (before.max_context <= limit)
        assert cut(after, limit) == after
        assert after.output_tokens <= before.output_tokens
        assert after.prompt == min(before.prompt, limit - 1)
        assert after.prefix is None or before.prefix is None or after.prefix.tokens <= before.prefix.tokens
    kept = fit_to_limit(workload, limit, "reject")
    assert (kept.cut, kept.rejected) == (0, len(too_long))
    assert kept.sessions == tuple(session for session in workload if session.max_context <= limit)


@pytest.mark.parametrize(
    ("limit", "prompt", "calls"),
    [
        (125, 90, (Call(10, Pause(3.0, 20)), Call(5, Pause(9.0, 7)))),  # fits; the last pause stays
        (124, 90, (Call(10, Pause(3.0, 20)), Call(4))),  # 90 + 10 + 20 = 120: room for 4 of 5
        (121, 90, (Call(10, Pause(3.0, 20)), Call(1))),
        (120, 90, (Call(10),)),  # the answer would fill all 120: nothing can follow it
        (100, 90, (Call(10),)),
        (99, 90, (Call(9),)),
        (90, 89, (Call(1),)),  # one token of the prompt makes way for one of output
        (2, 1, (Call(1),)),
    ],
)
def test_a_cut_ends_at_the_last_token_that_fits(limit: int, prompt: int, calls: tuple[Call, ...]) -> None:
    session = Session("a", 1.0, 90, (Call(10, Pause(3.0, 20)), Call(5, Pause(9.0, 7))), "chat")
    assert cut(session, limit) == Session("a", 1.0, prompt, calls, "chat")


def test_a_cut_prompt_takes_what_describes_it_along() -> None:
    """Of 100 prompt tokens 59 stay: 3 whole blocks of 16, and of the stream 40 there at once + 19 of 30."""
    stream = (PromptPart(30, 1.0), PromptPart(30, 2.0))
    session = Session("a", 0.0, 100, (Call(9),), "", 1, stream, SharedPrefix("s", 80), tuple(range(7)), 16)
    after = cut(session, 60)
    assert (after.prompt, after.stream, after.prefix) == (59, (PromptPart(19, 1.0),), SharedPrefix("s", 59))
    assert after.block_hashes == (0, 1, 2)


def test_the_released_mix_has_eleven_contexts_beyond_the_published_limit() -> None:
    mix = shipped.load("infercept-mix")
    assert (fit_to_limit(mix, 2048).cut, fit_to_limit(mix, 2048, "reject").rejected, fit_to_limit(mix, 2051).cut) == (
        11,
        11,
        0,
    )


@pytest.mark.parametrize("limit", [1, 0, -5])
def test_a_limit_without_room_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match=f"max_context is {limit}; it must be at least 2"):
        fit_to_limit([], limit)
    with pytest.raises(ValueError, match="too_long is 'drop'; it must be 'cut' or 'reject'"):
        fit_to_limit([], 10, "drop")  # type: ignore[arg-type]
