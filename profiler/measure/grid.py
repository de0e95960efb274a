"""The shapes of iterations that are measured, on a grid and drawn at random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from sim.costs.batch import Batch

DECODES = (1, 2, 4, 8, 16, 24, 32, 40, 48, 64, 96, 128, 160, 192, 224, 256)
CONTEXTS = (64, 256, 512, 1024, 2048, 4096, 8192)
CHUNKS = (16, 32, 64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 1024, 1280, 1536, 2048, 3072, 4096)
TILE = 64
TOKENS = tuple(
    sorted(
        {*range(16, 512, 16), *range(512, 1024, 32), *range(1024, 2048, 64), *range(2048, 4097, 128)}
        | {edge + 4 for edge in range(TILE, 1024, TILE)}  # just beyond a tile is where the steps are
    )
)
PRIORS = (0, 256, 1024, 2048, 4096, 8192)
MOST_CHUNKS = 8


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of one iteration.

    Attributes:
        decodes: context of each decoding session, tokens; the one that it computes is among them.
        chunks: (resident tokens before, tokens computed) of each chunk.
        ends: whether the chunks reach the ends of their contexts, so that tokens are sampled.
    """

    decodes: tuple[int, ...] = ()
    chunks: tuple[tuple[int, int], ...] = ()
    ends: bool = True

    def batch(self) -> Batch:
        """The sums that the cost model asks for."""
        batch = Batch(decode_sessions=len(self.decodes), decode_context=sum(self.decodes))
        for start, tokens in self.chunks:
            batch.add_chunk(start, tokens)
        return batch

    def blocks(self, block_size: int) -> int:
        """KV blocks that it needs."""
        contexts = [*self.decodes, *(start + tokens for start, tokens in self.chunks)]
        return sum(-(-context // block_size) for context in contexts)


@dataclass(frozen=True, slots=True)
class Point:
    """A shape with a name and the set it belongs to: decode, prefill, tokens, chunks, mixed, held-out, reference."""

    name: str
    set: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Extent:
    """How far the measurement goes.

    Attributes:
        decodes: decoding sessions at most.
        context: tokens of one context at most.
        chunk: tokens of all chunks of an iteration at most.
        held_out: random batches.
    """

    decodes: int = 256
    context: int = 8192
    chunk: int = 4096
    held_out: int = 240

    @property
    def reach(self) -> int:
        """Tokens of the longest context that occurs: a chunk after the longest prior context."""
        return self.context + self.chunk

    def within(self, max_context: int) -> Extent:
        """This extent, cut to a model whose contexts end at ``max_context``. A chunk after a context of that length
        reaches beyond; random weights allow that."""
        return replace(self, chunk=min(self.chunk, max_context), context=min(self.context, max_context))


def grid(extent: Extent) -> list[Point]:
    """Every point of the grid, whether it fits into memory or not."""
    return [*_decode(extent), *_prefill(extent), *_tokens(extent), *_several_chunks(extent), *_mixed(extent)]


def _decode(extent: Extent) -> Iterator[Point]:
    for decodes, context in product(_upto(DECODES, extent.decodes), _upto(CONTEXTS, extent.context)):
        yield Point(f"decode {decodes}x{context}", "decode", Shape((context,) * decodes))


def _prefill(extent: Extent) -> Iterator[Point]:
    """Every chunk without prior context, every other one with it."""
    chunks = _upto(CHUNKS, extent.chunk)
    for prior in _upto(PRIORS, extent.context):
        for tokens in chunks if prior == 0 else chunks[::2]:
            yield Point(f"prefill {prior}+{tokens}", "prefill", Shape(chunks=((prior, tokens),)))


def _tokens(extent: Extent) -> Iterator[Point]:
    """Many numbers of tokens, of decoding sessions with short contexts and of one chunk: matrix products go by tiles,
    and their time is no smooth function of the tokens."""
    context = min(64, extent.context)
    for decodes in _upto(tuple(range(8, 257, 8)), extent.decodes):
        if decodes not in DECODES:
            yield Point(f"decode {decodes}x{context}", "tokens", Shape((context,) * decodes))
    for tokens in _upto(TOKENS, extent.chunk):
        if tokens not in CHUNKS:
            yield Point(f"prefill 0+{tokens}", "tokens", Shape(chunks=((0, tokens),)))


def _several_chunks(extent: Extent) -> Iterator[Point]:
    for count, tokens, prior in product((2, 4, MOST_CHUNKS), (16, 64, 256, 512), (0, 1024, 4096)):
        if count * tokens <= extent.chunk and prior <= extent.context:
            yield Point(f"chunks {count}x{prior}+{tokens}", "chunks", Shape(chunks=((prior, tokens),) * count))


def _mixed(extent: Extent) -> Iterator[Point]:
    """Every other combination, like the white squares of a chessboard."""
    axes = ((4, 16, 64, 128, 192, 256), (256, 1024, 4096), (16, 64, 192, 512, 1024, 2048), (0, 2048))
    for where in product(*(range(len(axis)) for axis in axes)):
        decodes, context, tokens, prior = (axis[index] for axis, index in zip(axes, where, strict=True))
        inside = decodes <= extent.decodes and max(context, prior) <= extent.context and tokens <= extent.chunk
        if inside and sum(where) % 2 == 0:
            shape = Shape((context,) * decodes, ((prior, tokens),))
            yield Point(f"mixed {decodes}x{context} {prior}+{tokens}", "mixed", shape)


def held_out(extent: Extent, pool_blocks: int, block_size: int, seed: int) -> list[Point]:
    """Random batches as serving makes them, off the grid; what does not fit the pool is drawn again."""
    random = np.random.default_rng(seed)
    points: list[Point] = []
    while len(points) < extent.held_out:
        shape = _draw(extent, random)
        if (shape.decodes or shape.chunks) and shape.blocks(block_size) <= pool_blocks:
            points.append(Point(f"held-out {len(points):03d}", "held-out", shape))
    return points


def _draw(extent: Extent, random: np.random.Generator) -> Shape:
    """Decodes: none in one batch of twelve, else log-uniform; contexts log-normal around 700 tokens; 0 to 3 chunks,
    the sum of their tokens log-uniform, half of them after a prior context; every other batch emits their tokens."""
    decodes = 0 if random.random() < 1 / 12 else round(extent.decodes ** random.random())
    count = int(random.choice(4, p=(0.30, 0.40, 0.20, 0.10)))
    most = min(extent.chunk, 2048)
    total = 16.0 * (most / 16) ** random.random()
    shares = random.dirichlet(np.full(count, 2.0)) if count else ()
    chunks = []
    for share in shares:
        prior = _context(extent, random) if random.random() < 0.5 else 0
        chunks.append((prior, max(1, round(float(share) * total))))
    return Shape(tuple(_context(extent, random) for _ in range(decodes)), tuple(chunks), bool(random.random() < 0.5))


def _context(extent: Extent, random: np.random.Generator) -> int:
    middle = min(700, extent.context // 4)
    return int(np.clip(random.lognormal(np.log(middle), 0.9), min(16, extent.context), extent.context))


def references(extent: Extent, pool_blocks: int, block_size: int) -> list[Point]:
    """Two shapes that are measured again and again, so that drift shows."""
    context, sessions = min(1024, extent.context), min(64, extent.decodes)
    sessions = max(1, min(sessions, pool_blocks // -(-context // block_size)))
    decode = Shape((context,) * sessions)
    chunk = Shape(chunks=((0, min(512, extent.chunk)),))
    return [Point("reference decode", "reference", decode), Point("reference chunk", "reference", chunk)]


def _upto(values: tuple[int, ...], most: int) -> list[int]:
    return [value for value in values if value <= most]
