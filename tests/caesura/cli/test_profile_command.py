"""``caesura profile``: a profile folder, or one line that says why there is none."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from caesura.config import paths
from caesura.config.profiles import read_profile


def test_a_profile_is_fitted_anew_from_the_samples_that_ship_with_it(folder: Path, caesura: Callable):
    shutil.copytree(paths.profiles() / "h200" / "llama-3.1-8b" / "samples", folder / "mine" / "samples")
    said = caesura("profile", "--out", "mine", "--refit")
    assert said.code == 0, said.err
    assert "Errors of the fitted costs" in said.out and "Profile: mine/profile.yaml" in said.out
    assert read_profile("mine").gpu == "NVIDIA H200"


def test_samples_of_another_model_are_not_fitted_as_this_one(folder: Path, caesura: Callable):
    shutil.copytree(paths.profiles() / "h200" / "llama-3.1-8b" / "samples", folder / "mine" / "samples")
    said = caesura("profile", "--model", "vicuna-13b", "--out", "mine", "--refit")
    assert said.code == 2
    assert "samples of llama-3.1-8b, not of vicuna-13b" in said.err
    assert not (folder / "mine" / "profile.yaml").exists()


def test_a_model_is_asked_for_where_there_are_no_samples_to_know_it(folder: Path, caesura: Callable):
    said = caesura("profile", "--out", "here", "--device", "cpu")
    assert said.code == 2
    assert "--model llama-3.1-8b" in said.err
    assert not (folder / "here").exists()


def test_a_budget_that_does_not_suffice_is_no_loss(folder: Path, caesura: Callable):
    said = caesura("profile", "--model", "tiny", "--out", "here", "--device", "cpu", "--budget", "0.3 s", "--quiet")
    assert said.code == 2
    assert "the same command goes on measuring where this one stopped" in said.err
    assert (folder / "here" / "samples" / "copies.csv").is_file()
    assert not (folder / "here" / "profile.yaml").exists()


WRONG = {
    "no GPU": ([], "no CUDA GPU here"),
    "no such device": (["--device", "tpu"], "there is no device 'tpu'"),
    "no such GPU kind": (["--device", "mps"], "runs on cuda and cpu"),
    "no such model": (["--model", "tinny", "--device", "cpu"], "no model 'tinny'; there is"),
    "model file": (
        ["--model", "m.yaml", "--device", "cpu"],
        "m.yaml, line 1: layer: unknown key; did you mean 'layers'?",
    ),
    "budget": (["--budget", "8 weeks"], "--budget: '8 weeks' has an unknown unit"),
    "no budget": (["--budget", "0 s"], "--budget: '0 s' must be more than 0"),
    "nothing to fit": (["--refit"], "there are no samples"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_measured_is_one_line(case: str, folder: Path, caesura: Callable):
    words, expected = WRONG[case]
    (folder / "m.yaml").write_text("layer: 2\n")
    said = caesura("profile", "--model", "tiny", "--out", "here", *words)
    assert said.code == 2
    assert expected in said.err and "Traceback" not in said.err
    assert not (folder / "here").exists()


@pytest.mark.parametrize("command", [["profile"]])
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    command: list[str], folder: Path, caesura: Callable, monkeypatch: pytest.MonkeyPatch
):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else real(name, *rest))
    said = caesura(*command, "--model", "tiny", "--out", "here")
    assert said.code == 2
    assert said.err == (
        "caesura: torch is not installed, and the real backend needs it: for a CPU pip install -e '.[torch]' in the "
        "folder of Caesura's source, for a GPU pip install -e '.[gpu]' in the folder of Caesura's source\n"
    )
