"""The measurement: what it measures, how often, when it refuses, and that it goes on where it was cut."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from profiler.backend.backend import make_backend, make_model  # noqa: E402
from profiler.backend.model_config import load_model_config  # noqa: E402
from profiler.fit_power import LEAST_REPEATS  # noqa: E402
from profiler.measure import machine, memory, sweeps  # noqa: E402
from profiler.measure.bench import Bench  # noqa: E402
from profiler.measure.copies import FIRST, SECOND, CopyBench  # noqa: E402
from profiler.measure.errors import CannotMeasure  # noqa: E402
from profiler.measure.grid import Extent, Point, Shape, grid, held_out, references  # noqa: E402
from profiler.measure.repeats import Repeats, uncertainty  # noqa: E402
from profiler.measure.samples import Samples  # noqa: E402

SMALL = Extent(decodes=4, context=64, chunk=32, held_out=20)


# ---- what is measured


def test_the_grid_has_every_kind_and_no_name_twice() -> None:
    points = grid(Extent())
    assert {point.set for point in points} == {"decode", "unequal", "prefill", "tokens", "chunks", "mixed"}
    assert len({point.name for point in points}) == len(points) < 600
    assert max(len(point.shape.decodes) for point in points) == 256
    assert max(sum(tokens for _, tokens in point.shape.chunks) for point in points) == 4096


def test_the_grid_reaches_the_longest_context() -> None:
    """131,072 tokens: alone, few among many short ones, before a chunk, beside decoding sessions."""
    points = grid(Extent())
    reached = {kind: max((end for one in points if one.set == kind for end in _ends(one.shape)), default=0)
               for kind in ("decode", "unequal", "prefill", "chunks", "mixed")}  # fmt: skip
    assert reached["decode"] == reached["unequal"] == reached["prefill"] == 131072
    assert min(reached["chunks"], reached["mixed"]) > 98304
    assert any(len(one.shape.decodes) > 100 and max(one.shape.decodes) > 100_000 for one in points)
    longest = [end for one in held_out(Extent(), 50_000, 16, 0) for end in _ends(one.shape)]
    assert 100_000 < max(longest) <= 131072


def _ends(shape: Shape) -> list[int]:
    return [*shape.decodes, *(start + tokens for start, tokens in shape.chunks)]


def test_a_shape_s_spread_is_n_squared_times_the_variance() -> None:
    """10 and 30 tokens: 2 * (100 + 900) - 40^2 = 400, 4 times a variance of 100. A token more each: the same."""
    assert Shape((10, 30)).batch().decode_spread == Shape((11, 31)).batch().decode_spread == 400
    assert Shape((20, 20)).batch().decode_spread == 0


@pytest.mark.parametrize("extent", [SMALL, Extent(), Extent().within(4096)])
def test_nothing_goes_beyond_the_extent(extent: Extent) -> None:
    for point in [*grid(extent), *held_out(extent, 50_000, 16, 0), *references(extent, 50_000, 16)]:
        assert len(point.shape.decodes) <= extent.decodes
        assert all(0 < context <= extent.context for context in point.shape.decodes)
        assert all(start + tokens <= extent.reach and tokens > 0 for start, tokens in point.shape.chunks)
        assert sum(tokens for _, tokens in point.shape.chunks) <= extent.chunk + 3


def test_random_batches_follow_from_the_seed_and_fit_the_pool() -> None:
    once, again = (held_out(Extent(), 20_000, 16, 5) for _ in range(2))
    assert once == again != held_out(Extent(), 20_000, 16, 6)
    assert [sum(point.set == kind for point in once) for kind in ("held-out", "held-out-long")] == [240, 80]
    assert all(point.shape.blocks(16) <= 20_000 for point in once)
    assert {point.shape for point in once}.isdisjoint({point.shape for point in grid(Extent())})
    counts = [len(point.shape.chunks) for point in once if point.set == "held-out"]
    assert set(counts) == {0, 1, 2, 3}
    assert max(len(point.shape.decodes) for point in once) > 200


def test_a_shape_s_sums() -> None:
    """Contexts of 17 and 5 tokens take 2 + 1 blocks of 16; a chunk of 3 after 30 takes 3; 31 + 32 + 33 pairs."""
    shape = Shape((17, 5), ((30, 3),))
    batch = shape.batch()
    assert shape.blocks(16) == 6
    assert (batch.decode_sessions, batch.decode_context, batch.prefill_context) == (2, 22, 33)
    assert batch.prefill_pairs == 31 + 32 + 33


# ---- how often


def test_repeats_stop_when_the_median_stands_still() -> None:
    steady, noisy = itertools.count(), np.random.default_rng(0)
    repeats = Repeats(warm_up=2, least=5, most=25, tolerance=0.01)
    assert len(repeats.collect(lambda: 1.0 + 1e-9 * next(steady), float, 10.0)) == 5
    assert next(steady) == 7  # two more did not count
    assert len(repeats.collect(lambda: float(noisy.uniform(1, 2)), float, 10.0)) == 25
    assert len(repeats.collect(lambda: float(noisy.uniform(1, 2)), float, 0.0)) == 5


def test_the_median_s_uncertainty_shrinks_with_repeats() -> None:
    draws = np.random.default_rng(1).normal(1.0, 0.01, 400).tolist()
    assert uncertainty(draws[:4]) == float("inf")
    assert uncertainty(draws[:400]) < uncertainty(draws[:25]) < 0.02


# ---- on the backend


def test_the_bench_runs_any_shape_again_and_again() -> None:
    backend = make_backend(make_model(load_model_config("tiny"), torch.device("cpu"), max_context=256), 200, 64,
                           max_sessions=12, max_context=256)  # fmt: skip
    bench = Bench(backend, 4, 2)
    assert float(backend.cache.pool.float().std()) == pytest.approx(1.0, rel=0.05)
    for shape in (Shape((64, 20, 1)), Shape((), ((0, 30), (100, 7))), Shape((5,), ((40, 8),), ends=False), Shape((9,))):
        bench.set_up(shape)
        for _ in range(3):
            timing = bench.run()
            assert 0 < timing.device_s <= timing.wall_s
        assert backend.tables.gpu_used == shape.blocks(16)
    bench.set_up(Shape())
    assert backend.tables.gpu_used == 0
    bench.close()
    assert not backend.tables.rows


def test_copies_go_where_the_context_is_not() -> None:
    backend = make_backend(make_model(load_model_config("tiny"), torch.device("cpu"), max_context=256), 60, 40,
                           max_sessions=4, max_context=256)  # fmt: skip
    ran = []
    copier = CopyBench(backend, 8, scattered=True)
    assert copier.stretches() == 8
    assert [one.out for one in copier.fly([FIRST], lambda: ran.append(1))] == [True]
    assert (backend.tables.gpu_used, backend.tables.host_used) == (8, 8)
    assert [one.out for one in copier.fly([FIRST, SECOND])] == [False, True]
    assert all(one.seconds > 0 and one.submit_s >= 0 for one in copier.fly([FIRST]))
    copier.close()
    assert (backend.tables.gpu_used, backend.tables.host_used, ran) == (0, 0, [1])


# ---- samples on disk


def test_a_cut_point_is_dropped_and_the_rest_stays(tmp_path: Path) -> None:
    samples = Samples.begin(tmp_path, {"gpu": "a"})
    for name in ("one", "two"):
        samples.append("t", name, [{"x": 1.23456789, "y": 2}, {"x": 3.0, "y": 4}])
    file = tmp_path / "samples" / "t.csv"
    file.write_text(file.read_text()[:-9])  # killed while the last row was written
    again = Samples.begin(tmp_path, {"gpu": "a"})
    assert again.done("t") == {"one"}
    again.append("t", "two", [{"x": 5.0, "y": 6}])
    assert again.read("t")["x"].tolist() == [1.234568, 3.0, 5.0]


def test_samples_of_something_else_are_refused(tmp_path: Path) -> None:
    Samples.begin(tmp_path, {"gpu": "a", "driver": "1"}).append("t", "one", [{"x": 1}])
    with pytest.raises(CannotMeasure, match=r"driver: 1 there, 2 here\)\. Name another folder, or .* --fresh"):
        Samples.begin(tmp_path, {"gpu": "a", "driver": "2"})
    assert Samples.begin(tmp_path, {"gpu": "a", "driver": "2"}, fresh=True).done("t") == set()
    with pytest.raises(CannotMeasure, match="no samples"):
        _ = Samples(tmp_path / "nothing").provenance


# ---- refusals


def test_no_gpu_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CannotMeasure, match=r"no CUDA GPU here.*--device cpu"):
        machine.find_device("cuda")
    with pytest.raises(CannotMeasure, match="cuda and cpu"):
        machine.find_device("mps")
    assert machine.find_device("cpu").type == "cpu"


def test_a_busy_gpu_is_refused() -> None:
    answer = f"{os.getpid()}, python, 500\n4711, /usr/bin/vllm, 61234"
    assert machine.other_processes(answer) == ["process 4711 (/usr/bin/vllm, 61234 MiB)"]
    assert machine.other_processes(None) == machine.other_processes("") == []
    assert machine.refusal_for(0.5e9, 0.0) is None
    assert "30.0 GB of its memory are in use" in str(machine.refusal_for(30e9, 0.0))
    assert "40 %" in str(machine.refusal_for(0.5e9, machine.utilisation("40")))
    assert machine.utilisation("[N/A]") == machine.utilisation(None) == 0.0


def test_a_gpu_that_is_too_small_is_refused() -> None:
    config = load_model_config("llama-3.1-8b")
    needs = memory.expected_needs(config, 8192, 256)
    block = 16 * config.kv_bytes_per_token()
    with pytest.raises(CannotMeasure, match=r"too small: of 24\.0 GB, 2\.0 are free beside the weights"):
        memory.pool_blocks(2e9, 24e9, 0.9, needs, block)
    assert memory.pool_blocks(125e9, 141e9, 0.9, needs, block) * block == pytest.approx(104.5e9, rel=0.02)


def test_what_is_left_for_kv() -> None:
    """Of 100 bytes 90 may be taken; 16 + 2 + 1.5 + 1 + 0.5 are."""
    taken = memory.Memory(100, 0.9, weights=16, buffers=2, activations=1.5, graphs=1, driver=0.5)
    assert taken.pool == pytest.approx(69)
    assert taken.as_bytes()["pool"] == pytest.approx(69)


def test_a_model_with_short_contexts_has_a_smaller_extent() -> None:
    assert Extent().within(4096) == replace(Extent(), context=4096)
    assert {one.set for one in held_out(Extent().within(4096), 50_000, 16, 0)} == {"held-out"}
    assert Extent().within(2048) == replace(Extent(), context=2048, chunk=2048)


def test_every_round_measures_every_point_once_in_an_order_of_its_own() -> None:
    points = grid(SMALL)
    parts = sweeps._parts(points, seed=3)
    assert parts == sweeps._parts(points, seed=3)
    orders = [[point.name for part in parts if part.round == number for point in part.points] for number in range(3)]
    assert all(sorted(order) == sorted(point.name for point in points) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert len({part.name for part in parts}) == len(parts)


def test_heavy_passes_are_measured_in_every_other_round() -> None:
    """2,048 tokens after 100,000 are 207 million pairs; 512 after 1,024 are 0.7 million."""
    points = [Point(name, "prefill", Shape(chunks=((prior, tokens),)))
              for name, prior, tokens in (("heavy", 100_000, 2048), ("light", 1024, 512))]  # fmt: skip
    rounds = {name: [part.round for part in sweeps._parts(points, 0) for point in part.points if point.name == name]
              for name in ("heavy", "light")}  # fmt: skip
    assert rounds == {"heavy": [0, 2, 4, 6], "light": [0, 1, 2, 3, 4, 5, 6, 7]}
    assert len(rounds["heavy"]) >= LEAST_REPEATS
