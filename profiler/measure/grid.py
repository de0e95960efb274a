"""What is measured: the shapes of iterations, on a grid and drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import exp
from statistics import NormalDist

import numpy as np

from sim.plan import Batch

DECODES = (1, 2, 4, 8, 16, 24, 32, 40, 48, 64, 96, 128, 160, 192, 224, 256)
CONTEXTS = (64, 256, 512, 1024, 2048, 4096, 8192)
CHUNKS = (16, 32, 64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 1024, 1280, 1536, 2048, 3072, 4096)
TILE = 64
TOKENS = tuple(
    sorted(
        {*range(16, 512, 16), *range(512, 1024, 32), *range(1024, 2560, 64), *range(2560, 4097, 128)}
        | {edge + 4 for edge in range(TILE, 1024, TILE)}  # just beyond a tile is where the steps are
    )
)
PRIORS = (0, 256, 1024, 2048, 4096, 8192)
SHORT = 8192
"""Tokens of the longest context on the grid above; beyond, contexts are measured with fewer sizes of the rest."""
LONG_CONTEXTS = (16384, 32768, 65536, 131072)
LONG_CHUNKS = (16, 64, 256, 512, 1024, 2048)
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
        n, whole = len(self.decodes), sum(self.decodes)
        spread = n * sum(context * context for context in self.decodes) - whole * whole
        batch = Batch(decode_sessions=n, decode_context=whole, decode_spread=spread)
        for start, tokens in self.chunks:
            batch.add_chunk(start, tokens)
        return batch

    def blocks(self, block_size: int) -> int:
        """KV blocks that it needs."""
        contexts = [*self.decodes, *(start + tokens for start, tokens in self.chunks)]
        return sum(-(-context // block_size) for context in contexts)


@dataclass(frozen=True, slots=True)
class Point:
    """A shape with a name and the set it belongs to: decode, unequal, prefill, tokens, chunks, mixed, held-out,
    held-out-long, reference."""

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
        held_out, held_out_long: random batches with contexts of up to ``SHORT`` tokens and with longer ones.
    """

    decodes: int = 256
    context: int = 131072
    chunk: int = 4096
    held_out: int = 240
    held_out_long: int = 80

    @property
    def reach(self) -> int:
        """Tokens of the longest context that occurs: a chunk after the longest prior context."""
        return self.context + self.chunk

    def within(self, max_context: int) -> Extent:
        """The same for a model whose contexts end at ``max_context``. A chunk after a context of that length reaches
        beyond, which random weights do not mind."""
        return replace(self, chunk=min(self.chunk, max_context), context=min(self.context, max_context))


def grid(extent: Extent) -> list[Point]:
    """Every point of the grid, whether it fits into memory or not."""
    sets = (_decode, _unequal, _prefill, _tokens, _several_chunks, _mixed)
    return [point for points in sets for point in points(extent)]


def _decode(extent: Extent) -> Iterator[Point]:
    for decodes, context in product(_upto(DECODES, extent.decodes), _upto(CONTEXTS, extent.context)):
        yield Point(f"decode {decodes}x{context}", "decode", Shape((context,) * decodes))
    for decodes, context in product(_upto((1, 2, 4, 8, 16, 24), extent.decodes), _upto(LONG_CONTEXTS, extent.context)):
        yield Point(f"decode {decodes}x{context}", "decode", Shape((context,) * decodes))


def _unequal(extent: Extent) -> Iterator[Point]:
    """Decoding sessions of unequal contexts: log-normal ones, by their quantiles, and few long among many short."""
    short = min(1024, extent.context)
    for decodes in _upto((8, 16, 32, 64, 96, 128, 192, 256), extent.decodes):
        yield Point(f"unequal {decodes} of all lengths", "unequal", Shape(_quantiles(decodes, extent)))
        for longs, context in product((1, 4), _upto((SHORT, *LONG_CONTEXTS[1:]), extent.context)):
            if longs < decodes and context > short:
                shape = Shape((context,) * longs + (short,) * (decodes - longs))
                yield Point(f"unequal {longs}x{context} {decodes - longs}x{short}", "unequal", shape)


def _quantiles(count: int, extent: Extent) -> tuple[int, ...]:
    """Contexts as ``_context`` draws them, each as likely as the others."""
    normal, middle = NormalDist(), min(700, extent.context // 4)
    drawn = (middle * exp(0.9 * normal.inv_cdf((index + 0.5) / count)) for index in range(count))
    least, most = min(16, extent.context), min(SHORT, extent.context)
    return tuple(round(min(max(tokens, least), most)) for tokens in drawn)


def _prefill(extent: Extent) -> Iterator[Point]:
    """Every chunk without prior context, every other one with it."""
    chunks = _upto(CHUNKS, extent.chunk)
    for prior in _upto(PRIORS, extent.context):
        for tokens in chunks if prior == 0 else chunks[::2]:
            yield Point(f"prefill {prior}+{tokens}", "prefill", Shape(chunks=((prior, tokens),)))
    for context, tokens in product(_upto(LONG_CONTEXTS, extent.context), _upto(LONG_CHUNKS, extent.chunk)):
        chunk = context - tokens, tokens
        yield Point(f"prefill {chunk[0]}+{tokens}", "prefill", Shape(chunks=(chunk,)))


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
    for prior, tokens, beside in product((2048, SHORT, 32768, 98304), (32, 128), (64, 512, 1536)):
        if prior <= extent.context and tokens + beside <= extent.chunk:
            shape = Shape(chunks=((prior, tokens), (0, beside)))
            yield Point(f"chunks {prior}+{tokens} 0+{beside}", "chunks", shape)


def _mixed(extent: Extent) -> Iterator[Point]:
    """Every other combination, like the white squares of a chessboard."""
    axes = ((4, 16, 64, 128, 192, 256), (256, 1024, 4096), (16, 64, 192, 512, 1024, 2048), (0, 2048))
    for where in product(*(range(len(axis)) for axis in axes)):
        decodes, context, tokens, prior = (axis[index] for axis, index in zip(axes, where, strict=True))
        inside = decodes <= extent.decodes and max(context, prior) <= extent.context and tokens <= extent.chunk
        if inside and sum(where) % 2 == 0:
            shape = Shape((context,) * decodes, ((prior, tokens),))
            yield Point(f"mixed {decodes}x{context} {prior}+{tokens}", "mixed", shape)
    longer = ((1, 3, 8), (16384, 49152), (64, 512, 1536), (0, 32768, 98304))
    for where in product(*(range(len(axis)) for axis in longer)):
        decodes, context, tokens, prior = (axis[index] for axis, index in zip(longer, where, strict=True))
        inside = decodes <= extent.decodes and max(context, prior) <= extent.context and tokens <= extent.chunk
        if inside and sum(where) % 2 == 0:
            shape = Shape((context,) * decodes, ((prior, tokens),))
            yield Point(f"mixed {decodes}x{context} {prior}+{tokens}", "mixed", shape)


def held_out(extent: Extent, pool_blocks: int, block_size: int, seed: int) -> list[Point]:
    """Random batches as serving makes them, off the grid; what does not fit the pool is drawn again."""
    short = replace(extent, context=min(extent.context, SHORT))
    points = _drawn("held-out", extent.held_out, lambda random: _draw(short, random), pool_blocks, block_size, (seed,))
    if extent.context > SHORT:
        points += _drawn("held-out-long", extent.held_out_long, lambda random: _draw_long(extent, random),
                         pool_blocks, block_size, (seed, 1))  # fmt: skip
    return points


def _drawn(
    name: str,
    count: int,
    draw: Callable[[np.random.Generator], Shape],
    pool_blocks: int,
    block_size: int,
    seed: tuple[int, ...],
) -> list[Point]:
    random = np.random.default_rng(seed if len(seed) > 1 else seed[0])
    points: list[Point] = []
    while len(points) < count:
        shape = draw(random)
        if (shape.decodes or shape.chunks) and shape.blocks(block_size) <= pool_blocks:
            points.append(Point(f"{name} {len(points):03d}", name, shape))
    return points


def _draw(extent: Extent, random: np.random.Generator) -> Shape:
    """Decodes: none in one batch of twelve, else log-uniform; contexts log-normal around 700 tokens; 0 to 3 chunks,
    the sum of their tokens log-uniform, half of them after a prior context; every other batch emits their tokens."""
    decodes = 0 if random.random() < 1 / 12 else round(extent.decodes ** random.random())
    count = int(random.choice(4, p=(0.30, 0.40, 0.20, 0.10)))
    chunks = []
    for tokens in _chunk_tokens(count, extent, random):
        prior = _context(extent, random) if random.random() < 0.5 else 0
        chunks.append((prior, tokens))
    return Shape(tuple(_context(extent, random) for _ in range(decodes)), tuple(chunks), bool(random.random() < 0.5))


def _draw_long(extent: Extent, random: np.random.Generator) -> Shape:
    """1 to 16 decoding sessions, log-uniform, of contexts log-uniform from 1,000 tokens to the longest; beside them, in
    one batch of three, others as ``_draw`` has them; chunks as there, but with longer prior contexts."""
    decodes = [_long_context(extent, random) for _ in range(round(min(16, extent.decodes) ** random.random()))]
    if random.random() < 1 / 3:
        short = replace(extent, context=SHORT)
        decodes += [_context(short, random) for _ in range(round(min(128, extent.decodes) ** random.random()))]
    del decodes[extent.decodes :]
    count = int(random.choice(4, p=(0.30, 0.40, 0.20, 0.10)))
    chunks = []
    for tokens in _chunk_tokens(count, extent, random):
        prior = _long_context(extent, random) if random.random() < 0.5 else 0
        chunks.append((prior, min(tokens, extent.context - prior) or 1))
    return Shape(tuple(decodes), tuple(chunks), bool(random.random() < 0.5))


def _chunk_tokens(count: int, extent: Extent, random: np.random.Generator) -> list[int]:
    """Tokens of ``count`` chunks, whose sum is log-uniform from 16 to 2,048."""
    most = min(extent.chunk, 2048)
    total = 16.0 * (most / 16) ** random.random()
    shares = random.dirichlet(np.full(count, 2.0)) if count else ()
    return [max(1, round(float(share) * total)) for share in shares]


def _context(extent: Extent, random: np.random.Generator) -> int:
    middle = min(700, extent.context // 4)
    return int(np.clip(random.lognormal(np.log(middle), 0.9), min(16, extent.context), extent.context))


def _long_context(extent: Extent, random: np.random.Generator) -> int:
    return round(1000 * (extent.context / 1000) ** random.random())


def references(extent: Extent, pool_blocks: int, block_size: int) -> list[Point]:
    """Two shapes that are measured again and again, so that drift shows."""
    context, sessions = min(1024, extent.context), min(64, extent.decodes)
    sessions = max(1, min(sessions, pool_blocks // -(-context // block_size)))
    decode = Shape((context,) * sessions)
    chunk = Shape(chunks=((0, min(512, extent.chunk)),))
    return [Point("reference decode", "reference", decode), Point("reference chunk", "reference", chunk)]


def _upto(values: tuple[int, ...], most: int) -> list[int]:
    return [value for value in values if value <= most]
