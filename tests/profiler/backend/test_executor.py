"""What one iteration does, seen from outside."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from profiler.backend.backend import Backend, make_backend, make_model  # noqa: E402
from profiler.backend.executor import ChunkWork  # noqa: E402
from profiler.backend.free_lists import OutOfBlocks  # noqa: E402
from profiler.backend.model_config import load_model_config  # noqa: E402

MODEL = make_model(load_model_config("tiny"), torch.device("cpu"), max_context=256)


def backend(gpu_blocks: int = 20, max_sessions: int = 3) -> Backend:
    return make_backend(MODEL, gpu_blocks, 0, 4, max_sessions, 100, max_decodes=3, max_chunk_tokens=32)


def test_a_chunk_emits_when_it_reaches_the_end_of_the_context() -> None:
    executor = backend().executor
    executor.open("a", 10)
    assert executor.run([], [ChunkWork("a", 0, 9)]).emitted.keys == ()
    last = executor.run([], [ChunkWork("a", 9, 1)])
    assert last.emitted.keys == ("a",)
    assert executor.sampled_ids(last) == {"a": executor.tokens("a")[10]}
    executor.open("b", 2)
    both = executor.run(["a"], [ChunkWork("b", 0, 2)])
    assert both.emitted.keys == ("a", "b")
    assert both.emitted.positions.tolist() == [11, 2]


def test_answers_are_where_the_session_expects_them() -> None:
    """Ten tokens of prompt, one generated, five of an answer: the answer's ids do not depend on what was generated."""
    executor = backend().executor
    executor.open("a", 16)
    expected = executor.tokens("a")
    executor.close("a")
    executor.open("a", 10)
    executor.run([], [ChunkWork("a", 0, 10)])
    executor.extend("a", 5)
    tokens = executor.tokens("a")
    assert tokens[:10] + tokens[11:] == expected[:10] + expected[11:]
    executor.cut("a", 9)
    executor.extend("a", 7)
    assert executor.tokens("a") == expected


def test_blocks_are_taken_as_tokens_are_computed_and_freed_at_the_close() -> None:
    served = backend()
    served.executor.open("a", 16)
    served.executor.run([], [ChunkWork("a", 0, 7)])
    served.tables.check(gpu_used=2, host_used=0)
    served.executor.run([], [ChunkWork("a", 7, 9)])
    served.tables.check(gpu_used=4, host_used=0)
    served.executor.run(["a"])
    served.tables.check(gpu_used=5, host_used=0)
    served.executor.close("a")
    served.tables.check(gpu_used=0, host_used=0)


def test_impossible_work_is_refused() -> None:
    served = backend(gpu_blocks=2, max_sessions=1)
    served.executor.open("a", 40)
    with pytest.raises(AssertionError, match="beyond 40 tokens"):
        served.executor.run([], [ChunkWork("a", 30, 11)])
    with pytest.raises(OutOfBlocks, match="3 blocks asked for, 2 free"):
        served.executor.run([], [ChunkWork("a", 0, 9)])
    with pytest.raises(OutOfBlocks, match="all 1 rows"):
        served.executor.open("b", 1)


def test_times_of_host_and_device_are_told_apart() -> None:
    executor = backend().executor
    executor.open("a", 5)
    executor.capture()  # nothing to capture on a CPU
    iteration = executor.run([], [ChunkWork("a", 0, 5)])
    iteration.wait()
    assert iteration.done()
    assert 0 < iteration.device_s() <= iteration.host_s
    assert iteration.waited_s < 0.1
