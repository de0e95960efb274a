"""A counter of a session is declared once: its column, its type and its way to another replica follow from that."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from sim.engine.migration import successor
from sim.results.run_record import SESSION_COLUMNS
from sim.session import SessionState
from sim.session_stats import SessionStats, counter, stat_columns
from tests.child_processes import run as run_child
from tests.sim.cluster_worlds import Scripted
from tests.sim.cluster_worlds import run as run_cluster
from tests.sim.worlds import pause, run, session

ROOT = Path(__file__).parents[3]

DECLARED = """
from dataclasses import dataclass
import sim.session, sim.session_stats

@dataclass(slots=True)
class More(sim.session_stats.SessionStats):
    first_waits: int = 7

sim.session.SessionStats = sim.session_stats.SessionStats = More
from tests.sim.cluster_worlds import Scripted, run
from tests.sim.worlds import pause, session
record = run(session("a", 10, 5, pause(3.0, 20), 2), router=Scripted(a=[0, 1])).record
print(record.sessions["moves"], record.sessions["first_waits"], list(record.sessions)[-2:])
"""


def test_a_field_that_is_declared_is_a_column_also_of_a_session_that_moved() -> None:
    """The class of the counters gets a field before the simulator is imported, and nothing else is told of it."""
    child = run_child([sys.executable, "-c", DECLARED], cwd=ROOT)
    assert child.stdout == "[1] [7] ['first_waits', 'replica']\n", child.stderr


def test_seconds_of_pauses_that_have_ended() -> None:
    """The pauses of 3 s and of 4 s end, the last one does not: the run is cut at 20 s."""
    row = run(session("a", 10, 5, pause(3.0), 1, pause(4.0), 1, pause(100.0)), horizon=20.0).session("a")
    assert row["time_paused_s"] == pytest.approx(3.0 + 4.0)
    assert row["pause_s"] == pytest.approx(3.0 + 4.0 + 100.0)


def test_the_pause_in_which_a_session_moves_counts() -> None:
    """3 s from replica 0 to replica 1, then 2 s at replica 1."""
    plan = session("a", 10, 5, pause(3.0, 20), 2, pause(2.0), 1)
    row = run_cluster(plan, router=Scripted(a=[0, 1])).session("a")
    assert (row["moves"], row["time_paused_s"]) == (1, pytest.approx(3.0 + 2.0))


def test_every_counter_moves_with_its_session() -> None:
    old = SessionState(session("a", 10, 5, pause(3.0), 2), 0, 0.0)
    old.paused_at = 1.0
    for value, one in enumerate(fields(SessionStats), 1):
        setattr(old.stats, one.name, value)
    new, before = successor(old, 4.0).stats, old.stats
    assert new is not before and (new.moves, new.time_paused_s) == (before.moves + 1, before.time_paused_s + 3.0)
    new.moves, new.time_paused_s = before.moves, before.time_paused_s
    assert new == before


def test_columns_have_the_names_and_types_that_are_declared() -> None:
    @dataclass(slots=True)
    class Some(SessionStats):
        naps: int = 0
        nap_s: float = 0.0
        swaps: int = counter("nap_bytes", kv_bytes=True, total=True)
        hidden: int = counter(table=False)

    found = {one.name: one for one in stat_columns(Some) if one.name not in SESSION_COLUMNS}
    assert {name: one.kind for name, one in found.items()} == {"naps": int, "nap_s": float, "nap_bytes": int}
    assert [name for name, one in found.items() if one.kv_bytes and one.total] == ["nap_bytes"]


def test_a_counter_is_a_number() -> None:
    @dataclass(slots=True)
    class Odd(SessionStats):
        mood: str = ""

    with pytest.raises(TypeError, match=r"Odd\.mood is annotated str; a counter is an int or a float"):
        list(stat_columns(Odd))
