"""One counter for all decoding sessions, against a simulation that counts each of them by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from sim.branches import Layout
from sim.contexts import Contexts
from sim.decoding import DecodeGroup
from sim.live import LiveSession
from tests.sim.worlds import session


def ready(serial: int, resident: int, samples: int = 1) -> LiveSession:
    """A session that is about to decode, ``resident`` tokens in the cache and one missing."""
    live = LiveSession(session(f"s{serial}", 1, 1, samples=samples), serial, 0.0)
    live.resident, live.missing = resident, 1
    live.fork = resident if samples > 1 else 0
    return live


@dataclass
class Naive:
    """A member that is counted one by one."""

    live: LiveSession
    resident: int
    emitted: int
    left: int


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(0, 5), st.integers(1, 6)),
        st.tuples(st.just("leave"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("advance"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(1, 20), st.sampled_from([1, 1, 1, 2, 3])), min_size=6, max_size=6),
    STEPS,
    st.sampled_from(get_args(Layout)),
)
def test_the_group_s_counter_agrees_with_counting_one_by_one(
    block_size: int, lengths: list[tuple[int, int]], steps: list[tuple[str, int, int]], layout: Layout
) -> None:
    contexts = Contexts(0, 0, block_size, sample_layout=layout)
    group = DecodeGroup(block_size, contexts.branches)
    everyone = [ready(serial, length, samples) for serial, (length, samples) in enumerate(lengths)]
    inside: dict[int, Naive] = {}
    for what, serial, left in steps:
        live = everyone[serial]
        if what == "join" and serial not in inside:
            inside[serial] = Naive(live, live.resident, live.emitted, left)
            group.join(live, left)
        elif what == "leave" and serial in inside:
            gone = inside.pop(serial)
            group.leave(live)
            assert (live.resident, live.emitted, live.group) == (gone.resident, gone.emitted, None)
        elif what == "advance":
            for one in inside.values():
                one.resident, one.emitted, one.left = one.resident + 1, one.emitted + 1, one.left - 1
            over = sorted(serial for serial, one in inside.items() if one.left == 0)
            assert [one.serial for one in group.advance()] == over
            for serial in over:
                gone = inside.pop(serial)
                assert (gone.live.resident, gone.live.emitted) == (gone.resident, gone.emitted)
        assert {one.serial for one in group} == inside.keys()
        assert len(group) == len(inside)
        assert group.seats == sum(one.live.samples for one in inside.values())
        assert group.read_tokens == sum(one.live.samples * one.resident for one in inside.values())
        read = [one.resident for one in inside.values() for _ in range(one.live.samples)]
        assert group.spread == len(read) * sum(tokens * tokens for tokens in read) - sum(read) ** 2
        again = sum((one.live.samples - 1) * one.live.fork for one in inside.values())
        assert group.resident_tokens == group.read_tokens - (0 if layout == "contiguous" else again)
        assert group.blocks_needed() == sum(contexts.growth(one.live, 1) for one in inside.values())
        assert all((one.live.resident, one.live.emitted) == (one.resident, one.emitted) for one in inside.values())


def test_two_that_end_together_are_told_in_order_of_submission() -> None:
    group = DecodeGroup(4)
    late, early = ready(7, 3), ready(2, 9)
    group.join(late, 1)
    group.join(early, 1)
    assert group.advance() == [early, late]


def test_a_session_that_left_and_came_back_ends_at_its_new_end() -> None:
    """It joins with 1 token left, is preempted before the next iteration, and joins again, for 5 tokens of a new call.

    No iteration has passed for the group in between; it must not end after one.
    """
    group, live = DecodeGroup(1), ready(0, 3)
    group.join(live, 1)
    group.leave(live)
    group.join(live, 5)
    assert [len(group.advance()) for _ in range(5)] == [0, 0, 0, 0, 1]
