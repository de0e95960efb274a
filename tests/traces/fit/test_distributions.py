"""What stands for values: the distribution that they came from, or a curve with their quantiles and their mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from traces.draw.distributions import Constant, Quantiles, Scipy, WeightedValues, WithZeros
from traces.fit.distributions import fit_distribution, ks_distance, likeness, mean_of

RNG = np.random.default_rng


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("expon", {"scale": 3.0}),
        ("gamma", {"a": 2.5, "scale": 4.0}),
        ("lognorm", {"s": 0.8, "scale": 20.0}),
        ("weibull_min", {"c": 3.0, "scale": 7.0}),
        ("fisk", {"c": 4.0, "scale": 50.0}),
    ],
)
def test_the_distribution_that_values_came_from_is_found(name: str, parameters: dict[str, float]) -> None:
    """4,000 values: parameters within 10 %, and a distance below 1.36 / sqrt(4000) = 0.0215 (5 % level)."""
    fitted = fit_distribution(Scipy(name, parameters).values(RNG(1).random(4000)))
    assert fitted.name == name
    assert fitted.ks < 0.0215
    for key, value in parameters.items():
        assert fitted.candidates[0].parameters[key] == pytest.approx(value, rel=0.1)
    aics = [candidate.aic for candidate in fitted.candidates]
    assert aics == sorted(aics)


def test_counts_are_fitted_as_rounded_values() -> None:
    """Rounded lognormal counts lie off at their edges, but not at the counts themselves."""
    values = np.maximum(np.rint(Scipy("lognorm", {"s": 0.8, "scale": 20.0}).values(RNG(2).random(4000))), 1)
    fitted = fit_distribution(values, whole=True)
    assert fitted.name == "lognorm"
    assert fitted.ks < 0.0215


def test_zeros_are_counted_apart() -> None:
    values = WithZeros(0.25, Scipy("lognorm", {"s": 1.0, "scale": 10.0})).values(RNG(3).random(4000))
    fitted = fit_distribution(values)
    assert isinstance(fitted.written, dict)
    assert fitted.written["zeros"] == pytest.approx(0.25, abs=0.03)
    assert fitted.ks < 0.03


def test_a_few_different_values_stand_for_themselves() -> None:
    fitted = fit_distribution(np.array([2.0] * 6 + [5.0] * 2), whole=True)
    assert fitted.written == {"values": [2, 5], "weights": [0.75, 0.25]}
    assert isinstance(fitted.distribution, WeightedValues)
    assert fit_distribution(np.array([7.0] * 9)).distribution == Constant(7.0)


def test_values_that_nothing_fits_become_a_curve() -> None:
    """Pauses capped at 60 s, a sixth of them at the cap: no candidate has such an atom."""
    values = np.minimum(Scipy("lognorm", {"s": 0.8, "scale": 27.0}).values(RNG(4).random(3000)), 60.0)
    fitted = fit_distribution(values)
    assert isinstance(fitted.distribution, Quantiles)
    assert fitted.ks < 0.03
    assert fitted.distribution.values(np.array([0.999]))[0] == 60.0
    assert fit_distribution(values, points=0).name in ("gamma", "lognorm", "weibull_min", "fisk")


@settings(max_examples=12, deadline=None)
@given(tail=st.floats(0.5, 6.0), count=st.integers(300, 3000), seed=st.integers(0, 99))
def test_a_curve_keeps_the_mean_of_a_long_tail(tail: float, count: int, seed: int) -> None:
    """Two heaps, the upper one with a tail that holds most of the sum: a straight line to its end would double it."""
    rng = RNG(seed)
    values = np.concatenate([rng.normal(5, 0.1, count), np.exp(rng.normal(0, tail, count // 10))]).clip(0.01)
    fitted = fit_distribution(values)
    if isinstance(fitted.distribution, Quantiles):
        assert mean_of(fitted.distribution) == pytest.approx(values.mean(), rel=0.04)


def test_what_is_written_is_what_was_fitted() -> None:
    from caesura.config.generator_schema import Drawn

    uniform = np.linspace(0, 0.999, 50)
    for values in (
        RNG(5).gamma(2.0, 3.0, 500),
        RNG(6).choice([1.0, 50.0, 51.0, 80.5], 300),
        np.tan(RNG(7).random(400)),
    ):
        fitted = fit_distribution(values)
        assert isinstance(fitted.written, dict)
        again = Drawn.model_validate(fitted.written).distribution(0.0)
        assert again.values(uniform) == pytest.approx(fitted.distribution.values(uniform), rel=1e-3)


def test_the_distance_is_that_of_kolmogorov_and_smirnov() -> None:
    """Against uniform 0 to 1, the values 0.5 and 0.6: just below 0.5, half of all is missing."""
    uniform = Quantiles((0.0, 1.0))
    assert ks_distance(np.array([0.5, 0.6]), uniform, whole=False) == pytest.approx(0.5)
    from scipy.stats import kstest

    values = RNG(8).beta(2, 3, 200)
    assert ks_distance(values, uniform, whole=False) == pytest.approx(kstest(values, "uniform").statistic)


def test_likeness_is_the_correlation_of_two_values_of_a_group() -> None:
    """A common part with half of the variance: 0.5. Without one: 0."""
    rng = RNG(9)
    groups = [rng.normal() + rng.normal(size=6) for _ in range(800)]
    assert likeness(groups) == pytest.approx(0.5, abs=0.05)
    assert likeness([rng.normal(size=6) for _ in range(800)]) < 0.04
    assert likeness([np.array([1.0])] * 50) == 0.0
    assert likeness([np.array([2.0, 2.0])] * 50) == 0.0
