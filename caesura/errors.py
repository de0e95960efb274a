"""What a user can mend: one message, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Wrong input from outside: a file, a key, an option, a folder. The message names it and the way out."""


class ConfigError(UserError):
    """A configuration that does not hold; one line per fault, each naming file, line and key."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'rate'?"`` for the closest known word, or nothing when none is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def listed(words: Iterable[str], last: str = ", ") -> str:
    """Words for a message, in the order given: ``a, b, c``, or with another word before the last."""
    *head, tail = words
    return f"{', '.join(head)}{last}{tail}" if head else tail
