"""A session's way through the engine: pauses, rewrites, refusals, and what happens at one instant.

An iteration of x tokens takes 1 s + 0.01 s * x; blocks hold one token (see ``worlds``).
"""

from __future__ import annotations

import math

import pytest

from sim.errors import UnsupportedSession
from tests.sim.worlds import World, pause, run, session
from traces.session import InvalidSession, Pause, PromptPart, SharedPrefix, ToolRun


def test_a_trailing_pause_is_waited_for_and_nothing_follows() -> None:
    """1.10 s for the call, 5 s of pause: over at 6.10. The 10 tokens stay on the GPU throughout."""
    world = run(session("a", 10, 1, pause(5.0, returned=7)))
    assert world.session("a")["finished_at"] == pytest.approx(6.10)
    assert world.session("a")["pauses"] == 1
    assert world.record.calls["call"] == [0]
    assert world.totals["waste_preserve_token_s"] == pytest.approx(10 * 5.0)


def test_a_pause_of_no_length_is_over_before_the_next_iteration() -> None:
    """b decodes all along; a misses no iteration: 1.20, then its 1 + 2 tokens beside b's: 1.04."""
    world = run(session("a", 10, 1, pause(0.0, returned=2), 1), session("b", 10, 3))
    assert [one.chunks for one in world.iterations] == [{"a": 10, "b": 10}, {"a": 3}, {}]
    assert world.call("a", 1)["ready_at"] == world.call("a", 0)["finished_at"]
    assert world.call("a", 1)["scheduled_at"] == pytest.approx(1.20)


def test_an_answer_during_an_iteration_is_taken_up_at_its_end() -> None:
    """a's answer comes at 1.20 + 0.5 = 1.70, in the middle of b's iteration of 1.01 s."""
    world = run(session("a", 10, 1, pause(0.5), 1), session("b", 10, 3))
    assert world.call("a", 1)["ready_at"] == pytest.approx(1.70)
    assert world.call("a", 1)["scheduled_at"] == pytest.approx(2.21)
    assert world.session("a")["queued_s"] == pytest.approx(0.51)


# ---- rewritten contexts


@pytest.mark.parametrize(
    ("policy", "keeps", "returned", "chunk", "recomputed"),
    [
        ("preserve", 6, 3, 3, 0),  # 6 of 14 resident tokens survive; 3 are new
        ("preserve", 14, 3, 3, 0),  # all that is resident survives, and the last token is gone
        ("preserve", 15, 3, 4, 0),  # all 15 survive: the last of them was never computed
        ("preserve", 99, 3, 4, 0),
        ("preserve", 0, 3, 3, 0),  # a new conversation
        ("discard", 6, 3, 9, 6),
        ("discard", 0, 3, 3, 0),
        ("swap", 6, 3, 3, 0),  # 6 tokens come back from the host
        ("swap", 0, 3, 3, 0),
    ],
)
@pytest.mark.parametrize("block_size", [1, 4])
def test_a_rewritten_context_keeps_its_prefix(
    policy: str, keeps: int, returned: int, chunk: int, recomputed: int, block_size: int
) -> None:
    """Prompt 10, 5 generated: context 15, of which 14 are resident. ``keeps`` of them survive the pause."""
    a = session("a", 10, 5, pause(1.0, returned, keeps=keeps), 2)
    world = run(a, policy=policy, block_size=block_size, swap="blocking")
    assert world.chunks("a") == [10, chunk]
    assert world.session("a")["recomputed_tokens"] == recomputed
    assert world.call("a", 1)["context_tokens"] == min(keeps, 15) + returned
    if policy == "swap":
        assert world.session("a")["swapped_in_bytes"] == keeps


@pytest.mark.parametrize(
    ("policy", "keeps", "where"),
    [
        ("preserve", 6, (6, 0, 0)),
        ("preserve", 14, (14, 0, 0)),
        ("preserve", 15, (14, 0, 1)),
        ("preserve", None, (14, 0, 1)),
        ("discard", 6, (0, 0, 6)),
        ("swap", 6, (0, 6, 0)),
        ("swap", 99, (0, 14, 1)),
    ],
)
def test_a_call_s_row_says_where_what_is_left_of_the_context_is(
    policy: str, keeps: int | None, where: tuple[int, int, int]
) -> None:
    """Context 15, of which 14 were computed. The row counts what survives the rewrite; the 3 returned come on top."""
    row = run(session("a", 10, 5, pause(1.0, 3, keeps=keeps), 2), policy=policy, swap="blocking").call("a", 1)
    assert (row["resident_tokens"], row["offloaded_tokens"], row["missing_tokens"]) == where
    assert sum(where) + 3 == row["context_tokens"]


@pytest.mark.parametrize("keeps", [0, 6])
def test_a_rewrite_that_adds_nothing_is_refused(keeps: int) -> None:
    """Were 6 tokens kept and none returned, all that is left would be computed, and nothing give the next token."""
    with pytest.raises(InvalidSession, match=r"pause\.returned is 0"):
        pause(1.0, 0, keeps=keeps)


# ---- refusals


@pytest.mark.parametrize(("gpu", "status"), [(61, "finished"), (60, "rejected")])
def test_a_session_that_can_never_fit_is_rejected_with_the_reason(gpu: int, status: str) -> None:
    """It grows to 40 + 5 + 10 + 6 = 61 tokens; b goes on."""
    world = run(session("a", 40, 5, pause(1.0, returned=10), 6), session("b", 10, 2), gpu=gpu)
    a = world.session("a")
    assert a["status"] == status
    if status == "rejected":
        assert "61 tokens" in a["reason"]
        assert str(gpu) in a["reason"]
        assert math.isnan(a["finished_at"])
        assert (a["output_tokens"], a["queued_s"]) == (0, 0.0)
    assert world.session("b")["status"] == "finished"


def test_the_watermark_counts_against_the_largest_session() -> None:
    """100 blocks, 10 to stay free: 90 tokens fit, 91 do not."""
    world = run(session("a", 89, 1), session("b", 90, 1), gpu=100, watermark=0.1)
    assert world.session("a")["status"] == "finished"
    assert world.session("b")["status"] == "rejected"


def test_a_pool_without_a_block_rejects_everyone() -> None:
    """A pool of 3 tokens has no block of 4."""
    world = run(session("a", 1, 1), session("b", 1, 1), gpu=3, block_size=4)
    assert world.record.sessions["status"] == ["rejected", "rejected"]
    assert world.totals["end_time"] == 0.0


def test_shapes_that_the_engine_does_not_serve_are_refused_by_name() -> None:
    streamed = session("odd", 10, 2, samples=2, stream=(PromptPart(5, 1.0, 3), PromptPart(5, 2.0)))
    with pytest.raises(UnsupportedSession, match=r"session odd uses 'samples, with a prompt"):
        run(streamed, streamed_prompts="parts")


@pytest.mark.parametrize(
    ("field", "odd"),
    [
        ("pause.tools", Pause(1.0, tools=(ToolRun("search", 1.0),))),
        ("pause.session", Pause(1.0, session="child")),
    ],
)
def test_pauses_that_the_engine_does_not_serve_are_refused_by_name(field: str, odd: Pause) -> None:
    with pytest.raises(UnsupportedSession, match=rf"session odd uses '{field}'"):
        run(session("odd", 10, 2, odd, 1))


def test_what_sessions_could_share_changes_nothing_where_nothing_is_shared() -> None:
    alone = run(session("a", 10, 2), session("b", 10, 2, at=0.5))
    shared = {"prefix": SharedPrefix("system", 5), "block_hashes": (1, 2, 3), "hash_block": 4}
    alike = run(session("a", 10, 2, **shared), session("b", 10, 2, at=0.5, **shared))
    assert alike.record.sessions == alone.record.sessions
    assert alike.iterations == alone.iterations


def test_an_empty_workload_is_over_at_once() -> None:
    world = run()
    assert world.totals["end_time"] == 0.0
    assert world.record.sessions["id"] == []


# ---- what happens at one instant


def at(world: World, moment: float) -> list[tuple[str, str]]:
    """What the engine was told at ``moment``, in order."""
    return [(kind, name) for when, kind, name in world.engine.events if when == moment]


def test_one_instant_s_news_are_ends_of_copies_then_answers_then_arrivals() -> None:
    """Powers of two, so that 4.0 is 4.0: 128 tokens take 2 s, and a copied token 1/64 s.

    a and b (64 tokens each) pause at 2.0 and leave for the host one after the other, until 3.0 and 4.0. At 4.0 come:
    the end of b's copy, a's answer, c and d. SimPy made the events in the order c, a, b.
    """
    world = run(
        session("a", 64, 1, pause(2.0), 1),
        session("b", 64, 1, pause(9.0), 1),
        session("c", 1, 1, at=4.0),
        session("d", 1, 1, at=4.0),
        per_token=1 / 128,
        copy=1 / 64,
        saturation=256,
        policy="swap",
        swap="overlapped",
        swap_budget="unlimited",
    )
    assert at(world, 4.0) == [("copied", "b"), ("answered", "a"), ("arrived", "c"), ("arrived", "d")]
    plan = next(one for one in world.iterations if one.begin == 4.0)
    assert set(plan.chunks) == {"c", "d"}
    assert plan.copies == [("a", "in", 64)]


def test_answers_at_one_instant_are_taken_up_in_order_of_submission() -> None:
    """b pauses at 2.0 for 3 s, then a at 4.0 for 1 s: both are back at 5.0, a first."""
    world = run(
        session("a", 64, 3, pause(1.0), 1),
        session("b", 64, 1, pause(3.0), 1),
        fixed=0.0,
        per_token=1 / 64,
        saturation=256,
    )
    # 128 tokens: 2 s; then a alone, 1/64 s a token
    paused = world.call("a", 0)["finished_at"]
    world = run(
        session("a", 64, 3, pause(5.0 - paused), 1),
        session("b", 64, 1, pause(3.0), 1),
        fixed=0.0,
        per_token=1 / 64,
        saturation=256,
    )
    assert at(world, 5.0) == [("answered", "a"), ("answered", "b")]


def test_arrivals_at_the_end_of_an_iteration_join_the_next() -> None:
    """a's prefill ends at 2.0 sharp; b arrives at 2.0 and is in the iteration that begins there."""
    world = run(session("a", 128, 3), session("b", 1, 1, at=2.0), per_token=1 / 128, saturation=256)
    assert world.call("b", 0)["scheduled_at"] == 2.0


@pytest.mark.parametrize(("before", "both"), [(7.9, 25.2), (0.1, 0.7), (0.3, 11.1), (1.1, 3.3)])
def test_sessions_of_one_instant_arrive_at_one_instant(before: float, both: float) -> None:
    """In floating point 7.9 + (25.2 - 7.9) is less than 25.2: still nobody comes early, and b and c come together."""
    world = run(session("a", 1, 1, at=before), session("b", 1, 1, at=both), session("c", 1, 1, at=both), fixed=1e-3)
    assert world.call("b", 0)["scheduled_at"] == world.call("c", 0)["scheduled_at"] >= both


def test_a_pause_too_short_for_the_clock_is_over_before_the_next_iteration() -> None:
    """At a million seconds a pause of 1e-12 s ends at the instant at which it began, before the next plan."""
    late = 1e6
    world = run(session("a", 10, 1, pause(1e-12), 1, at=late), session("b", 10, 5, at=late), step=late)
    assert world.call("a", 1)["ready_at"] == world.call("a", 0)["finished_at"]
    assert world.call("a", 1)["scheduled_at"] == world.call("a", 0)["finished_at"]


# ---- back with its context on the GPU


@pytest.mark.parametrize(("resume_on_gpu", "chunks"), [("running", [10, 3]), ("queue", [10, 13])])
def test_a_session_back_with_its_context_runs_at_once_or_queues(resume_on_gpu: str, chunks: list[int]) -> None:
    """30 blocks, 10 held by a; c waits for 25. Behind c, a blocks it and nothing runs, so a gives its memory up."""
    world = run(
        session("a", 10, 1, pause(2.0, returned=2), 1),
        session("c", 25, 1, at=0.5),
        gpu=30,
        requeue_at="tail",
        resume_on_gpu=resume_on_gpu,
    )
    assert world.chunks("a") == chunks
    began = {"a": world.call("a", 1)["scheduled_at"], "c": world.call("c", 0)["scheduled_at"]}
    assert (began["a"] < began["c"]) is (resume_on_gpu == "running")


# ---- runs that are cut


def test_a_run_is_cut_at_its_horizon() -> None:
    """At 2.5 s a has 1 token of 1.10 and one of 2.11; the third would come at 3.12."""
    world = run(session("a", 10, 5), session("b", 10, 1, at=3.0), horizon=2.5)
    a = world.session("a")
    assert (a["status"], a["output_tokens"]) == ("unfinished", 2)
    assert world.totals["end_time"] == 2.5
    assert world.record.sessions["id"] == ["a"]
    assert world.call("a", 0)["output_tokens"] == 2
    assert math.isnan(world.call("a", 0)["finished_at"])


def test_a_session_that_arrives_in_the_iteration_that_the_horizon_cuts_is_unfinished() -> None:
    """b comes at 0.5, during a's prefill of 1.10 s; the run ends at 1.0. b is inside though no plan has seen it."""
    world = run(session("a", 10, 5), session("b", 10, 1, at=0.5), horizon=1.0)
    assert world.record.sessions["id"] == ["a", "b"]
    assert world.record.sessions["status"] == ["unfinished", "unfinished"]


def test_a_run_cut_while_an_answer_waits_for_a_copy_counts_each_call_once() -> None:
    """a pauses at 1.10, its copy runs to 4.10, its answer came at 2.10; cut at 3.0, call 0 is over and call 1 open."""
    a = session("a", 10, 1, pause(1.0, returned=4), 1)
    world = run(a, copy=0.3, policy="swap", swap="overlapped", horizon=3.0)
    calls = world.record.calls
    assert sum(calls["output_tokens"]) == world.session("a")["output_tokens"] == 1
    assert calls["call"] in ([0], [0, 1])
    if 1 in calls["call"]:
        assert math.isnan(world.call("a", 1)["scheduled_at"])
