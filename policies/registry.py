"""From a name in a configuration to a policy object.

Names come from the entry-point groups ``caesura.policies``, ``caesura.orders``, ``caesura.estimators``,
``caesura.predictors`` and ``caesura.routers`` of all installed packages; ``module:Class`` names a class of a user's own
file.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from policies.contract import InterceptPolicy, QueueOrder
from policies.estimation import CallPredictor, DurationEstimator
from policies.renamed import present_location
from policies.routing import Router

Spec = str | Mapping[str, Any]
T = TypeVar("T")

POLICIES = "caesura.policies"
ORDERS = "caesura.orders"
ESTIMATORS = "caesura.estimators"
ROUTERS = "caesura.routers"
PREDICTORS = "caesura.predictors"


class UnknownPolicy(ValueError):
    """A policy, order, estimator or router that cannot be made from what a configuration says."""


def names(group: str) -> list[str]:
    """Every name that is installed in an entry-point group."""
    return sorted({entry.name for entry in entry_points(group=group)})


def make_policy(spec: Spec) -> InterceptPolicy:
    """An intercept policy from ``name`` or ``{name: ..., argument: value}``.

    Raises:
        UnknownPolicy: no such name, module, class or argument; the message says what there is.
    """
    return _make(spec, POLICIES, InterceptPolicy)


def make_order(spec: Spec) -> QueueOrder:
    """A queue order, from a specification like that of ``make_policy``.

    Raises:
        UnknownPolicy: as ``make_policy``.
    """
    return _make(spec, ORDERS, QueueOrder)


def make_estimator(spec: Spec) -> DurationEstimator:
    """A duration estimator, from a specification like that of ``make_policy``.

    Raises:
        UnknownPolicy: as ``make_policy``.
    """
    return _make(spec, ESTIMATORS, DurationEstimator)


def make_router(spec: Spec) -> Router:
    """A router, from a specification like that of ``make_policy``.

    Raises:
        UnknownPolicy: as ``make_policy``.
    """
    return _make(spec, ROUTERS, Router)


def _make(spec: Spec, group: str, kind: type[T]) -> T:
    if isinstance(spec, str):
        name, arguments = spec, {}
    elif isinstance(spec, Mapping) and isinstance(spec.get("name"), str):
        arguments = dict(spec)
        name = arguments.pop("name")
    else:
        raise UnknownPolicy(f"{spec!r} names nothing; write a name, or {{name: ..., argument: value}}")
    made = _find(name, group)
    if not (isinstance(made, type) and issubclass(made, kind)):
        raise UnknownPolicy(f"{name!r} is {made!r}, which is not a subclass of {kind.__module__}.{kind.__name__}")
    if "estimator" in arguments:
        arguments["estimator"] = make_estimator(arguments["estimator"])
    if "predictor" in arguments:
        arguments["predictor"] = _make(arguments["predictor"], PREDICTORS, CallPredictor)
    return _construct(name, made, arguments)


def _construct(name: str, made: type[T], arguments: dict[str, Any]) -> T:
    signature = inspect.signature(made)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        accepted = ", ".join(signature.parameters) or "no arguments"
        raise UnknownPolicy(f"{name!r}: {error}; it accepts {accepted}") from None
    try:
        return made(**arguments)
    except Exception as error:
        raise UnknownPolicy(f"{name!r} does not accept {arguments!r}: {type(error).__name__}: {error}") from error


@functools.lru_cache(maxsize=256)
def _installed(group: str, name: str) -> tuple[EntryPoint, ...]:
    """Entry points of a name. Looked up once: this reads the metadata of every installed package."""
    return tuple(entry_points(group=group, name=name))


def _find(name: str, group: str) -> Any:
    if ":" in name:
        return _imported(present_location(name), name)
    for entry in _installed(group, name):
        location = present_location(entry.value)
        return entry.load() if location == entry.value else _imported(location, name)
    close = difflib.get_close_matches(name, names(group), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    kind = group.removeprefix("caesura.")
    raise UnknownPolicy(f"no such name in {kind}: {name!r}{hint} There are {', '.join(names(group))}, or module:Class")


def _imported(location: str, name: str) -> Any:
    """The class at ``module:Class``, for what a configuration calls ``name``."""
    module_name, _, attribute = location.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UnknownPolicy(
            f"cannot import {module_name!r} for {name!r}: {error}; is its folder on PYTHONPATH?"
        ) from error
    except Exception as error:
        raise UnknownPolicy(
            f"importing {module_name!r} for {name!r} failed: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, attribute):
        raise UnknownPolicy(f"module {module_name!r} has no class {attribute!r}")
    return getattr(module, attribute)
