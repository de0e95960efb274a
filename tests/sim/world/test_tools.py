"""Who answers a pause, and when, is asked in one place."""

from __future__ import annotations

import ast
from pathlib import Path
from unittest.mock import patch

import pytest

import sim.world.simulate
from sim.session import SessionState
from sim.world.tools import ReplayTools
from tests.sim.worlds import pause, run, session
from traces.session import Session

ROOT = Path(__file__).parents[3]
ALLOWED = {"sim/world/tools.py", "sim/results/waste_bound.py"}
"""The tool that replays recorded pauses, and the bound, which holds for any policy that knows them."""


class Slow(ReplayTools):
    """Tools that take twice as long as recorded."""

    def returns_at(self, state: SessionState) -> float:
        return state.paused_at + 2 * (super().returns_at(state) - state.paused_at)

    def duration(self, session: Session, call: int) -> float:
        return 2 * super().duration(session, call)


def recorded_times(source: str) -> list[str]:
    """Where a module reads what the trace says of a pause's length: ``pause.duration``, ``pause.end(...)``."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in ("duration", "end", "pause_seconds"):
            owner = ast.unparse(node.value)
            if not owner.endswith("tools") and owner != "plan":
                found.append(f"{owner}.{node.attr}")
    return found


def test_reads_of_recorded_times_are_found() -> None:
    assert recorded_times("a = state.call.pause.duration; b = p.end(now, 0.0)") == [
        "state.call.pause.duration",
        "p.end",
    ]
    assert recorded_times("self._tools.duration(session, 1)") == []


def test_only_tools_and_the_bound_read_what_the_trace_says_of_pauses() -> None:
    files = [*(ROOT / "sim").rglob("*.py"), ROOT / "profiler" / "serving" / "server.py"]
    assert len(files) > 40
    readers = {str(file.relative_to(ROOT)) for file in files if recorded_times(file.read_text(encoding="utf-8"))}
    assert readers == ALLOWED


@pytest.mark.parametrize("tools", [ReplayTools, Slow])
def test_what_the_tools_say_holds_for_the_replica_the_record_and_the_oracle(tools: type[ReplayTools]) -> None:
    """The call ends at 1.10; the pause of 3 s takes 3 s or 6 s, and an oracle knows it."""
    seconds = 3.0 if tools is ReplayTools else 6.0
    spec = {"name": "heuristic", "estimator": "oracle", "swap_above": 1.0, "discard_above": 5.0}
    with patch.object(sim.world.simulate, "ReplayTools", tools):
        world = run(session("a", 10, 1, pause(3.0), 1), policy=spec)
    assert world.call("a", 1)["ready_at"] == pytest.approx(1.10 + seconds)
    assert world.call("a", 1)["pause_s"] == world.session("a")["pause_s"] == seconds
    assert world.record.decisions[0]["verdict"] == ("swap" if seconds == 3.0 else "discard")
