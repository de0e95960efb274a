"""Who sits where is found by short cuts. The plain way, which looks at everybody in every plan, seats the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from heapq import heapify, heappop
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim.engine.engine
import sim.engine.preemptive
from sim.engine.preemptive import PreemptiveScheduler
from sim.engine.ready_queue import ReadyQueue
from sim.session import SessionState
from tests.sim.engine.test_leap import BY_MEMORY, LAMPS
from tests.sim.random_orders import PREEMPTIVE, Slots
from tests.sim.random_worlds import SHIPPED, Plot, examples, plots
from tests.sim.worlds import World


class PlainLine(ReadyQueue):
    """Sorts whoever waits each time."""

    def __iter__(self) -> Iterator[SessionState]:
        queues = self._queues
        waiting = [(state.key, state) for _, state in queues.waiting]
        turns = [*waiting, *((state.key, state) for state in queues.swapped if state.copy is None)]
        heapify(turns)
        while turns:
            state = heappop(turns)[1]
            if state.copy is None:
                yield state


class PlainSeating(PreemptiveScheduler):
    """Looks at places, tokens and memory though there be enough for all."""

    def _schedule_all(self, now: float) -> None:
        self._schedule_in_order(now)

    def _finds_tokens(self, state: SessionState) -> bool:
        before = [one for one in self._queues.prefilling if one.key < state.key]
        others = self._max_running - state.samples - sum(one.samples for one in before)
        decodes = min(self._queues.decoding.num_sequences, others) if self._settings.mixed_batches else 0
        left = self._token_budget - decodes - sum(one.queries(one.resident, one.missing) for one in before)
        if self._settings.chunked_prefill:
            return left >= state.samples or not before
        return left >= state.queries(state.resident, state.missing) or not before

    def _promised(self, state: SessionState) -> int:
        coming = chain(self._queues.prefilling, self._arriving())
        return sum(self._kv.blocks_to_allocate(one) for one in coming if one.key < state.key)

    def _unpromised_blocks(self) -> int:
        growing = sum(self._kv.blocks_to_append(one, one.missing) for one in self._queues.prefilling)
        arriving = sum(self._kv.blocks_to_allocate(one) for one in self._arriving())
        return self._kv.gpu.free_blocks - self._queues.decoding.blocks_needed() - growing - arriving


def plainly(plot: Plot) -> World:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sim.engine.engine, "PreemptiveScheduler", PlainSeating)
        patch.setattr(sim.engine.preemptive, "ReadyQueue", PlainLine)
        return plot.run()


@examples(80)
@given(
    plots(st.sampled_from(SHIPPED), st.sampled_from(PREEMPTIVE))
    | plots(st.sampled_from(SHIPPED), st.integers(0, 99))
    | plots(LAMPS, BY_MEMORY)
)
def test_short_cuts_seat_whom_the_plain_way_seats(plot: Plot) -> None:
    short, plain = plot.run().record, plainly(plot).record
    for table in ("sessions", "calls", "totals", "timeline", "decisions"):
        assert repr(getattr(short, table)) == repr(getattr(plain, table)), table


class CheckedLine(ReadyQueue):
    """Checks in every plan that those on the host stand where their keys say."""

    def swapped(self) -> list[tuple[tuple[float, ...], SessionState]]:
        swapped = super().swapped()
        assert swapped == sorted((state.key, state) for state in self._queues.swapped)
        return swapped


def with_a_roomy_host(plot: Plot) -> Plot:
    """The same where contexts give way by swaps, and many are on the host."""
    rules = plot.settings.model_copy(update={"preemption": "swap"})
    host = 20 * plot.profile.kv_capacity_tokens
    return replace(plot, settings=rules, profile=plot.profile.model_copy(update={"host_capacity_tokens": host}))


@examples(80)
@given(plots(st.just("preserve"), st.just(Slots) | st.integers(0, 99)).map(with_a_roomy_host))
def test_who_waits_for_its_context_stands_where_its_key_says(plot: Plot) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sim.engine.preemptive, "ReadyQueue", CheckedLine)
        plot.run()
