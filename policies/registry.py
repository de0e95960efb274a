"""From a name in a configuration to a policy object.

Names come from the entry-point groups ``caesura.policies``, ``caesura.orders`` and ``caesura.estimators`` of whatever
is installed; ``module:Class`` names a class of the user's own file.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, TypeVar

from policies.contract import DurationEstimator, InterceptPolicy, QueueOrder

Spec = str | Mapping[str, Any]
T = TypeVar("T")

POLICIES = "caesura.policies"
ORDERS = "caesura.orders"
ESTIMATORS = "caesura.estimators"


class UnknownPolicy(ValueError):
    """A policy, order or estimator that cannot be made from what a configuration says."""


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
    """A queue order, likewise."""
    return _make(spec, ORDERS, QueueOrder)


def make_estimator(spec: Spec) -> DurationEstimator:
    """A duration estimator, likewise."""
    return _make(spec, ESTIMATORS, DurationEstimator)


def _make(spec: Spec, group: str, kind: type[T]) -> T:
    if isinstance(spec, str):
        name, arguments = spec, {}
    else:
        arguments = dict(spec)
        if not isinstance(arguments.get("name"), str):
            raise UnknownPolicy(f"{dict(spec)!r} has no 'name'; write {{name: ..., argument: value}}")
        name = arguments.pop("name")
    made = _find(name, group)
    if not (isinstance(made, type) and issubclass(made, kind)):
        raise UnknownPolicy(f"{name!r} is {made!r}, which is not a subclass of policies.contract.{kind.__name__}")
    if "estimator" in arguments:
        arguments["estimator"] = make_estimator(arguments["estimator"])
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
    except (TypeError, ValueError) as error:
        raise UnknownPolicy(f"{name!r} does not accept {arguments!r}: {error}") from error


def _find(name: str, group: str) -> Any:
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            raise UnknownPolicy(
                f"cannot import {module!r} for {name!r}: {error}; is its folder on PYTHONPATH?"
            ) from error
        except AttributeError:
            raise UnknownPolicy(f"module {module!r} has no class {attribute!r}") from None
        except Exception as error:
            raise UnknownPolicy(f"importing {module!r} for {name!r} failed: {type(error).__name__}: {error}") from error
    for entry in entry_points(group=group, name=name):
        return entry.load()
    close = difflib.get_close_matches(name, names(group), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    kind = group.removeprefix("caesura.")
    raise UnknownPolicy(f"no such name in {kind}: {name!r}{hint} There are {', '.join(names(group))}, or module:Class")
