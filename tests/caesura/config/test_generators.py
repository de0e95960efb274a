"""Generators in experiments: written beside them or in a file of their own, with faults named by line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml

from caesura.cli.options import experiment_from_options
from caesura.config.experiment import ResolvedExperiment, read_experiment_file
from caesura.config.overrides import parse_override
from caesura.config.schema import json_schema
from caesura.config.workload import make_sessions, with_broadcast
from caesura.errors import ConfigError
from caesura.runs.run import _lender_hash, expand
from traces import Session, read_sessions

GENERATOR = """\
description: a made-up agent beside the chat sessions of InferCept
arrivals: {bursts: {rate: 4, busy: 5 s, quiet: 5 s, quiet_rate: 0.2}}
sessions: 200
kinds:
  chat: {weight: 1, augmentation: chat, pauses: [{waits_for: user, seconds: {dist: lognorm, s: 1.2, scale: 2.0}}]}
  agent:
    weight: 3
    calls: {dist: nbinom, n: 2, p: 0.3, min: 1}
    prompt: {dist: lognorm, s: 0.5, scale: 800, max: 4000}
    output: {dist: gamma, a: 2, scale: 40}
    pauses:
      - {tool: search, share: 3, seconds: {quantiles: [0.1, 0.5, 9]}, returned: {values: [10, 20], weights: [1, 3]}}
      - {waits_for: user, seconds: 20, returned: {dist: expon, scale: 40, zeros: 0.2}, then: {"tool:search": 1}}
    rewrites: {share: 0.1, shrinks_to: 0.9, keeps: {dist: beta, a: 2, b: 2}}
    alike: {output: 0.3}
"""
EXPERIMENT = "workload: {generator: g.yaml, duration: 20 s}\nsystems: [vllm]\n"


Reader = Callable[..., ResolvedExperiment]


@pytest.fixture
def setup_of(folder: Path) -> Reader:
    def read(experiment: str = EXPERIMENT, generator: str = GENERATOR) -> ResolvedExperiment:
        (folder / "g.yaml").write_text(generator)
        (folder / "x.yaml").write_text(experiment)
        return read_experiment_file(folder / "x.yaml")

    return read


def sessions_of(setup: ResolvedExperiment, run: int = 0) -> tuple[Session, ...]:
    return make_sessions(expand(setup)[run].workload).sessions


def test_a_generator_file_stands_for_trace_and_arrivals(setup_of: Reader) -> None:
    setup = setup_of()
    assert setup.workload.arrivals.loads == [4.0]
    sessions = sessions_of(setup)
    assert {session.kind for session in sessions} == {"chat", "agent"}
    agents = [session for session in sessions if session.kind == "agent"]
    assert {pause.returned for s in agents for pause in s.pauses if pause.tool and pause.keeps is None} == {10, 20}
    assert sessions == sessions_of(setup_of())


def test_an_experiment_may_say_otherwise_how_sessions_arrive(setup_of: Reader) -> None:
    setup = setup_of(EXPERIMENT.replace("g.yaml,", "g.yaml, arrivals: {weibull: {rate: [1, 2], shape: 0.5}},"))
    assert setup.workload.arrivals.loads == [1.0, 2.0]
    assert len(expand(setup)) == 2


def test_the_k_th_session_is_the_same_at_every_rate_and_for_every_process(
    setup_of: Reader,
) -> None:
    processes = (
        "{poisson: {rate: [2, 5]}}",
        "{weibull: {rate: 3, shape: 0.5}}",
        "{diurnal: {rate: 3, swing: 0.5, period: 20 s}}",
    )
    drawn = []
    for arrivals in processes:
        setup = setup_of(EXPERIMENT.replace("g.yaml,", f"g.yaml, arrivals: {arrivals},"))
        drawn += [sessions_of(setup, run) for run in range(len(expand(setup)))]
    shortest = min(map(len, drawn))
    assert shortest > 10
    assert len({tuple((s.id, s.prompt, s.calls) for s in some[:shortest]) for some in drawn}) == 1


def test_the_folder_of_a_run_repeats_it(setup_of: Reader, folder: Path) -> None:
    run = expand(setup_of())[0]
    (folder / "again.yaml").write_text(yaml.safe_dump(run.config))
    assert make_sessions(expand(read_experiment_file(folder / "again.yaml"))[0].workload) == make_sessions(run.workload)


def test_arrivals_may_be_those_of_another_trace(setup_of: Reader, folder: Path) -> None:
    """Recorded at 5, 6 and 9 s: at twice the speed sessions of the mix arrive at 0, 0.5 and 2 s."""
    lines = [f'{{"id": "{t}", "arrival": {t}, "prompt": 9, "calls": [{{"output": 1}}]}}\n' for t in (6, 5, 9)]
    (folder / "lender.jsonl").write_text("".join(lines))
    replay = (
        "workload: {arrivals: {replay: {trace: lender.jsonl, speed: 2}}, duration: 9 s}\nsystems: [vllm]\nseeds: 2\n"
    )
    setup = setup_of(replay)
    assert [session.arrival for session in sessions_of(setup)] == [0.0, 0.5, 2.0]
    assert sessions_of(setup, 0) != sessions_of(setup, 1)
    before = expand(setup)[0].key
    with with_broadcast({str(folder / "lender.jsonl"): tuple(read_sessions(folder / "lender.jsonl")[:2])}):
        _lender_hash.cache_clear()
        assert expand(setup)[0].key != before
    _lender_hash.cache_clear()
    assert expand(setup)[0].key == before


GENERATOR_FAULTS = {
    "no such distribution": ("nbinom", "nbinm", "g.yaml, line 8: kinds.agent.calls: scipy.stats has no distribution"),
    "a parameter missing": ("s: 0.5, ", "", "g.yaml, line 9: kinds.agent.prompt: lognorm lacks its parameter 's'"),
    "a parameter that is no number": ("a: 2, scale: 40", "a: two", "line 10: kinds.agent.output.a: expected a number"),
    "quantiles fall": ("[0.1, 0.5, 9]", "[3, 2]", "line 12: kinds.agent.pauses[0].seconds: quantiles must ascend"),
    "weights do not match": ("[1, 3]", "[1]", "kinds.agent.pauses[0].returned: 2 values but 1 weights"),
    "an unknown pause": ('search": 1}', 'serch": 1}', "kinds.agent: user.then names 'tool:serch'; the pauses are"),
    "another pause": ("user, seconds: {d", "bob, seconds: {d", "chat sessions do not wait for 'bob', only for user"),
    "an augmentation with lengths": (
        "tion: chat",
        "tion: chat, calls: 2",
        "calls cannot be given with an augmentation",
    ),
    "a key": ("rewrites", "rewrite", "g.yaml, line 14: kinds.agent.rewrite: unknown key; did you mean 'rewrites'?"),
    "a negative time": ("[0.1, 0.5, 9]", "[-1, 2]", "kinds.agent.pauses[0].seconds: -1 is below 0"),
    "arrivals": ("quiet: 5 s, ", "", "g.yaml, line 2: arrivals.bursts.quiet: this key is missing"),
    "no arrivals": ("arrivals:", "# arrivals:", "x.yaml, line 1: workload.generator: neither it nor this file says"),
    "a share above 1": ("{share: 0.1", "{share: 2", "line 14: kinds.agent.rewrites.share: expected at most 1, not 2"),
}


@pytest.mark.parametrize("case", GENERATOR_FAULTS)
def test_a_wrong_generator_file_is_named_with_line_and_key(case: str, setup_of: Reader) -> None:
    good, bad, expected = GENERATOR_FAULTS[case]
    assert good in GENERATOR
    with pytest.raises(ConfigError) as error:
        setup_of(generator=GENERATOR.replace(good, bad))
    assert expected in str(error.value)


EXPERIMENT_FAULTS = {
    "a trace, too": ("g.yaml,", "g.yaml, trace: infercept-mix,", "line 1: workload.generator: a trace is given, too"),
    "no such file": ("g.yaml,", "h.yaml,", "h.yaml: there is no such file"),
    "a generator as a trace": (
        "generator: g.yaml",
        "trace: g.yaml, arrivals: {poisson: {rate: 1}}",
        "g.yaml is no trace; if it is a generator file, write generator: g.yaml instead of trace, "
        "or --set workload.generator=g.yaml on the command line",
    ),
    "no such lender": (
        "g.yaml,",
        "g.yaml, arrivals: {replay: {trace: no.jsonl}},",
        "workload.arrivals.replay.trace: the",
    ),
    "a lender without arrivals": (
        "g.yaml,",
        "g.yaml, arrivals: {replay: {trace: infercept-mix}},",
        "line 1: workload.arrivals.replay.trace: the trace infercept-mix records no arrivals; name one that does",
    ),
    "a swing above 1": (
        "g.yaml,",
        "g.yaml, arrivals: {diurnal: {rate: 1, swing: 2}},",
        "line 1: workload.arrivals.diurnal.swing: expected at most 1, not 2",
    ),
}


@pytest.mark.parametrize("case", EXPERIMENT_FAULTS)
def test_a_wrong_experiment_is_named_with_line_and_key(case: str, setup_of: Reader) -> None:
    good, bad, expected = EXPERIMENT_FAULTS[case]
    with pytest.raises(ConfigError) as error:
        setup_of(EXPERIMENT.replace(good, bad))
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("workload", "holds"),
    [
        ({"generator": "g.yaml"}, True),
        ({"generator": "g.yaml", "trace": "t.jsonl"}, False),
        ({"trace": "t.jsonl"}, False),
        ({"arrivals": {"bursts": {"rate": 1, "busy": "5 s", "quiet": 3}}}, True),
        ({"arrivals": {"bursts": {"rate": 1, "busy": "5 s"}}}, False),
        ({"arrivals": {"replay": {"trace": "t.jsonl"}}}, True),
        ({"generator": "g.yaml", "arrivals": {"diurnal": {"rate": [1, 2], "swing": 0.5}}}, True),
        (yaml.safe_load(GENERATOR)["kinds"] and {"generator": "g.yaml", "kinds": {}}, False),
    ],
)
def test_the_published_schema_knows_generators(workload: dict[str, object], holds: bool) -> None:
    import json

    schema = jsonschema.Draft202012Validator(json.loads(json_schema()))
    assert schema.is_valid({"workload": workload, "systems": ["vllm"]}) is holds


def test_the_published_schema_takes_described_kinds() -> None:
    import json

    kinds = {key: yaml.safe_load(GENERATOR)[key] for key in ("sessions", "kinds")}
    workload = {"trace": {"generate": kinds}, "arrivals": {"poisson": {"rate": 1}}}
    schema = jsonschema.Draft202012Validator(json.loads(json_schema()))
    assert schema.is_valid({"workload": workload, "systems": ["vllm"]})
    kinds["kinds"]["agent"]["prompt"] = {"s": 1.0}
    assert not schema.is_valid({"workload": workload, "systems": ["vllm"]})


def test_a_comparison_without_a_file_takes_a_generator(folder: Path) -> None:
    (folder / "g.yaml").write_text(GENERATOR)
    setup = experiment_from_options([parse_override("workload.generator=g.yaml")])
    assert {session.kind for session in sessions_of(setup)} == {"chat", "agent"}


def test_a_generator_that_an_option_names_displaces_the_trace_of_the_file(folder: Path) -> None:
    (folder / "g.yaml").write_text(GENERATOR)
    (folder / "x.yaml").write_text(EXPERIMENT.replace("generator: g.yaml", "trace: infercept-mix"))
    option = parse_override("workload.generator=g.yaml")
    setup = read_experiment_file(folder / "x.yaml", [option])
    assert {session.kind for session in sessions_of(setup)} == {"chat", "agent"}
    with pytest.raises(ConfigError, match="a trace is given, too; keep one of the two"):
        read_experiment_file(folder / "x.yaml", [option, parse_override("workload.trace=infercept-mix")])
