"""A generator fitted to a drawn trace says what the trace was drawn from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from traces import Call, Gamma, Pause, Poisson, Session, draw_workload, shipped
from traces.draw.arrivals import ArrivalProcess, Weibull
from traces.draw.distributions import Constant, Scipy, WeightedValues
from traces.draw.modulated_arrivals import Bursts, Diurnal
from traces.draw.shapes import PauseShape, Rewrites, SessionShape, draw_mixture
from traces.fit.arrivals import fit_arrivals
from traces.fit.trace import TraceFit

DRAWN_BEFORE = Path(__file__).with_name("agent_sessions.jsonl")
AGENT = SessionShape(
    calls=WeightedValues((2.0, 6.0, 9.0)),
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


def test_values_that_go_with_the_prompt_or_with_the_one_before_are_found() -> None:
    """Drawn and fitted again: 2,000 sessions of 5.7 calls leave correlations uncertain by a few hundredths."""
    with_prompt, along = {"calls": 0.4, "output": -0.5, "pause": 0.3}, {"output": 0.6, "returned": -0.4}
    one = replace(AGENT.pauses[0], returned=Scipy("expon", {"scale": 50.0}), then={})
    shape = replace(
        AGENT, calls=WeightedValues(tuple(map(float, range(1, 20)))), pauses=(one,), rewrites=None,
        with_prompt=with_prompt, along=along, alike={"output": 0.4},
    )  # fmt: skip
    fitted = TraceFit(draw_mixture({"agent": (1.0, shape)}, 2000, 1)).fit()
    kinds: Any = fitted.written["kinds"]
    assert kinds["agent"]["with_prompt"] == pytest.approx(with_prompt, abs=0.06)
    assert kinds["agent"]["along"]["returned"] == pytest.approx(-0.4, abs=0.05)
    assert fitted.associations["agent"]["output"].next == pytest.approx(0.4 + 0.6 * 0.6, abs=0.05)
    again: Any = TraceFit(draw_mixture({"agent": (1.0, shape)}, 2000, 2)).associations()["agent"]["output"]
    assert again.next == pytest.approx(fitted.associations["agent"]["output"].next, abs=0.05)


def test_what_goes_together_changes_no_distribution() -> None:
    """The same prompts whatever goes with them, and outputs of the same distribution: medians of 20,000 within 4 %."""
    plain = replace(AGENT, calls=Constant(1), pauses=(), rewrites=None, ends_with_pause=0.0, alike={})
    bands = [[0.7, 0.2, 0.1], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7]]
    drawn = [
        draw_mixture({"a": (1.0, shape)}, 20_000, 0)
        for shape in (plain, replace(plain, with_prompt={"output": 0.8}), replace(plain, output_by_prompt=bands))
    ]
    outputs = [np.array([session.calls[0].output for session in sessions]) for sessions in drawn]
    assert all([one.prompt for one in some] == [one.prompt for one in drawn[0]] for some in drawn)
    for some in outputs[1:]:
        assert np.percentile(some, [10, 50, 90]) == pytest.approx(np.percentile(outputs[0], [10, 50, 90]), rel=0.04)


def test_outputs_that_depend_on_prompts_in_another_way_than_a_correlation_says_are_found() -> None:
    """Short and long prompts get long answers, others short ones: no correlation, and yet a drawn trace has it."""
    bands = [[0.05, 0.05, 0.9], [0.9, 0.05, 0.05], [0.05, 0.05, 0.9]]
    shape = replace(
        AGENT, calls=Constant(1), pauses=(), rewrites=None, ends_with_pause=0.0, alike={}, output_by_prompt=bands
    )
    sessions = draw_mixture({"a": (1.0, shape)}, 6000, 0)
    found: Any = TraceFit(sessions).fit().written["kinds"]
    rows = np.array(found["a"]["output_by_prompt"])
    assert rows.shape == (12, 12)
    assert "with_prompt" not in found["a"]
    assert rows[:4, 8:].sum() > 4 * rows[:4, :4].sum()
    assert rows[4:8, :4].sum() > 4 * rows[4:8, 8:].sum()


def test_a_file_that_says_nothing_of_correlations_draws_what_it_drew() -> None:
    """Sessions as they were drawn before a generator could say how values go with the prompt: names and token counts
    exactly, durations but for the last bits of what a processor makes of logarithms and exponentials."""
    sessions = draw_mixture({"agent": (1.0, AGENT)}, 200, 5)
    before = [json.loads(line) for line in DRAWN_BEFORE.read_text(encoding="utf-8").splitlines()]
    assert [plain(session) for session in sessions] == [written(n, *one) for n, one in enumerate(before)]
    durations = [pause.duration for session in sessions for pause in session.pauses]
    assert durations == pytest.approx([call[1] for _, calls in before for call in calls if len(call) > 1], rel=1e-9)


def plain(session: Session) -> Session:
    """The session with pauses of 0 s."""
    calls = (replace(c, pause=c.pause and replace(c.pause, duration=0.0)) for c in session.calls)
    return replace(session, calls=tuple(calls))


def written(index: int, prompt: int, calls: list[Any]) -> Session:
    """A line of ``DRAWN_BEFORE``: the prompt, and for each call its output and the fields of its pause."""
    made = (Call(output, Pause(0.0, *pause[1:]) if pause else None) for output, *pause in calls)
    return Session(f"agent-{index}", 0.0, prompt, tuple(made), "agent")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"along": {"output": 1.0}},
            "along.output is 1.0; there are output, pause, returned, each above -1 to below 1",
        ),
        ({"with_prompt": {"tokens": 0.5}}, "with_prompt.tokens is 0.5; there are calls, output, pause, returned"),
        ({"output_by_prompt": [[1.0], [1.0, 2.0]]}, "the rows of output_by_prompt must be equally long"),
        ({"output_by_prompt": [[0.0, 0.0]]}, "in each row one above 0"),
        ({"output_by_prompt": [[1.0]], "with_prompt": {"output": 0.5}}, "cannot be given together"),
    ],
)
def test_impossible_correlations_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(AGENT, **given)


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
        (Diurnal(5.0, 0.4, period=500.0, peak=150.0), "diurnal", {"swing": 0.4, "period": 500.0, "peak": 150.0}),
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


def test_a_rate_that_drifts_by_chance_is_no_wave() -> None:
    """500 Poisson arrivals: the strongest of 14 waves swings by about 2 sqrt(ln 14 / 500) = 0.15; 0.22 would count."""
    for seed in range(10):
        fitted = fit_arrivals(np.cumsum(np.random.default_rng(seed).standard_exponential(500)))
        assert fitted is not None
        assert "diurnal" not in [candidate.name for candidate in fitted.candidates]


def test_the_gaps_of_a_wave_are_those_that_are_drawn() -> None:
    """A swing of 0.8: sd / mean of the gaps is sqrt(2 / sqrt(1 - 0.8^2) - 1) = sqrt(2 / 0.6 - 1) = 1.53."""
    fitted = fit_arrivals(times(Diurnal(5.0, 0.8, period=500.0, peak=150.0)))
    assert fitted is not None
    wave = fitted.candidates[0]
    assert (wave.name, wave.gap_cv) == ("diurnal", pytest.approx(1.53, abs=0.08))
    assert wave.ks < 0.02


def test_arrivals_on_a_grid_are_spread_first() -> None:
    """Poisson arrivals rounded down to 3 s are Poisson again."""
    fitted = fit_arrivals(np.floor(times(Poisson(5.0)) / 3) * 3)
    assert fitted is not None
    assert (fitted.tick_s, fitted.candidates[0].name) == (3.0, "poisson")
    assert fitted.gap_cv == pytest.approx(1.0, abs=0.05)


def test_arrivals_at_equal_gaps_are_fitted_as_regular_ones() -> None:
    """No likelihood has a maximum there: a gamma process whose gaps vary by a hundredth stands for them."""
    fitted = fit_arrivals(np.arange(400.0))
    assert fitted is not None
    assert fitted.written == {"gamma": {"rate": 1.0, "burstiness": pytest.approx(1e4)}}


def test_too_few_arrivals_are_not_fitted() -> None:
    assert fit_arrivals(np.zeros(500)) is None
