"""Drawn sessions have the published means and deviations, and depend on nothing but the seed."""

from __future__ import annotations

import numpy as np
import pytest

from traces import AUGMENTATIONS, Session, contexts
from traces.draw.generate import generate, generate_session

# Table 1 of arXiv 2402.01869: mean and deviation of the pause (s), of the calls, of the context (tokens).
TABLE_1 = {
    "math": ((9e-5, 6e-5), (3.75, 1.3), (1422, 738)),
    "qa": ((0.69, 0.17), (2.52, 1.73), (1846, 428)),
    "ve": ((0.09, 0.014), (28.18, 15.2), (2185, 115)),
    "chat": ((28.6, 15.6), (4.45, 1.96), (753, 703)),
    "image": ((20.03, 7.8), (6.91, 3.93), (1247, 792)),
    "tts": ((17.24, 7.6), (6.91, 3.93), (1251, 792)),
}


@pytest.fixture(scope="module", params=list(TABLE_1))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def drawn(kind: str) -> list[Session]:
    rng = np.random.default_rng(0)
    return [generate_session(str(index), kind, rng) for index in range(4000)]


def test_pauses_calls_and_contexts_are_as_published(kind: str, drawn: list[Session]) -> None:
    """Deviations of session means may exceed the published ones: single pauses vary as in the mix on top."""
    pause, calls, context = TABLE_1[kind]
    means = [np.mean([one.duration for one in session.pauses]) for session in drawn if session.pauses]
    assert np.mean(means) == pytest.approx(pause[0], rel=0.04)
    assert 0.95 * pause[1] < np.std(means) < 1.2 * pause[1]
    numbers = [len(session.calls) for session in drawn]
    assert np.mean(numbers) == pytest.approx(calls[0], rel=0.04)
    assert np.std(numbers) == pytest.approx(calls[1], rel=0.06)
    ends = [contexts(session)[-1] for session in drawn]
    assert np.mean(ends) == pytest.approx(context[0], rel=0.04)
    assert np.std(ends) == pytest.approx(context[1], rel=0.06)


def test_sessions_have_the_shape_of_their_kind(kind: str, drawn: list[Session]) -> None:
    ends_with_pause = kind in ("ve", "image", "tts")
    first = kind if kind in ("image", "tts") else "user" if kind == "chat" else "tool"
    for session in drawn:
        assert (session.calls[-1].pause is not None) == ends_with_pause
        assert session.kind == kind
        if session.pauses:
            assert session.pauses[0].waits_for == first
        if kind in ("image", "tts"):
            assert len(session.calls) % 2 == 0
            assert {pause.waits_for for pause in session.pauses} == {kind, "user"}


def test_one_seed_gives_one_workload_and_longer_draws_begin_alike() -> None:
    assert generate(50, seed=5) == generate(50, seed=5)
    assert generate(50, seed=5) == generate(80, seed=5)[:50]
    assert generate(50, seed=5) != generate(50, seed=6)
    assert generate(0, seed=5) == []


def test_weights_set_how_often_a_kind_comes() -> None:
    """3:1 over 1,000 draws: 750 within 5 deviations of sqrt(1000 * 3/16) = 14."""
    kinds = [session.kind for session in generate(1000, seed=0, weights={"qa": 3, "math": 1, "ve": 0})]
    assert abs(kinds.count("qa") - 750) < 70
    assert set(kinds) == {"qa", "math"}
    assert {session.kind for session in generate(300, seed=0)} == set(AUGMENTATIONS)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"maths": 1.0}, "no augmentation 'maths'; there are math, qa, ve, chat, image, tts"),
        ({"math": -1.0}, "the weight of 'math' is -1.0; it must be finite and >= 0"),
        ({"math": float("nan")}, "the weight of 'math' is nan"),
        ({"math": 0.0}, "the weights add up to 0"),
        ({}, "the weights add up to 0"),
    ],
)
def test_impossible_weights_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(1, 0, weights)
