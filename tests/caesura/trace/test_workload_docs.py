"""docs/workloads.md says what the commands say."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from caesura.config.generator_schema import GeneratorFile
from traces import shipped

DOCS = (Path(__file__).parents[3] / "docs" / "workloads.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (\S+) \| ([^|]+) \| (\S+) \| (\S+) \| `([^`]+)` \|$", re.MULTILINE)


def rows_of(trace: str) -> list[tuple[str, str, str, str]]:
    return [(figure, known, said, place) for name, figure, known, said, place in ROW.findall(DOCS) if name == trace]


def figure_at(found: Any, place: str) -> float:
    for part in place.split("."):
        found = next(w for w in found if w["name"] == part) if isinstance(found, list) else found[part]
    return 100 * float(found) if place.endswith("hit_share") else float(found)


def step(text: str) -> float:
    """A unit of the last digit written: 0.01 for 5.53, 1 for 1,155."""
    return 10.0 ** -len(text.partition(".")[2])


@pytest.mark.parametrize("trace", shipped.names())
def test_described_figures_are_those_of_the_docs_and_close_to_what_is_known(trace: str, caesura: Callable) -> None:
    """As described: to the last digit written. As known: within 2 %, for contexts of agents were given in thousands."""
    said = caesura("trace", "describe", trace, "--json")
    assert said.code == 0
    found = json.loads(said.out)
    rows = rows_of(trace)
    assert len(rows) >= 10
    for figure, known, written, place in rows:
        value = figure_at(found, place)
        assert abs(value - float(written.replace(",", ""))) <= 0.5 * step(written) * (1 + 1e-9), figure
        if known != "–":
            assert math.isclose(value, float(known.replace(",", "")), rel_tol=0.02), figure


def test_the_generator_of_the_docs_holds() -> None:
    blocks = re.findall(r"(?:^    .*\n)+", DOCS, re.MULTILINE)
    (block,) = [block for block in blocks if "kinds:" in block]
    file = GeneratorFile.model_validate(yaml.safe_load(textwrap.dedent(block)))
    assert file.kinds is not None
    assert set(file.kinds) == {"chat", "agent", "question"}
    assert file.arrivals is not None
