"""Arrival processes whose rate changes: their mean rate, their shape over time, and pairing over loads."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from traces.draw.arrivals import ArrivalProcess, Weibull
from traces.draw.modulated_arrivals import Bursts, Diurnal

EACH = {
    "weibull": lambda rate: Weibull(rate, shape=0.5),
    "diurnal": lambda rate: Diurnal(rate, swing=0.9, period=300.0, peak=100.0),
    "bursts": lambda rate: Bursts(rate, busy=10.0, quiet=30.0, quiet_rate=0.1),
    "empty gaps": lambda rate: Bursts(rate, busy=10.0, quiet=30.0),
}


@pytest.fixture(params=list(EACH))
def process(request: pytest.FixtureRequest) -> ArrivalProcess:
    return EACH[str(request.param)](5.0)


def drawn(process: ArrivalProcess, duration: float, seed: int = 0) -> np.ndarray:
    return process.times(duration, np.random.default_rng(seed))


def test_the_rate_is_the_mean_rate(process: ArrivalProcess) -> None:
    """100,000 expected arrivals; bursts of 40 s cycles leave the mean of 500 cycles uncertain by a few per cent."""
    assert len(drawn(process, 20_000.0)) == pytest.approx(100_000, rel=0.06)


def test_times_ascend_lie_below_the_duration_and_begin_alike(process: ArrivalProcess) -> None:
    longer, shorter = drawn(process, 900.0), drawn(process, 300.0)
    assert (np.diff(longer) >= 0).all()
    assert 0 <= longer[0] <= longer[-1] < 900
    assert longer[: len(shorter)].tolist() == shorter.tolist()
    assert process.first(50, np.random.default_rng(0)).tolist() == longer[:50].tolist()
    assert drawn(process, 300.0, seed=1).tolist() != shorter.tolist()


def test_weibull_gaps_vary_as_their_shape_says() -> None:
    """Shape 1/2: mean gap 2 scales, mean square 24 scales^2, so the variation is sqrt(24 / 4 - 1) = 2.24."""
    gaps = np.diff(drawn(Weibull(5.0, 0.5), 40_000.0))
    assert gaps.std() / gaps.mean() == pytest.approx(math.sqrt(5), rel=0.05)


def test_weibull_gaps_scale_with_the_rate() -> None:
    assert drawn(Weibull(2.0, 0.7), 100.0) == pytest.approx(2 * drawn(Weibull(4.0, 0.7), 50.0))


def test_a_diurnal_rate_peaks_where_it_is_said_to() -> None:
    """Swing 1, peak at 100 of 300 s: the third around the peak has (1 + 3 sqrt(3) / (2 pi)) / 3 = 60.9 % of all."""
    times = drawn(Diurnal(5.0, swing=1.0, period=300.0, peak=100.0), 30_000.0) % 300
    assert ((times > 50) & (times < 150)).mean() == pytest.approx((1 + 3 * math.sqrt(3) / (2 * math.pi)) / 3, abs=0.01)


def test_a_diurnal_rate_without_swing_is_poisson() -> None:
    from traces.draw.arrivals import Poisson

    assert drawn(Diurnal(5.0, swing=0.0), 100.0) == pytest.approx(drawn(Poisson(5.0), 100.0), rel=1e-9)


def test_another_rate_has_its_bursts_at_the_same_times() -> None:
    """Quiet phases are empty. Busy ones have 80 arrivals a second at the higher rate: their ends show within 0.2 s."""
    lower, higher = drawn(Bursts(2.0, 10.0, 30.0), 2000.0), drawn(Bursts(20.0, 10.0, 30.0), 2000.0)
    for begin, end in itertools.pairwise(higher):
        if end - begin > 20:
            assert not ((lower > begin + 0.2) & (lower < end - 0.2)).any()
    assert np.diff(higher).max() > 20


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Weibull(1.0, 0.0), "shape is 0.0; it must be finite and >= 0.1"),
        (lambda: Diurnal(1.0, swing=1.5), "swing is 1.5; it must be 0 to 1"),
        (lambda: Diurnal(1.0, swing=0.5, period=0.0), "period is 0.0; it must be finite and > 0"),
        (lambda: Bursts(1.0, busy=0.0, quiet=1.0), "busy is 0.0"),
        (lambda: Bursts(1.0, busy=1.0, quiet=1.0, quiet_rate=2.0), "quiet_rate is 2.0"),
        (lambda: Bursts(-1.0, busy=1.0, quiet=1.0), "rate is -1.0"),
    ],
)
def test_impossible_parameters_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
