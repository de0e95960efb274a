"""A run says where it went beyond what its profile was measured over.

An iteration of x tokens takes 1 s + 0.01 s * x and computes at most 64 tokens (see ``worlds``). Session a: a prompt of
90 tokens in chunks of 64 and 26, after which contexts hold 64 and 90 tokens, then nine decode passes over contexts of
91 to 99. Passes take 1.64, 1.26 and nine times 1.01 s.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.registry import make_router
from sim.costs.batch import Batch
from sim.costs.measured_range import CONTEXT, SUMS
from sim.results.run_record import RunRecord
from tests.sim import cluster_worlds
from tests.sim.random_worlds import SHIPPED, Plot, examples, plots
from tests.sim.worlds import World, pause, profile, run, session
from traces.session import Session

A = session("a", 90, 10)
WITHIN = {"decodes": 1, "decode_context": 99, "chunk_tokens": 64, "chunk_context": 90, "context": 100}


def beyond(record: RunRecord) -> Any:
    """What a run says of itself."""
    return record.facts["beyond_measured"]


@pytest.mark.parametrize("leap", [False, True])
def test_a_run_within_the_range_says_nothing(leap: bool) -> None:
    """Every sum ends at the very largest that was measured."""
    assert beyond(run(A, measured=WITHIN, leap=leap).record) == []


def test_of_a_profile_that_was_not_measured_nothing_is_known() -> None:
    """Neither within nor beyond: no range, no word; so of one that was measured and does not say over what."""
    assert beyond(run(A).record) is None
    assert beyond(run(A, measured={}).record) is None


@pytest.mark.parametrize("leap", [False, True])
@pytest.mark.parametrize(
    ("name", "measured", "reached", "seconds"),
    [
        ("chunk_tokens", 62, 64, 1.64),
        ("chunk_context", 80, 90, 1.26),
        ("decode_context", 94, 99, 5 * 1.01),
        ("decode_context", 50, 99, 9 * 1.01),
    ],
)
def test_a_run_beyond_the_range_says_how_far_and_for_how_long(
    name: str, measured: int, reached: int, seconds: float, leap: bool
) -> None:
    """The first chunk alone is larger than 62, the second one alone stands in a context of more than 80; of the decode
    passes those over 95 to 99 tokens, or all."""
    (found,) = beyond(run(A, measured=WITHIN | {name: measured}, leap=leap).record)
    assert found == {
        "replica": 0,
        "measured": {name: measured},
        "reached": {name: reached},
        "forward_s": pytest.approx(seconds),
        "calls": 0,
    }


@pytest.mark.parametrize("leap", [False, True])
def test_calls_in_longer_contexts_than_were_measured_are_counted(leap: bool) -> None:
    """Of three calls a's ends with 90 + 10 tokens, b's with 20 + 5 and 25 + 60 + 10: two have more than 90."""
    b = session("b", 20, 5, pause(3.0, returned=60), 10)
    (found,) = beyond(run(A, b, measured={"context": 90}, leap=leap).record)
    assert found == {
        "replica": 0,
        "measured": {"context": 90},
        "reached": {"context": 100},
        "forward_s": 0.0,
        "calls": 2,
    }


def test_a_call_that_has_not_generated_when_the_run_is_cut_has_cost_nothing_in_its_context() -> None:
    """a's prompt of 90 is complete at 2.90 s, and at 2 s the run ends."""
    assert beyond(run(A, measured={"context": 50}, horizon=2.0).record) == []
    assert beyond(run(A, measured={"context": 50}, horizon=3.0).record)[0]["reached"] == {"context": 91}


def test_a_hundredth_more_than_was_measured_is_not_worth_a_word() -> None:
    """Contexts of 99 tokens exceed 98 and a hundredth, 98.98; those of 101 do not exceed 100 and a hundredth."""
    assert beyond(run(A, measured={"decode_context": 98}).record)[0]["reached"] == {"decode_context": 99}
    assert beyond(run(session("b", 90, 12), measured={"decode_context": 100}).record) == []


def test_more_sessions_than_were_measured_decode_together() -> None:
    """Three prompts of 2 tokens begin together: two passes in which all decode, 1.03 s each."""
    three = [session(name, 2, 3) for name in "abc"]
    (found,) = beyond(run(*three, measured={"decodes": 2}).record)
    assert (found["reached"], found["forward_s"]) == ({"decodes": 3}, pytest.approx(2 * 1.03))


def test_the_wait_for_a_copy_is_no_forward_pass() -> None:
    """a comes back after a swap of 10 tokens, 0.10 s in all, and only the pass after that counts."""
    a = session("a", 10, 1, pause(5.0, returned=4), 1)
    (found,) = beyond(run(a, policy="swap", swap="blocking", measured={"chunk_context": 12}).record)
    assert (found["reached"], found["forward_s"]) == ({"chunk_context": 15}, pytest.approx(1.05))


def test_each_replica_of_a_cluster_is_held_against_its_own_profile() -> None:
    """Of two replicas the second was measured over less, and one of no profile leaves the other's word standing."""
    pair = [session("a", 90, 10), session("b", 90, 10)]
    costs = [{"measured": WITHIN}, {"measured": WITHIN | {"chunk_context": 80}}]
    assert [one["replica"] for one in beyond(in_cluster(pair, costs))] == [1]
    assert beyond(in_cluster(pair, [{}, {"measured": WITHIN}])) == []
    assert beyond(in_cluster(pair, [{}, {}])) is None


def in_cluster(sessions: list[Session], costs: list[dict[str, Any]]) -> RunRecord:
    """Two replicas in turn."""
    return cluster_worlds.run(*sessions, router=make_router("round-robin"), costs=costs).record


RANGES = st.fixed_dictionaries({}, optional={name: st.integers(1, 100) for name in (*SUMS, CONTEXT)})


@examples(60)
@given(plots(st.sampled_from(SHIPPED)), RANGES)
def test_what_is_said_is_what_every_pass_did_and_changes_no_result(plot: Plot, measured: dict[str, int]) -> None:
    """Against a recount over the passes one by one; leaping says the same; and nothing else is another."""
    watched = replace(plot, profile=plot.profile.model_copy(update={"measured": profile(measured=measured).measured}))
    stepping, leaping = replace(watched, leap=False).run(), replace(watched, leap=True).run()
    assert same(beyond(leaping.record), beyond(stepping.record))
    most = {name: max((sums(one.batch)[name] for one in stepping.iterations), default=0) for name in SUMS}
    calls = stepping.record.calls
    ended = zip(calls["context_tokens"], calls["output_tokens"], strict=True)
    most[CONTEXT] = max((context + output for context, output in ended if output), default=0)
    reached = {name: value for name, value in most.items() if value > 1.01 * measured.get(name, math.inf)}
    said = beyond(stepping.record)
    assert (said[0]["reached"] if said else {}) == reached
    assert results_of(replace(plot, leap=False).run()) == results_of(stepping)


def sums(batch: Batch) -> dict[str, int]:
    """What is held against the range."""
    values = (batch.decode_sessions, batch.decode_context, batch.prefill_tokens, batch.prefill_context)
    return dict(zip(SUMS, values, strict=True))


def same(one: Any, other: Any) -> bool:
    """Alike but for the rounding of seconds, which leaps add up in another order."""
    seconds = [[row["forward_s"] for row in said or ()] for said in (one, other)]
    rest = [said and [{**row, "forward_s": 0} for row in said] for said in (one, other)]
    return bool(rest[0] == rest[1] and seconds[0] == pytest.approx(seconds[1], rel=1e-9, abs=1e-9))


def results_of(world: World) -> list[str]:
    """Everything but the facts, to the last digit."""
    record = world.record
    return [repr(table) for table in (record.sessions, record.calls, record.timeline, record.totals, record.replicas)]
