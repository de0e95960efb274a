"""What holds in every world: the engine's invariants (see ``sim.engine.engine``) and the books of a run.

``WatchedEngine`` checks INV-1 to INV-5 at every plan, commit, answer and end of a copy; here is what the record of the
whole run must say. ``CAESURA_EXAMPLES=5000 pytest tests/sim/engine/test_invariants.py`` hunts with fresh random worlds.
"""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from sim.results.memory_accounting import USES
from sim.session import Status
from tests.sim.random_orders import ORDERS, PREEMPTIVE
from tests.sim.random_worlds import SHIPPED, Plot, examples, plots
from tests.sim.worlds import World
from traces.session import Session


@examples(200)
@given(plots(st.sampled_from(SHIPPED)))
def test_shipped_policies_keep_every_invariant(plot: Plot) -> None:
    assert_drained(plot, plot.run())


@examples(150)
@given(plots(st.integers(0, 2**32)))
def test_a_policy_that_does_whatever_it_likes_breaks_no_invariant(plot: Plot) -> None:
    assert_drained(plot, plot.run())


ANY_POLICY = st.sampled_from(SHIPPED) | st.integers(0, 2**32)


@examples(120)
@given(plots(ANY_POLICY, st.sampled_from(PREEMPTIVE) | st.integers(0, 2**32)))
def test_an_order_that_stops_whomever_it_likes_breaks_no_invariant(plot: Plot) -> None:
    assert_drained(plot, plot.run())


@examples(150)
@given(plots(ANY_POLICY), st.sampled_from([0.0, 0.3, 3.0]) | st.floats(0, 60))
def test_a_run_cut_at_a_horizon_accounts_for_everyone_and_every_second(plot: Plot, horizon: float) -> None:
    world = replace(plot, horizon=horizon).run()
    rows = assert_books(plot, world)
    assert world.totals["end_time"] <= horizon
    if "unfinished" in rows["status"] or len(rows["id"]) < len(plot.sessions):
        assert world.totals["end_time"] == horizon
    for session in plot.served():
        if session.id not in rows["id"]:
            assert session.arrival >= horizon


@examples(60)
@given(plots(ANY_POLICY, st.sampled_from(ORDERS) | st.integers(0, 2**32)))
def test_the_same_inputs_give_identical_bytes(plot: Plot) -> None:
    first, second = plot.run(), plot.run()
    assert repr(first.record) == repr(second.record)
    assert pickle.dumps(first.record.sessions) == pickle.dumps(second.record.sessions)
    assert pickle.dumps(first.record.calls) == pickle.dumps(second.record.calls)
    assert first.iterations == second.iterations or repr(first.iterations) == repr(second.iterations)


@examples(60)
@given(plots(st.sampled_from(SHIPPED)), st.integers(0, 2**32))
def test_no_policy_changes_which_tokens_are_generated(plot: Plot, whim: int) -> None:
    """INV-6: the same sessions are served, the same tokens emitted, call by call, under two policies.

    How many inferences are made from a prompt that streams in depends on time alone: less these.
    """
    one, other = plot.run().record, replace(plot, policy=whim).run().record
    by_id = {session.id: session for session in plot.served()}
    for column in ("id", "status", "prompt_tokens", "returned_tokens"):
        assert one.sessions[column] == other.sessions[column]
    outputs = [
        sorted(
            (name, index, output)
            for name, index, output in zip(
                run.calls["session"], run.calls["call"], run.calls["output_tokens"], strict=True
            )
            if not infers(by_id[name], index)
        )
        for run in (one, other)
    ]
    assert outputs[0] == outputs[1]
    answered = [
        [
            out - inferred
            for out, inferred in zip(run.sessions["output_tokens"], run.sessions["inference_tokens"], strict=True)
        ]
        for run in (one, other)
    ]
    assert answered[0] == answered[1]


def assert_drained(plot: Plot, world: World) -> None:
    """Without a horizon everybody leaves, and has generated what the trace says."""
    rows = assert_books(plot, world)
    assert len(rows["id"]) == len(plot.sessions)
    by_id = {session.id: session for session in plot.served()}
    calls_of = made(world)
    contexts = world.engine.kv
    assert contexts.gpu.used == contexts.host.used == 0
    assert not contexts.in_flight
    columns = ("id", "status", "output_tokens", "inference_tokens", "reason")
    for name, status, output, inferred, reason in zip(*(rows[column] for column in columns), strict=True):
        session = by_id[name]
        assert status in ("finished", "rejected")
        outputs = {index: session.calls[index].output for index in calls_of.get(name, ())}
        assert output == (sum(outputs.values()) if status == "finished" else 0)
        assert inferred == sum(tokens for index, tokens in outputs.items() if infers(session, index))
        if status == "finished":
            assert all(index in outputs or infers(session, index) for index in range(len(session.calls)))
        assert (reason != "") == (status == "rejected")
    calls = world.record.calls
    for name, index, output in zip(calls["session"], calls["call"], calls["output_tokens"], strict=True):
        assert output == by_id[name].calls[index].output
    finished = [by_id[name] for name, status in zip(rows["id"], rows["status"], strict=True) if status == "finished"]
    new = sum(tokens_computed_once(session, calls_of[session.id]) for session in finished)
    served = world.totals["computed_tokens"] + world.totals["prefix_hit_tokens"]
    assert served == new + world.totals["recomputed_tokens"]
    event(f"rejected some: {'rejected' in rows['status']}")
    event(f"recomputed: {world.totals['recomputed_tokens'] > 0}, preempted: {world.totals['preemptions'] > 0}")
    event(f"swapped: {sum(rows['swapped_out_bytes']) > 0}")


def infers(session: Session, index: int) -> bool:
    """Whether a call is an inference from a prompt that is not complete."""
    pause = session.calls[index].pause
    return pause is not None and pause.not_before is not None


def made(world: World) -> dict[str, list[int]]:
    """The calls that each session made: inferences may be passed over."""
    calls: dict[str, list[int]] = {}
    for name, index in zip(world.record.calls["session"], world.record.calls["call"], strict=True):
        calls.setdefault(name, []).append(index)
    return {name: sorted(indices) for name, indices in calls.items()}


def tokens_computed_once(session: Session, made: list[int]) -> int:
    """Tokens whose KV a session needs at least once: all it ever reads, but the last token of each call unless more
    follows it, and again those that come after a rewrite."""
    computed = kept = 0
    context = session.prompt
    for index, call in enumerate(session.calls):
        if index in made:
            computed += context - kept + session.samples * (call.output - 1)
            context += call.output
            kept = context - 1
        if call.pause is not None and index + 1 < len(session.calls):
            survives = context if call.pause.keeps is None else min(context, call.pause.keeps)
            kept = min(kept, survives)
            context = survives + call.pause.returned
    return computed


def assert_books(plot: Plot, world: World) -> dict[str, list]:
    """What holds for the record of any run, drained or cut."""
    rows, totals = world.record.sessions, world.totals
    assert len(set(rows["id"])) == len(rows["id"])
    assert set(rows["status"]) <= {"finished", "rejected", "unfinished"}
    assert_calls(plot, world)
    assert_seconds_add_up(world)
    state = world.engine.all_sessions
    samples = {session.id: session.samples for session in plot.sessions}
    calls = world.record.calls
    for names, outputs in ((rows["id"], rows["output_tokens"]), (calls["session"], calls["output_tokens"])):
        emitted = sum(samples[name] * output for name, output in zip(names, outputs, strict=True))
        assert totals["emitted_tokens"] == emitted
    assert totals["recomputed_tokens"] == sum(rows["recomputed_tokens"]) == world.engine.recomputed
    for one in state:
        assert one.stats.swapped_in <= one.stats.swapped_out
        assert one.stats.queued_s >= 0
        if one.status is Status.FINISHED:
            assert math.isnan(one.waits_since) or one.last_call
    last = 0.0
    for iteration in world.iterations:
        assert iteration.begin >= last
        last = iteration.begin if math.isnan(iteration.end) else iteration.end
        assert last >= iteration.begin
    return rows


def assert_calls(plot: Plot, world: World) -> None:
    """Each call: ready, then scheduled, then its first token, then its last; the next is ready a pause later."""
    by_id, calls_of = {session.id: session for session in plot.served()}, made(world)
    calls = world.record.calls
    keys = list(zip(calls["session"], calls["call"], strict=True))
    assert len(set(keys)) == len(keys), "a call has two rows"
    finished = dict(zip(keys, calls["finished_at"], strict=True))
    spans = zip(calls["ready_at"], calls["scheduled_at"], calls["first_token_at"], calls["finished_at"], strict=True)
    for (name, index), (ready, scheduled, first, end) in zip(keys, spans, strict=True):
        session = by_id[name]
        begun = [moment for moment in (ready, scheduled, first, end) if not math.isnan(moment)]
        assert begun == sorted(begun), (name, index, begun)
        assert math.isnan(first) or scheduled < first
        if index == 0:
            assert ready == session.arrival
        else:
            earlier = max(one for one in calls_of[name] if one < index)
            before = session.calls[earlier].pause
            assert before is not None
            assert ready == pytest.approx(before.end(finished[name, earlier], session.arrival), rel=1e-9)
            assert all(session.calls[one].pause.end(0.0, session.arrival) <= ready for one in range(earlier, index))
    rows = world.record.sessions
    for name, status, first, end in zip(
        rows["id"], rows["status"], rows["first_token_at"], rows["finished_at"], strict=True
    ):
        session = by_id[name]
        assert math.isnan(first) or first > session.arrival
        if status == "finished":
            trailing = session.calls[-1].pause
            over = finished[name, len(session.calls) - 1] + (trailing.duration if trailing else 0.0)
            assert end == pytest.approx(over, rel=1e-9)


def assert_seconds_add_up(world: World) -> None:
    """Every second is forward, stall or idle; every token-second of the pool has one use, in sum and step by step."""
    totals, timeline = world.totals, world.record.timeline
    end = totals["end_time"]
    assert totals["forward_s"] + totals["swap_stall_s"] + totals["idle_s"] == pytest.approx(end, rel=1e-9, abs=1e-12)
    uses = {
        "useful": totals["useful_token_s"],
        "preserved": totals["waste_preserve_token_s"],
        "recompute": totals["waste_recompute_own_token_s"] + totals["waste_recompute_others_token_s"],
        "swap": totals["waste_swap_token_s"],
        "unused": totals["unused_token_s"],
    }
    memory = totals["gpu_blocks"] * totals["block_size"] * end
    assert totals["memory_token_s"] == memory
    assert sum(uses.values()) == pytest.approx(memory, rel=1e-9, abs=1e-9)
    assert sum(timeline["seconds"]) == pytest.approx(end, rel=1e-9, abs=1e-12)
    assert all(value >= -1e-9 * memory for value in uses.values()), uses
    assert 0 <= totals["recompute_forward_s"] <= totals["forward_s"] * (1 + 1e-12)
    for place in range(len(timeline["time"])):
        blocks = sum(timeline[use][place] for use in USES)
        assert blocks == pytest.approx(totals["gpu_blocks"], rel=1e-6)
        assert timeline["host_used"][place] <= totals["host_blocks"] * (1 + 1e-9)
