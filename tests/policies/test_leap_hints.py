"""Hints for speed: what a policy says that leaves them at their defaults."""

from __future__ import annotations

import pytest

from policies.contract import EVERY_ITERATION, NEVER, InterceptPolicy, PreemptiveOrder, QueueOrder


@pytest.mark.parametrize(
    ("base", "overridden", "answer"),
    [
        (InterceptPolicy, None, NEVER),
        (InterceptPolicy, "on_pause", NEVER),
        (InterceptPolicy, "evict", NEVER),
        (InterceptPolicy, "revise", EVERY_ITERATION),
        (QueueOrder, None, NEVER),
        (QueueOrder, "key", NEVER),
        (QueueOrder, "rerank", EVERY_ITERATION),
        (QueueOrder, "admits", EVERY_ITERATION),
        (PreemptiveOrder, "by_expected_turn", NEVER),
        (PreemptiveOrder, "rerank", EVERY_ITERATION),
    ],
)
def test_only_what_may_answer_is_asked_in_every_iteration(view, base, overridden, answer):
    overrides = {} if overridden is None else {overridden: lambda self, *arguments: ()}
    assert type("Mine", (base,), overrides)().review_at(view()) == answer


def test_an_override_counts_in_classes_that_inherit_it_and_not_where_the_default_comes_back(view):
    class Restless(InterceptPolicy):
        def revise(self, view):
            return ()

    class Inherits(Restless):
        pass

    class Calm(Restless):
        revise = InterceptPolicy.revise

    assert Inherits().review_at(view()) == EVERY_ITERATION
    assert Calm().review_at(view()) == NEVER


def test_a_preemptive_order_is_neither_lazy_nor_bounded_in_iterations_unless_it_says_so(view):
    assert not PreemptiveOrder.lazy_rerank
    assert not PreemptiveOrder.keys_drift
    assert PreemptiveOrder().review_after(view()) == NEVER
