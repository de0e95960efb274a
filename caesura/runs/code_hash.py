"""The code that decides a result, by content: that of Caesura, and that of the policies that a run names."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from caesura.config.cluster_setup import ClusterSetup
from caesura.config.systems import System
from caesura.errors import UserError, listed

_ROOT = Path(__file__).resolve().parents[2]
_CODE = (
    *("traces", "policies", "sim"),
    *(
        "caesura/results/metric.py",
        "caesura/results/metrics.py",
        "caesura/runs/run_folder.py",
        "caesura/config/workload.py",
        "caesura/config/generator_schema.py",
    ),
)
_loaded: dict[str, str] = {}
_LIBRARIES = ("numpy", "scipy", "simpy", "pyarrow")


class CodeMismatch(UserError):
    """A worker that would simulate by other rules than the process that asks it."""


def versions() -> dict[str, str]:
    """What the results were made with."""
    return dict(_versions())


@functools.cache
def _versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in ("caesura", *_LIBRARIES)}
    return {"python": platform.python_version(), **found, "code_sha256": code_hash()}


@functools.cache
def code_hash() -> str:
    """The rules themselves, by content: every module that has a say in a result, and the libraries below them."""
    digest = hashlib.sha256()
    for part in _CODE:
        for file in sorted((_ROOT / part).rglob("*.py")) if "." not in part else [_ROOT / part]:
            digest.update(file.relative_to(_ROOT).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    for library in _LIBRARIES:
        digest.update(f"{library}=={importlib.metadata.version(library)}\0".encode())
    return digest.hexdigest()


def check_sources(sources: Mapping[str, str], system: System, cluster: ClusterSetup | None) -> None:
    """Check that this process would simulate by the code whose hashes a run was made with.

    Raises:
        CodeMismatch: naming what differs.
    """
    here = {"caesura": code_hash(), **policy_sources(system, cluster)}
    foreign = [name for name, content in sources.items() if here.get(name) != content]
    if foreign:
        raise CodeMismatch(
            f"the worker on {platform.node()} has not the same {foreign[0]} as this process: install the same versions "
            f"of Caesura, {listed(_LIBRARIES, ' and ')} there, and the same policy files"
        )


def policy_sources(system: System, cluster: ClusterSetup | None) -> dict[str, str]:
    """The content of every module that ``module:Class`` names in a system's rules; one that changed is loaded anew."""
    sources = {}
    for name in [*_names(system.policy), *_names(system.order), *_names(cluster.router if cluster else {})]:
        module = name.partition(":")[0]
        found = importlib.util.find_spec(module) if ":" in name else None
        if found is not None and found.origin is not None:
            sources[module] = hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()
            if _loaded.setdefault(module, sources[module]) != sources[module]:
                importlib.reload(importlib.import_module(module))
                _loaded[module] = sources[module]
    return sources


def _names(rule: dict[str, Any]) -> Iterator[str]:
    for value in rule.values():
        if isinstance(value, dict):
            yield from _names(value)
        elif isinstance(value, str):
            yield value
