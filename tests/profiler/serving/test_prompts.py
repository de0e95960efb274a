"""Prompts begin with the same token ids exactly where a trace says that they do."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from profiler.backend.backend import make_backend, make_model  # noqa: E402
from profiler.backend.model_config import load_model_config  # noqa: E402
from profiler.serving.prompts import common_beginning  # noqa: E402
from traces.session import Call, Session, SharedPrefix  # noqa: E402

MODEL = make_model(load_model_config("tiny"), torch.device("cpu"), max_context=64)


def prompt_ids(*sessions: Session) -> list[list[int]]:
    executor = make_backend(MODEL, 16, 0, 4, max_sessions=4, max_context=64, max_decodes=4).executor
    for session in sessions:
        executor.open(session.id, session.prompt, begins_with=common_beginning(session))
    return [executor.tokens(session.id) for session in sessions]


def hashed(name: str, prompt: int, *hashes: int) -> Session:
    return Session(name, 0.0, prompt, (Call(1),), block_hashes=hashes, hash_block=10)


def test_equal_hashes_at_equal_places_are_equal_tokens():
    """b's first two blocks of 10 are a's, its third is another; c's last block is a's, cut to 5 of its 10 tokens."""
    a, b, c = prompt_ids(hashed("a", 30, 1, 2, 3), hashed("b", 30, 1, 2, 4), hashed("c", 25, 1, 2, 3))
    assert a[:20] == b[:20]
    assert a[20:] != b[20:]
    assert c == a[:25]


def test_tokens_after_the_hashed_blocks_are_a_session_s_own():
    a, b = prompt_ids(hashed("a", 30, 1), hashed("b", 30, 1))
    assert a[:10] == b[:10]
    assert a[10:] != b[10:]


def test_sessions_of_one_named_prefix_begin_alike_as_far_as_both_have_it():
    prefixes = [SharedPrefix("system", 15), SharedPrefix("system", 25), SharedPrefix("tools", 25)]
    sessions = [Session(f"s{n}", 0.0, 30, (Call(1),), prefix=prefix) for n, prefix in enumerate(prefixes)]
    short, long, other = prompt_ids(*sessions)
    assert short[:15] == long[:15]
    assert short[15:25] != long[15:25]
    assert other[:15] != short[:15]


def test_a_prompt_that_shares_nothing_follows_from_its_session_alone():
    (plain,) = prompt_ids(Session("a", 0.0, 30, (Call(1),)))
    (empty,) = prompt_ids(Session("a", 0.0, 30, (Call(1),), prefix=SharedPrefix("system", 0)))
    assert plain == empty
