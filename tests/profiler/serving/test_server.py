"""The same policy objects on the real backend: whatever a policy does to a context, its tokens stay the same."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

from hypothesis import event, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from caesura.config.systems import load_preset, preset_names  # noqa: E402
from policies.registry import make_order, make_policy  # noqa: E402
from profiler.backend.backend import make_backend  # noqa: E402
from profiler.serving.server import Server  # noqa: E402
from sim.world.arrivals import as_calls  # noqa: E402
from tests.profiler.small_servers import BLOCK, MODEL, assert_same, serve, small_profile  # noqa: E402
from tests.sim.random_orders import LatestPreempts, LeastServed, TurnsOfFourTokens  # noqa: E402
from traces.session import Call, Pause, PromptPart, Session, SharedPrefix  # noqa: E402

PREEMPTIVE = [LatestPreempts, TurnsOfFourTokens, type("Quick", (LeastServed,), {"step": 1e-3})]


@st.composite
def workloads(draw: st.DrawFn) -> list[Session]:
    """One to six sessions of at most 150 tokens that come within 10 ms and pause for up to 10 ms."""
    sessions = []
    for index in range(draw(st.integers(1, 6))):
        calls = []
        for _ in range(draw(st.integers(0, 2))):
            keeps = draw(st.one_of(st.none(), st.integers(0, 40)))
            returned = draw(st.integers(0 if keeps is None else 1, 20))
            pause = Pause(draw(st.sampled_from([0.0, 1e-5, 0.003, 0.01])), returned, keeps=keeps)
            calls.append(Call(draw(st.integers(1, 10)), pause))
        calls.append(Call(draw(st.integers(1, 10)), draw(st.one_of(st.none(), st.just(Pause(0.002))))))
        arrival = draw(st.sampled_from([0.0, 0.002, 0.01]))
        sessions.append(Session(f"s{index}", arrival, draw(st.integers(1, 60)), tuple(calls)))
    return sessions


@pytest.mark.parametrize("system", preset_names())
@settings(max_examples=5, deadline=None)
@given(workload=workloads(), spare=st.integers(0, 40), host_blocks=st.sampled_from([0, 7, 60]))
def test_every_system_emits_the_tokens_of_each_session_served_alone(system, workload, spare, host_blocks):
    longest = max(-(-session.max_context // BLOCK) for session in workload)
    record, said = serve(workload, system, small_profile(longest + spare, host_blocks))
    assert record.sessions["status"] == ["finished"] * len(workload)
    assert dict(zip(record.sessions["id"], record.sessions["output_tokens"], strict=True)) == {
        session.id: session.output_tokens for session in workload
    }
    for session in workload:
        _, alone = serve([session], "preserve", small_profile(64, 0))
        assert_same(said[session.id], alone[session.id])


@pytest.mark.parametrize("order", PREEMPTIVE)
@settings(max_examples=5, deadline=None)
@given(workload=workloads(), spare=st.integers(0, 40), swap=st.sampled_from(["overlapped", "blocking"]))
def test_a_session_that_others_stop_again_and_again_emits_its_own_tokens(order, workload, spare, swap):
    longest = max(-(-session.max_context // BLOCK) for session in workload)
    preemption = "swap" if spare % 2 else "recompute"
    rules = {"max_running": 1 + spare % 3, "swap": swap, "preemption": preemption, "swap_budget": "unlimited"}
    record, said = serve(workload, "infercept", small_profile(longest + spare, 30), order(), **rules)
    assert record.sessions["status"] == ["finished"] * len(workload)
    for session in workload:
        _, alone = serve([session], "preserve", small_profile(64, 0))
        assert_same(said[session.id], alone[session.id])


@pytest.mark.parametrize("system", ["livemind", "livemind-no-reuse", "whole-prompt"])
def test_a_prompt_that_streams_in_gives_the_tokens_of_its_calls_one_after_the_other(system):
    """Ten sessions type four parts in 30 ms. Whichever inferences a session came to make, its tokens are those of a
    plain session that makes the same calls; the answer comes after the end of the input and has its own length."""
    times, outputs = (0.0, 0.01, 0.02, 0.03), (6, 0, 8, 3)
    stream = tuple(PromptPart(12, at, output) for at, output in zip(times, outputs, strict=True))
    workload = [Session(f"s{n}", 0.004 * n, 50 + n, (Call(9),), stream=stream) for n in range(10)]
    streamed = load_preset(system).engine.streamed_prompts
    record, said = serve(workload, system, small_profile(300, 0))
    rows = record.sessions
    for session in workload:
        served = as_calls(session, streamed)
        made = sorted(
            i for name, i in zip(record.calls["session"], record.calls["call"], strict=True) if name == session.id
        )
        steps = [*pairwise(made)]
        joined = [sum(served.calls[one].pause.returned for one in range(*step)) for step in steps]
        calls = [Call(served.calls[one].output, Pause(0.0, more)) for (one, _), more in zip(steps, joined, strict=True)]
        plain = Session(session.id, 0.0, served.prompt, (*calls, Call(9 if streamed == "whole" else 3)))
        assert_same(said[session.id], serve([plain], "preserve", small_profile(64, 0))[1][session.id])
        row = rows["id"].index(session.id)
        assert rows["prompt_tokens"][row] == session.prompt
        assert rows["first_token_at"][row] > rows["input_ended_at"][row] == pytest.approx(session.arrival + 0.03)
    assert (sum(rows["inference_tokens"]) > 0) is (streamed == "parts")
    assert (sum(rows["recomputed_tokens"]) > 0) is (system == "livemind-no-reuse")


def test_a_real_run_keeps_the_books_of_a_simulated_one():
    """Memory's six uses add up to memory x time; forward, stalls and idle time to the length of the run."""
    pause = Pause(0.02, returned=5)
    sessions = [Session(f"s{n}", 0.01 * n, 20, (Call(5, pause), Call(5))) for n in range(4)]
    record, _ = serve(sessions, "swap", small_profile(20, 30))
    totals = record.totals
    uses = [name for name in totals if name.endswith("_token_s") and name != "memory_token_s"]
    assert len(uses) == 6
    assert math.isclose(sum(totals[name] for name in uses), totals["memory_token_s"], rel_tol=1e-9)
    assert totals["forward_s"] > 0
    assert totals["swap_stall_s"] > 0
    assert sum(record.sessions["swapped_out_bytes"]) == sum(record.sessions["swapped_in_bytes"]) > 0
    ready = [at for at, call in zip(record.calls["ready_at"], record.calls["call"], strict=True) if call == 1]
    ended = [at for at, call in zip(record.calls["finished_at"], record.calls["call"], strict=True) if call == 0]
    assert all(back >= end + 0.02 - 1e-9 for back, end in zip(sorted(ready), sorted(ended), strict=True))


def test_blocks_of_another_size_are_refused():
    preset = load_preset("vllm")
    policy, order = make_policy(preset.policy), make_order(preset.order)
    backend = make_backend(MODEL, 16, 0, BLOCK, max_context=64)
    with pytest.raises(ValueError, match="blocks of 16 tokens in the engine, 4 in the backend"):
        Server(backend, policy=policy, order=order, settings=preset.engine, profile=small_profile(16, 0))


def test_a_run_that_was_cut_leaves_the_backend_empty_for_the_next():
    preset = load_preset("infercept")
    backend = make_backend(MODEL, 40, 40, BLOCK, max_sessions=8, max_context=128, max_decodes=24)
    sessions = [Session(f"s{n}", 0.0, 30, (Call(5, Pause(60.0, returned=5)), Call(5))) for n in range(3)]
    settings = preset.engine.model_copy(update={"block_size": BLOCK})
    for _ in range(2):
        server = Server(
            backend, policy=make_policy(preset.policy), order=make_order(preset.order), settings=settings,
            profile=small_profile(40, 40),
        )  # fmt: skip
        record = server.serve(sessions, horizon=0.2)
        assert record.sessions["status"] == ["unfinished"] * 3
        server.abandon()
        backend.tables.check(0, 0)
        assert not backend.tables.rows


@st.composite
def workloads_that_share(draw: st.DrawFn) -> list[Session]:
    """As above; the prompts begin with one of two named prefixes, or with hashed blocks of 6 tokens, few different."""
    sessions = []
    for session in draw(workloads()):
        hashes = draw(st.lists(st.integers(0, 1), max_size=-(-session.prompt // 6)))
        if hashes and draw(st.booleans()):
            sessions.append(replace(session, block_hashes=tuple(hashes), hash_block=6))
        else:
            named = SharedPrefix(draw(st.sampled_from(["system", "tools"])), draw(st.integers(0, session.prompt)))
            sessions.append(replace(session, prefix=named))
    return sessions


@pytest.mark.parametrize("system", preset_names())
@settings(max_examples=2, deadline=None)
@given(workload=workloads_that_share(), spare=st.integers(0, 40), host_blocks=st.sampled_from([0, 7, 60]))
def test_sessions_that_share_blocks_emit_the_tokens_that_each_emits_alone(system, workload, spare, host_blocks):
    longest = max(-(-session.max_context // BLOCK) for session in workload)
    record, said = serve(workload, system, small_profile(longest + spare, host_blocks), prefix_sharing=True)
    assert record.sessions["status"] == ["finished"] * len(workload)
    event(f"hits: {record.totals['prefix_hit_tokens'] > 0}")
    for session in workload:
        _, alone = serve([session], "preserve", small_profile(64, 0))
        assert_same(said[session.id], alone[session.id])


def test_prompts_that_begin_alike_are_computed_and_kept_once_in_real_blocks():
    """Four sessions share 40 tokens, 10 blocks of 4; each comes to 55 tokens, 4 more blocks. The first one pauses with
    all of its blocks; the others find the 10, and 26 = 10 + 4 * 4 blocks hold all four, where 56 would be needed."""
    prefix = SharedPrefix("system", 40)
    calls = (Call(5, Pause(0.2, returned=1)), Call(1))
    workload = [Session(f"s{n}", 0.05 * n, 48, calls, prefix=prefix) for n in range(4)]
    record, said = serve(workload, "preserve", small_profile(26, 0), prefix_sharing=True)
    assert record.sessions["prefix_hit_tokens"] == [0, 40, 40, 40]
    assert len({tuple(one.ids[:40]) for one in said.values()}) == 1
    assert len({tuple(one.ids[40:48]) for one in said.values()}) == 4
    resumed = [n for at, n in zip(record.calls["call"], record.calls["resident_tokens"], strict=True) if at == 1]
    assert resumed == [52] * 4
