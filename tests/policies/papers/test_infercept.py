"""The paper's min-waste rule: rank by equation 5, swap within the budget, discard what keeping wastes more."""

from __future__ import annotations

import math

import pytest

from policies.contract import EVERY_ITERATION, NEVER, Discard, Preserve, Swap
from policies.learning.estimators import Elapsed, Oracle
from policies.papers.infercept import MinWaste
from traces.session import Call, Pause, Session


@pytest.fixture
def four(paused, view):
    """Four contexts at 100 s, with GPT-J's costs, 250 tokens left for a chunk and 4000 tokens of others.

    keep: elapsed * tokens. recompute, equation 4: T(C) * C / 2 + n * T(C / n) * 4000, T(x) = 0.010 + 0.0000463 x

        context  tokens  elapsed  keep   recompute                                                     the smaller
        small       200     0.1     20   n 1: 0.01926 * 100  +     0.01926  * 4000 =  78.966                20
        medium      400     0.5    200   n 2: 0.02852 * 200  + 2 * 0.01926  * 4000 = 159.784               159.784
        large      1000     2.0   2000   n 4: 0.0563  * 500  + 4 * 0.021575 * 4000 = 373.35                373.35
        huge       2000     1.0   2000   n 8: 0.1026  * 1000 + 8 * 0.021575 * 4000 = 793.0                 793.0

    So they rank huge, large, medium, small; keeping is cheaper for small only.
    """
    contexts = [
        paused("large", resident_tokens=1000, paused_at=98.0),
        paused("huge", resident_tokens=2000, paused_at=99.0),
        paused("medium", resident_tokens=400, paused_at=99.5),
        paused("small", resident_tokens=200, paused_at=99.9),
    ]

    def make(**engine):
        return view(now=100.0, paused=contexts, **engine)

    return make


def told(changes) -> list[tuple[str, type, int]]:
    return [(paused.id, type(verdict), verdict.keep) for paused, verdict in changes]


def test_a_pause_itself_decides_nothing(paused, view):
    assert MinWaste(Elapsed()).on_pause(paused(), view()) == Preserve()


@pytest.mark.parametrize(
    ("state", "when"), [({}, EVERY_ITERATION), ({"moving": True}, NEVER), ({"resumed": True}, NEVER)]
)
def test_it_wants_to_be_asked_while_some_context_is_undecided(paused, view, state, when):
    assert MinWaste(Elapsed()).review_at(view(paused=[paused(**state)])) == when
    assert MinWaste(Elapsed()).review_at(view()) == NEVER


@pytest.mark.parametrize(
    ("swaps", "here", "at"),
    [
        (False, {}, 1.792515),
        (True, {"free_host_blocks": 0}, 1.792515),
        (True, {"free_host_blocks": 1}, EVERY_ITERATION),
        (False, {"running_sessions": 0}, EVERY_ITERATION),
    ],
)
def test_without_swaps_it_wants_to_be_asked_when_a_context_outlasts_its_recompute(paused, view, swaps, here, at):
    """100 tokens paused at 1.2, others hold 4000, chunks of 250: T_fwd(100) = 0.01463 s.

    0.01463 * 100 / 2 + 0.01463 * 4000 = 59.2515 token-seconds would be 0.592515 s; paused at 1.2 that is 1.792515.
    A second context of 20 tokens paused at 1.65 wastes 43.8133 recomputed, which it outlasts at 3.84.
    """
    contexts = [paused(paused_at=1.2), paused("b", resident_tokens=20, paused_at=1.65)]
    asked = MinWaste(Elapsed(), swaps=swaps).review_at(view(now=1.7, paused=contexts, **here))
    assert asked == pytest.approx(at, abs=1e-6)


def test_the_budget_goes_to_the_most_wasteful_and_of_the_rest_the_dear_are_discarded(four):
    """2500 tokens may be copied: all 2000 of huge, 500 of large, whose first 500 stay. Of the rest medium wastes
    159.784 recomputed against 200 kept, and is discarded; small wastes 20 kept against 78.966, and stays."""
    changes = list(MinWaste(Elapsed()).revise(four(swap_budget=2500.0)))
    assert told(changes) == [("huge", Swap, 0), ("large", Swap, 500), ("medium", Discard, 0)]
    reasons = {paused.id: dict(verdict.reasons) for paused, verdict in changes}
    assert reasons["huge"] == pytest.approx({"preserve": 2000, "recompute": 793.0}, rel=1e-9)
    assert reasons["large"] == pytest.approx({"preserve": 2000, "recompute": 373.35}, rel=1e-9)
    assert reasons["medium"] == pytest.approx({"preserve": 200, "recompute": 159.784}, rel=1e-9)


@pytest.mark.parametrize(
    ("swaps", "engine"),
    [
        (True, {"swap_budget": 0.0}),
        (True, {"swap_budget": 9.0}),
        (True, {"swap_budget": math.inf, "free_host_blocks": 0}),
        (False, {"swap_budget": math.inf}),
    ],
    ids=["no budget", "less than a block of budget", "host full", "swaps off"],
)
def test_without_swaps_all_that_waste_more_kept_are_discarded(four, swaps, engine):
    changes = MinWaste(Elapsed(), swaps=swaps).revise(four(**engine))
    assert told(changes) == [("huge", Discard, 0), ("large", Discard, 0), ("medium", Discard, 0)]


def test_with_budget_to_spare_everything_leaves_even_what_wastes_nothing_yet(paused, view):
    """Nothing has elapsed, so keeping is expected to waste nothing; the paper's rule spends its free budget all the
    same."""
    here = view(now=100.0, paused=[paused(paused_at=100.0)], swap_budget=math.inf)
    assert told(MinWaste(Elapsed()).revise(here)) == [("a", Swap, 0)]


def test_what_moves_or_came_back_is_left_alone(four):
    here = four(swap_budget=math.inf)
    here.paused[0].moving = True
    here.paused[1].resumed = True
    assert told(MinWaste(Elapsed()).revise(here)) == [("medium", Swap, 0), ("small", Swap, 0)]
    assert told(MinWaste(Elapsed()).evict(1, here)) == [("medium", Swap, 0), ("small", Swap, 0)]


def test_equal_waste_falls_to_the_longest_unused(paused, view):
    contexts = [paused("first", paused_at=90.0), paused("second", paused_at=90.0)]
    here = view(now=100.0, paused=contexts, swap_budget=100.0)
    assert told(MinWaste(Elapsed()).revise(here))[0] == ("first", Swap, 0)


def test_a_full_batch_makes_recomputing_dear(paused, view):
    """384 decoding sessions leave chunks of one token: 1000 tokens waste 40,213.35 recomputed (test_waste_equations),
    so they are kept until 40.2 s have passed, and not 0.4 s."""
    context = paused(resident_tokens=1000, paused_at=0.0)
    policy = MinWaste(Elapsed(), swaps=False)
    assert told(policy.revise(view(now=40.2, paused=[context], running_query_tokens=384))) == []
    assert told(policy.revise(view(now=40.3, paused=[context], running_query_tokens=384))) == [("a", Discard, 0)]


@pytest.mark.parametrize(("swaps", "how"), [(True, Swap), (False, Discard)])
def test_when_blocks_are_needed_the_most_wasteful_gives_way_first(four, swaps, how):
    changes = list(MinWaste(Elapsed(), swaps=swaps).evict(5, four()))
    assert told(changes) == [(name, how, 0) for name in ("huge", "large", "medium", "small")]
    assert changes[0][1].reasons == pytest.approx({"preserve": 2000, "recompute": 793.0, "blocks_needed": 5}, rel=1e-9)


# ---- in a world: A (40 tokens) and B (60) start together, 2.0 s. A pauses at 2.0 for 10 s; B decodes, 1.01 s a token.

A = Session("a", 0.0, 40, (Call(1, Pause(10.0, returned=9)), Call(1)))


def test_a_context_is_dropped_when_keeping_it_has_cost_as_much_as_recomputing_it(replay):
    """Before each of B's iterations, A having waited t s, with C_other = B's resident tokens and 99 tokens for a chunk:

        time  t     keep 40 t   recompute 1.4 * 20 + 1.4 * C_other
        2.00  0        0        28 + 1.4 * 60 = 112
        3.01  1.01    40.4      28 + 1.4 * 61 = 113.4
        4.02  2.02    80.8      28 + 1.4 * 62 = 114.8
        5.03  3.03   121.2      28 + 1.4 * 63 = 116.2   -> discard

    B ends its 11 tokens at 12.1. A's answer of 12.0 is taken up then: 40 + 1 + 9 = 50 tokens, 1.5 s, 13.6. What it
    wasted preserved is what it was kept for: 40 tokens * 3.03 s = 121.2 token-s.
    """
    world = replay([A, Session("b", 0.0, 60, (Call(11),))], MinWaste(Elapsed(), swaps=False))
    assert world.changes() == [(5.03, "a", "discard", 0)]
    reasons = world.record.decisions[-1]["because"]
    assert reasons == pytest.approx({"preserve": 121.2, "recompute": 116.2}, rel=1e-9)
    assert world.finished == pytest.approx({"a": 13.6, "b": 12.1}, rel=1e-9)
    assert world.total("waste_preserve_token_s") == pytest.approx(121.2, rel=1e-9)
    assert world.of("recomputed_tokens") == {"a": 40, "b": 0}


def test_an_oracle_drops_a_long_pause_at_once(replay):
    """10 s to come waste 400 kept against 112 recomputed: discarded at 2.0, nothing preserved."""
    world = replay([A, Session("b", 0.0, 60, (Call(11),))], MinWaste(Oracle(), swaps=False))
    assert world.changes() == [(2.0, "a", "discard", 0)]
    assert world.finished == pytest.approx({"a": 13.6, "b": 12.1}, rel=1e-9)
    assert world.total("waste_preserve_token_s") == 0


def test_an_oracle_keeps_what_comes_back_soon(replay):
    """A pause of 2.5 s: keeping wastes 100 < 112, and less with every second, while recomputing wastes more."""
    a = Session("a", 0.0, 40, (Call(1, Pause(2.5, returned=9)), Call(1)))
    world = replay([a, Session("b", 0.0, 60, (Call(11),))], MinWaste(Oracle(), swaps=False))
    assert world.changes() == []
    assert world.of("recomputed_tokens") == {"a": 0, "b": 0}


def test_a_swap_hides_behind_the_batch_and_its_end_is_taken_up_between_iterations(replay):
    """B's iteration of 1.01 s hides 202 tokens. Out: begins at 2.0, ends at 2.2, noticed at 3.01. B is not delayed:
    12 tokens at 2 + 11 * 1.01 = 13.11. In: the answer of 12.0 is taken up at 12.1, the copy ends at 12.3, noticed at
    13.11; then 10 tokens take 1.1 s: 14.21.

    Waste: 4 blocks were in a copy's hands for two iterations: 40 * 2 * 1.01 = 80.8 token-s.
    """
    world = replay([A, Session("b", 0.0, 60, (Call(12),))], MinWaste(Elapsed()))
    assert world.changes() == [(2.0, "a", "swap", 0)]
    assert world.finished == pytest.approx({"a": 14.21, "b": 13.11}, rel=1e-9)
    assert world.of("recomputed_tokens") == {"a": 0, "b": 0}
    assert world.total("waste_swap_token_s") == pytest.approx(80.8, rel=1e-9)
    assert world.total("swap_stall_s") == 0


def test_a_small_budget_spreads_a_swap_over_iterations(replay):
    """At 20 tokens a second 1.01 s hides 20.2, so two blocks an iteration. Out: 20 tokens at 2.0, leaving 20; the
    other 20 at 3.01. In: 20 at 12.1, noticed at 13.11 with B gone; now nothing limits the copy, and the rest takes
    1.0 s: 14.11; then 1.1 s: 15.21."""
    world = replay([A, Session("b", 0.0, 60, (Call(12),))], MinWaste(Elapsed()), copy_rate=20.0)
    assert world.changes() == [(2.0, "a", "swap", 20), (3.01, "a", "swap", 0)]
    assert world.finished == pytest.approx({"a": 15.21, "b": 13.11}, rel=1e-9)


def test_discarding_a_context_counts_what_the_host_would_lose(paused, view):
    """144 tokens are on the GPU and 1272 on the host already; nothing may be copied. Keeping the 144 for 1 s more
    wastes 144. A discard drops all 1416, which waste in n = 6 chunks of 236, C_other = 4000:

        T(1416) * 708 = 0.0755608 * 708 = 53.497; 6 * T(236) * 4000 = 6 * 0.0209268 * 4000 = 502.2432; 555.74 > 144

    so the context stays. (Recomputing 144 tokens alone would waste 0.0166672 * 72 + 0.0166672 * 4000 = 67.87 < 144.)
    """
    context = paused(resident_tokens=144, offloaded_tokens=1272, paused_at=99.0)
    assert told(MinWaste(Elapsed()).revise(view(now=100.0, paused=[context]))) == []
