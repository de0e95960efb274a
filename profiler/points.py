"""What was measured, point by point: the medians of the samples, as arrays that a fit can use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Packing:
    """How a backend pads a batch and cuts its contexts. All that ``sim.profile.PhysicalForward`` has of the same names.

    Attributes:
        decode_sizes, pass_sizes: to what it pads decoding sessions, and the tokens of passes with chunks.
        most_pieces, piece_tokens: into how many pieces it cuts the contexts of decoding sessions at most, and the
            shortest; no pieces where attention does not cut or where it is not known.
    """

    decode_sizes: tuple[int, ...] = ()
    pass_sizes: tuple[int, ...] = ()
    most_pieces: int = 0
    piece_tokens: int = 1

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Packing:
        """As the facts of a folder of samples have it; what older ones do not say is as above."""
        decode, whole = (tuple(int(size) for size in facts.get(name, ())) for name in ("decode_sizes", "pass_sizes"))
        return cls(decode, whole, int(facts.get("most_pieces", 0)), int(facts.get("piece_tokens", 1)))


NO_PACKING = Packing()


@dataclass(frozen=True, slots=True)
class Points:
    """n iterations: what each computed, and how long it took. All arrays have n elements.

    Attributes:
        names, sets: which point, of which set.
        decodes, padded, decode_context, decode_spread, chunks, chunk_tokens, chunk_context, pairs: as in
            ``sim.plan.Batch``; ``padded`` are decoding sessions with padding.
        tokens: query tokens with padding: what the matrix products work on.
        pieces: into which the contexts of decoding sessions are cut.
        seconds, low, high: median, 10th and 90th percentile.
        host_s: median of the host's work to queue it.
        gap_s: median of the wall time beyond the device's.
        at_s: when it was measured, s since the epoch.
    """

    names: npt.NDArray[np.str_]
    sets: npt.NDArray[np.str_]
    decodes: Floats
    padded: Floats
    decode_context: Floats
    decode_spread: Floats
    chunks: Floats
    chunk_tokens: Floats
    chunk_context: Floats
    pairs: Floats
    tokens: Floats
    pieces: Floats
    seconds: Floats
    low: Floats
    high: Floats
    host_s: Floats
    gap_s: Floats
    at_s: Floats

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def unequal(self) -> Floats:
        """How unequal the contexts of decoding sessions are: u of ``sim.profile.PhysicalForward``."""
        found: Floats = self.decode_spread / np.maximum(self.decode_spread + self.decode_context**2, 1.0)
        return found

    def __getitem__(self, chosen: Mask | npt.NDArray[np.intp]) -> Points:
        return Points(**{one.name: getattr(self, one.name)[chosen] for one in fields(self)})


SHAPE = ("decodes", "padded", "decode_context", "decode_spread", "chunks", "chunk_tokens", "chunk_context", "pairs")


def points_of(samples: pd.DataFrame, packing: Packing = NO_PACKING) -> Points:
    """One point for each name in a table of iterations: rows of one name are repeats, wherever they were measured.

    Args:
        packing: of the backend that they were measured with.
    """
    samples = samples.assign(gap_s=samples["wall_s"] - samples["device_s"])
    if "decode_spread" not in samples:  # measured before it was noted
        samples = samples.assign(decode_spread=0)
    groups = samples.groupby(names_of(samples), sort=False)
    first, times = groups.first(), groups["device_s"]
    columns: dict[str, npt.NDArray[np.float64]] = {name: first[name].to_numpy(dtype=np.float64) for name in SHAPE}
    return Points(
        names=np.array(first.index.astype(str), dtype=np.str_),
        sets=np.array(first["set"].astype(str), dtype=np.str_),
        **columns,
        tokens=_padded_tokens(columns, packing.pass_sizes),
        pieces=_pieces(columns, packing),
        seconds=times.median().to_numpy(dtype=np.float64),
        low=times.quantile(0.1).to_numpy(dtype=np.float64),
        high=times.quantile(0.9).to_numpy(dtype=np.float64),
        host_s=groups["host_s"].median().to_numpy(dtype=np.float64),
        gap_s=groups["gap_s"].median().to_numpy(dtype=np.float64),
        at_s=first["at_s"].to_numpy(dtype=np.float64),
    )


def names_of(samples: pd.DataFrame) -> pd.Series[str]:
    """Which pass each row measured: part of a series that was measured in one go has names, a point of its own none."""
    return samples["name" if "name" in samples else "point"]


def _padded_tokens(columns: dict[str, Floats], pass_sizes: tuple[int, ...]) -> Floats:
    tokens = columns["padded"] + columns["chunk_tokens"]
    sizes = np.array(pass_sizes, dtype=np.float64)
    shorter = (columns["chunks"] > 0) & (tokens <= (sizes[-1] if len(sizes) else 0))
    tokens[shorter] = sizes[np.searchsorted(sizes, tokens[shorter])]
    return tokens


def _pieces(columns: dict[str, Floats], packing: Packing) -> Floats:
    """See ``sim.profile.PhysicalForward``."""
    if not packing.most_pieces:
        return np.zeros_like(columns["padded"])
    padded, whole = columns["padded"], columns["decode_context"] / packing.piece_tokens
    cut = np.maximum(padded, padded / 2 + np.minimum(packing.most_pieces, whole))
    found: Floats = np.where(columns["decodes"] > 0, cut, 0.0)
    return found
