"""Distributions turn uniform numbers into values, and know their own cumulative probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from traces.draw.distributions import Constant, Distribution, Quantiles, Scipy, WeightedValues, WithZeros

EACH: list[Distribution] = [
    Scipy("lognorm", {"s": 1.2, "scale": 2.0}),
    Scipy("norm", {"loc": 1.0, "scale": 3.0}),
    Scipy("gamma", {"a": 0.4, "scale": 10.0}, least=0.5, most=60.0),
    Quantiles((0.0, 1.0, 1.5, 2.0, 5.0)),
    WithZeros(0.3, Scipy("expon", {"scale": 2.0})),
    Constant(3.0),
]


@pytest.mark.parametrize("distribution", EACH, ids=lambda one: type(one).__name__)
@given(uniform=st.lists(st.floats(0.0, 0.999999), min_size=2, max_size=20).map(sorted))
def test_values_ascend_and_their_probability_is_what_they_were_drawn_at(
    distribution: Distribution, uniform: list[float]
) -> None:
    u = np.array(uniform)
    values = distribution.values(u)
    assert (np.diff(values) >= 0).all()
    assert (distribution.cdf(values) >= u - 1e-6).all()


def test_a_distribution_of_scipy_is_cut_off_and_not_clipped() -> None:
    """Exponential of mean 1 between 1 and 2: its median m has e^-1 - e^-m = (e^-1 - e^-2) / 2, so m = 1.3799."""
    cut = Scipy("expon", {}, least=1.0, most=2.0)
    assert cut.values(np.array([0.0, 0.5]))[0] == pytest.approx(1.0)
    assert cut.values(np.array([0.5]))[0] == pytest.approx(-math.log((math.exp(-1) + math.exp(-2)) / 2))
    assert cut.cdf(np.array([0.5, 3.0])).tolist() == [0.0, 1.0]


def test_a_discrete_distribution_may_draw_its_least_value() -> None:
    """Geometric with p = 1/2 from 2 on: 2 has 1/4 of 1/2, so half of all."""
    cut = Scipy("geom", {"p": 0.5}, least=2.0)
    assert cut.values(np.array([0.0, 0.49, 0.51])).tolist() == [2.0, 2.0, 3.0]


def test_recorded_values_come_as_often_as_their_weights_say() -> None:
    recorded = WeightedValues((5.0, 1.0), (1.0, 3.0))
    assert recorded.values(np.array([0.0, 0.74, 0.76])).tolist() == [1.0, 1.0, 5.0]
    assert recorded.cdf(np.array([0.0, 1.0, 5.0])).tolist() == [0.0, 0.75, 1.0]


def test_equal_quantiles_are_an_atom() -> None:
    """Four equal steps from 0 to 60, 60, 60: half of all values are 60."""
    capped = Quantiles((0.0, 30.0, 60.0, 60.0, 60.0))
    assert capped.values(np.array([0.25, 0.5, 0.9])).tolist() == [30.0, 60.0, 60.0]
    assert capped.cdf(np.array([30.0, 59.999, 60.0])) == pytest.approx([0.25, 0.5, 1.0], abs=1e-4)


def test_zeros_come_apart_from_the_rest() -> None:
    """Of the uniform numbers above 0.2, half lie below 0.6: the median of the rest."""
    mixed = WithZeros(0.2, Quantiles((10.0, 20.0)))
    assert mixed.values(np.array([0.1, 0.6])).tolist() == [0.0, 15.0]
    assert mixed.cdf(np.array([0.0, 15.0])) == pytest.approx([0.2, 0.6])


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("lognrm", {}, "has no distribution 'lognrm'; did you mean 'lognorm'"),
        ("lognorm", {}, "lognorm lacks its parameter 's'; it has s, loc, scale"),
        ("lognorm", {"s": 1.0, "a": 2.0}, "lognorm has no parameter 'a'"),
        ("lognorm", {"s": -1.0}, "lognorm does not exist for s=-1"),
        ("norm", {"loc": -500.0}, "norm has nothing to draw between 0 and inf"),
        ("poisson", {"mu": 1.0, "scale": 2.0}, "poisson has no parameter 'scale'; it has mu, loc"),
    ],
)
def test_what_scipy_does_not_have_is_said(name: str, parameters: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scipy(name, parameters)
