"""Whether a run's tokens are those of each session alone, and how close a choice was that fell the other way."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from profiler.backend.backend import make_model  # noqa: E402
from profiler.backend.model_config import load_model_config  # noqa: E402
from profiler.serving.token_match import Alone, match_tokens, sample  # noqa: E402
from traces.session import Call, Pause, Session  # noqa: E402

LONGEST = 128
MODEL = make_model(load_model_config("tiny"), torch.device("cpu"), max_context=LONGEST)
SESSIONS = [Session(f"s{n}", 0.5 * n, 20, (Call(5, Pause(3.0, returned=4)), Call(6))) for n in range(4)]


@pytest.fixture(scope="module")
def alone() -> Alone:
    return Alone(MODEL, LONGEST, block_size=16)


def test_alone_a_session_generates_every_call_and_skips_what_tools_returned(alone: Alone):
    """Prompt 20, then 5 tokens at 20..24, an answer at 25..28, 6 tokens at 29..34."""
    found = alone.serve(SESSIONS[0])
    assert len(found.tokens) == 35
    assert found.generated == [*range(20, 25), *range(29, 35)]
    assert {n for n, margin in enumerate(found.margins) if margin > 0} == set(found.generated)


def test_a_session_that_comes_at_another_time_is_the_same_session(alone: Alone):
    assert alone.serve(replace(SESSIONS[0], arrival=9.0)) is alone.serve(SESSIONS[0])


def test_the_first_token_that_differs_is_the_one_that_is_explained(alone: Alone):
    """Of three sessions that were kept one has others from position 30 on; its margin there is reported, no other."""
    kept = {session.id: list(alone.serve(session).tokens) for session in SESSIONS[:3]}
    for position in (30, 33):
        kept["s1"][position] += 1
    found = match_tokens(kept, SESSIONS, alone)
    assert (found["sessions"], found["equal"]) == (3, 2)
    assert found["first_difference_margins"] == [alone.serve(SESSIONS[1]).margins[30]]
    assert found["first_difference_margin_median"] == alone.serve(SESSIONS[1]).margins[30]
    assert found["margins_elsewhere_median"] > 0


def test_the_sample_is_spread_over_the_first_half_and_rewrites_nothing():
    """Of ten sessions the first five arrive early; one of them rewrites its context; two of the four left are taken."""
    sessions = [Session(f"s{n}", float(n), 20, (Call(5),)) for n in range(10)]
    sessions[1] = replace(sessions[1], calls=(Call(5, Pause(1.0, returned=2, keeps=3)), Call(2)))
    assert [session.id for session in sample(sessions, 2)] == ["s0", "s3"]
    assert len(sample(sessions, 100)) == 4
    assert sample(sessions, 0) == []
