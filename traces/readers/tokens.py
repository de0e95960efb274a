"""How many tokens a text has: counted by a tokenizer on disk, or estimated from words or characters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from traces.extras import install

CountTokens = Callable[[str], int]


def tokenizer_named(name: str) -> CountTokens:
    """The function that counts the tokens of a text. It never downloads anything.

    Args:
        name: ``words`` counts the words between blanks; ``chars:4`` takes one token for every 4 characters, rounded
            up; anything else is a path to a ``tokenizer.json`` or to a Hugging Face folder that holds one.

    Raises:
        ValueError: no such file, a file that is no tokenizer, or the library ``tokenizers`` is not installed.
    """
    if name == "words":
        return lambda text: len(text.split())
    if name.startswith("chars:"):
        return _by_characters(name)
    return _from_file(Path(name))


def _by_characters(name: str) -> CountTokens:
    try:
        each = float(name.removeprefix("chars:"))
        if not 0 < each < 1e6:
            raise ValueError
    except ValueError:
        raise ValueError(f"tokenizer {name!r}: expected characters a token after the colon, such as chars:4") from None
    return lambda text: -int(-len(text) // each)


def _from_file(path: Path) -> CountTokens:
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(
            f"no tokenizer at {file}; name words, chars:4, or a tokenizer.json on this machine (nothing is downloaded)"
        )
    try:
        import tokenizers
    except ImportError:
        raise ValueError(
            f"reading {file} needs the library tokenizers: {install('tokenizers')}; or name words or chars:4"
        ) from None
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"{file} is no tokenizer: {error}") from None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)
