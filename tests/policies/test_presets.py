"""Every preset in ``configs/systems``: it loads, it runs, and it differs from its twin only in what its name says."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from caesura.config.systems import load_preset, preset_names
from policies.registry import make_order, make_policy
from sim.costs.profile import load_profile
from sim.engine.settings import EngineSettings
from sim.results.run_record import RunRecord
from sim.world.simulate import simulate
from tests.sim.worlds import simulate as watched
from traces import shipped
from traces.draw.arrivals import Poisson, draw_workload
from traces.limits import fit_to_limit
from traces.session import Call, Session

ROOT = Path(__file__).parents[2]
PRESETS = sorted(file.stem for file in (ROOT / "configs" / "systems").glob("*.yaml"))
PROFILE = load_profile(ROOT / "configs" / "profiles" / "published" / "gpt-j-6b-a100-40g")
BATCHING = {"token_budget", "chunked_prefill", "mixed_batches"}
RELEASED_LETTERS = {name for name in PRESETS if name.startswith("released-")}
FORESEEING = RELEASED_LETTERS | {
    "infercept-oracle",
    "infercept-released",
    "lamps-oracle",
    "lamps-noisy",
    "srpt-oracle",
    "caesura-oracle",
}
TWINS = [(name.removesuffix("-chunked"), name) for name in PRESETS if name.endswith("-chunked")]
SINCE_2024 = [
    "cache-lru",
    "lamps",
    "continuum",
    "thunderagent",
    "autellix",
    "mori",
    "tokencake",
    "retention",
    "caesura",
]
TWINS += [(name.removesuffix("-unchunked"), name) for name in PRESETS if name.endswith("-unchunked")]


@cache
def slice_of_the_mix():
    """60 s of the InferCept mix at two sessions a second."""
    drawn = draw_workload(shipped.load("infercept-mix"), Poisson(2.0), 60.0, seed=1)
    return fit_to_limit(drawn, PROFILE.max_context).sessions


@cache
def run(name: str) -> RunRecord:
    system = load_preset(name)
    return simulate(
        slice_of_the_mix(),
        policy=make_policy(system.policy),
        order=make_order(system.order),
        settings=system.engine,
        profile=PROFILE,
    )


def engine(name: str) -> dict[str, object]:
    return load_preset(name).engine.model_dump()


def test_every_file_is_a_preset():
    assert preset_names() == PRESETS
    assert set(PRESETS) >= {"vllm", "improved-discard", "preserve", "swap", "heuristic", "infercept", "cache-lru"}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_what_it_is_and_where_it_comes_from(name):
    system = load_preset(name)
    assert system.summary.endswith(".")
    assert system.origin


def test_the_page_of_policies_has_a_paragraph_for_every_preset_and_shows_figures_that_exist():
    page = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
    headings = "".join(line for line in page.splitlines() if line.startswith("### "))
    assert set(re.findall(r"`([a-z0-9.-]+)`", headings)) == set(PRESETS)
    figures = re.findall(r"\]\((figures/[^)]+)\)", page)
    assert figures and all((ROOT / "docs" / figure).is_file() for figure in figures)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_serves_a_slice_of_the_mix_to_its_end(name):
    record, sessions = run(name), slice_of_the_mix()
    assert record.sessions["status"] == ["finished"] * len(sessions)
    assert record.sessions["output_tokens"] == [session.output_tokens for session in sessions]
    assert record.facts["uses_oracle"] is (name in FORESEEING)


@pytest.mark.parametrize(("plain", "twin"), TWINS)
def test_a_twin_differs_in_batching_only(plain, twin):
    one, other = load_preset(plain), load_preset(twin)
    assert (one.policy, one.order) == (other.policy, other.order)
    assert {key for key, value in engine(plain).items() if engine(twin)[key] != value} == BATCHING


def test_every_baseline_of_the_paper_has_a_chunked_twin():
    unchunked = {name for name in PRESETS if not name.endswith("-unchunked") and not engine(name)["mixed_batches"]}
    assert unchunked - RELEASED_LETTERS == {plain for plain, twin in TWINS if twin.endswith("-chunked")}


@pytest.mark.parametrize("name", [name for name in PRESETS if name.endswith("-chunked")] + SINCE_2024)
def test_chunked_systems_batch_as_infercept_does(name):
    assert {key: engine(name)[key] for key in BATCHING} == {key: engine("infercept")[key] for key in BATCHING}


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("paged-sharing", [3, *[4] * 8, *[6] * 11]),
        ("segment-kv", [3, *[5] * 16, *[7] * 3]),
        ("contiguous-beams", [8] * 20),
    ],
)
def test_samples_lie_as_the_preset_says(name, blocks):
    """A prompt of 40 and two samples of 20, in blocks of 16: 3 blocks, of which the third has 8 tokens, then 19 steps.

    Paged: 2 shared, and two of each from the first write, three from the ninth token on. Segments: the 3 of the prompt,
    and one of each sample, two from the 17th. Contiguous: two buffers of 60 tokens, 4 blocks each, from the beginning.
    """
    system = load_preset(name)
    world = watched(
        [Session("a", 0.0, 40, (Call(20),), samples=2)], policy=make_policy(system.policy),
        order=make_order(system.order), settings=system.engine, profile=PROFILE,
    )  # fmt: skip
    assert [one.blocks for one in world.iterations] == blocks
    assert {key for key, value in engine(name).items() if engine("cache-lru")[key] != value} == {
        "token_budget", "max_running", *(["sample_layout"] if name != "paged-sharing" else []),
    }  # fmt: skip


def test_what_tells_the_baselines_apart():
    """vllm and improved-discard differ in where a resumed session queues; all else is a matter of the policy."""
    assert {key for key, value in engine("vllm").items() if engine("improved-discard")[key] != value} == {"requeue_at"}
    for name in ("preserve", "swap", "heuristic", "heuristic-swap", "heuristic-discard"):
        assert engine(name) == engine("improved-discard")
    for name in ("infercept-oracle", "infercept-no-swap"):
        assert engine(name) == engine("infercept")
    assert load_preset("infercept-oracle").policy == {"name": "min-waste", "estimator": "oracle"}


def test_the_three_fixed_answers_do_what_they_say():
    """Recomputation only under discard, copies only under swap, neither under preserve while memory lasts."""
    vllm, preserve, swap = run("vllm"), run("preserve"), run("swap")
    assert vllm.totals["recomputed_tokens"] > 0 == sum(vllm.sessions["swapped_out_bytes"])
    assert sum(swap.sessions["swapped_out_bytes"]) > 0 == swap.totals["recomputed_tokens"]
    assert preserve.totals["recomputed_tokens"] == 0 == sum(preserve.sessions["swapped_out_bytes"])


# ---- the pages that describe them


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_stands_in_the_policies_page(name):
    assert f"`{name}`" in (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")


def test_the_model_page_lists_every_engine_setting_with_its_default():
    page = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", page, flags=re.MULTILINE))
    written = {True: "yes", False: "no"}
    defaults = {name: field.default for name, field in EngineSettings.model_fields.items()}
    assert rows == {name: written[value] if isinstance(value, bool) else str(value) for name, value in defaults.items()}
