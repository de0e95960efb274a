"""Processes that tests start, with the signals that a terminal's foreground job has.

A process inherits which signals its parent ignores or blocks. Under ``nohup``, in the background of a script or after
``trap '' INT`` a child would not hear the Ctrl-C that a test sends it.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from typing import Any

RESTORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGCHLD)


def restore_signals() -> None:
    """No signal is ignored or blocked any more; runs in the child before it becomes the command."""
    for number in RESTORED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def start(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """Start a command with default signals; ``options`` are those of ``Popen``."""
    return subprocess.Popen(command, text=True, preexec_fn=restore_signals, **options)


def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command with default signals to its end; ``options`` are those of ``subprocess.run``."""
    return subprocess.run(command, text=True, capture_output=True, preexec_fn=restore_signals, **options)
