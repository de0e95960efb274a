"""What a diary tells of one session, by hand and against the record of the run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.contract import NEVER, Change, EngineView, InterceptPolicy
from policies.papers.autellix import AttainedService
from policies.papers.fastserve import ShortestRemaining, SkipJoinMLFQ
from sim.engine.policy_calls import DECODING
from sim.results.session_log import CAUSES, SessionEvent, SessionLog
from tests.sim.random_orders import FEEDBACK, ORDERS, LastCome, LatestPreempts, always_asked
from tests.sim.random_worlds import SHIPPED, Plot, examples, plots
from tests.sim.worlds import pause, run, session


def told(session_log: SessionLog) -> list[tuple[float, str, int, int, int]]:
    """Time, what happened, and where the tokens were."""
    return [(round(e.time, 9), e.what, e.resident, e.offloaded, e.missing) for e in session_log.events]


def details(session_log: SessionLog, what: str) -> list[dict[str, Any]]:
    return [dict(entry.details) for entry in session_log.events if entry.what == what]


def test_a_discarded_context_is_told_from_arrival_to_end_with_what_its_recompute_wastes():
    """Prompt 90 in chunks of 64 and 26: 1.64 + 1.26 s, and the first token at 2.90. Nine more at 1.01 s: 11.99.

    Nine of the ten tokens have KV: 99 resident, 1 missing. All are dropped; the answer comes at 14.99 with 20 tokens.
    120 tokens are computed in chunks of 64 and 56, of which 64 and 35 were computed before: 1.64 + 1.56 s, so that the
    first token comes at 18.19, and four more at 1.01 s end it at 22.23. Own waste: 64 * 1.64 + 120 * 35 / 56 * 1.56.
    The other 45 of its 120 blocks are held 0.35 s longer for the 35 tokens.
    """
    session_log = SessionLog("a")
    run(session("a", 90, 10, pause(3.0, returned=20), 5), policy="discard", session_log=session_log)
    assert told(session_log) == [
        (0.0, "arrived", 0, 0, 90),
        (0.0, "computed", 90, 0, 0),
        (2.9, "first_token", 90, 0, 1),
        (11.99, "call_ended", 99, 0, 1),
        (11.99, "decided", 99, 0, 1),
        (11.99, "dropped", 0, 0, 100),
        (14.99, "answered", 0, 0, 100),
        (14.99, "computed", 120, 0, 0),
        (18.19, "first_token", 120, 0, 1),
        (22.23, "finished", 0, 0, 125),
    ]
    first, second = details(session_log, "computed")
    assert (first["tokens"], first["recomputed_tokens"], first["iterations"]) == (90, 0, 2)
    assert (second["tokens"], second["recomputed_tokens"], second["iterations"]) == (120, 99, 2)
    assert second["computing_s"] == pytest.approx(3.2)
    own, others = 64 * 1.64 + 120 * 35 / 56 * 1.56, 45 * 0.35
    assert session_log.waste == {1: pytest.approx(dict(zip(CAUSES, (0.0, own, others, 0.0), strict=True)))}


@pytest.mark.parametrize("leap", [True, False])
def test_chunks_that_leap_are_told_one_by_one(leap: bool):
    """Prompt 200 in chunks of 64, 64, 64 and 8: 3 * 1.64 + 1.08 = 6 s in four iterations, three of them one event."""
    session_log = SessionLog("a")
    world = run(session("a", 200, 2), session_log=session_log, leap=leap)
    assert world.record.totals["events"] == (3 if leap else 5)
    (computed,) = details(session_log, "computed")
    assert (computed["tokens"], computed["iterations"]) == (200, 4)
    assert computed["computing_s"] == pytest.approx(6.0)
    assert told(session_log)[1] == (0.0, "computed", 200, 0, 0)


def test_a_context_that_gives_way_says_how_many_blocks_were_lacking_and_for_whom():
    """a holds 49 tokens of 100 while it pauses from 1.4 + 9 * 1.01 s on; b comes at 20 s with 80 tokens, so 29 lack.

    At 21.8 s b decodes its second token, and lacks one more block.
    """
    session_log = SessionLog("a")
    world = run(
        session("a", 40, 10, pause(30.0), 5),
        session("b", 80, 2, at=20.0),
        policy="cache-lru",
        gpu=100,
        saturation=100,
        session_log=session_log,
    )
    assert world.session("b")["finished_at"] < 30
    paused, gave_way, again = details(session_log, "decided")
    assert (paused["asked"], paused["verdict"]) == ("pause", "preserve")
    assert (gave_way["asked"], gave_way["verdict"], gave_way["keep"]) == ("room", "discard", 20)
    assert (gave_way["needed_blocks"], gave_way["needed_by"]) == (29, "b")
    assert (again["keep"], again["needed_blocks"], again["needed_by"]) == (19, 1, DECODING)
    after = next(entry for entry in session_log.events if entry.what == "dropped")
    assert (after.time, after.resident, after.missing) == (20.0, 20, 30)


def test_a_copy_that_the_batch_waits_for_wastes_everybodys_memory():
    """a is copied out at its pause: 19 tokens in 0.19 s, for which the batch and its 19 blocks wait."""
    session_log = SessionLog("a")
    run(
        session("a", 10, 10, pause(5.0), 5),
        session("b", 30, 40),
        policy="swap",
        swap="blocking",
        session_log=session_log,
    )
    out = next(entry for entry in session_log.events if entry.what == "swapped")
    assert out.details == {"direction": "out", "tokens": 19, "blocks": 19, "seconds": 0.19, "from_replica": False}
    assert (out.resident, out.offloaded, out.missing) == (0, 19, 1)
    b_holds = 30 + 10  # a token has been added in each of a's ten iterations but the first, and one is claimed
    assert session_log.waste[0]["swap"] == pytest.approx((19 + b_holds) * 0.19)


def test_who_goes_before_whom_is_told_with_the_numbers_that_decide():
    """One at a time, queues of 2, 2 and 4 s by service: b, there since 0.5, is 1 behind a (queue 1, since 0).

    a emits its second token at 1.4 + 1.01 = 2.41, has run for more than 2 s, and falls to queue 2: b passes it. b falls
    in turn at 2.41 + 1.4 + 1.01 = 4.82: a passes it. c comes at 5, is taken up at 5.83, and passes both from
    queue 1: until 5.83 + 1.4. Then a goes on, until its 2 s in queue 2 are over: at 8.24 b passes it.
    """
    sessions = session("a", 40, 9), session("b", 40, 9, at=0.5), session("c", 40, 1, at=5.0)
    session_log = SessionLog("b")
    run(*sessions, order=AttainedService(quantum=2.0), max_running=1, session_log=session_log)
    (queued,) = details(session_log, "queued")
    assert queued == {
        "key": {"queue": 1, "since": 1.4},
        "before": 1,
        "others": 1,
        "next_before": {"a": {"queue": 1, "since": 0.0}},
    }
    first, fallen, last = details(session_log, "passed")[:3]
    assert first["passes"] == {"a": {"queue": 2, "since": pytest.approx(2.41)}} and not first["passed_by"]
    assert (first["was"], first["before"], first["others"]) == ({}, 0, 1)
    assert fallen["passed_by"] == first["passes"] and fallen["was"] == {"queue": 1, "since": 1.4}
    assert fallen["key"] == {"queue": 2, "since": pytest.approx(4.82)}
    assert last["passed_by"] == {"c": {"queue": 1, "since": pytest.approx(5.83)}}
    assert last["passes"] == {"a": {"queue": 3, "since": pytest.approx(8.24)}}
    assert (last["before"], last["until"]) == (0, pytest.approx(8.24))


def test_passing_that_goes_on_while_nothing_else_happens_is_one_entry():
    """b waits for a, and the latest goes first: c passes it at 1.2, taken up at 1.4, and d at 3, taken up at 3.42."""
    sessions = (
        session("a", 40, 9),
        session("b", 40, 1, at=0.5),
        session("c", 40, 1, at=1.2),
        session("d", 40, 1, at=3.0),
    )
    session_log = SessionLog("b")
    run(*sessions, order=LastCome(), max_running=1, session_log=session_log)
    (passed,) = details(session_log, "passed")
    assert list(passed["passed_by"]) == ["c", "d"]
    assert (passed["before"], passed["others"], passed["until"]) == (2, 3, pytest.approx(3.42))


def test_who_runs_is_passed_only_where_orders_preempt():
    """The latest goes first; b comes while a runs. Where that preempts b passes a, elsewhere a's place is its own."""
    for order, passed in ((LastCome(), 0), (LatestPreempts(), 1)):
        session_log = SessionLog("a")
        run(session("a", 40, 9), session("b", 40, 1, at=0.5), order=order, max_running=1, session_log=session_log)
        assert len([one for one in details(session_log, "passed") if "b" in one["passed_by"]]) == passed


def test_ranks_of_who_runs_that_are_old_say_how_old_they_are():
    """Two places: there is room for a and b, so nobody asks what is left of a when b is taken up at 2.41, nor of both
    when c passes b at 2.41 + 1.41. Then c has to wait, and all are ranked. d comes at 7; a and b have
    gone on since.
    """
    sessions = (
        session("a", 40, 9),
        session("b", 40, 9, at=1.5),
        session("c", 40, 1, at=2.5),
        session("d", 40, 1, at=7.0),
    )
    session_log = SessionLog("b")
    run(*sessions, order=ShortestRemaining(), max_running=2, session_log=session_log)
    (queued,) = details(session_log, "queued")
    by_c, by_d = details(session_log, "passed")[:2]
    assert queued["running_ranked_at"] == by_c["running_ranked_at"] == 0.0
    assert by_d["running_ranked_at"] == pytest.approx(3.82)


class AskedAt(InterceptPolicy):
    """Notes when it is asked whether it changes its mind."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def revise(self, view: EngineView) -> Iterator[Change]:
        self.times.append(view.now)
        return iter(())

    def review_at(self, view: EngineView) -> float:
        return NEVER


def test_a_diary_has_nobody_asked_more_often_and_tells_what_happens_in_the_middle_of_a_leap() -> None:
    """Room for all, a first quantum of 4 s. b pauses at 1.2; c's prompt, which came at 1.15, is computed by 2.31. Then
    a and c decode together, 8 iterations of 1.02 s in one leap.

    a falls to queue 2 when it has run for 4 s, at 2.31 + 2 * 1.02 = 4.35, and c passes it; c falls behind it at 5.37,
    at the end of the third iteration, with 13 tokens.
    """
    sessions = session("a", 10, 10), session("b", 10, 1, pause(90.0), 1), session("c", 10, 9, at=1.15)
    asked, session_log = [], SessionLog("c")
    for witness in (None, session_log):
        policy, order = AskedAt(), SkipJoinMLFQ(skip_join=False, quantum=4.0, falls_by=1, promote_after=90.0)
        world = run(*sessions, policy=policy, order=order, leap=True, session_log=witness)
        asked.append(policy.times)
        assert world.totals["events"] == 4
    assert asked[0] == asked[1] == pytest.approx([1.2, 2.31, 10.47])
    (passed,) = [entry for entry in session_log.events if entry.what == "passed"]
    assert passed.details["passes"] == {"a": {"queue": 2, "since": pytest.approx(4.35)}}
    assert passed.details["key"] == {"queue": 2, "since": pytest.approx(5.37)}
    assert (passed.time, passed.details["until"], passed.resident) == (pytest.approx(4.35), pytest.approx(5.37), 13)


@examples(30)
@given(plots(st.sampled_from(SHIPPED), st.sampled_from(FEEDBACK)), st.integers(0, 24))
def test_a_diary_tells_of_leaps_what_it_tells_of_iterations_at_which_the_order_is_asked(plot: Plot, who: int) -> None:
    session = plot.sessions[who % len(plot.sessions)].id
    session_log, other = SessionLog(session), SessionLog(session)
    replace(plot, leap=True).run(session_log)
    replace(plot, leap=False, order=partial(always_asked, plot.order)).run(other)
    assert session_log.events == other.events


@examples(20)
@given(plots(st.sampled_from(SHIPPED) | st.integers(0, 2**32), st.sampled_from(ORDERS) | st.integers(0, 2**32)))
def test_the_waste_of_all_sessions_is_what_the_ledger_booked_and_a_diary_changes_nothing(plot: Plot) -> None:
    alone = plot.run()
    sums = dict.fromkeys(CAUSES, 0.0)
    for one in plot.sessions:
        session_log = SessionLog(one.id)
        world = plot.run(session_log)
        assert repr(world.record.sessions) == repr(alone.record.sessions)
        assert world.totals == alone.totals
        check(session_log.events, world.session(one.id))
        for causes in session_log.waste.values():
            for cause, token_s in causes.items():
                sums[cause] += token_s
    for cause, token_s in sums.items():
        assert token_s == pytest.approx(alone.totals[f"waste_{cause}_token_s"], rel=1e-9, abs=1e-6), cause


def test_a_log_tells_of_no_copy_that_the_end_of_its_session_cancels() -> None:
    """b pauses for 0 s after its last call, at 1.20: its blocks would be copied out then, and it has left."""
    log = SessionLog("b")
    world = run(session("a", 10, 5), session("b", 10, 1, pause(0.0)), policy="swap", swap="blocking", session_log=log)
    assert [event.what for event in log.events][-3:] == ["answered", "decided", "finished"]
    assert log.events[-1].time == pytest.approx(1.2) and world.session("b")["swapped_out_bytes"] == 0


def test_a_diary_has_an_order_asked_no_more_often() -> None:
    """All run, and quanta of 0.4 s end in every iteration: one leap, with a diary or without."""
    order = partial(SkipJoinMLFQ, skip_join=False, quantum=0.4)
    sessions = session("a", 10, 20), session("b", 10, 20)
    told = run(*sessions, order=order(), session_log=SessionLog("a"), leap=True)
    assert told.totals == run(*sessions, order=order(), leap=True).totals
    assert told.totals["events"] == 2


def check(entries: Any, row: dict[str, Any]) -> None:
    """The story agrees with the session's row of the record."""
    story: list[SessionEvent] = list(entries)
    assert [e.time for e in story] == sorted(e.time for e in story)
    (last,) = [e for e in story if e.what in ("finished", "rejected")]
    assert all(e.what == "copied" for e in story[story.index(last) + 1 :])  # a copy that was under way when it left
    assert last.what == row["status"]
    if last.what == "finished":
        assert last.time == row["finished_at"]
        assert sum(e.details["recomputed_tokens"] for e in story if e.what == "computed") == row["recomputed_tokens"]
        moved = [e for e in story if e.what in ("swapped", "copied")]
        out = sum(e.details["tokens"] for e in moved if e.details["direction"] == "out")
        assert out == row["swapped_out_bytes"]
        assert sum(e.details["tokens"] for e in moved) - out == row["swapped_in_bytes"]
        assert sum(e.what == "preempted" for e in story) == row["preemptions"]
        assert sum(e.details.get("output_tokens", 0) for e in story) == row["output_tokens"]
        waited = sum(e.details.get("waited_s", 0.0) for e in story)
        assert waited == pytest.approx(row["queued_s"], abs=1e-9)


@examples(12)
@given(plots(st.sampled_from(SHIPPED)), st.sampled_from([0.3, 3.0]) | st.floats(0, 60))
def test_a_diary_of_a_run_that_is_cut_ends_with_it(plot: Plot, horizon: float) -> None:
    plot = replace(plot, horizon=horizon)
    alone = plot.run()
    sums = dict.fromkeys(CAUSES, 0.0)
    for one in plot.sessions:
        session_log = SessionLog(one.id)
        plot.run(session_log)
        for causes in session_log.waste.values():
            for cause, token_s in causes.items():
                sums[cause] += token_s
    for cause, token_s in sums.items():
        assert token_s == pytest.approx(alone.totals[f"waste_{cause}_token_s"], rel=1e-9, abs=1e-6), cause
