"""Samples of one prompt share its blocks on the real backend, and get the tokens that they get alone."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from caesura.config.systems import load_preset  # noqa: E402
from policies.registry import make_order, make_policy  # noqa: E402
from profiler.backend.backend import make_backend, make_model  # noqa: E402
from profiler.backend.executor import ChunkWork  # noqa: E402
from profiler.backend.model_config import load_model_config  # noqa: E402
from profiler.backend.tokens import Sampling, seed_of  # noqa: E402
from profiler.serving.server import Server  # noqa: E402
from sim.errors import UnsupportedSession  # noqa: E402
from sim.results.run_record import RunRecord  # noqa: E402
from tests.profiler.small_servers import small_profile  # noqa: E402
from traces.session import Call, Pause, Session  # noqa: E402

BLOCK = 4
MODEL = make_model(load_model_config("tiny"), torch.device("cpu"), dtype=torch.float64, max_context=128)
DRAWN = Sampling(temperature=0.9, seed=5)
Served = dict[tuple[str, int], list[list[int]]]
"""The tokens of the context after each call: those of every sample, the first one first."""


def serve(sessions: list[Session], system: str, gpu_blocks: int = 200, **rules: Any) -> tuple[RunRecord, Served, int]:
    """Serve for real on the CPU, every sample drawn by its own seed. Blocks are those of the engine after each
    iteration; the third result is the most that were in use."""
    preset = load_preset(system)
    chosen = preset.engine.model_copy(update={"block_size": BLOCK, "watermark": 0.0, **rules})
    backend = make_backend(MODEL, gpu_blocks, 30, BLOCK, 40, 128, max_decodes=24, max_chunk_tokens=2048, sampling=DRAWN)
    policy, order = make_policy(preset.policy), make_order(preset.order)
    server = Server(backend, policy=policy, order=order, settings=chosen, profile=small_profile(gpu_blocks, 30))
    served: Served = {}
    most = [0]
    commit, pools = server.engine.commit, server.engine.kv

    def checked(*arguments: Any) -> Any:
        most[0] = max(most[0], pools.gpu.used)
        outcome = commit(*arguments)
        backend.tables.check(pools.gpu.used, pools.host.used)
        return outcome

    server.engine.commit = checked  # type: ignore[method-assign]
    server.branches.on_end = lambda state, keys: served.__setitem__(
        (state.session.id, state.call_index), [backend.executor.tokens(key) for key in keys]
    )
    record = server.serve(sessions)
    backend.tables.check(0, 0)
    assert not backend.tables.rows
    return record, served, most[0]


def alone(session: Session, context: list[int], sample: int, tokens: int) -> list[int]:
    """``tokens`` more tokens after a context that a session of its own computes and draws with a sample's seed."""
    executor = make_backend(MODEL, 60, 0, BLOCK, 4, 128, 4, 128, sampling=DRAWN).executor
    executor.open("alone", len(context))
    executor.store.fill(executor.tables.rows["alone"], seed_of((session.id, sample) if sample else session.id))
    executor.store.ids[executor.tables.rows["alone"], : len(context)] = torch.tensor(context, dtype=torch.int32)
    executor.run([], [ChunkWork("alone", 0, len(context))])
    for _ in range(tokens - 1):
        executor.run(["alone"])
    return executor.tokens("alone")


def assert_as_alone(session: Session, served: Served) -> None:
    for index, call in enumerate(session.calls):
        contexts = served[session.id, index]
        assert len(contexts) == session.samples
        for sample, tokens in enumerate(contexts):
            assert tokens == alone(session, tokens[: -call.output], sample, call.output)
            assert tokens[: -call.output] == contexts[0][: -call.output]


@pytest.mark.parametrize("prompt", [1, 4, 5, 21, 24])
def test_samples_that_share_a_prompt_get_the_tokens_of_separate_sessions(prompt: int) -> None:
    """Each of the separate sessions computes the whole prompt for itself and draws with the same seed."""
    session = Session("a", 0.0, prompt, (Call(12),), samples=3)
    record, served, _ = serve([session], "paged-sharing")
    assert_as_alone(session, served)
    assert len({tuple(tokens) for tokens in served["a", 0]}) == 3, "samples that are alike tell nothing"
    assert record.sessions["output_tokens"] == [12]
    assert record.totals["emitted_tokens"] == 36


def test_the_prompt_s_whole_blocks_are_held_once() -> None:
    """21 tokens: 5 whole blocks. With 11 of 12 new ones computed a sample has 32 tokens, 8 blocks: 5 + 3 * 3."""
    assert serve([Session("a", 0.0, 21, (Call(12),), samples=3)], "paged-sharing")[2] == 5 + 3 * 3


def test_after_a_pause_all_samples_go_on_from_the_first() -> None:
    """The context of the second call is the prompt, the first sample's 7 tokens and the answer's 5."""
    session = Session("a", 0.0, 10, (Call(7, Pause(0.001, returned=5)), Call(6)), samples=3)
    _, served, _ = serve([session], "segment-kv")
    assert_as_alone(session, served)
    assert {tuple(tokens[:17]) for tokens in served["a", 1]} == {tuple(served["a", 0][0])}


@st.composite
def workloads(draw: st.DrawFn) -> list[Session]:
    """One to four sessions of one to three samples, which come within 2 ms and pause for up to 3 ms."""
    sessions = []
    for index in range(draw(st.integers(1, 4))):
        pause = st.builds(Pause, st.sampled_from([0.0, 0.003]), st.integers(0, 10))
        calls = [*draw(st.lists(st.builds(Call, st.integers(1, 8), pause), max_size=2)), Call(draw(st.integers(1, 8)))]
        arrival, prompt = draw(st.sampled_from([0.0, 0.002])), draw(st.integers(1, 25))
        sessions.append(Session(f"s{index}", arrival, prompt, tuple(calls), samples=draw(st.integers(1, 3))))
    return sessions


@pytest.mark.parametrize("system", ["paged-sharing", "segment-kv", "vllm", "infercept", "fastserve"])
@settings(max_examples=6, deadline=None)
@given(workload=workloads(), spare=st.integers(0, 20))
def test_every_sample_emits_its_own_tokens_however_short_memory_is(system, workload, spare) -> None:
    most = max(session.samples * -(-session.max_context // BLOCK) for session in workload)
    record, served, _ = serve(workload, system, most + spare)
    assert record.sessions["status"] == ["finished"] * len(workload)
    for session in workload:
        if session.samples > 1:
            assert_as_alone(session, served)


def test_a_set_that_gave_way_emits_the_tokens_that_it_would_have() -> None:
    """Two sets of 18 shared and 2 * 24 own tokens want 2 * (4 + 2 * 7) = 36 blocks of 30: the second is recomputed."""
    sets = [Session(name, 0.0, 18, (Call(25),), samples=2) for name in "ab"]
    record, served, _ = serve(sets, "paged-sharing", 30)
    assert record.totals["preemptions"] >= 1
    assert record.totals["recomputed_tokens"] > 18
    for session in sets:
        assert_as_alone(session, served)


def test_buffers_of_their_own_are_refused_and_one_sample_is_served() -> None:
    with pytest.raises(UnsupportedSession, match=r"session a has 2 samples, .* the backend has only pages"):
        serve([Session("a", 0.0, 5, (Call(2),), samples=2)], "contiguous-beams")
    assert serve([Session("a", 0.0, 5, (Call(2),))], "contiguous-beams")[0].sessions["status"] == ["finished"]


def test_a_run_that_was_cut_closes_every_row() -> None:
    preset = load_preset("paged-sharing")
    backend = make_backend(MODEL, 60, 0, BLOCK, 8, 128, max_decodes=8, max_chunk_tokens=64)
    server = Server(
        backend, policy=make_policy(preset.policy), order=make_order(preset.order),
        settings=preset.engine.model_copy(update={"block_size": BLOCK}), profile=small_profile(60, 0),
    )  # fmt: skip
    server.serve([Session("a", 0.0, 20, (Call(100),), samples=3)], horizon=0.02)
    server.abandon()
    backend.tables.check(0, 0)
    assert not backend.tables.rows
