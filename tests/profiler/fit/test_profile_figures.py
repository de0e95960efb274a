"""What the figures of a profile call things."""

from __future__ import annotations

import pytest

from profiler.fit.profile_figures import _in_words


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ("decode 64x1024", "64 sessions decode,\n1,024 tokens each"),
        ("prefill 0+512", "a chunk of 512 tokens,\nnothing before it"),
        ("prefill 2048+512", "a chunk of 512 tokens\nafter 2,048"),
        ("another", "another"),
    ],
)
def test_what_is_computed_is_named_in_words(shape: str, words: str) -> None:
    assert _in_words(shape) == words
