"""A GPU at its power limit, worked by hand."""

from __future__ import annotations

import pytest

from sim.costs.batch import Batch
from sim.costs.cost_model import CostModel
from sim.costs.gpu_state import NO_LIMIT, GpuState, gpu_state_of, rested
from sim.costs.profile import HostCost, LinearForward, PhysicalForward, PowerLimit
from tests.sim.worlds import profile

LIMIT = PowerLimit(memory_s=1.0, free_share=0.2, reference_share=0.5, slowdown=0.1, slowdown_matrix=0.2)


def costs(host: float = 0.0, **parts: float) -> CostModel:
    """Half a second of matrix work a token, and what else is asked for."""
    given = {"overhead_s": 0.0, "weights_s": 0.0, "per_token_s": 0.5, "decode_read_s": 0.0, "pair_s": 0.0, **parts}
    made = profile(forward=PhysicalForward(**given, power=LIMIT))  # type: ignore[arg-type]
    return CostModel(made.model_copy(update={"host": HostCost(per_iteration_s=host)}))


def chunk(tokens: int) -> Batch:
    made = Batch()
    made.add_chunk(0, tokens)
    return made


def test_heavy_passes_slow_those_after_them() -> None:
    """A pass of 2 tokens costs 1 s, all of it matrix work, so that 0.1 + 0.2 counts.

    On a rested GPU: 1 + 0.3 * (0.2 - 0.5) = 0.91 s. Then the share is 1/0.91 * 0.91/(1 + 0.91) = 1/1.91 = 0.5236, and
    the next takes 1 + 0.3 * 0.0236 = 1.0071 s.
    """
    state = GpuState(costs(), LIMIT)
    assert state.pass_times(chunk(2), 0.0, 1) == [pytest.approx(0.91)]
    state.took(1, 0.91)
    assert state.pass_times(chunk(2), 0.91, 1) == [pytest.approx(1 + 0.3 * (1 / 1.91 - 0.5))]


def test_rest_is_recovery() -> None:
    """Half of a share is gone after as long as the GPU remembers; below the free share nothing is left to recover."""
    assert rested(0.6, 1.0, LIMIT) == pytest.approx(0.3)
    assert rested(0.6, 0.0, LIMIT) == 0.6
    state = GpuState(costs(), LIMIT)
    state.pass_times(chunk(2), 0.0, 1)
    state.took(1, 0.91)
    assert state.pass_times(chunk(2), 3.91, 1) == [pytest.approx(0.91)]  # 0.5236 / 4 is below 0.2


def test_reads_slow_less_than_matrix_work_and_the_host_s_share_not_at_all() -> None:
    """One session decodes: 0.5 s of matrix work and 100 tokens at 0.015 s read make 2 s, a quarter of it matrix work.

    (0.1 + 0.2 / 4) * (0.2 - 0.5) = -0.045: 1.91 s, and 3 s of the host stay 3 s.
    """
    state = GpuState(costs(host=3.0, decode_read_s=0.015), LIMIT)
    assert state.pass_times(Batch(1, 100), 0.0, 1) == [pytest.approx(3 + 1.91)]


def test_only_iterations_that_took_place_count() -> None:
    """Of a leap of four, two are taken: the third begins as if it had been asked for on its own."""
    leap, steps = GpuState(costs(), LIMIT), GpuState(costs(), LIMIT)
    planned = leap.pass_times(Batch(2, 50), 0.0, 4)
    leap.took(2, sum(planned[:2]))
    now, taken = 0.0, []
    for context in (50, 52, 54):
        taken += steps.pass_times(Batch(2, context), now, 1)
        now += taken[-1]
        steps.took(1, now)
    assert taken[:2] == planned[:2]
    assert leap.pass_times(Batch(2, 54), sum(planned[:2]), 1) == taken[2:]


def test_a_host_that_has_waited_works_longer() -> None:
    """Half of 0.4 s is felt after a wait of 2 s. At 6 s nobody has begun a pass before: 0.4 * 6/8 = 0.3 more than 1 s.

    The next begins at once, 1.3 s after it: 0.4 * 1.3/3.3 more. After a rest of 0.7 s, 2 s after the second of 1.1576 s
    began, it would be 0.4 * 1.8576/3.8576.
    """
    works = HostCost(per_iteration_s=1.0, cold_s=0.4, cold_after_s=2.0)
    made = costs().profile.model_copy(update={"host": works, "forward": LinearForward(fixed_s=0.0, per_token_s=1e-12)})
    state = gpu_state_of(CostModel(made))
    assert state is not None
    times, now = [], 6.0
    for rest in (0.0, 0.0, 0.7):
        times += state.pass_times(Batch(1, 1), now + rest, 1)
        now += rest + times[-1]
        state.took(1, now)
    assert times[0] == pytest.approx(1.3)
    assert times[1] == pytest.approx(1 + 0.4 * 1.3 / 3.3)
    waited = times[1] + 0.7
    assert times[2] == pytest.approx(1 + 0.4 * waited / (waited + 2))


def test_a_batch_that_waits_for_copies_was_planned_before_them() -> None:
    """Copies take 4 s before the first pass: what the host has to do lies before them, 2 s after time 0, where half of
    0.4 s is felt. It waits for copies and pass then, 4 + 1.2 s: 0.4 * 5.2/7.2 before the second.

    The GPU rests while they take place, as it would if the pass began later.
    """
    works = HostCost(per_iteration_s=1.0, cold_s=0.4, cold_after_s=2.0)
    made = costs().profile.model_copy(update={"host": works, "forward": LinearForward(fixed_s=0.0, per_token_s=1e-12)})
    state = gpu_state_of(CostModel(made))
    assert state is not None
    times = state.pass_times(Batch(1, 1), 2.0, 1, stall=4.0)
    assert times == [pytest.approx(1.2)]
    state.took(1, 2.0 + 4.0 + times[0])
    assert state.pass_times(Batch(1, 1), 7.2, 1) == [pytest.approx(1 + 0.4 * 5.2 / 7.2)]
    hot = GpuState(costs(), LIMIT)
    hot.pass_times(chunk(2), 0.0, 1)
    hot.took(1, 0.91)
    rests, waits = (hot.pass_times(chunk(2), at, 1, stall) for at, stall in ((0.91 + 0.3, 0.0), (0.91, 0.3)))
    assert waits == rests
    assert waits[0] < hot.pass_times(chunk(2), 0.91, 1)[0]


def test_without_a_limit_and_a_host_that_grows_cold_there_is_no_state() -> None:
    assert gpu_state_of(CostModel(profile())) is None
    assert NO_LIMIT.slowdown == NO_LIMIT.slowdown_matrix == 0.0
