"""A fit to the samples of a GPU on paper finds that GPU's costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from profiler.fit.copies import fit_copies
from profiler.fit.forward import NotEnoughPoints, device_seconds, error_of, fit_forward, relative
from profiler.fit.host import fit_host
from profiler.fit.measurements import Packing, measurements_of
from profiler.fit.profile_folder import make_profile, verdict_on, write_profile
from profiler.measure.samples import Samples
from sim.costs.batch import Batch
from sim.costs.cost_model import CostModel
from sim.costs.profile import Error, HostCost, PhysicalForward, load_profile
from tests.profiler import known_costs as known


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return known.write_samples(tmp_path_factory.mktemp("paper"))


def test_the_costs_of_the_paper_gpu_are_found(samples: Samples) -> None:
    """Noise of 1 %. What little tells apart, such as reading the weights and the overhead, is allowed more."""
    points = measurements_of(samples.read("iterations"), known.PACKING)
    on_grid = ~np.isin(points.sets, ("held-out", "reference"))
    fit = fit_forward(points[on_grid], known.PACKING)
    found, truth = fit.forward, known.FORWARD
    assert found.matrix_factors == ()
    assert (found.mixed_read_s, found.unequal_read_s, found.path_s) == (0.0, 0.0, 0.0)
    for name, share in (
        ("per_token_s", 0.02),
        ("decode_read_s", 0.02),
        ("per_piece_s", 0.25),
        ("pair_s", 0.05),
        ("knee", 0.15),
    ):
        assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=share), name
    assert found.overhead_s + found.weights_s == pytest.approx(truth.overhead_s + truth.weights_s, rel=0.01)
    floor = found.overhead_s + found.chunks_overhead_s + found.launch_s
    assert floor == pytest.approx(truth.overhead_s + truth.chunks_overhead_s + truth.launch_s, rel=0.01)
    held_out = points[points.sets == "held-out"]
    error = error_of(relative(device_seconds(found, held_out), held_out.seconds))
    assert (error.points, error.median < 0.01, error.p95 < 0.025) == (240, True, True)
    assert error_of(fit.cross_validated).p95 < 0.025


def test_costs_that_were_found_later_are_found_where_there_are_any(tmp_path: Path) -> None:
    """Noise of 1 %. Shapes off the grid leave their last tiles as empty as it comes, not half empty as predicted."""
    packing = replace(known.PACKING, chunk_tiles=known.LATER.chunk_tiles)
    points = measurements_of(known.later_samples(tmp_path).read("iterations"), packing)
    held_out = points[points.sets == "held-out"]
    found = fit_forward(points[~np.isin(points.sets, ("held-out", "reference"))], packing).forward
    for name, share in (
        ("mixed_read_s", 0.15),
        ("unequal_read_s", 0.15),
        ("path_s", 0.15),
        ("path_tokens", 0.15),
        ("path_filled", 0.2),
        ("pair_s", 0.02),
    ):
        assert getattr(found, name) == pytest.approx(getattr(known.LATER, name), rel=share), name
    error = error_of(relative(device_seconds(found, held_out), held_out.seconds))
    assert (error.median < 0.012, error.p95 < 0.03) == (True, True)


def test_samples_that_do_not_say_how_contexts_are_cut_have_no_cost_of_pieces(samples: Samples) -> None:
    facts = {name: value for name, value in samples.facts.items() if name not in {"most_pieces", "piece_tokens"}}
    packing = Packing.of(facts)
    assert packing == Packing(decode_sizes=known.SIZES)
    points = measurements_of(samples.read("iterations"), packing)
    fit = fit_forward(points[np.arange(0, len(points), 5)], packing)
    assert (fit.forward.per_piece_s, fit.forward.most_pieces) == (0.0, 0)
    assert fit.forward.decode_sizes == known.SIZES
    assert Packing.of(samples.facts) == known.PACKING


def test_the_stairs_of_matrix_tiles_are_found_where_there_are_any(tmp_path: Path) -> None:
    samples = known.write_samples(tmp_path, time=known.stairs)
    points = measurements_of(samples.read("iterations"), known.PACKING)
    fit = fit_forward(points[~np.isin(points.sets, ("held-out", "reference"))], known.PACKING)
    factors = dict(fit.forward.matrix_factors)
    assert len(factors) > 10
    held_out = points[points.sets == "held-out"]
    error = error_of(relative(device_seconds(fit.forward, held_out), held_out.seconds))
    assert error.median < 0.015 and error.p95 < 0.04


def test_fit_and_simulator_mean_the_same_equation(samples: Samples) -> None:
    """Padding, factors, floor and all: the arrays of the fit against ``CostModel``, batch by batch."""
    forward = known.FORWARD.model_copy(update={"matrix_factors": ((8, 1.1), (128, 0.9), (1024, 1.2))})
    costs = CostModel(known.PROFILE.model_copy(update={"forward": forward, "host": HostCost()}))
    points = measurements_of(samples.read("iterations"), known.PACKING)
    columns = (points.decodes, points.decode_context, points.chunks, points.chunk_tokens, points.chunk_context)
    batches = [Batch(*(int(number) for number in row)) for row in zip(*columns, points.pairs, strict=True)]
    expected = np.array([costs.iteration_time(batch) for batch in batches])
    np.testing.assert_allclose(device_seconds(forward, points), expected, rtol=1e-12)


@given(st.integers(1, 300), st.integers(1, 100_000), st.floats(0, 1e-3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_leap_takes_what_its_iterations_take(sessions: int, context: int, host: float, factors: bool) -> None:
    """Bit for bit, with padding, factors and the engine's share."""
    forward = known.FORWARD.model_copy(update={"matrix_factors": ((8, 1.1), (128, 0.9)) if factors else ()})
    cost = HostCost(per_iteration_s=host, per_session_s=host / 100, per_chunk_s=host)
    costs = CostModel(known.PROFILE.model_copy(update={"forward": forward, "host": cost}))
    batch = Batch(decode_sessions=sessions, decode_context=context)
    ends = costs.ends(replace(batch), 1.0, 5)
    now = 1.0
    for end in ends:
        now += costs.iteration_time(batch)
        batch.decode_context += sessions
        assert end == now


def test_a_pass_with_chunks_takes_no_less_than_its_launch() -> None:
    """17 decoding sessions are padded to 24; 0.6 + 0.5 + 4.6 ms are the floor with a chunk, and no matter without."""
    assert known.DEVICE.iteration_time(Batch(1, 10, 1, 1, 1, 1)) == pytest.approx(5.7e-3)
    assert known.DEVICE.iteration_time(Batch(1, 10)) < 4.6e-3
    alike = [known.DEVICE.iteration_time(Batch(sessions, 100)) for sessions in (17, 24)]
    assert alike[0] == alike[1] < known.DEVICE.iteration_time(Batch(25, 100))


def test_too_little_is_refused(samples: Samples) -> None:
    points = measurements_of(samples.read("iterations"), known.PACKING)
    with pytest.raises(NotEnoughPoints, match="3 points"):
        fit_forward(points[np.arange(3)])
    with pytest.raises(NotEnoughPoints, match="0 of them with chunks"):
        fit_forward(points[points.chunks == 0])


def test_copies_and_their_slowdown_are_found(samples: Samples) -> None:
    fit = fit_copies(samples.read("copies"), samples.read("beside"), overlaps=True)
    assert fit.cost.out_bytes_per_s == pytest.approx(53e9, rel=0.02)
    assert fit.cost.in_bytes_per_s == pytest.approx(50e9, rel=0.02)
    assert fit.cost.latency_s == pytest.approx(25e-6, rel=0.15)
    assert fit.cost.slowdown_out == pytest.approx(0.024, rel=0.05)
    assert fit.cost.slowdown_in == pytest.approx(0.08, rel=0.05)
    assert fit.figures["host_s_per_block"] == pytest.approx(3e-6, rel=0.01)
    assert fit.error.p95 < 0.03
    still = fit_copies(samples.read("copies"), samples.read("beside"), overlaps=False)
    assert still.cost.slowdown_out == still.cost.slowdown_in == 0.0


def test_what_else_delays_most_copies_does_not_make_them_slower(samples: Samples) -> None:
    """Two of three copies take a fifth longer, as beside those of another GPU of the machine."""
    copies = samples.read("copies")
    delayed = copies["repeat"] % 3 > 0
    copies.loc[delayed, "device_s"] *= 1.2
    fit = fit_copies(copies, samples.read("beside"), overlaps=True)
    assert fit.cost.out_bytes_per_s == pytest.approx(53e9, rel=0.02)
    assert fit.cost.in_bytes_per_s == pytest.approx(50e9, rel=0.02)


def test_the_engine_s_share_is_found(samples: Samples) -> None:
    """In serving, all of it; the executor's part, 50 µs and 250 µs with chunks, where passes run without an engine."""
    found = fit_host(samples.read("serving"), samples.read("iterations"))
    for name, share in (("per_session_s", 0.1), ("per_call_s", 0.1), ("per_chunk_s", 0.1)):
        assert getattr(found, name) == pytest.approx(getattr(known.HOST, name), rel=share), name
    for name in ("per_iteration_s", "chunked_s", "per_arrival_s", "copies_out_s", "copies_in_s", "cold_s"):
        assert getattr(found, name) == pytest.approx(getattr(known.HOST, name), rel=0.04), name
    assert found.executor_s == pytest.approx(50e-6, rel=0.05)
    assert found.executor_chunked_s == pytest.approx(0.25e-3, rel=0.05)


def test_a_serving_run_without_long_waits_takes_the_executor_s_word_for_a_cold_host(samples: Samples) -> None:
    """Passes of the grid gain 0.2 ms when the host has waited for long. In serving it never waits for 20 ms, and what
    seems to follow from short waits is another thing."""
    iterations, serving = samples.read("iterations"), samples.read("serving")
    waited = iterations["wall_s"].shift(1, fill_value=iterations["wall_s"].iloc[0])
    iterations["wall_s"] = iterations["device_s"] + 0.1e-3 + 0.2e-3 * waited / (waited + 0.02)
    serving["wall_s"] = serving["device_s"] = 6e-3
    serving["wall_s"] += 0.4e-3
    found = fit_host(serving, iterations)
    assert found.cold_s == pytest.approx(0.2e-3, rel=0.05)
    assert found.per_iteration_s == pytest.approx(0.4e-3 - 0.2e-3 * 6.4 / 26.4, rel=0.02)


def test_a_serving_run_of_formerly_tells_calls_from_chunks_by_the_executor(samples: Samples) -> None:
    """Every chunk begins a call: 0.35 ms and 60 µs a chunk here, 0.25 ms and 60 µs of them the executor's."""
    serving = samples.read("serving")
    serving = serving.assign(begun=serving["chunks"], opened=0, copies_out=0, copies_in=0)
    gap = 0.3e-3 + 2e-6 * (serving["decodes"] + serving["chunks"]) + 0.25e-3 * (serving["chunks"] > 0)
    serving["wall_s"] = serving["device_s"] + gap + (60e-6 + 0.4e-3) * serving["chunks"]
    found = fit_host(serving, samples.read("iterations"))
    assert found.per_call_s == pytest.approx(0.4e-3, rel=0.05)
    assert found.chunked_s == found.executor_chunked_s == pytest.approx(0.25e-3, rel=0.02)
    assert found.per_arrival_s == found.copies_out_s == found.copies_in_s == 0.0


def test_a_folder_holds_costs_errors_and_figures(samples: Samples) -> None:
    folder = samples.folder.parent
    findings = make_profile(samples)
    write_profile(folder, findings)
    profile = load_profile(folder)
    assert isinstance(profile.forward, PhysicalForward)
    assert profile.forward.per_token_s == pytest.approx(findings.profile.forward.per_token_s, rel=1e-5)  # type: ignore[union-attr]
    assert (profile.origin, profile.kv_capacity_tokens) == ("measured", 16 * known.POOL_BLOCKS)
    assert 150 < profile.saturation_tokens < 220
    measured = profile.measured
    assert measured is not None and measured.within_aim and measured.verdict.startswith("Meets its aim")
    assert {"held_out", "cross_validated", "serving", "recompute", "copies"} <= set(measured.errors)
    assert measured.errors["serving"].p95 < 0.04
    assert measured.range["decodes"] == 256
    for name in (
        "decode",
        "prefill",
        "mixed",
        "errors",
        "copies",
        "beside",
        "recompute",
        "host",
        "saturation",
        "drift",
    ):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 10_000
    assert yaml.safe_load((folder / "profile.yaml").read_text())["measured"]["memory"] == {"total": 1.4e11}


def test_a_fit_that_is_too_wrong_says_so(tmp_path: Path) -> None:
    """Noise of 15 %, which no fit explains."""
    samples = known.write_samples(tmp_path, noise=0.15)
    findings = make_profile(samples)
    write_profile(tmp_path, findings)
    measured = load_profile(tmp_path).measured
    assert measured is not None and not measured.within_aim
    assert measured.verdict.startswith("MISSES ITS AIM")
    assert "MISSES ITS AIM" in (tmp_path / "profile.yaml").read_text().splitlines()[1]
    assert "MISSES ITS AIM" in load_profile(tmp_path).source


def test_few_random_batches_prove_nothing() -> None:
    good = Error(points=150, median=0.01, p95=0.02)
    assert verdict_on(good, good)[0] is False
    assert "only 150 random batches" in verdict_on(good, good)[1]
    assert verdict_on(good.model_copy(update={"points": 200}), good)[0] is True
