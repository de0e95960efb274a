"""Old names and the present ones: the only file that knows both.

Places of classes: a configuration, or the entry points of an older installation, that says ``module:Class`` the old way
keeps working. Names of the contract: a policy that still uses an old one is refused, since the engine would not ask it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

# ---- places of classes

MODULES = {
    "policies.autellix": "policies.papers.autellix",
    "policies.cache_lru": "policies.basic.cache_lru",
    "policies.caesura": "policies.caesura.policy",
    "policies.continuum": "policies.papers.continuum",
    "policies.estimators": "policies.learning.estimators",
    "policies.fastserve": "policies.papers.fastserve",
    "policies.fixed": "policies.basic.fixed",
    "policies.heuristic": "policies.basic.heuristic",
    "policies.lamps": "policies.papers.lamps",
    "policies.learned_estimators": "policies.learning.estimators",
    "policies.learning.learned_estimators": "policies.learning.estimators",
    "policies.min_waste": "policies.papers.infercept",
    "policies.mori": "policies.papers.mori",
    "policies.orders": "policies.basic.fcfs",
    "policies.predictors": "policies.learning.predictors",
    "policies.released": "policies.papers.infercept_v",
    "policies.released_letters": "policies.papers.infercept_h",
    "policies.retention": "policies.papers.retention",
    "policies.swap_or_discard": "policies.papers.infercept_breakdown",
    "policies.thunderagent": "policies.papers.thunderagent",
    "policies.tokencake": "policies.papers.tokencake",
}
"""Modules with policies, orders, estimators or predictors that an entry point named, by their old names."""

CLASSES = {
    "policies.papers.fastserve:MultiLevelQueue": "policies.papers.fastserve:SkipJoinMLFQ",
    "policies.papers.infercept_h:ReleasedHeuristic": "policies.papers.infercept_h:InferCeptH",
    "policies.papers.infercept_v:Released": "policies.papers.infercept_v:InferCeptV",
}
"""Classes that an entry point named, by their old names in the present modules."""


def present_location(location: str) -> str:
    """Where the class of ``module:Class`` stands today; ``location`` itself if it never moved."""
    module, _, name = location.partition(":")
    here = f"{MODULES.get(module, module)}:{name}"
    return CLASSES.get(here, here)


# ---- names of the contract

INTERCEPT_POLICY = {"gives_way": "evict", "one_lru": "unified_lru"}
"""Methods and attributes of an intercept policy."""

PREEMPTIVE_ORDER = {
    "catches_up": "lazy_rerank",
    "keys_age": "keys_drift",
    "most_running": "max_running",
    "soonest_first": "by_expected_turn",
}
"""Methods and attributes of a preemptive order."""

ENGINE_VIEW = {"footprints": "kv_usage", "most_running": "max_running", "unanswered": "undecided"}
"""Attributes of an engine's view."""

VERDICT = {"because": "reasons"}
"""Arguments and attributes of a verdict."""


def refuse_old_names(rule: object, renamed: Mapping[str, str]) -> None:
    """Refuse a policy or an order, or a class of them, that still has an attribute of an old name.

    Raises:
        TypeError: it has one; the message says the class, the old and the new name.
    """
    for old, new in renamed.items():
        if hasattr(rule, old):
            kind = rule if isinstance(rule, type) else type(rule)
            raise TypeError(
                f"{kind.__module__}:{kind.__qualname__} has {old!r}, which is called {new!r} now: rename it"
            )


def refuses_old_arguments(verdict: type[T]) -> type[T]:
    """Make the constructor of a verdict say the present name of an argument that was renamed."""
    construct = verdict.__init__

    @functools.wraps(construct)
    def __init__(self: T, *args: Any, **kwargs: Any) -> None:
        try:
            construct(self, *args, **kwargs)
        except TypeError as error:
            for old in kwargs.keys() & VERDICT.keys():
                kind, new = verdict.__name__, VERDICT[old]
                raise TypeError(f"{kind}({old}=...) is called {kind}({new}=...) now: rename it") from error
            raise

    verdict.__init__ = __init__  # type: ignore[assignment, method-assign]
    return verdict


def old_attribute(kind: str, name: str, renamed: Mapping[str, str]) -> AttributeError:
    """The error of reading an attribute that is not there; if it was renamed, with its present name."""
    hint = f"; it is called {renamed[name]!r} now" if name in renamed else ""
    return AttributeError(f"{kind} has no attribute {name!r}{hint}")
