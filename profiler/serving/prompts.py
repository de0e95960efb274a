"""The first token ids of prompts: where a trace says that sessions share tokens, their ids are equal."""

from __future__ import annotations

from profiler.backend.tokens import Stretch, seed_of
from traces.session import Session


def common_beginning(session: Session) -> list[Stretch]:
    """The leading tokens of a prompt that other sessions may have too, by block hashes or else by a named prefix.

    Equal hashes give equal ids at equal places, so that blocks which the engine takes to be the same hold the same.
    """
    if not session.block_hashes:
        named = session.prefix
        return [Stretch(seed_of(f"prefix {named.name}"), named.tokens)] if named is not None else []
    begins = range(0, session.prompt, session.hash_block)
    return [
        Stretch(seed_of(f"block {content}"), min(session.hash_block, session.prompt - begin))
        for content, begin in zip(session.block_hashes, begins, strict=False)
    ]
