"""Everything that an author of a policy imports, in one place.

    from caesura.policy import NEVER, Discard, InterceptPolicy

- Intercept policies: ``InterceptPolicy``, its verdicts ``Preserve``, ``Swap``, ``Discard`` and ``Prefetch``, and what
it
  sees: ``Paused``, ``EngineView``, ``Costs``.
- Queue orders: ``QueueOrder``, ``PreemptiveOrder``, their ``Key``, and ``Queued``.
- Duration estimators and call predictors: ``DurationEstimator``, ``CallPredictor``, ``NextCall``.
- Routers: ``Router``, and what one sees: ``Routed``, ``ReplicaView``.
- Building blocks: ``CacheLru`` and ``last_blocks``, ``FirstCome``, the estimators ``Elapsed``, ``ToolMean``,
  ``Empirical`` and ``Oracle``, and ``least_outstanding`` of the routers.

docs/writing-a-policy.md is the tutorial, docs/policies.md the list of what ships.
"""

from __future__ import annotations

from policies.basic.cache_lru import CacheLru, last_blocks
from policies.basic.fcfs import FirstCome
from policies.contract import (
    EVERY_ITERATION,
    NEVER,
    Change,
    Costs,
    Discard,
    EngineView,
    InterceptPolicy,
    Key,
    KVUsage,
    Paused,
    PreemptiveOrder,
    Prefetch,
    Preserve,
    Queued,
    QueueOrder,
    Swap,
    Verdict,
    is_incomplete,
)
from policies.estimation import CallPredictor, DurationEstimator, NextCall, tool_of
from policies.learning.estimators import Elapsed, Empirical, Oracle, ToolMean
from policies.routers import least_outstanding
from policies.routing import ReplicaView, Routed, Router

__all__ = [
    "EVERY_ITERATION",
    "NEVER",
    "CacheLru",
    "CallPredictor",
    "Change",
    "Costs",
    "Discard",
    "DurationEstimator",
    "Elapsed",
    "Empirical",
    "EngineView",
    "FirstCome",
    "InterceptPolicy",
    "KVUsage",
    "Key",
    "NextCall",
    "Oracle",
    "Paused",
    "PreemptiveOrder",
    "Prefetch",
    "Preserve",
    "QueueOrder",
    "Queued",
    "ReplicaView",
    "Routed",
    "Router",
    "Swap",
    "ToolMean",
    "Verdict",
    "is_incomplete",
    "last_blocks",
    "least_outstanding",
    "tool_of",
]
