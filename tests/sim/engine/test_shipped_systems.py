"""Policy and order of every preset, together: they keep the invariants, and leaping changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from caesura.config.systems import load_preset, preset_names
from policies.contract import PreemptiveOrder
from policies.registry import make_order
from tests.sim.engine.test_invariants import assert_books, assert_drained
from tests.sim.engine.test_leap import assert_alike
from tests.sim.random_worlds import Plot, examples, plots


def pairs() -> list[tuple[Any, Any]]:
    """(policy, order) of the presets, each once; fixed answers and orders that preempt are drawn elsewhere."""
    found: list[tuple[Any, Any]] = []
    for name in preset_names():
        system = load_preset(name)
        pair = (system.policy, system.order)
        if isinstance(make_order(system.order), PreemptiveOrder):
            continue
        if pair not in found and (system.order["name"] != "fcfs" or len(system.policy) > 1):
            found.append(pair)
    return found


QUICK = [
    ({"name": "continuum", "enough": 1, "window": 3}, "pinned-first"),
    ({"name": "thunderagent", "tick": 0.7}, "active-first"),
    ({"name": "mori", "tick": 0.7, "headroom": 0.5}, {"name": "least-attained", "quantum": 0.2, "beta": 0.5}),
    ({"name": "caesura", "estimator": "empirical", "headroom": 0.5}, {"name": "due-first", "patience": 10.0}),
    ({"name": "tokencake", "estimator": "oracle", "pressure": 1.0}, "fcfs"),
    ({"name": "tokencake", "estimator": "ewma", "pressure": 1.0}, {"name": "least-attained", "beta": 1.0}),
    (
        {"name": "lamps", "predictor": {"name": "call-oracle", "noise": 0.5}},
        {"name": "smallest-memory", "starving_after": 0.5},
    ),
]
"""Published rules with constants that matter in small worlds."""


@st.composite
def systems(draw: st.DrawFn) -> Plot:
    policy, order = draw(st.sampled_from(pairs()) | st.sampled_from(QUICK))
    return replace(draw(plots(st.just(policy))), order=lambda: make_order(order))


@examples(30)
@given(systems())
def test_every_shipped_system_keeps_every_invariant(plot: Plot) -> None:
    assert_drained(plot, plot.run())


@examples(40)
@given(systems(), st.none() | st.floats(0, 60))
def test_leaps_change_nothing_under_any_shipped_system(plot: Plot, horizon: float | None) -> None:
    plot = replace(plot, horizon=horizon)
    leaping = replace(plot, leap=True).run()
    assert_books(plot, leaping)
    assert_alike(leaping, replace(plot, leap=False).run())
