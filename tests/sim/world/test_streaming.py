"""Workloads that need not fit in memory: sessions are drawn as time goes on, and forgotten when they have left."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator
from typing import Any

import pytest

from policies.basic.fcfs import FirstCome
from policies.basic.fixed import PreserveAlways
from sim.engine.settings import EngineSettings
from sim.results.run_record import Rows, RunRecord
from sim.session import SessionState
from sim.world.simulate import simulate
from tests.sim.worlds import pause, profile, session
from traces.session import Session


def record(sessions: Any, **more: Any) -> RunRecord:
    return simulate(
        sessions,
        policy=PreserveAlways(),
        order=FirstCome(),
        settings=EngineSettings(block_size=1, watermark=0.0),
        profile=profile(),
        **more,
    )


WORKLOAD = [
    session("a", 10, 3, pause(7.0, 2), 4),
    session("b", 5000, 1, at=0.5),
    session("c", 5, 9, at=0.5),
    session("d", 5, 2, pause(1.0), at=20.0),
]


@pytest.mark.parametrize("horizon", [None, 0.5, 5.0, 20.0])
def test_sessions_drawn_one_by_one_fare_as_those_of_a_list(horizon: float | None) -> None:
    """b outgrows the pool of 1,000 tokens; b and c arrive at one instant, and at 0.5 and 20.0 s the run may be cut."""
    assert repr(record(iter(WORKLOAD), horizon=horizon)) == repr(record(WORKLOAD, horizon=horizon))


def test_an_iterator_without_sessions_is_over_at_once() -> None:
    assert record(iter(())).totals["end_time"] == 0.0


def test_an_iterator_out_of_order_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"session b arrives at 1.0 s, after one that came at 2.0 s"):
        record(iter([session("a", 1, 1, at=2.0), session("b", 1, 1, at=1.0)]))


def test_rows_come_in_the_order_of_arrival_whoever_finishes_first() -> None:
    """c is over long before a; a table of sessions is in the order of the workload all the same."""
    rows = record(iter(WORKLOAD)).sessions
    assert rows["id"] == ["a", "b", "c", "d"]
    assert rows["status"] == ["finished", "rejected", "finished", "finished"]
    assert math.isnan(rows["finished_at"][1])


def test_a_session_that_has_left_is_forgotten() -> None:
    """200 sessions a hundred seconds apart: when the last is drawn, nothing is left of those before but their rows."""
    inside = []

    def drawn() -> Iterator[Session]:
        for index in range(200):
            yield session(f"s{index}", 10, 2, at=100.0 * index)
        gc.collect()
        inside.append(sum(type(one) is SessionState for one in gc.get_objects()))

    assert len(record(drawn()).sessions["id"]) == 200
    assert inside[0] <= 2


def test_packed_rows_come_back_as_they_were() -> None:
    """2,500 rows: two lots of 1,024 are packed on the way, the rest at the end; rows are then taken in reverse."""
    rows = Rows({"name": str, "tokens": int, "at": float})
    for index in range(2500):
        rows.append((f"s{index}", index, index / 3))
    assert len(rows) == 2500
    taken = rows.take(range(2499, -1, -1))
    assert taken["name"][0] == "s2499"
    assert taken["tokens"] == list(range(2499, -1, -1))
    assert taken["at"] == [index / 3 for index in range(2499, -1, -1)]
    assert len(rows) == 0
