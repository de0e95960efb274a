"""The saturation point, on curves whose S is known."""

from __future__ import annotations

import numpy as np
import pytest

from profiler.fit.saturation import convex, saturation_point

TOKENS = np.array([16, 32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 512, 768, 1024, 1536, 2048], dtype=np.float64)


def test_where_the_lines_cross_when_the_knee_is_sharp() -> None:
    """5 ms flat, then 25 µs a token: the lines cross at 200 tokens, between the points at 192 and 224."""
    seconds = np.maximum(5e-3, 25e-6 * TOKENS)
    assert 192 <= saturation_point(TOKENS, seconds) <= 224


def test_the_knee_of_a_p_norm_lies_where_the_equation_says() -> None:
    """(w^p + (cx)^p)^(1/p) costs c/2 a token where (cx)^p = w^p q/(1 - q), q = 2^(-p/(p-1)): at 0.90 w/c for p = 4."""
    x = np.arange(8.0, 2049.0, 8.0)
    seconds = ((5e-3) ** 4 + (25e-6 * x) ** 4) ** 0.25
    assert saturation_point(x, seconds) == pytest.approx(0.90 * 200, rel=0.02)


def test_an_overhead_that_nothing_hides_moves_nothing() -> None:
    seconds = np.maximum(5e-3, 25e-6 * TOKENS)
    assert saturation_point(TOKENS, seconds + 0.01) == pytest.approx(saturation_point(TOKENS, seconds), abs=16)


def test_a_device_that_is_busy_from_the_start_is_saturated_by_the_first_point() -> None:
    assert saturation_point(TOKENS, 1e-3 + 25e-6 * TOKENS) == 16


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_stairs_move_it_little(seed: int) -> None:
    """Tiles of 64 tokens and 2 % noise around lines that cross at 200."""
    x = np.arange(16.0, 2049.0, 16.0)
    stairs = 0.5 * x + 0.5 * np.ceil(x / 64) * 64
    noise = np.exp(np.random.default_rng(seed).normal(0, 0.02, len(x)))
    seconds = ((5e-3) ** 8 + (25e-6 * stairs) ** 8) ** (1 / 8) * noise
    assert saturation_point(x, seconds) == pytest.approx(190, abs=60)


def test_the_convex_curve_is_convex_and_close() -> None:
    seconds = np.maximum(5e-3, 25e-6 * TOKENS) * np.exp(np.random.default_rng(0).normal(0, 0.02, len(TOKENS)))
    smooth = convex(TOKENS, seconds)
    slopes = np.diff(smooth) / np.diff(TOKENS)
    assert (slopes >= -1e-12).all() and (np.diff(slopes) >= -1e-12).all()
    assert np.abs(smooth / seconds - 1).max() < 0.06


def test_three_points_are_too_few() -> None:
    with pytest.raises(ValueError, match="four points"):
        saturation_point(TOKENS[:3], TOKENS[:3])
