"""From a name, or ``module:Class``, to an object; and what a person reads when there is none."""

from __future__ import annotations

import itertools

import pytest

from policies.basic.cache_lru import CacheLru
from policies.basic.fcfs import FirstCome
from policies.basic.fixed import DiscardAlways, PreserveAlways, SwapAlways
from policies.basic.heuristic import Heuristic
from policies.learning.estimators import Elapsed, Oracle, ToolMean
from policies.papers.infercept import MinWaste
from policies.papers.infercept_v import InferCeptV
from policies.registry import (
    ESTIMATORS,
    ORDERS,
    POLICIES,
    UnknownPolicy,
    make_estimator,
    make_order,
    make_policy,
    names,
)

_counter = itertools.count()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a user's file to a folder on the path; gives its module name, a new one each time."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text: str) -> str:
        name = f"users_own_{next(_counter)}"
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        return name

    return write


def test_every_name_that_ships():
    assert set(names(POLICIES)) >= {
        "cache-lru",
        "discard",
        "heuristic",
        "min-waste",
        "min-waste-released",
        "preserve",
        "swap",
    }
    assert set(names(ORDERS)) >= {"fcfs"}
    assert set(names(ESTIMATORS)) >= {"elapsed", "oracle", "tool-mean"}


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("discard", DiscardAlways),
        ("preserve", PreserveAlways),
        ("swap", SwapAlways),
        ("cache-lru", CacheLru),
        ({"name": "heuristic", "estimator": "tool-mean", "swap_above": 4.0}, Heuristic),
        ({"name": "min-waste", "estimator": "elapsed"}, MinWaste),
        ({"name": "min-waste-released", "estimator": "oracle"}, InferCeptV),
        ("policies.basic.fixed:SwapAlways", SwapAlways),
    ],
)
def test_a_policy_by_its_name(spec, kind):
    assert type(make_policy(spec)) is kind


def test_orders_and_estimators_by_their_names():
    assert type(make_order("fcfs")) is FirstCome
    assert type(make_estimator("elapsed")) is Elapsed
    assert type(make_estimator("oracle")) is Oracle


def test_arguments_reach_the_constructor_and_an_estimator_has_its_own():
    estimator = {"name": "tool-mean", "default": 2.5}
    policy = make_policy({"name": "heuristic", "discard_above": 7.0, "estimator": estimator})
    assert isinstance(policy, Heuristic)
    assert policy.discard_above == 7.0
    assert isinstance(policy.estimator, ToolMean)
    assert policy.estimator.default == 2.5


def test_the_specification_is_left_as_it_was():
    spec = {"name": "min-waste", "estimator": {"name": "elapsed"}}
    make_policy(spec)
    assert spec == {"name": "min-waste", "estimator": {"name": "elapsed"}}


def test_a_class_of_the_users_own_file(module, replay):
    from traces.session import Call, Pause, Session

    name = module(
        "from policies.contract import Discard, InterceptPolicy, Preserve\n"
        "class DropLong(InterceptPolicy):\n"
        "    def __init__(self, longest=50):\n"
        "        self.longest = longest\n"
        "    def on_pause(self, paused, view):\n"
        "        return Discard() if paused.resident_tokens > self.longest else Preserve()\n"
    )
    policy = make_policy({"name": f"{name}:DropLong", "longest": 30})
    session = Session("a", 0.0, 20, (Call(1, Pause(1.0, returned=20)), Call(1, Pause(1.0)), Call(1)))
    world = replay([session], policy)
    assert world.calls("a", "resident_tokens") == [0, 20, 0], "20 tokens are kept, then 41 dropped"


@pytest.mark.parametrize(
    ("make", "wrong", "meant"),
    [
        (make_policy, "min-wast", "min-waste"),
        (make_policy, "discrad", "discard"),
        (make_policy, "cache_lru", "cache-lru"),
        (make_order, "fcsf", "fcfs"),
        (make_estimator, "tool_mean", "tool-mean"),
    ],
)
def test_an_unknown_name_suggests_the_right_one(make, wrong, meant):
    with pytest.raises(UnknownPolicy, match=f"{wrong!r}; did you mean {meant!r}"):
        make(wrong)


def test_a_name_like_no_other_lists_what_there_is():
    with pytest.raises(
        UnknownPolicy, match=r"no such name in policies: 'zzz'.*cache-lru, .*discard, .*or module:Class"
    ):
        make_policy("zzz")


def test_a_specification_without_a_name():
    with pytest.raises(UnknownPolicy, match="names nothing"):
        make_policy({"estimator": "elapsed"})


@pytest.mark.parametrize(
    ("make", "name", "base"),
    [
        (make_policy, "policies.learning.estimators:Elapsed", "policies.contract.InterceptPolicy"),
        (make_policy, "policies.papers.waste:preserve_waste", "policies.contract.InterceptPolicy"),
        (make_policy, "math:pi", "policies.contract.InterceptPolicy"),
        (make_order, "policies.basic.fixed:SwapAlways", "policies.contract.QueueOrder"),
        (make_estimator, "policies.basic.fcfs:FirstCome", "policies.estimation.DurationEstimator"),
    ],
)
def test_a_wrong_base_class(make, name, base):
    with pytest.raises(UnknownPolicy, match=f"not a subclass of {base}"):
        make(name)


def test_a_policy_is_no_estimator_even_by_name():
    with pytest.raises(UnknownPolicy, match="no such name in estimators: 'discard'"):
        make_policy({"name": "min-waste", "estimator": "discard"})


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ("min-waste", "missing a required argument: 'estimator'; it accepts estimator, swaps"),
        ({"name": "discard", "keep": 5}, "unexpected keyword argument 'keep'; it accepts no arguments"),
        ({"name": "heuristic", "estimator": "elapsed", "swap_abov": 4}, "it accepts estimator, swap_above, discard_ab"),
        ({"name": "heuristic", "estimator": "elapsed", "swap_above": -4}, "does not accept.*are seconds, >= 0"),
        ({"name": "heuristic", "estimator": "elapsed", "swap_above": "4 s"}, "does not accept.*'4 s'"),
        ({"name": "min-waste", "estimator": {"name": "tool-mean", "default": -1}}, "'tool-mean' does not accept"),
    ],
)
def test_bad_arguments(spec, complaint):
    with pytest.raises(UnknownPolicy, match=complaint):
        make_policy(spec)


def test_a_module_that_is_not_there():
    with pytest.raises(UnknownPolicy, match=r"cannot import 'no_such_file' .*is its folder on PYTHONPATH"):
        make_policy("no_such_file:Policy")


def test_a_module_that_imports_what_is_not_there(module):
    name = module("import no_such_library\n")
    with pytest.raises(UnknownPolicy, match=f"cannot import '{name}'.*no_such_library"):
        make_policy(f"{name}:Policy")


@pytest.mark.parametrize(
    ("text", "complaint"), [("class Policy(:\n", "SyntaxError"), ("1 / 0\n", "ZeroDivisionError: division by zero")]
)
def test_a_module_that_fails_on_import(module, text, complaint):
    name = module(text)
    with pytest.raises(UnknownPolicy, match=f"importing '{name}' .*failed: {complaint}"):
        make_policy(f"{name}:Policy")


@pytest.mark.parametrize("name", ["policies.basic.fixed:Discrad", "policies.basic.fixed:"])
def test_a_module_without_that_class(name):
    with pytest.raises(UnknownPolicy, match=r"module 'policies\.basic\.fixed' has no class"):
        make_policy(name)


@pytest.mark.parametrize("error", ["ValueError", "TypeError"])
def test_a_constructor_that_refuses(module, error):
    name = module(
        "from policies.contract import InterceptPolicy\n"
        "class Policy(InterceptPolicy):\n"
        "    def __init__(self, share=1.0):\n"
        f"        raise {error}('share is above 1')\n"
    )
    with pytest.raises(UnknownPolicy, match=r"does not accept \{'share': 2\}: \w+: share is above 1") as caught:
        make_policy({"name": f"{name}:Policy", "share": 2})
    assert type(caught.value.__cause__).__name__ == error


# ---- faults of the registry, to be removed with their markers


def test_a_constructor_that_fails_otherwise(module):
    name = module(
        "from policies.contract import InterceptPolicy\n"
        "class Policy(InterceptPolicy):\n"
        "    def __init__(self):\n"
        "        {}['missing']\n"
    )
    with pytest.raises(UnknownPolicy, match="missing"):
        make_policy(f"{name}:Policy")


def test_a_module_whose_import_raises_attribute_error(module):
    name = module("import math\nmath.nothing\nclass Policy: pass\n")
    with pytest.raises(UnknownPolicy, match="nothing"):
        make_policy(f"{name}:Policy")


@pytest.mark.parametrize("estimator", [None, 5])
def test_an_estimator_that_is_no_name(estimator):
    with pytest.raises(UnknownPolicy):
        make_policy({"name": "min-waste", "estimator": estimator})


def test_a_default_duration_that_is_no_number():
    with pytest.raises(UnknownPolicy):
        make_estimator({"name": "tool-mean", "default": float("nan")})
