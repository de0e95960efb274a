"""Wrong input gives one clear message with file, line or key and the way out; exit code 2; nothing half-written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

GOOD_WORKLOAD = "workload: {arrivals: {poisson: {rate: 2}}, duration: 5 s}\n"
GOOD_SYSTEMS = "systems: [vllm]\n"


def workload(text: str) -> str:
    return f"workload: {{{text}}}\n{GOOD_SYSTEMS}"


def systems(text: str) -> str:
    return f"{GOOD_WORKLOAD}systems: [{text}]\n"


def replica(text: str) -> str:
    return f"{GOOD_WORKLOAD}replica: {{{text}}}\n{GOOD_SYSTEMS}"


POISSON = "arrivals: {poisson: {rate: 2}}"

FILES = {
    # The file itself.
    "empty": ("", ["x.yaml: the file is empty"]),
    "comment only": ("# nothing\n", ["x.yaml: the file is empty"]),
    "text": ("hello\n", ["x.yaml, line 1", "expected 'key: value' lines"]),
    "list": ("- a\n- b\n", ["x.yaml, line 1", "expected 'key: value' lines"]),
    "tab": ("workload:\n\tarrivals: replay\n", ["x.yaml, line 2", "a tab; YAML wants spaces"]),
    "unclosed": ("workload: {arrivals: [\nsystems: [vllm]\n", ["x.yaml, line 3", "not YAML"]),
    "bad indent": ("workload:\n  a: 1\n b: 2\n", ["x.yaml, line 3", "not YAML"]),
    "two documents": ("a: 1\n---\nb: 2\n", ["x.yaml, line 2", "not YAML"]),
    "key twice": (GOOD_WORKLOAD + GOOD_SYSTEMS * 2, ["x.yaml, line 3: systems", "already given in line 2"]),
    "nested key twice": (
        "workload:\n  duration: 5\n  duration: 6\n",
        ["x.yaml, line 3: workload.duration", "already given in line 2"],
    ),
    "alias in itself": ("workload: &a\n  b: *a\n", ["line", "contains itself"]),
    "odd tag": ("workload: !!python/object:os.system {}\n", ["x.yaml, line 1: workload"]),
    # Keys.
    "unknown key": (GOOD_WORKLOAD + "systms: [vllm]\n", ["line 2: systms: unknown key", "did you mean 'systems'?"]),
    "unknown deep key": (workload("arrivals: {poisson: {rat: 2}}"), ["poisson.rat: unknown key", "'rate'", "line 1"]),
    "unknown engine key": (
        systems("{preset: vllm, engine: {block_sise: 8}}"),
        ["line 2: systems[0].engine.block_sise", "did you mean 'block_size'?"],
    ),
    "no workload": (GOOD_SYSTEMS, ["workload: this key is missing"]),
    "no systems": (GOOD_WORKLOAD, ["systems: this key is missing"]),
    "no arrivals": (workload("duration: 5 s"), ["line 1: workload.arrivals: this key is missing"]),
    "no rate": (workload("arrivals: {poisson: {}}"), ["poisson.rate: this key is missing"]),
    "no burstiness": (workload("arrivals: {gamma: {rate: 1}}"), ["gamma.burstiness: this key is missing"]),
    # Types and ranges.
    "workload a text": ("workload: mix\n" + GOOD_SYSTEMS, ["line 1: workload: expected a mapping", "'mix'"]),
    "negative rate": (workload("arrivals: {poisson: {rate: -1}}"), ["poisson.rate: expected more than 0, not -1"]),
    "zero in a list": (workload("arrivals: {poisson: {rate: [1, 0]}}"), ["rate[1]: expected more than 0"]),
    "rate a word": (workload("arrivals: {poisson: {rate: fast}}"), ["expected a number, not 'fast'"]),
    "rate a switch": (workload("arrivals: {poisson: {rate: yes}}"), ["rate: expected a number, not true or false"]),
    "rate not finite": (workload("arrivals: {poisson: {rate: .inf}}"), ["poisson.rate"]),
    "no rates": (workload("arrivals: {poisson: {rate: []}}"), ["poisson.rate: expected at least one entry"]),
    "rate twice": (workload("arrivals: {poisson: {rate: [2, 2]}}"), ["the load 2 is listed twice"]),
    "burstiness zero": (workload("arrivals: {gamma: {rate: 1, burstiness: 0}}"), ["gamma.burstiness: expected"]),
    "two processes": (
        workload("arrivals: {poisson: {rate: 1}, gamma: {rate: 1, burstiness: 1}}"),
        ["workload.arrivals: expected exactly one of poisson, gamma, ", "; poisson and gamma given"],
    ),
    "unknown process": (workload("arrivals: poisson"), ["workload.arrivals: expected {poisson: {rate: 2}}"]),
    "negative duration": (workload(f"{POISSON}, duration: -5 s"), ["workload.duration: '-5 s' must be more than 0"]),
    "duration a word": (workload(f"{POISSON}, duration: soon"), ["'soon' is not a quantity", "'5 min'"]),
    "duration in bytes": (workload(f"{POISSON}, duration: 5 GB"), ["unknown unit 'GB'"]),
    "duration a list": (workload(f"{POISSON}, duration: [5]"), ["[5] is not a quantity"]),
    "too long what": (workload(f"{POISSON}, too_long: chop"), ["too_long: expected cut or reject, not 'chop'"]),
    "max_context a word": (workload(f"{POISSON}, max_context: big"), ["max_context: expected a whole number"]),
    "max_context too large": (workload(f"{POISSON}, max_context: 9999"), ["9999 tokens", "at most 2048"]),
    "max_context one": (workload(f"{POISSON}, max_context: 1"), ["max_context: expected at least 2"]),
    "pool without unit": (replica("kv_capacity: 24"), ["replica.kv_capacity: 24 needs a unit", "'24 GB'"]),
    "pool negative": (replica("kv_capacity: -1 GB"), ["replica.kv_capacity", "must be more than 0"]),
    "pool too small": (replica("kv_capacity: 16 tokens"), ["16 tokens of KV cache; vllm needs at least 32"]),
    "horizon zero": (replica("horizon: 0"), ["replica.horizon: 0 must be more than 0"]),
    "systems a text": (GOOD_WORKLOAD + "systems: vllm\n", ["line 2: systems: expected a list, not 'vllm'"]),
    "no system": (systems(""), ["systems: expected at least one entry"]),
    "system a number": (systems("3"), ["systems[0]: expected a preset's name"]),
    "system twice": (systems("vllm, vllm"), ["systems[1]: 'vllm' is listed already"]),
    "engine switch": (systems("{preset: vllm, engine: {swap: overlaped}}"), ["did you mean 'overlapped'?"]),
    "engine range": (systems("{preset: vllm, engine: {block_size: 0}}"), ["block_size: expected at least 1, not 0"]),
    "engine union": (
        systems("{preset: vllm, engine: {token_budget: many}}"),
        ["token_budget: expected a whole number or saturation, not 'many'"],
    ),
    "system nameless": (systems("{policy: discard}"), ["systems[0]: a system without a preset needs a name"]),
    "system of nothing": (systems("{name: mine}"), ["systems[0]: a system needs a preset", "or a policy"]),
    "name of a folder": (systems("{preset: vllm, name: a/b}"), ["name 'a/b' may hold only letters"]),
    "seeds zero": (GOOD_WORKLOAD + GOOD_SYSTEMS + "seeds: 0\n", ["line 3: seeds: expected at least 1 seed"]),
    "seeds a word": (GOOD_WORKLOAD + GOOD_SYSTEMS + "seeds: many\n", ["seeds: expected a list, not 'many'"]),
    "seed twice": (GOOD_WORKLOAD + GOOD_SYSTEMS + "seeds: [1, 1]\n", ["seeds: a seed is listed twice"]),
    "objective negative": (
        GOOD_WORKLOAD + GOOD_SYSTEMS + "objective: {normalized_latency: -1}\n",
        ["objective.normalized_latency: -1 must be more than 0"],
    ),
    # Names and files that are not there.
    "unknown system": (systems("infercep"), ["systems[0]: unknown system 'infercep'; did you mean 'infercept'?"]),
    "unknown preset": (systems("{preset: vlm, name: a}"), ["unknown system 'vlm'; did you mean 'vllm'?"]),
    "unknown policy": (systems("{name: a, policy: discord}"), ["no such name", "'discord'", "'discard'"]),
    "unknown order": (systems("{preset: vllm, order: fcfz}"), ["order: no such name", "fcfs"]),
    "policy module missing": (systems("{name: a, policy: 'nowhere:Policy'}"), ["cannot import 'nowhere'"]),
    "policy class missing": (systems("{name: a, policy: 'json:Policy'}"), ["has no class 'Policy'"]),
    "policy no policy": (systems("{name: a, policy: 'json:JSONDecoder'}"), ["not a subclass of"]),
    "policy argument": (
        systems("{name: a, policy: {name: discard, eagerly: 1}}"),
        ["systems[0]: policy: 'discard'", "eagerly"],
    ),
    "unknown profile": (replica("profile: published/gpt-j-6b"), ["unknown profile", "published/gpt-j-6b-a100-40g"]),
    "unknown trace": (workload(f"{POISSON}, trace: infercept-mux"), ["did you mean 'infercept-mix'?"]),
    "trace file missing": (workload(f"{POISSON}, trace: no/such.jsonl"), ["no/such.jsonl is not there"]),
    "trace a number": (workload(f"{POISSON}, trace: 3"), ["workload.trace: expected a shipped trace's name, the path"]),
    "trace weights": (
        workload(f"{POISSON}, trace: {{generate: {{weights: {{chess: 1}}}}}}"),
        ["generate.weights.chess: expected math, qa"],
    ),
    "all weights zero": (workload(f"{POISSON}, trace: {{generate: {{weights: {{qa: 0}}}}}}"), ["all weights are 0"]),
    "replay of no arrivals": (workload("arrivals: replay"), ["records no arrivals to replay"]),
    "replay of a draw": (workload("arrivals: replay, trace: {generate: {}}"), ["records no arrivals to replay"]),
    "replay with seeds": (workload("arrivals: replay") + "seeds: 2\n", ["a replay draws nothing"]),
    "nobody arrives": (workload("arrivals: {poisson: {rate: 0.001}}, duration: 1 ms"), ["no session arrives within"]),
}


@pytest.mark.parametrize("case", FILES)
def test_a_wrong_file_gives_one_clear_message(case: str, caesura: Callable, experiment: Callable, folder: Path) -> None:
    text, expected = FILES[case]
    experiment(text)

    said = caesura("run", "x.yaml", "--out", "results")

    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith("caesura: ")
    assert "Traceback" not in said.err
    for words in expected:
        assert words in said.err
    assert [file.name for file in folder.iterdir()] == ["x.yaml"], "something was written"


def test_every_fault_is_named_at_once(caesura: Callable, experiment: Callable) -> None:
    experiment("workload:\n  arrivals: {poisson: {rate: -1}}\n  duratoin: 5 s\nsystems: [vllm]\nseeds: 0\n")
    said = caesura("run", "x.yaml")
    assert [line.split(": ")[1] for line in said.err.splitlines()] == [
        "x.yaml, line 2",
        "x.yaml, line 3",
        "x.yaml, line 5",
    ]


COMMANDS = {
    "no file": (["run", "y.yaml"], ["y.yaml: there is no such file; . holds x.yaml"]),
    "a folder": (["run", "."], ["is a folder; name a YAML file"]),
    "no argument": (["run"], ["Missing argument"]),
    "no command": (["frobnicate"], ["No such command"]),
    "option unknown": (["run", "x.yaml", "--output", "a"], ["No such option"]),
    "out is a file": (["run", "x.yaml", "--out", "x.yaml"], ["x.yaml is a file; choose another folder with --out"]),
    "out is taken": (["run", "x.yaml", "--out", "."], ["is not empty and holds no comparison"]),
    "out cannot be": (["run", "x.yaml", "--out", "x.yaml/deep"], ["cannot be written", "--out"]),
    "jobs zero": (["run", "x.yaml", "--jobs", "0"], ["--jobs"]),
    "set without value": (["run", "x.yaml", "--set", "seeds"], ["--set seeds: expected KEY=VALUE"]),
    "set no key": (["run", "x.yaml", "--set", "=3"], ["expected KEY=VALUE"]),
    "set not YAML": (["run", "x.yaml", "--set", "seeds=[1"], ["'[1' is not YAML"]),
    "set unknown": (["run", "x.yaml", "--set", "seed=3"], ["caesura: --set seed: unknown key; did you mean 'seeds'?"]),
    "set deep unknown": (["run", "x.yaml", "--set", "a.b=3"], ["--set a.b: a: unknown key"]),
    "set negative": (
        ["run", "x.yaml", "--set", "workload.duration=-1"],
        ["--set workload.duration: "],
    ),
    "set no such item": (["run", "x.yaml", "--set", "systems.7=vllm"], ["the list has items 0 to 1; there is no '7'"]),
    "rates no numbers": (["compare", "--rates", "1,fast"], ["--rates '1,fast': expected numbers"]),
    "rates negative": (
        ["compare", "--rates", "-1"],
        ["--rates: workload.arrivals.poisson.rate[0]: expected more than 0"],
    ),
    "systems unknown": (["compare", "--systems", "vllm,swop"], ["--systems", "did you mean 'swap'?"]),
    "systems empty": (["compare", "--systems", "vllm,,swap"], ["expected names with commas"]),
    "duration wrong": (["compare", "--duration", "5 weeks"], ["--duration", "unknown unit 'weeks'"]),
    "seeds wrong": (["compare", "--seeds", "0"], ["--seeds: seeds: expected at least 1 seed"]),
    "profile wrong": (["compare", "--profile", "gpt-4"], ["--profile", "unknown profile 'gpt-4'"]),
    "trace wrong": (["compare", "--trace", "nope.jsonl"], ["--trace", "nope.jsonl is not there"]),
    "objective wrong": (["compare", "--objective", "fast"], ["--objective", "'fast' is not a quantity"]),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_a_wrong_command_line_gives_one_clear_message(
    case: str, caesura: Callable, experiment: Callable, folder: Path
) -> None:
    words, expected = COMMANDS[case]
    experiment()

    said = caesura(*words)

    assert said.code == 2
    assert "Traceback" not in said.err
    for part in expected:
        assert part in said.err
    assert [file.name for file in folder.iterdir()] == ["x.yaml"]


def test_a_file_that_is_not_text_is_named(caesura: Callable, folder: Path) -> None:
    (folder / "x.yaml").write_bytes(b"systems: \xff\xfe")
    said = caesura("run", "x.yaml")
    assert said.code == 2
    assert "x.yaml is not a text file in UTF-8" in said.err


TRACE_LINES = {
    "not JSON": ("{", "line 2"),
    "no calls": ('{"id": "b", "prompt": 5, "arrival": 1}', "line 2"),
    "negative prompt": ('{"id": "b", "prompt": -5, "arrival": 1, "calls": [{"output": 3}]}', "line 2"),
    "output a word": ('{"id": "b", "prompt": 5, "arrival": 1, "calls": [{"output": "x"}]}', "line 2"),
}


@pytest.mark.parametrize("case", TRACE_LINES)
def test_a_malformed_trace_line_is_named(case: str, caesura: Callable, experiment: Callable, folder: Path) -> None:
    line, expected = TRACE_LINES[case]
    (folder / "t.jsonl").write_text(
        '{"id": "a", "prompt": 5, "arrival": 0.5, "calls": [{"output": 3}]}\n' + line + "\n"
    )
    experiment(workload(f"{POISSON}, trace: t.jsonl"))
    said = caesura("run", "x.yaml", "--out", "results")
    assert said.code == 2
    assert "x.yaml, line 1: workload.trace" in said.err
    assert f"t.jsonl, {expected}" in said.err
    assert not (folder / "results").exists()


PRESETS = {
    "circle": ("extends: p.yaml\n", "extend each other in a circle"),
    "unknown parent": ("extends: vlllm\n", "unknown system 'vlllm'; did you mean 'vllm'?"),
    "unknown key": ("policy: discard\nengin: {}\n", "p.yaml, line 2: engin: unknown key; did you mean 'engine'?"),
    "no policy": ("summary: nothing\n", "has no policy"),
    "negative": ("policy: discard\nengine:\n  max_running: -1\n", "p.yaml, line 3: engine.max_running: expected"),
}


@pytest.mark.parametrize("case", PRESETS)
def test_a_wrong_preset_file_is_named(case: str, caesura: Callable, experiment: Callable, folder: Path) -> None:
    text, expected = PRESETS[case]
    (folder / "p.yaml").write_text(text)
    experiment(systems("p.yaml"))
    said = caesura("run", "x.yaml")
    assert said.code == 2
    assert expected in said.err


def test_a_wrong_profile_file_is_named(caesura: Callable, experiment: Callable, folder: Path) -> None:
    (folder / "gpu.yaml").write_text("name: mine\nmodel: m\ngpu: g\norigin: guess\n")
    experiment(replica("profile: gpu.yaml"))
    said = caesura("run", "x.yaml")
    assert said.code == 2
    assert "gpu.yaml, line 4: origin: expected measured, published or estimate, not 'guess'" in said.err
    assert "kv_bytes_per_token: this key is missing" in said.err


POLICIES = {
    "raises": ("raise RuntimeError('out of ideas')", "RuntimeError: out of ideas"),
    "nonsense": ("return 42", "expected Preserve, Swap or Discard, got 42"),
}


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("case", POLICIES)
def test_a_policy_that_fails_is_named_with_session_and_time(
    case: str, jobs: str, caesura: Callable, experiment: Callable, folder: Path
) -> None:
    body, expected = POLICIES[case]
    module = f"policy_{case}_{jobs}"
    (folder / f"{module}.py").write_text(
        "from policies.contract import InterceptPolicy\n"
        f"class Mine(InterceptPolicy):\n    def on_pause(self, paused, view):\n        {body}\n"
    )
    experiment(
        "workload: {arrivals: {poisson: {rate: [2, 3]}}, duration: 10 s}\n"
        f"systems: [{{name: mine, policy: '{module}:Mine'}}]\n"
    )
    said = caesura("run", "x.yaml", "--out", "results", "--jobs", jobs)
    assert said.code == 2
    assert "mine at load" in said.err
    assert f"{module}:Mine" in said.err
    assert "session" in said.err
    assert expected in said.err
    assert not (folder / "results").exists()


def test_sessions_that_cannot_fit_are_counted_and_the_reason_is_said(caesura: Callable, experiment: Callable) -> None:
    experiment(replica("kv_capacity: 64 tokens"))
    said = caesura("run", "x.yaml")
    assert said.code == 0
    assert "sessions rejected (most often: its context grows to" in said.out


def test_load_of_a_folder_without_results_says_so(folder: Path) -> None:
    import caesura as package

    with pytest.raises(package.UserError, match=r"holds no results of Caesura .*comparison.json is missing"):
        package.load(folder)
