"""Old names: places of classes still work, old names of the contract are refused with the present ones."""

from __future__ import annotations

import importlib
import re
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from policies import registry
from policies.contract import (
    NEVER,
    Discard,
    InterceptPolicy,
    PreemptiveOrder,
    Prefetch,
    Preserve,
    QueueOrder,
    Swap,
)
from policies.learning.estimators import Empirical
from policies.papers.fastserve import FixedPriority, SkipJoinMLFQ
from policies.papers.infercept import MinWaste
from policies.papers.infercept_h import InferCeptH
from policies.registry import UnknownPolicy, make_estimator, make_order, make_policy
from policies.renamed import (
    CLASSES,
    ENGINE_VIEW,
    INTERCEPT_POLICY,
    MODULES,
    PREEMPTIVE_ORDER,
    VERDICT,
    present_location,
)
from policies.views import EngineView
from sim.errors import PolicyError
from traces.session import Call, Pause, Session

ONE_PAUSE = Session("a", 0.0, 20, (Call(1, Pause(5.0)), Call(1)))


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


# ---- names of the contract


def test_the_tables_lead_to_names_that_are_there():
    assert all(hasattr(InterceptPolicy, name) for name in INTERCEPT_POLICY.values())
    assert all(hasattr(PreemptiveOrder, name) for name in PREEMPTIVE_ORDER.values())
    assert all(hasattr(EngineView, name) for name in ENGINE_VIEW.values())
    assert all(hasattr(kind, name) for kind in (Preserve, Swap, Discard, Prefetch) for name in VERDICT.values())


@pytest.mark.parametrize(
    ("base", "old", "new"),
    [
        *((InterceptPolicy, old, new) for old, new in INTERCEPT_POLICY.items()),
        *((PreemptiveOrder, old, new) for old, new in PREEMPTIVE_ORDER.items()),
    ],
)
def test_a_class_that_defines_an_old_name_is_refused_with_the_present_one(base, old, new):
    """A method that the engine never calls would be ignored in silence."""
    with pytest.raises(TypeError, match=f"^mine:Mine has '{old}', which is called '{new}' now: rename it$"):
        type("Mine", (base,), {"__module__": "mine", old: lambda self, *_: ()})


def test_an_old_name_from_a_mixin_is_refused_too():
    class Mixin:
        def gives_way(self, blocks, view):
            return ()

    with pytest.raises(TypeError, match=r":.*Mine has 'gives_way', which is called 'evict' now"):

        class Mine(Mixin, InterceptPolicy):
            pass


def test_an_order_that_does_not_preempt_may_use_the_words_of_one_that_does():
    class Mine(QueueOrder):
        def soonest_first(self, sessions):
            return sessions

    assert Mine().soonest_first("ab") == "ab"


@pytest.mark.parametrize("verdict", [Preserve, Swap, Discard, Prefetch])
def test_a_verdict_with_the_old_argument_says_the_present_one(verdict):
    name = verdict.__name__
    message = rf"^{name}\(because=...\) is called {name}\(reasons=...\) now: rename it$"
    with pytest.raises(TypeError, match=message):
        verdict(because={"tokens": 1.0})
    with pytest.raises(TypeError, match="unexpected keyword argument 'becuase'"):
        verdict(becuase={"tokens": 1.0})
    assert verdict(reasons={"tokens": 1.0}).reasons == {"tokens": 1.0}


def test_a_users_file_with_an_old_name_is_refused_where_the_configuration_names_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "an_older_policy.py").write_text(
        "from policies.contract import InterceptPolicy\n\n\n"
        "class Mine(InterceptPolicy):\n"
        "    def gives_way(self, blocks, view):\n"
        "        return ()\n",
        encoding="utf-8",
    )
    with pytest.raises(UnknownPolicy, match="an_older_policy:Mine has 'gives_way', which is called 'evict' now"):
        make_policy("an_older_policy:Mine")


def test_an_old_name_that_an_object_sets_on_itself_stops_the_run_before_it_begins(replay):
    """``one_lru`` and ``catches_up`` were attributes, which a constructor may set."""
    policy, order = InterceptPolicy(), FixedPriority()
    policy.one_lru = True
    with pytest.raises(PolicyError, match="InterceptPolicy has 'one_lru', which is called 'unified_lru' now"):
        replay([ONE_PAUSE], policy)
    order.catches_up = True
    with pytest.raises(PolicyError, match="FixedPriority has 'catches_up', which is called 'lazy_rerank' now"):
        replay([ONE_PAUSE], InterceptPolicy(), order=order)


@pytest.mark.parametrize(("old", "new"), ENGINE_VIEW.items())
def test_a_policy_that_reads_an_old_name_of_the_view_is_told_the_present_one(replay, old, new):
    class Reads(InterceptPolicy):
        def on_pause(self, paused, view):
            return getattr(view, old)

    with pytest.raises(
        PolicyError, match=f"Reads failed in on_pause .* no attribute '{old}'; it is called '{new}' now"
    ):
        replay([ONE_PAUSE], Reads())


def test_a_policy_that_reads_what_never_was_is_told_so(replay):
    class Reads(InterceptPolicy):
        def review_at(self, view):
            return view.tomorrow or NEVER

    with pytest.raises(PolicyError, match="the engine's view has no attribute 'tomorrow' "):
        replay([ONE_PAUSE], Reads())


def test_the_tutorial_lists_every_renamed_name():
    page = (Path(__file__).parents[2] / "docs" / "writing-a-policy.md").read_text(encoding="utf-8")
    rows = [*INTERCEPT_POLICY.items(), *PREEMPTIVE_ORDER.items(), *ENGINE_VIEW.items(), *VERDICT.items()]
    for old, new in rows:
        assert re.search(rf"^\| `[\w.]*{old}=?`.* \| `[\w.]*{new}=?` \|$", page, re.MULTILINE), old


def test_the_project_names_its_classes_by_their_present_places():
    """An installation may be older than the project's file, so its entry points do not tell."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = project["entry-points"]
    locations = [location for group in groups.values() for location in group.values()]
    assert len(locations) > 30
    for location in locations:
        assert present_location(location) == location
        module, _, name = location.partition(":")
        assert isinstance(getattr(importlib.import_module(module), name), type)
