"""Old names: a file that says a class's place the old way still finds the class."""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint

import pytest

from policies import registry
from policies.learning.estimators import Empirical
from policies.papers.fastserve import SkipJoinMLFQ
from policies.papers.infercept import MinWaste
from policies.papers.infercept_h import InferCeptH
from policies.registry import make_estimator, make_order, make_policy
from policies.renamed import CLASSES, MODULES, present_location


@pytest.mark.parametrize("module", MODULES.values())
def test_modules_stand_where_the_table_says(module):
    assert importlib.import_module(module).__doc__


@pytest.mark.parametrize("location", CLASSES.values())
def test_classes_stand_where_the_table_says(location):
    module, _, name = location.partition(":")
    assert isinstance(getattr(importlib.import_module(module), name), type)


@pytest.mark.parametrize(
    ("make", "location", "kind"),
    [
        (make_policy, {"name": "policies.min_waste:MinWaste", "estimator": "elapsed"}, MinWaste),
        (make_policy, {"name": "policies.released_letters:ReleasedHeuristic", "estimator": "oracle"}, InferCeptH),
        (make_order, "policies.fastserve:MultiLevelQueue", SkipJoinMLFQ),
        (make_order, "policies.papers.fastserve:MultiLevelQueue", SkipJoinMLFQ),
        (make_estimator, "policies.learning.learned_estimators:Empirical", Empirical),
    ],
)
def test_a_class_is_found_by_the_place_where_it_stood(make, location, kind):
    assert type(make(location)) is kind


def test_entry_points_of_an_older_installation_are_found(monkeypatch):
    """An editable installation keeps the entry points that it was made with."""
    old = EntryPoint("empirical", "policies.learned_estimators:Empirical", "caesura.estimators")
    monkeypatch.setattr(registry, "_installed", lambda group, name: (old,))
    assert type(make_estimator("empirical")) is Empirical


def test_a_place_of_a_users_own_is_left_alone():
    assert present_location("my_policies.released:Released") == "my_policies.released:Released"
