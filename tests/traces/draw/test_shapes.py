"""Sessions drawn from shapes: what each quantity is drawn from, and that draws are paired."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from traces import Session
from traces.draw.distributions import Constant, Scipy, WeightedValues
from traces.draw.shapes import AugmentationShape, PauseShape, Rewrites, SessionShape, draw_mixture

TOOL = PauseShape("tool", Constant(1.5), Constant(20), tool="search")
USER = PauseShape("user", Constant(30.0), Constant(40))
PLAIN = SessionShape(calls=Constant(3), prompt=Constant(100), output=Constant(10), pauses=(TOOL,))


def draw(shape: SessionShape | AugmentationShape, count: int = 1, seed: int = 0) -> list[Session]:
    return draw_mixture({"k": (1.0, shape)}, count, seed)


def test_a_session_is_made_of_what_its_shape_says() -> None:
    (session,) = draw(PLAIN)
    assert (session.id, session.kind, session.arrival, session.prompt) == ("k-0", "k", 0.0, 100)
    assert [call.output for call in session.calls] == [10, 10, 10]
    assert [(p.duration, p.returned, p.waits_for, p.tool) for p in session.pauses] == [(1.5, 20, "tool", "search")] * 2


def test_a_share_of_sessions_ends_with_a_pause() -> None:
    """3,000 sessions at 30 %: 900 within 5 deviations of 25."""
    ended = sum(s.calls[-1].pause is not None for s in draw(replace(PLAIN, ends_with_pause=0.3), 3000))
    assert abs(ended - 900) < 125


def test_pauses_follow_each_other_as_told() -> None:
    """After a tool always a person, after a person always the tool: they alternate, whichever comes first."""
    turns = (replace(TOOL, share=3, then={"user": 1}), replace(USER, share=1, then={"tool:search": 1}))
    shape = replace(PLAIN, calls=Constant(5), pauses=turns)
    firsts = []
    for session in draw(shape, 400):
        who = [pause.waits_for for pause in session.pauses]
        assert all(a != b for a, b in itertools.pairwise(who))
        firsts.append(who[0])
    assert abs(firsts.count("tool") - 300) < 45


def test_a_rewritten_context_keeps_its_part() -> None:
    """100 + 10 tokens shrink to 88, of which a quarter, 22, is as it was; then 98 shrink to 78.4, of which 19."""
    rewrites = Rewrites(1.0, Constant(0.8), Constant(0.25))
    (session,) = draw(replace(PLAIN, rewrites=rewrites))
    assert [(pause.keeps, pause.returned) for pause in session.pauses] == [(22, 66), (19, 59)]


def test_values_of_one_session_are_alike() -> None:
    """Two outputs of one session correlate as ``alike`` says, here in their normal scores."""
    output = Scipy("norm", {"loc": 10_000, "scale": 1000})
    shape = SessionShape(Constant(2), Constant(1), output, (TOOL,), alike={"output": 0.6})
    pairs = np.array([[call.output for call in s.calls] for s in draw(shape, 4000)])
    assert np.corrcoef(pairs.T)[0, 1] == pytest.approx(0.6, abs=0.04)


def test_another_distribution_changes_nothing_else() -> None:
    varied = replace(PLAIN, calls=WeightedValues((1.0, 2.0, 5.0)), prompt=Scipy("lognorm", {"s": 1.0, "scale": 500}))
    slower = replace(varied, pauses=(replace(TOOL, seconds=Scipy("expon", {"scale": 9.0})),))
    for one, other in zip(draw(varied, 50), draw(slower, 50), strict=True):
        assert (one.prompt, [c.output for c in one.calls]) == (other.prompt, [c.output for c in other.calls])


def test_kinds_come_by_weight_and_do_not_change_each_other() -> None:
    """3:1 over 2,000 draws: 1,500 within 5 deviations of 19."""
    shapes = {"a": (3.0, PLAIN), "b": (1.0, replace(PLAIN, prompt=Scipy("expon", {"scale": 100}), calls=Constant(1)))}
    mixed = draw_mixture(shapes, 2000, 5)
    assert abs(sum(s.kind == "a" for s in mixed) - 1500) < 97
    assert mixed[:300] == draw_mixture(shapes, 300, 5)
    alone = draw_mixture({"b": (1.0, shapes["b"][1])}, 20, 5)
    assert [s for s in mixed if s.kind == "b"][:20] == alone
    assert draw_mixture(shapes, 50, 6) != mixed[:50]


def test_an_augmentation_may_have_other_pauses() -> None:
    """Only the person's pauses change; lengths and the tool's pauses stay those of the published figures."""
    shape = AugmentationShape("image", {"user": Constant(2.0)})
    for changed, plain in zip(draw(shape, 20), draw(AugmentationShape("image"), 20), strict=True):
        assert changed.kind == "k"
        for one, other in zip(changed.pauses, plain.pauses, strict=True):
            assert one.duration == (2.0 if one.waits_for == "user" else other.duration)
            assert replace(one, duration=0.0) == replace(other, duration=0.0)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (replace(PLAIN, pauses=()), "k: a session has 3 calls, but no pauses are given"),
        (replace(PLAIN, output=Constant(1e12)), "output of 1e.12 was drawn; the distribution needs a max"),
        (replace(PLAIN, calls=Constant(2e7)), "calls of 2e.07 was drawn"),
    ],
)
def test_sessions_that_cannot_be_are_refused(shape: SessionShape, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(shape)


@pytest.mark.parametrize(
    ("pauses", "message"),
    [
        ((TOOL, TOOL), "two pauses are called 'tool:search'"),
        ((replace(TOOL, then={"usr": 1}),), "tool:search.then names 'usr'; the pauses are tool:search"),
        ((replace(TOOL, share=0),), "the shares of all pauses are 0"),
    ],
)
def test_impossible_pauses_are_refused(pauses: tuple[PauseShape, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PLAIN, pauses=pauses)


def test_impossible_mixtures_are_refused() -> None:
    with pytest.raises(ValueError, match="one of them above 0"):
        draw_mixture({"k": (0.0, PLAIN)}, 1, 0)
    with pytest.raises(ValueError, match="no augmentation 'maths'"):
        AugmentationShape("maths")
    with pytest.raises(ValueError, match="math sessions do not wait for 'user', only for tool"):
        AugmentationShape("math", {"user": Constant(1)})
    with pytest.raises(ValueError, match=r"alike.output is 1.0"):
        replace(PLAIN, alike={"output": 1.0})
