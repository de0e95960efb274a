"""Typed prompts: when which part is there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from traces.draw.distributions import Constant, WeightedValues
from traces.draw.shapes import SessionShape, draw_mixture
from traces.draw.typed import Typing
from traces.session import Call, PromptPart, Session

TYPING = Typing(Constant(3), Constant(25), 1.0, Constant(100), Constant(40), Constant(7))
SHAPE = SessionShape(Constant(1), Constant(50), Constant(300), typing=TYPING)


def test_each_segment_is_there_when_its_last_character_is_typed() -> None:
    """240 characters a minute at 4 a token are a token a second; the options come with the third segment, at 75 s."""
    (session,) = draw_mixture({"question": (1.0, SHAPE)}, 1, seed=0)
    stream = (PromptPart(25, 25.0, 40), PromptPart(25, 50.0, 40), PromptPart(125, 75.0, 7))
    assert session == Session("question-0", 0.0, 225, (Call(300),), "question", stream=stream)
    assert session.input_ended == 75.0


def test_a_longer_draw_begins_with_the_shorter_one() -> None:
    varied = replace(TYPING, segments=WeightedValues((1.0, 2.0, 5.0)), tokens=WeightedValues((10.0, 30.0)))
    shapes = {"question": (1.0, replace(SHAPE, typing=varied))}
    assert draw_mixture(shapes, 40, seed=3)[:15] == draw_mixture(shapes, 15, seed=3)


def test_typing_changes_nothing_else_that_is_drawn() -> None:
    shape = replace(SHAPE, output=WeightedValues((3.0, 9.0, 27.0)))
    typed = draw_mixture({"q": (1.0, shape)}, 20, seed=1)
    plain = draw_mixture({"q": (1.0, replace(shape, typing=None))}, 20, seed=1)
    assert [session.calls for session in typed] == [session.calls for session in plain]


def test_a_million_segments_at_most_are_drawn() -> None:
    endless = replace(TYPING, segments=Constant(10**6))
    with pytest.raises(ValueError, match=r"stream\.segments: 2,000,000 in 2 sessions"):
        endless.typed([Session("a", 0.0, 1, (Call(1),))] * 2, np.random.default_rng(0))


def test_a_segment_that_is_too_long_is_refused() -> None:
    """10^30 tokens would be no whole number of 64 bits."""
    endless = replace(TYPING, tokens=Constant(1e30))
    with pytest.raises(ValueError, match=r"stream\.tokens of 1e\+30 was drawn; the distribution needs a max"):
        endless.typed([Session("a", 0.0, 1, (Call(1),))], np.random.default_rng(0))
