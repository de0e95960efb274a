"""Old names of modules and classes, and the present ones: files that say ``module:Class`` the old way keep working.

Only this file knows the old names. A configuration, or the entry points of an older installation, may still say them.
"""

from __future__ import annotations

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
