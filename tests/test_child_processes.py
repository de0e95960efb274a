"""A process that a test starts hears its signals, whatever the parent of the tests ignores or blocks."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import child_processes

ROOT = Path(__file__).parents[1]
NAMES = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGPIPE"]


@pytest.mark.parametrize("name", NAMES)
def test_a_child_dies_of_a_signal_that_this_process_ignores(name: str) -> None:
    number = signal.Signals[name]
    before = signal.signal(number, signal.SIG_IGN)
    try:
        started = child_processes.start(["sleep", "60"])
    finally:
        signal.signal(number, before)
    started.send_signal(number)
    assert started.wait(timeout=30) == -number


def test_a_child_dies_of_a_signal_that_this_process_blocks() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        started = child_processes.start(["sleep", "60"])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    started.send_signal(signal.SIGINT)
    assert started.wait(timeout=30) == -signal.SIGINT


def test_ctrl_c_tests_pass_where_the_parent_ignores_every_signal() -> None:
    """As under ``nohup`` in the background of a script: INT, TERM, HUP and QUIT are ignored from the start."""
    file = "tests/caesura/runs/test_run.py"
    chosen = ("test_ctrl_c_is_one_line_and_exit_code_130[1]", "test_sigterm_is_one_line_and_exit_code_143[kill]")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"{file}::{name}" for name in chosen)]
    line = "trap '' INT TERM HUP QUIT PIPE; exec \"$@\""
    done = subprocess.run(
        ["sh", "-c", line, "sh", *command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout
