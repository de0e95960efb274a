"""Short cuts can all be switched off, and nothing changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim.engine.engine
from sim.engine.preemptive_fast import FastPreemptiveScheduler
from sim.session import SessionState
from tests.sim.engine.test_leap import BY_MEMORY, LAMPS, assert_alike
from tests.sim.random_orders import PREEMPTIVE, Slots
from tests.sim.random_worlds import ANY_ORDER, SHIPPED, Plot, examples, plots


@examples(80)
@given(plots(st.sampled_from(SHIPPED), ANY_ORDER | st.sampled_from(PREEMPTIVE)))
def test_a_run_without_any_short_cut_is_the_run_with_all_of_them(plot: Plot) -> None:
    assert_alike(replace(plot, leap=True).run(), plot.run(short_cuts=False))


@examples(80)
@given(
    plots(st.sampled_from(SHIPPED), st.sampled_from(PREEMPTIVE))
    | plots(st.sampled_from(SHIPPED), st.integers(0, 99))
    | plots(LAMPS, BY_MEMORY)
)
def test_short_cuts_seat_whom_the_plain_way_seats(plot: Plot) -> None:
    short, plain = replace(plot, leap=False).run().record, plot.run(short_cuts=False).record
    for table in ("sessions", "calls", "totals", "timeline", "decisions"):
        assert repr(getattr(short, table)) == repr(getattr(plain, table)), table


class CheckedScheduler(FastPreemptiveScheduler):
    """Checks in every plan that sessions on the host stand where their keys say."""

    def _swapped_in_order(self) -> Sequence[tuple[tuple[float, ...], SessionState]]:
        swapped = super()._swapped_in_order()
        assert list(swapped) == sorted((state.key, state) for state in self._queues.swapped)
        return swapped


def with_a_roomy_host(plot: Plot) -> Plot:
    """The plot with a host that holds many contexts, where contexts leave by swaps."""
    rules = plot.settings.model_copy(update={"preemption": "swap"})
    host = 20 * plot.profile.kv_capacity_tokens
    return replace(plot, settings=rules, profile=plot.profile.model_copy(update={"host_capacity_tokens": host}))


@examples(80)
@given(plots(st.just("preserve"), st.just(Slots) | st.integers(0, 99)).map(with_a_roomy_host))
def test_who_waits_for_its_context_stands_where_its_key_says(plot: Plot) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sim.engine.engine, "FastPreemptiveScheduler", CheckedScheduler)
        plot.run()
