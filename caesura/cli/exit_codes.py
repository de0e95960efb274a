"""How a command ends: wrong input in one message, an interruption in one line, a pipe that is closed in silence."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType

import typer

from caesura.errors import UserError

INTERRUPTED = 130
TERMINATED = 143
WRONG_INPUT = 2


@contextlib.contextmanager
def with_exit_codes(when_interrupted: str) -> Iterator[None]:
    """Wrong input: one message and exit code 2. Ctrl-C: one line and exit code 130; so SIGTERM, with code 143. A closed
    pipe: nothing, and 0."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except (UserError, ValueError) as error:
        if not _is_wrong_input(error):
            raise
        for line in str(error).splitlines():
            print(f"caesura: {line}", file=sys.stderr)
        raise typer.Exit(WRONG_INPUT) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None
    except KeyboardInterrupt as interruption:
        print(f"caesura: {when_interrupted}", file=sys.stderr)
        raise typer.Exit(TERMINATED if isinstance(interruption, _Terminated) else INTERRUPTED) from None
    finally:
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN:
            signal.signal(signal.SIGTERM, before)


class _Terminated(KeyboardInterrupt):
    """SIGTERM: the process that started workers ends them, as after Ctrl-C."""


def _terminate(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # ``timeout`` sends it twice
    raise _Terminated


def _is_wrong_input(error: Exception) -> bool:
    from traces.errors import TraceError
    from traces.readers import UnknownFormat

    return isinstance(error, UserError | TraceError | UnknownFormat)
