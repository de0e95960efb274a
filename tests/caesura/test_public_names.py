"""What users import: ``caesura``, ``caesura.policy``, ``sim``. Every name is there, and loads at its first use."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import caesura
import sim

HEAVY = {"pandas", "pyarrow", "matplotlib", "pydantic", "numpy", "simpy", "joblib", "scipy"}


@pytest.mark.parametrize("package", ["caesura", "caesura.policy", "sim"])
def test_every_public_name_is_there_and_listed(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__ == sorted(module.__all__, key=lambda name: (not name.isupper(), name[0].islower(), name))
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert name in dir(module)


@pytest.mark.parametrize("package", ["caesura", "sim"])
def test_another_name_is_an_attribute_error_of_the_package(package: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'polcy'"):
        importlib.import_module(package).polcy  # noqa: B018


def test_users_find_settings_profile_and_policies_under_caesura() -> None:
    assert caesura.EngineSettings is sim.EngineSettings
    assert caesura.Profile is sim.Profile
    assert issubclass(caesura.policy.CacheLru, caesura.policy.InterceptPolicy)


@pytest.mark.parametrize(
    ("statement", "stays_away"),
    [
        ("import caesura", HEAVY | {"caesura.api", "policies.contract"}),
        ("import caesura.policy", HEAVY | {"caesura.api", "sim"}),
        ("import sim", HEAVY | {"policies", "sim.costs.profile"}),
        ("from sim import EngineSettings", HEAVY - {"pydantic", "numpy"}),
        ("from sim import simulate", {"pandas", "pyarrow", "matplotlib", "joblib", "scipy"}),
    ],
)
def test_an_import_loads_no_more_than_it_needs(statement: str, stays_away: set[str]) -> None:
    code = f"import sys\n{statement}\nprint(sorted(set(sys.modules) & {stays_away!r}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "[]\n"
