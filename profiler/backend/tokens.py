"""The token ids of every context, on the device, and how the next one is chosen.

Nothing that decides what runs depends on a token's value: lengths come from the workload. So ids stay on the device,
and the host reads them only to check or to show them. Prompts and the answers of tools are pseudo-random ids
that follow from the session and the position alone: any run of a session sees the same ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

_DRAWN = 1 << 20
"""Pseudo-random ids that are kept. The ids of a session start somewhere among them."""
_STEP = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX = 0xD6E8FEB86659FD93 - (1 << 64)


def seed_of(key: Hashable) -> int:
    """A 63-bit seed from a session's id, the same in every process."""
    return int.from_bytes(hashlib.blake2b(str(key).encode(), digest_size=8).digest(), "big") >> 1


def scramble(numbers: torch.Tensor) -> torch.Tensor:
    """Hash int64 numbers, element by element, to [0, 2^63); the same on every device."""
    mixed = numbers * _STEP
    for _ in range(3):
        mixed = (mixed ^ (mixed >> 32)) * _MIX
    return (mixed ^ (mixed >> 32)) & 0x7FFFFFFFFFFFFFFF


@lru_cache(maxsize=4)
def _drawn(tokens: int, vocab: int, device: torch.device) -> torch.Tensor:
    """Pseudo-random ids, int32 ``[tokens]``, the same in every process."""
    return (scramble(torch.arange(tokens, device=device)) % vocab).int()


@dataclass(frozen=True, slots=True)
class Stretch:
    """Tokens of a prompt that follow from ``seed`` and their positions, and so are the same in every context where they
    stand at the same place."""

    seed: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. Temperature 0 takes the likeliest; otherwise the choice follows from the seed, the
    session and the position, whatever else is in the batch."""

    temperature: float = 0.0
    seed: int = 0


class TokenStore:
    """Token ids of every row.

    Args:
        rows: sessions at once; one more row takes what padding writes.
        max_context: tokens of the longest context.
        vocab: ids there are.
        sampling: how tokens are chosen.
        margins: keep, for each chosen token, by how much its logit beat the second largest (float32); 0 for the others.

    Attributes:
        ids: int32 ``[rows + 1, max_context + 2]``.
    """

    def __init__(
        self,
        rows: int,
        max_context: int,
        vocab: int,
        device: torch.device,
        sampling: Sampling | None = None,
        margins: bool = False,
    ) -> None:
        width = max_context + 2
        self.vocab, self.device = vocab, device
        self.scratch_row = rows
        self.sampling = sampling or Sampling()
        self.ids = torch.zeros((rows + 1, width), dtype=torch.int32, device=device)
        self.margins = torch.zeros((rows + 1, width), dtype=torch.float32, device=device) if margins else None
        self._seeds = torch.zeros(rows + 1, dtype=torch.int64, device=device)
        self._drawn = _drawn(_DRAWN + width, vocab, device)

    def fill(self, row: int, seed: int, start: int = 0) -> None:
        """Put the session's pseudo-random ids at every position from ``start`` on. Generated tokens overwrite them, so
        the answer of a tool is in place already when it is asked for."""
        width = self.ids.shape[1]
        self._seeds[row] = seed
        first = seed % _DRAWN
        self.ids[row, start:] = self._drawn[first + start : first + width]
        if self.margins is not None:
            self.margins[row, start:] = 0.0

    def begin_with(self, row: int, stretches: Sequence[Stretch]) -> None:
        """Put the ids of ``stretches``, one after another, at the first positions of a row."""
        tokens = sum(stretch.tokens for stretch in stretches)
        firsts, lengths = (
            torch.tensor(numbers, device=self.device)
            for numbers in ([stretch.seed % _DRAWN for stretch in stretches], [stretch.tokens for stretch in stretches])
        )
        places = torch.repeat_interleave(firsts, lengths, output_size=tokens)
        self.ids[row, :tokens] = self._drawn[places + torch.arange(tokens, device=self.device)]

    def follow(self, row: int, lender: int, prompt_tokens: int, seed: int) -> None:
        """Put the first ids of another row where they stand there, and draw by ``seed`` from then on."""
        self.fill(row, seed, prompt_tokens)
        self.ids[row, :prompt_tokens] = self.ids[lender, :prompt_tokens]
        if self.margins is not None:
            self.margins[row, :prompt_tokens] = self.margins[lender, :prompt_tokens]

    def read(self, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The ids of tokens, int32 ``[T]``."""
        return self.ids[rows, positions]

    def sample(self, logits: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor) -> None:
        """Choose the token after each of ``positions`` from its ``logits`` and store it one position on."""
        if self.sampling.temperature > 0:
            logits = logits / self.sampling.temperature + self._noise(rows, positions, logits.dtype)
        after = positions + 1
        if self.margins is None:
            chosen = logits.argmax(dim=-1)
        else:
            best, where = logits.topk(2, dim=-1)
            chosen = where[:, 0]
            self.margins.index_put_((rows, after), (best[:, 0] - best[:, 1]).float())
        self.ids.index_put_((rows, after), chosen.int())

    def _noise(self, rows: torch.Tensor, positions: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Gumbel noise ``[S, vocab]``: the largest noisy logit is a draw from the softmax."""
        draws = scramble((self._seeds[rows] ^ self.sampling.seed) + positions)
        uniform = scramble(draws[:, None] + torch.arange(self.vocab, device=self.device))
        part = ((uniform >> 40).double() + 0.5) / (1 << 23)
        return -(-part.log()).log().to(dtype)
