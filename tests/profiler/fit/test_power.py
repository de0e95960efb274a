"""The slowdown of a paper GPU at its power limit is found from the order of its passes alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from profiler.fit.measurements import measurements_of
from profiler.fit.power import at_reference, fit_power
from sim.costs.cost_model import CostModel
from sim.costs.gpu_state import GpuState
from sim.costs.profile import HostCost, PowerLimit
from tests.profiler import known_costs as known

LIMIT = PowerLimit(memory_s=0.05, free_share=0.4, reference_share=0.5, slowdown=0.1, slowdown_matrix=0.2)
PREPARATION_S = 2e-3


def rounds(limit: PowerLimit, noise: float = 0.004) -> pd.DataFrame:
    """Every point once a round for eight rounds, each in an order of its own, in parts as the profiler writes them."""
    forward = known.FORWARD.model_copy(update={"power": limit})
    state = GpuState(CostModel(known.PROFILE.model_copy(update={"forward": forward, "host": HostCost()})), limit)
    points, random, now, rows = known.all_points(), np.random.default_rng(3), 0.0, []
    for number in range(8):
        order = random.permutation(len(points))
        for begin in range(0, len(order), 40):
            part = []
            for index in order[begin : begin + 40]:
                point = points[index]
                now += PREPARATION_S
                seconds = state.pass_times(point.shape.batch(), now, 1)[0]
                now += seconds
                state.took(1, now)
                row = known.sample(point.set, point.shape, float(seconds * np.exp(random.normal(0, noise))))
                part.append({"name": point.name, "point": f"round {number} from {begin}", **row, "wall_s": seconds})
            rows += [{**row, "at_s": now} for row in part]
    return pd.DataFrame(rows)


def test_the_slowdown_is_found_from_the_order_of_passes() -> None:
    samples = rounds(LIMIT)
    found = fit_power(samples, known.FORWARD, measurements_of(samples, known.PACKING))
    assert found is not None
    assert found.memory_s == pytest.approx(0.05, rel=0.25)
    assert found.free_share == pytest.approx(0.4, abs=0.06)
    for work in (0.2, 1.0):
        slope = found.slowdown + found.slowdown_matrix * work
        assert slope == pytest.approx(0.1 + 0.2 * work, rel=0.15), work


def test_at_the_reference_a_pass_takes_the_same_whatever_came_before() -> None:
    samples = rounds(LIMIT)
    points = measurements_of(samples, known.PACKING)
    limit = fit_power(samples, known.FORWARD, points)
    assert limit is not None
    level = at_reference(samples, known.FORWARD, points, limit)

    def spread(frame: pd.DataFrame) -> float:
        groups = frame.groupby("name")["device_s"]
        return float((groups.std() / groups.mean()).median())

    assert spread(level) < 0.5 * spread(samples)
    assert spread(level) == pytest.approx(0.004, rel=0.3)


def test_a_gpu_that_does_not_slow_down_has_no_limit() -> None:
    samples = rounds(LIMIT.model_copy(update={"slowdown": 0.0, "slowdown_matrix": 0.0}))
    assert fit_power(samples, known.FORWARD, measurements_of(samples, known.PACKING)) is None
