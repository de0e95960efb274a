"""Ids of blocks: nobody gets one twice, none is lost, and the order of a context's tokens never changes."""

from __future__ import annotations

import pytest

np = pytest.importorskip("numpy")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from profiler.backend.block_tables import BlockTables, CountsDisagree  # noqa: E402
from profiler.backend.free_lists import FreeRuns, FreeStack, OutOfBlocks, consecutive  # noqa: E402


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int32)


@pytest.mark.parametrize("kind", [FreeStack, FreeRuns])
@given(actions=st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=40), capacity=st.integers(0, 30))
def test_a_free_list_gives_each_id_once(
    kind: type[FreeStack] | type[FreeRuns], actions: list[tuple[bool, int]], capacity: int
) -> None:
    free, held = kind(capacity), []
    for give, count in actions:
        if give:
            back = [held.pop((count * 7) % len(held)) for _ in range(min(count, len(held)))]
            free.free(back)
        elif count > len(free):
            with pytest.raises(OutOfBlocks):
                free.allocate(count)
        else:
            held.extend(free.allocate(count))
        assert len(set(held)) == len(held) == capacity - len(free)
    if isinstance(free, FreeRuns):
        runs = free.runs
        assert runs == consecutive(sorted(set(range(capacity)) - set(held)))


def test_runs_are_taken_from_the_shortest_that_fits_else_from_the_longest() -> None:
    free = FreeRuns(20)
    free.allocate(20)
    free.free([0, 1, 2, 5, 6, 10, 11, 12, 13, 14])
    assert free.allocate(2) == [5, 6]
    assert free.allocate(6) == [10, 11, 12, 13, 14, 0]
    assert free.runs == [(1, 2)]


def test_blocks_leave_from_the_tail_and_come_back_in_order() -> None:
    """Five blocks of 4 tokens; two leave, then one more: on the host they stand in the order of their tokens."""
    tables = BlockTables(gpu_blocks=8, host_blocks=8, block_size=4, rows=2, max_context=64)
    tables.open("a")
    tables.grow(ints(0), ints(18))
    first = tables.gpu_ids("a")
    move = tables.begin_out("a", 2)
    assert move.gpu == tuple(first[3:])
    tables.check(gpu_used=5, host_used=2)
    tables.finish(move)
    tables.check(gpu_used=3, host_used=2)
    second = tables.begin_out("a", 1)
    tables.finish(second)
    assert tables.host_ids("a") == [*second.host, *move.host]
    back = tables.begin_in("a", 2)
    assert back.host == (second.host[0], move.host[0])
    assert tables.gpu_ids("a") == [*first[:2], *back.gpu]
    tables.check(gpu_used=4, host_used=3)
    tables.finish(back)
    tables.keep("a", resident=5, offloaded=0)
    tables.check(gpu_used=2, host_used=0)
    tables.close("a")
    tables.check(0, 0)


def test_shared_blocks_count_once_and_go_with_their_last_holder() -> None:
    tables = BlockTables(gpu_blocks=8, host_blocks=8, block_size=4, rows=3, max_context=64)
    for key in "ab":
        tables.open(key)
    tables.grow(ints(tables.rows["a"]), ints(16))
    tables.share("b", "a", 3)
    tables.grow(ints(tables.rows["b"]), ints(13))
    assert tables.gpu_ids("b")[:3] == tables.gpu_ids("a")[:3]
    tables.check(gpu_used=5, host_used=0)
    tables.finish(tables.begin_out("a", 2))
    tables.check(gpu_used=4, host_used=2)  # the third is b's still, the fourth was a's alone
    tables.close("a")
    tables.check(gpu_used=4, host_used=0)
    tables.close("b")
    tables.check(0, 0)


def test_a_named_block_is_found_kept_once_and_stays_until_its_name_is_forgotten() -> None:
    """a's two full blocks of 4 get names; b computed the first one too and takes a's. Both leave: nothing is in use,
    yet c finds the two where they were. x is forgotten while c holds it, and is free when c leaves; y afterwards."""
    tables = BlockTables(gpu_blocks=4, host_blocks=0, block_size=4, rows=3, max_context=64)
    for key in "ab":
        tables.open(key)
        tables.grow(ints(tables.rows[key]), ints(8 if key == "a" else 4))
    tables.name("a", 2, ["x", "y"])
    tables.check(gpu_used=3, host_used=0)
    tables.name("b", 1, ["x"])
    tables.check(gpu_used=2, host_used=0)
    held = tables.gpu_ids("a")
    assert tables.gpu_ids("b") == held[:1]
    tables.close("a")
    tables.close("b")
    tables.check(0, 0)
    tables.open("c")
    tables.find("c", ["x", "y"])
    assert tables.gpu_ids("c") == held
    with pytest.raises(CountsDisagree, match="'c' should find 2 blocks; 1 of them have no ids"):
        tables.find("c", ["y", "z"])
    tables.forget(["x"])
    tables.check(gpu_used=2, host_used=0)
    tables.close("c")
    tables.open("d")
    with pytest.raises(OutOfBlocks, match="4 blocks asked for, 3 free"):
        tables.grow(ints(tables.rows["d"]), ints(16))
    tables.forget_all()
    tables.grow(ints(tables.rows["d"]), ints(16))


def test_counts_that_disagree_are_named() -> None:
    tables = BlockTables(gpu_blocks=3, host_blocks=1, block_size=4, rows=1, max_context=64)
    tables.open("a")
    with pytest.raises(OutOfBlocks, match="all 1 rows"):
        tables.open("b")
    with pytest.raises(OutOfBlocks, match="4 blocks asked for, 3 free"):
        tables.grow(ints(0), ints(13))
    tables.grow(ints(0), ints(12))
    with pytest.raises(OutOfBlocks, match="2 blocks asked for, 1 free"):
        tables.begin_out("a", 2)
    with pytest.raises(CountsDisagree, match="'a' has 0 host blocks, 1 are to come back"):
        tables.begin_in("a", 1)
    with pytest.raises(CountsDisagree, match="keep 4 GPU and 0 host blocks; it has 3 and 0"):
        tables.keep("a", 16, 0)
    with pytest.raises(CountsDisagree, match="the engine counts 2 GPU"):
        tables.check(2, 0)
