"""The record of a run that only a client watched: the tables of a simulated run, made again from its calls' times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.registry import make_order, make_policy
from profiler.serving.real_engine import PARTS, CallTiming, missing_parts, record_of
from sim.engine.settings import EngineSettings
from sim.results.run_record import RunRecord
from sim.world.simulate import simulate
from tests.sim.random_worlds import examples, workloads
from tests.sim.worlds import profile
from traces.session import Call, Pause, PromptPart, Session

ONE = Session("a", 1.0, 20, (Call(4, Pause(2.0, returned=3, tool="search")), Call(5, Pause(1.5))))
FIRST, SECOND = CallTiming("a", 0, 1.0, 1.5, 3.0, 4), CallTiming("a", 1, 5.0, 5.5, 8.0, 5)
NAN = math.nan


def simulated(sessions: Sequence[Session], horizon: float | None = None) -> RunRecord:
    return simulate(
        sessions,
        policy=make_policy({"name": "discard"}),
        order=make_order({"name": "fcfs"}),
        settings=EngineSettings(),
        profile=profile(gpu=100_000),
        horizon=horizon,
    )


def timings_of(record: RunRecord) -> list[CallTiming]:
    columns = [record.calls[name] for name in CallTiming.__dataclass_fields__]
    return [CallTiming(*values) for values in zip(*columns, strict=True)]


@given(workloads(), st.none() | st.floats(1.0, 60.0))
@examples(60)
def test_tables_made_from_times_of_calls_are_those_of_the_run(sessions: tuple[Session, ...], horizon: float | None):
    sessions = tuple(replace(session, stream=()) for session in sessions)
    run = simulated(sessions, horizon)
    made = record_of(sessions, timings_of(run), run.totals["end_time"])
    place = {one.id: index for index, one in enumerate(sorted(sessions, key=lambda one: one.arrival))}
    in_order = sorted(range(len(run.calls["call"])), key=lambda row: place[run.calls["session"][row]])
    for name, column in made.sessions.items():
        assert repr(column) == repr(run.sessions.get(name, [1] * len(column))), name
    for name, column in made.calls.items():
        assert repr(column) == repr([run.calls[name][row] for row in in_order]), name


def test_a_pause_after_the_last_call_ends_the_session() -> None:
    """8 s + 1.5 s: finished in a run of 10 s, not in one that was cut after 9."""
    done, cut = (record_of([ONE], [SECOND, FIRST], end) for end in (10.0, 9.0))
    assert (done.sessions["finished_at"], done.sessions["status"]) == ([9.5], ["finished"])
    assert math.isnan(cut.sessions["finished_at"][0])
    assert cut.sessions["status"] == ["unfinished"]


def test_a_call_after_a_pause_has_the_context_and_the_tool_before_it() -> None:
    """20 + 4 generated + 3 returned."""
    calls = record_of([ONE], [FIRST, SECOND], 10.0).calls
    assert calls["context_tokens"] == [20, 27]
    assert (calls["tool"], calls["pause_s"]) == (["", "search"], [0.0, 2.0])


@pytest.mark.parametrize(
    ("session", "timings", "message"),
    [
        (ONE, [FIRST, FIRST], "session a: call 0 has two timings"),
        (ONE, [replace(FIRST, session="b")], "session b has timings and is not in the workload"),
        (ONE, [replace(FIRST, call=2), FIRST, SECOND], "session a has 2 calls, and a timing of call 2"),
        (ONE, [SECOND], "session a: call 1 has a timing, and call 0 did not end"),
        (ONE, [replace(FIRST, finished_at=NAN), SECOND], "session a: call 1 has a timing, and call 0 did not end"),
        (replace(ONE, stream=(PromptPart(5, 0.1),)), [FIRST], "session a has a prompt that streams in"),
    ],
)
def test_times_that_do_not_fit_the_workload_are_refused(session: Session, timings: list[CallTiming], message: str):
    with pytest.raises(ValueError, match=message):
        record_of([session], timings, 10.0)


def test_what_an_engine_did_not_tell_is_named() -> None:
    """Everything is told of a simulated run but the iterations and the tokens; of calls alone, only first tokens."""
    run = simulated([ONE])
    assert missing_parts(run, None, None) == ("iterations", "tokens")
    timings = timings_of(run)
    made = record_of([ONE], timings, run.totals["end_time"])
    assert missing_parts(made, None, {}) == ("memory pools", "memory use", "iterations")
    mute = record_of([ONE], [replace(one, first_token_at=NAN) for one in timings], run.totals["end_time"])
    assert missing_parts(mute, None, None) == tuple(PARTS)
