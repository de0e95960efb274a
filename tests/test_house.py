"""The house: which module may import which, what its classes are called, and how its docstrings read.

import-linter holds the order of the floors, and of the packages inside sim.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("caesura", "profiler", "sim", "policies", "traces")


@cache
def sources() -> dict[str, str]:
    """The text of every module of the five floors by its dotted name."""
    found = {}
    for floor in FLOORS:
        for file in sorted((ROOT / floor).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = file.read_text(encoding="utf-8")
    return found


@cache
def modules() -> dict[str, ast.Module]:
    """Every module by its dotted name, parsed."""
    return {name: ast.parse(text) for name, text in sources().items()}


def imported_by(tree: ast.Module, names: set[str]) -> set[str]:
    """Which of ``names`` a module imports, wherever in it: at the top, for type checking only, or inside a function."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports inside the house are absolute"
            wanted = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {module for one in wanted if (module := module_of(one, names)) is not None}
    return found


def module_of(name: str, names: set[str]) -> str | None:
    """The module that a dotted name is, or stands in."""
    while name and name not in names:
        name = name.rpartition(".")[0]
    return name or None


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Sets of modules that all import each other, over others or at once."""
    reached = {start: set(reachable(graph, start)) for start in graph}
    found: list[set[str]] = []
    for start in graph:
        together = {other for other in reached[start] if start in reached[other]}
        if together and together not in found:
            found.append(together)
    return found


def reachable(graph: dict[str, set[str]], start: str) -> Iterator[str]:
    """Every module that ``start`` imports, over others or at once."""
    seen, waiting = set(), [*graph[start]]
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += graph[module]
            yield module


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}, [{"a", "b", "c"}]),
        ({"a": {"b"}, "b": {"a", "c"}, "c": {"d"}, "d": {"c"}}, [{"a", "b"}, {"c", "d"}]),
    ],
)
def test_circles_are_found(graph: dict[str, set[str]], expected: list[set[str]]) -> None:
    assert circles(graph) == expected


def test_imports_are_found_wherever_they_stand() -> None:
    tree = ast.parse(
        "import a.b.c, os\nfrom a import b\nif TYPE_CHECKING:\n    from a.d import Name\n"
        "def f():\n    from e import Name"
    )
    assert imported_by(tree, {"a", "a.b", "a.d", "e", "f"}) == {"a.b", "a.d", "e"}


def test_no_modules_import_each_other() -> None:
    names = set(modules())
    graph = {name: imported_by(tree, names) - {name} for name, tree in modules().items()}
    assert sum(map(len, graph.values())) > 500, "the imports of the house are not all found"
    assert [sorted(found) for found in circles(graph)] == []


SHARED_NAMES = {"Floats"}
"""Names that stand for the same thing wherever they are defined: an array of float64."""


def public_classes(tree: ast.Module) -> Iterator[str]:
    """The names of a module's public classes and of its types made by assignment, such as ``Floats = NDArray[...]``."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        else:
            names = []
        yield from (name for name in names if name[0].isupper() and not name.isupper())


def test_classes_and_types_are_found() -> None:
    source = """
class Session:
    class Inner: ...
class _Private: ...
Sizes = list[int]
MOST_SIZES, T = 1, TypeVar("T")
names = []
"""
    assert list(public_classes(ast.parse(source))) == ["Session", "Sizes"]


def test_no_two_classes_share_a_name() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for module, tree in modules().items():
        for name in public_classes(tree):
            homes[name].append(module)
    assert len(homes) > 300, "the classes of the house are not all found"
    namesakes = {name: found for name, found in homes.items() if len(found) > 1}
    assert namesakes.keys() - SHARED_NAMES == set(), namesakes


PERSONS = re.compile(r"\b(whoever|whomever|nobody|somebody|everybody|anybody|someone|anyone)\b", re.IGNORECASE)
UNNAMED = re.compile(r'"""(The same|Likewise)\b')


def test_sentences_name_what_they_are_about() -> None:
    """A session or a block is called by its name, and no docstring refers to the one above it."""
    assert PERSONS.search("the blocks that nobody holds") and UNNAMED.search('def f():\n    """The same, sorted."""')
    unnamed = {name for name, text in sources().items() if PERSONS.search(text) or UNNAMED.search(text)}
    assert unnamed == set()
