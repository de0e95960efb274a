"""A property that prints a digest of the worlds that it draws, for ``test_drawn_worlds``."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sim.random_worlds import SHIPPED, Plot, examples, plots

DIGEST = hashlib.sha256()


@examples(40)
@given(plots(st.sampled_from(SHIPPED)), st.integers(0, 10**6), st.text(max_size=12), st.floats(0, 1e6))
def test_worlds_to_compare(plot: Plot, number: int, word: str, seconds: float) -> None:
    DIGEST.update(repr((plot.sessions, plot.settings, plot.profile, number, word, seconds)).encode())


def test_the_digest_to_compare(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\ndrawn: {DIGEST.hexdigest()}")
