"""The soak finds the simulator's properties, counts failures by kind and shows the smallest world that fails."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.soak.worlds import MODULES, Property, properties, soak


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000))
def fails_above_ten(number: int) -> None:
    assert number <= 10
    if number == 7:
        raise ValueError("seven")


def test_every_module_has_properties() -> None:
    found = [one.name for one in properties("")]
    assert len(found) >= 20
    assert all(any(name.startswith(module.rpartition(".")[2]) for name in found) for module in MODULES)
    assert [one.name for one in properties("no_such_property")] == []


def test_failures_are_counted_by_kind_and_the_first_of_each_is_made_smaller(capsys) -> None:
    one = Property("x.fails_above_ten", fails_above_ten)
    soak([one], worlds=60, seed=1)
    assert one.checked >= 60
    kinds = [kind for kind in one.failures if kind.startswith("AssertionError at tests/soak/test_worlds.py:")]
    assert len(kinds) == 1 and one.failures[kinds[0]] > 30
    said = capsys.readouterr().out
    assert "number=11" in said, said
