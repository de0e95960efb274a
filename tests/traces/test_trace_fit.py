"""A generator fitted to a drawn trace says what the trace was drawn from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from traces import Gamma, Poisson, Session, draw_workload, shipped
from traces.arrival_fit import fit_arrivals
from traces.arrivals import ArrivalProcess, Weibull
from traces.distributions import Constant, Empirical, Scipy
from traces.modulated import Bursts
from traces.shapes import PauseShape, Rewrites, SessionShape, draw_mixture
from traces.trace_fit import TraceFit

AGENT = SessionShape(
    calls=Empirical((2.0, 6.0, 9.0)),
    prompt=Scipy("lognorm", {"s": 0.6, "scale": 900.0}),
    output=Scipy("gamma", {"a": 2.0, "scale": 60.0}),
    pauses=(
        PauseShape("tool", Scipy("lognorm", {"s": 1.0, "scale": 0.8}), Constant(30), "ls", 1.0, {"user": 1.0}),
        PauseShape("user", Scipy("expon", {"scale": 40.0}), Constant(12), "", 0.0, {"tool:ls": 0.75, "user": 0.25}),
    ),
    ends_with_pause=0.4,
    rewrites=Rewrites(0.1, Constant(0.5), Constant(0.2)),
    alike={"output": 0.5},
)


@pytest.fixture(scope="module")
def kinds() -> dict[str, Any]:
    sessions = draw_mixture({"agent": (3.0, AGENT), "plain": (1.0, replace(AGENT, calls=Constant(1)))}, 2000, 0)
    found: Any = TraceFit(sessions).fit().written["kinds"]
    return dict(found)


def test_kinds_come_with_their_weights(kinds: dict[str, Any]) -> None:
    assert kinds["agent"]["weight"] == pytest.approx(0.75, abs=0.04)
    assert kinds["plain"]["calls"] == 1.0


def test_lengths_and_pauses_are_found(kinds: dict[str, Any]) -> None:
    agent = kinds["agent"]
    assert agent["calls"]["values"] == [2, 6, 9]
    assert agent["prompt"]["dist"] == "lognorm"
    assert agent["prompt"]["scale"] == pytest.approx(900, rel=0.1)
    assert agent["output"]["dist"] == "gamma"
    tool, user = sorted(agent["pauses"], key=lambda pause: str(pause["waits_for"]))
    assert (tool["tool"], tool["returned"], user["returned"]) == ("ls", 30.0, 12.0)
    assert tool["seconds"]["dist"] == "lognorm"
    assert user["seconds"]["dist"] in ("expon", "gamma", "weibull_min")


def test_which_pause_follows_which_is_found(kinds: dict[str, Any]) -> None:
    tool, user = sorted(kinds["agent"]["pauses"], key=lambda pause: str(pause["waits_for"]))
    assert tool["share"] == 1.0
    assert tool["then"] == {"user": 1.0}
    assert user["then"]["tool:ls"] == pytest.approx(0.75, abs=0.03)


def test_endings_rewrites_and_likeness_are_found(kinds: dict[str, Any]) -> None:
    agent = kinds["agent"]
    assert agent["ends_with_pause"] == pytest.approx(0.4, abs=0.06)
    assert agent["rewrites"]["share"] == pytest.approx(0.1, abs=0.02)
    assert agent["alike"]["output"] == pytest.approx(0.5, abs=0.08)
    assert "pause" not in agent["alike"]


def test_pauses_that_chance_explains_have_no_chain() -> None:
    free = replace(AGENT, pauses=tuple(replace(pause, share=1.0, then={}) for pause in AGENT.pauses))
    found: Any = TraceFit(draw_mixture({"agent": (1.0, free)}, 1000, 0)).fit().written["kinds"]
    assert all("then" not in pause for pause in found["agent"]["pauses"])
    assert [pause["share"] for pause in found["agent"]["pauses"]] == pytest.approx([0.5, 0.5], abs=0.04)


def test_rare_tools_stand_together() -> None:
    """Thirty tools of which two are common: these two, and one called other."""
    tools = [PauseShape("tool", Constant(1.0), Constant(5), f"t{i}", 100.0 if i < 2 else 0.5) for i in range(30)]
    found: Any = (
        TraceFit(draw_mixture({"a": (1.0, replace(AGENT, pauses=tuple(tools)))}, 300, 0)).fit().written["kinds"]
    )
    assert sorted(pause["tool"] for pause in found["a"]["pauses"]) == ["other", "t0", "t1"]


def test_without_a_session_there_is_nothing_to_fit() -> None:
    with pytest.raises(ValueError, match="no session"):
        TraceFit().fit()


def times(process: ArrivalProcess) -> np.ndarray:
    sessions: list[Session] = draw_workload(shipped.load("infercept-mix"), process, 2000.0, seed=3)
    return np.array([session.arrival for session in sessions])


@pytest.mark.parametrize(
    ("process", "name", "parameters"),
    [
        (Poisson(5.0), "poisson", {}),
        (Gamma(5.0, 0.4), "gamma", {"burstiness": 0.4}),
        (Weibull(5.0, 0.6), "weibull", {"shape": 0.6}),
        (Bursts(5.0, busy=4.0, quiet=12.0), "bursts", {"busy": 4.0, "quiet": 12.0}),
    ],
)
def test_the_process_that_arrivals_came_from_is_found(
    process: ArrivalProcess, name: str, parameters: dict[str, float]
) -> None:
    """10,000 arrivals; the 125 bursts leave their mean lengths uncertain by a tenth."""
    fitted = fit_arrivals(times(process))
    assert fitted is not None
    best = fitted.candidates[0]
    assert best.name == name
    assert best.parameters == pytest.approx(parameters, rel=0.3 if name == "bursts" else 0.05)
    assert best.gap_cv == pytest.approx(fitted.gap_cv, rel=0.25)


def test_arrivals_on_a_grid_are_spread_first() -> None:
    """Poisson arrivals rounded down to 3 s are Poisson again."""
    fitted = fit_arrivals(np.floor(times(Poisson(5.0)) / 3) * 3)
    assert fitted is not None
    assert (fitted.tick_s, fitted.candidates[0].name) == (3.0, "poisson")
    assert fitted.gap_cv == pytest.approx(1.0, abs=0.05)


def test_too_few_arrivals_are_not_fitted() -> None:
    assert fit_arrivals(np.zeros(500)) is None
