"""Every file, module and folder that the documentation names exists, and its picture of the house is the house's."""

from __future__ import annotations

import importlib
import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from traces.readers import registry as trace_formats

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FLOORS = ("caesura", "profiler", "sim", "policies", "traces")
FOLDERS = (*FLOORS, "benchmarks", "tests", "configs", "docs", "notebooks")
PATH = re.compile(rf"(?<![\w./:-])(?:{'|'.join(FOLDERS)})/[\w./-]*")
DOTTED = re.compile(rf"`((?:{'|'.join((*FLOORS, 'benchmarks', 'tests'))})(?:\.\w+)+)(?::(\w+))?")
RUN = re.compile(r"-m ((?:benchmarks|tests|caesura|profiler)[\w.]*)")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def named_paths(text: str) -> set[str]:
    """Paths from the repository's root that a page names, those of data sets and results left out."""
    return {found.rstrip(".") for found in PATH.findall(text)}


def named_objects(text: str) -> set[str]:
    """Dotted names of modules, classes and functions that a page names."""
    return {f"{module}.{name}" if name else module for module, name in DOTTED.findall(text)}


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module, something in one, or a group of entry points."""
    if dotted in PROJECT["project"]["entry-points"] or dotted == trace_formats.GROUP:
        return True
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        try:
            if importlib.util.find_spec(module) is None:
                continue
        except ModuleNotFoundError:
            continue
        thing: Any = importlib.import_module(module) if length < len(parts) else None
        for name in parts[length:]:
            if not hasattr(thing, name):
                return False
            thing = getattr(thing, name)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_folder_that_a_page_names_exists(page: Path) -> None:
    missing = [one for one in sorted(named_paths(page.read_text(encoding="utf-8"))) if not (ROOT / one).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_class_and_function_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [one for one in sorted(named_objects(text)) if not exists(one)] == []
    runs = sorted(set(RUN.findall(text)))
    assert [module for module in runs if importlib.util.find_spec(module.rstrip(".")) is None] == []


def test_names_are_found_and_told_apart() -> None:
    text = "`sim/engine/engine.py`, in `docs/`; see `sim.engine.engine.Engine` and `policies.routers:Gone`."
    assert named_paths(text) == {"sim/engine/engine.py", "docs/"}
    assert named_objects(text) == {"sim.engine.engine.Engine", "policies.routers.Gone"}
    assert exists("sim.engine.engine.Engine") and exists("sim.engine") and exists("caesura.policies")
    assert not exists("policies.routers.Gone") and not exists("sim.nowhere") and not exists("sim.engine.engine.Gone")


# ---- the picture of the house in CONTRIBUTING.md


def picture() -> list[str]:
    """The lines of the picture."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.search(r"```text\n(caesura/.*?)```", text, re.DOTALL)
    assert found, "CONTRIBUTING.md has no picture of the house"
    return found.group(1).splitlines()


def rooms_of(folder: Path, name: str = "") -> set[str]:
    """Sub-packages, by their paths below a floor."""
    inside = [one for one in folder.iterdir() if (one / "__init__.py").exists()]
    return {room for one in inside for room in (f"{name}{one.name}/", *rooms_of(one, f"{name}{one.name}/"))}


def drawn() -> dict[str, list[str]]:
    """What the picture shows on each floor: rooms, which end in a slash, and files."""
    shown: dict[str, list[str]] = {}
    floor = ""
    for line in picture():
        words = line.split()
        if not line.startswith(" "):
            floor = words[0].rstrip("/")
            shown[floor] = []
        else:
            shown[floor].append(words[0])
    return shown


def contract(name: str) -> dict[str, Any]:
    found = [one for one in PROJECT["tool"]["importlinter"]["contracts"] if one["name"] == name]
    assert len(found) == 1, name
    return dict(found[0])


def test_the_picture_shows_the_floors_in_the_order_of_their_imports() -> None:
    assert list(drawn()) == contract("Imports point down the floors")["layers"]


@pytest.mark.parametrize("floor", FLOORS)
def test_the_picture_shows_every_room_and_no_other(floor: str) -> None:
    shown = drawn()[floor]
    assert {one for one in shown if one.endswith("/")} == rooms_of(ROOT / floor)
    assert all((ROOT / floor / one).exists() for one in shown)


def test_the_picture_shows_the_simulators_rooms_in_the_order_of_their_imports() -> None:
    layers = contract("Inside the simulator, imports point from the world down to costs")["layers"]
    shown = [name.rstrip("/").removesuffix(".py") for name in drawn()["sim"]]
    assert shown == [layer for layer in layers if layer in shown]
    assert {"world", "results", "engine", "kv", "session", "costs"} == set(shown)


# ---- the glossary


def test_the_glossary_has_its_words_once_and_names_files_that_exist() -> None:
    """``docs/model.md`` opens with a table of words: word, meaning, vLLM's word, where it lives."""
    text = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
    table = text.partition("## Words")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "**" in line]
    assert len(rows) >= 25
    assert all(len(row) == 4 for row in rows)
    words = [row[0] for row in rows]
    assert len(set(words)) == len(words)
    files = [re.findall(r"`([\w/]+\.py)`", row[3]) for row in rows]
    assert all(found and all((ROOT / file).exists() for file in found) for found in files)


# ---- how pages read


NOT_SAID = re.compile(r"\b(whoever|whomever|nobody|somebody|everybody|anybody|everyone|likewise)\b", re.IGNORECASE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sessions_and_blocks_are_named_not_spoken_of_as_people(page: Path) -> None:
    """Rules of CONTRIBUTING.md, whose own section is left out."""
    text = re.sub(r"## How we write\n.*?\n## ", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert [f"{line}: {one}" for line, one in enumerate(text.splitlines(), 1) if NOT_SAID.search(one)] == []
