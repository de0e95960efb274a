"""Contexts that come back from the host, and those that are recomputed, under every shipped system on the real backend.

Time is counted here and not measured, so that pauses of seconds cost nothing and every run does the same.
"""

from __future__ import annotations

from functools import cache

import pytest

torch = pytest.importorskip("torch")

from caesura.config.systems import preset_names  # noqa: E402
from tests.profiler.small_servers import Said, assert_same, serve, small_profile  # noqa: E402
from traces.session import Call, Pause, Session  # noqa: E402

NEVER_SWAP = {
    *("vllm", "vllm-chunked", "improved-discard", "improved-discard-chunked", "preserve", "preserve-chunked"),
    *("heuristic-discard", "heuristic-discard-chunked", "infercept-no-swap", "thunderagent", "retention"),
    *("cache-lru", "cache-lru-unchunked", "continuum", "continuum-lru", "autellix-no-preemption"),
    *("livemind", "livemind-no-reuse", "whole-prompt", "paged-sharing", "segment-kv", "contiguous-beams"),
    "fastserve-recompute",
}
"""Their policies swap nobody, and who is preempted is recomputed."""


class CountedTime:
    """In place of the module ``time``: each look at the clock is 0.1 ms after the one before, and nobody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 1e-4
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def counted_time(monkeypatch):
    monkeypatch.setattr("profiler.serving.server.time", CountedTime())


def wait(returned: int, keeps: int | None = None) -> Pause:
    return Pause(5.0, returned, keeps=keeps)


def crowd() -> list[Session]:
    """The first session shows how long pauses are. Ten come 6 s later, and 28 blocks hold two or three of them.

    ``left`` pauses with 14 blocks, ``long`` decodes with 13, and ``large``, whose turn it is, needs 24: what ``left``
    holds is not enough, so nobody takes it before it has been copied. ``s0`` and ``s2`` are rewritten after 50 tokens,
    in the middle of what they had generated. The calls of ``q0`` to ``q2`` are short: orders stop others for them.
    """
    sessions = [
        Session("first", 0.0, 30, (Call(5, wait(5)), Call(5))),
        Session("left", 6.0, 48, (Call(8, wait(5)), Call(6, wait(7)), Call(7))),
        Session("long", 6.0, 42, (Call(30, wait(5)), Call(5))),
        Session("large", 6.001, 94, (Call(4, wait(6)), Call(5))),
    ]
    for n in range(4):
        second = Call(6, wait(7, keeps=None if n % 2 else 50))
        sessions.append(Session(f"s{n}", 6.002 + 0.001 * n, 46 + n, (Call(8 + n, wait(5)), second, Call(7))))
    return sessions + [Session(f"q{n}", 6.008 + 0.004 * n, 13, (Call(3, wait(4)), Call(4))) for n in range(3)]


@cache
def alone(session: Session) -> Said:
    """Its tokens when nobody else is there and its context stays."""
    return serve([session], "preserve", small_profile(64, 0))[1][session.id]


@pytest.mark.parametrize("system", preset_names())
def test_what_came_back_from_the_host_or_was_recomputed_gives_the_tokens_of_each_session_alone(system):
    """Swapping is cheapest: 55 tokens are copied in 14 us, two decode in 0.3 ms, and to compute 55 again takes 5.6 ms.
    The host has 24 blocks, too few for all who pause: what finds no room there is recomputed."""
    sessions = crowd()
    record, said = serve(sessions, system, small_profile(28, 24, token_s=1e-4, copied_bytes_per_s=1e9))
    assert record.sessions["status"] == ["finished"] * len(sessions)
    assert (sum(record.sessions["swapped_in_bytes"]) > 0) is (system not in NEVER_SWAP)
    assert sum(record.sessions["recomputed_tokens"]) > 0
    for session in sessions:
        *_, (_, context) = session.call_contexts()
        assert len(said[session.id].ids) == context
        assert_same(said[session.id], alone(session))


def test_a_rewritten_context_keeps_what_the_rewrite_left_and_goes_on_with_new_tokens():
    """Of 46 + 8 + 5 + 6 = 65 tokens 50 are kept, 4 of them generated; 7 new ones follow, those that stand at these
    places wherever nothing was generated; then 7 are generated."""
    rewritten = next(session for session in crowd() if session.id == "s0")
    ids = alone(rewritten).ids
    before = alone(Session("s0", 0.0, 46, (Call(8),))).ids
    ungenerated = alone(Session("s0", 0.0, 57, (Call(1),))).ids
    assert before[50:54] != ungenerated[50:54]
    assert ids[:57] == before[:50] + ungenerated[50:57]
    assert len(ids) == 57 + 7
