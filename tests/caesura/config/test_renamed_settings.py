"""Engine settings that have another name today are read under the older one, wherever it stands, and a note says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from caesura.config.experiment import read_experiment_file
from caesura.config.overrides import parse_override
from caesura.config.systems import load_preset
from caesura.errors import ConfigError
from caesura.fidelity.record_runs import _same_rules
from caesura.fidelity.replays import find_recordings
from profiler.serving.recorded_run import SHIPPED, load
from sim.engine.settings import RENAMED_SETTINGS, EngineSettings, with_current_names

OLD = "systems:\n  - preset: infercept\n    engine:\n      reentry: tail\n"
HEAD = "workload: {arrivals: {poisson: {rate: 2}}, duration: 5 s}\n"
NOTE = "caesura: note: x.yaml, line 5: the engine setting 'reentry' is now called 'requeue_at'\n"


def test_older_names_lead_to_settings_and_are_none_themselves():
    assert set(RENAMED_SETTINGS.values()) <= set(EngineSettings.model_fields)
    assert not RENAMED_SETTINGS.keys() & set(EngineSettings.model_fields)
    assert with_current_names({"reentry": "tail", "swap": "blocking"}) == {"requeue_at": "tail", "swap": "blocking"}
    assert EngineSettings.model_validate({"reentry": "tail"}) == EngineSettings(requeue_at="tail")
    with pytest.raises(ValidationError, match="reentry is the older name of requeue_at; keep one of them"):
        EngineSettings.model_validate({"reentry": "tail", "requeue_at": "tail"})


def test_an_experiment_may_say_the_older_name(
    experiment: Callable[[str], Path], folder: Path, capsys: pytest.CaptureFixture[str]
):
    experiment(HEAD + OLD)
    (system,) = read_experiment_file(Path("x.yaml")).systems
    assert system.engine.requeue_at == "tail"
    assert capsys.readouterr().err == NOTE


def test_what_is_wrong_with_its_value_still_names_its_line(experiment: Callable[[str], Path], folder: Path):
    experiment(HEAD + OLD.replace("tail", "tial"))
    with pytest.raises(ConfigError, match=r"x.yaml, line 5: systems\[0\].engine.requeue_at: .* did you mean 'tail'"):
        read_experiment_file(Path("x.yaml"))


def test_both_names_at_once_are_refused(experiment: Callable[[str], Path], folder: Path):
    experiment(HEAD + OLD + "      requeue_at: arrival\n")
    with pytest.raises(ConfigError, match=r"x.yaml, line 5.*engine.reentry: this is the older name of requeue_at"):
        read_experiment_file(Path("x.yaml"))


def test_an_option_with_the_older_name_overrides_the_file(
    experiment: Callable[[str], Path], folder: Path, capsys: pytest.CaptureFixture[str]
):
    experiment(HEAD + OLD.replace("reentry", "requeue_at"))
    options = [parse_override("systems.infercept.engine.reentry=arrival")]
    (system,) = read_experiment_file(Path("x.yaml"), options).systems
    assert system.engine.requeue_at == "arrival"
    assert "--set systems.infercept.engine.reentry: the engine setting 'reentry' is now" in capsys.readouterr().err


def test_presets_and_groups_of_replicas_may_say_the_older_name(experiment: Callable[[str], Path], folder: Path):
    (folder / "own.yaml").write_text("extends: vllm\nengine: {swapped_first: false}\n")
    assert load_preset("vllm").engine.swap_in_before_prefill
    assert not load_preset("own.yaml", folder).engine.swap_in_before_prefill
    group = "cluster: {replicas: [{count: 2, engine: {resume_resident: queue}}]}\nsystems: [vllm]\n"
    experiment(HEAD + group)
    cluster = read_experiment_file(Path("x.yaml")).cluster
    assert cluster is not None and cluster.groups[0].engine == {"resume_on_gpu": "queue"}


def test_a_run_folder_with_older_names_is_explained(caesura: Callable, experiment: Callable[[str], Path], folder: Path):
    experiment(HEAD + "systems: [infercept]\n")
    assert caesura("run", "x.yaml", "--out", "o").code == 0
    (run,) = (folder / "o" / "runs").iterdir()
    config = yaml.safe_load((run / "config.yaml").read_text())
    engine = config["systems"][0]["engine"]
    config["systems"][0]["engine"] = {
        {new: old for old, new in RENAMED_SETTINGS.items()}.get(name, name): value for name, value in engine.items()
    }
    assert "reentry" in config["systems"][0]["engine"]
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    said = caesura("explain", str(run), "--session", "median")
    assert said.code == 0
    assert "the session's row came out the same, to the last bit" in " ".join(said.out.split())
    assert "'reentry' is now called 'requeue_at'" in said.err


def old_recording(folder: Path, **engine: object) -> Path:
    """A shipped recording with other engine settings in its file; None takes one out."""
    source = SHIPPED / "h200-llama-3.1-8b" / "infercept.load-8"
    facts = json.loads((source / "run.json").read_text())
    settings = facts["rules"]["engine"] | engine
    facts["rules"]["engine"] = {name: value for name, value in settings.items() if value is not None}
    target = folder / source.name
    target.mkdir()
    (target / "run.json").write_text(json.dumps(facts))
    for file in source.glob("*.parquet"):
        (target / file.name).symlink_to(file)
    workload = facts["workload"]["file"]
    (folder / workload).symlink_to(source.parent / workload)
    return target


@pytest.mark.parametrize(
    ("engine", "same"),
    [
        ({}, True),
        ({"sample_layout": None, "streamed_prompts": None}, True),  # made before these settings
        ({"requeue_at": None, "reentry": "arrival"}, True),
        ({"requeue_at": None, "reentry": "tail"}, False),
        ({"watermark": 0.5}, False),
        ({"a_setting_that_is_no_more": 1}, False),
    ],
)
def test_a_recording_is_of_the_system_whose_rules_it_was_made_by(tmp_path: Path, engine: dict, same: bool):
    """Settings that a recording does not name had what is their default today; older names count."""
    run = load(old_recording(tmp_path, **engine))
    assert _same_rules(run.rules, load_preset("infercept")) is same


def test_recordings_with_older_names_are_found_and_a_note_names_the_new_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    old = old_recording(tmp_path, requeue_at=None, reentry="arrival", resume_on_gpu=None, resume_resident="running")
    assert find_recordings(tmp_path) == [old]
    assert capsys.readouterr().err == (
        f"caesura: note: the recordings in {tmp_path}: the engine setting 'reentry' is now called 'requeue_at', "
        "'resume_resident' is now called 'resume_on_gpu'\n"
    )
