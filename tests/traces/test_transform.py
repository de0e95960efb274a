"""Traces out of traces: what changes, what stays, and that sessions remain sessions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces import Call, Pause, Session, contexts, shipped
from traces.transform import Scale, merged, sampled, scaled, some

AGENT = Session(
    "a", 8.0, 100, (Call(10, Pause(4.0, 20, "tool", keeps=55)), Call(5, Pause(1.0, 3))), "agent",
    block_hashes=(1, 2), hash_block=50,
)  # fmt: skip


def test_each_factor_changes_its_own_quantity() -> None:
    (by_rate,) = scaled([AGENT], Scale(rate=2))
    assert (by_rate.arrival, by_rate.calls, by_rate.block_hashes) == (4.0, AGENT.calls, (1, 2))
    (by_pause,) = scaled([AGENT], Scale(pauses=0.5))
    assert [pause.duration for pause in by_pause.pauses] == [2.0, 0.5]
    assert (by_pause.arrival, [p.returned for p in by_pause.pauses]) == (8.0, [20, 3])


def test_all_lengths_halved_halve_every_context() -> None:
    """100 + 10, of which 55 stay; + 20 + 5. Halves: 50 + 5, 27.5 that stay round to 28, + 10 + 2."""
    (half,) = scaled([AGENT], Scale(prompt=0.5, output=0.5, returned=0.5))
    assert contexts(AGENT) == [110, 80]
    assert contexts(half) == [55, 40]
    assert (half.prompt, half.calls[0].pause and half.calls[0].pause.keeps, half.block_hashes) == (50, 28, ())


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        Scale,
        rate=st.floats(0.01, 100), pauses=st.floats(0, 100), prompt=st.floats(0.001, 20), output=st.floats(0.001, 20),
        returned=st.floats(0, 20),
    ),
    st.integers(0, 396),
)  # fmt: skip
def test_a_scaled_session_is_a_session_of_as_many_calls(by: Scale, index: int) -> None:
    session = shipped.load("infercept-mix")[index] if index else AGENT
    (found,) = scaled([session], by)
    assert len(found.calls) == len(session.calls)
    assert all(call.output >= 1 for call in found.calls)
    assert found.pause_seconds == pytest.approx(by.pauses * session.pause_seconds)


def test_a_scale_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="rate is 0; it must be > 0"):
        Scale(rate=0)
    with pytest.raises(ValueError, match="pauses is -1; it must be >= 0"):
        Scale(pauses=-1)


def numbered(count: int) -> list[Session]:
    return [Session(str(index), float(index), 1, (Call(1),)) for index in range(count)]


def test_some_sessions_each_equally_likely_in_their_order() -> None:
    """10 of 40 over 400 seeds: each comes 100 times within 5 deviations of 8.7."""
    seen = [0] * 40
    for seed in range(400):
        found = [int(session.id) for session in some(numbered(40), 10, seed)]
        assert found == sorted(set(found))
        assert len(found) == 10
        for index in found:
            seen[index] += 1
    assert max(abs(count - 100) for count in seen) < 44
    assert some(numbered(5), 10, 0) == numbered(5)


def test_a_share_of_sessions() -> None:
    """30 % of 2,000: 600 within 5 deviations of 20."""
    found = list(sampled(numbered(2000), 0.3, seed=0))
    assert abs(len(found) - 600) < 103
    assert found == list(sampled(numbered(2000), 0.3, seed=0))
    assert list(sampled(numbered(9), 1.0, 0)) == numbered(9)


def test_merged_sessions_keep_their_links_under_new_names() -> None:
    """The second trace's ``0`` becomes ``b/0``, also where its ``p`` waits for it; at one time the first goes first."""
    parent = Session("p", 0.5, 1, (Call(1, Pause(1.0, session="0")), Call(1)))
    found = merged({"a": numbered(2), "b": [parent, *numbered(1)]})
    assert [(session.id, session.arrival) for session in found] == [("0", 0.0), ("b/0", 0.0), ("p", 0.5), ("1", 1.0)]
    assert found[2].pauses[0].session == "b/0"


def test_a_new_name_never_meets_an_old_one() -> None:
    clash = Session("b/0", 9.0, 1, (Call(1),))
    ids = [session.id for session in merged({"a": numbered(1), "b": [*numbered(1), clash]})]
    assert len(set(ids)) == 3
