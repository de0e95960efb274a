"""A profile: the costs of one model on one GPU, and where they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LinearForward(_Facts):
    """T(x) = fixed_s + per_token_s * x for x query tokens; no term for the context (InferCept's offline profile)."""

    kind: Literal["linear"] = "linear"
    fixed_s: float = Field(ge=0)
    per_token_s: float = Field(gt=0)


class PowerLimit(_Facts):
    """How passes slow down on a GPU that reaches its power limit.

    The share of recent time in which matrix products ran stands for the power drawn: after a pass or a rest of t
    seconds it has moved towards that of the pass by t / (memory_s + t) of the way. A pass takes on the device

        (1 + (slowdown + slowdown_matrix * w) * (max(share, free_share) - reference_share))

    times its cost, w being the share of the pass itself that is matrix work, at per_token_s a token.
    """

    memory_s: float = Field(gt=0, description="seconds over which the share is taken")
    free_share: float = Field(ge=0, le=1, description="up to here clocks are at their highest")
    reference_share: float = Field(ge=0, le=1, description="the share at which the costs hold as they stand")
    slowdown: float = Field(ge=0)
    slowdown_matrix: float = Field(ge=0)


class PhysicalForward(_Facts):
    """A sum of what a forward pass really spends its time on, for x query tokens of n sessions:

    overhead_s + chunks_overhead_s + max(launch_s + mixed_launch_s, device), the second to fourth only for passes with
    chunks, mixed_launch_s only where sessions decode beside them, where
    device = mixed_s + per_session_s * n + per_chunk_s * chunks + f(x) * ((weights_s)^p + (per_token_s * x)^p)^(1/p)
        + (decode_read_s + unequal_read_s * u) * (context tokens of decoding sessions) + per_piece_s * pieces
        + prefill_read_s * (context tokens of chunks) + pair_s * pairs + path + exchange_s * x
        + mixed_read_s * (context tokens of decoding sessions), the last where there are chunks

    The p-norm joins the time to read the weights, which hides matrix work, with the matrix work, which hides the read.
    mixed_s counts only where sessions decode beside chunks: each kind has an attention kernel of its own, and one runs
    after the other, and is launched by itself. A pass with chunks cannot end before it is all launched. Both x and n
    count the decoding sessions as the backend pads them.

    u says how unequal the contexts of n decoding sessions are: 1 - mean^2 / (mean of the squares), 0 if all are equally
    long, towards 1 if one has most of the tokens.

    pairs are the query-key pairs of chunks, those of padding among them: attention takes the tokens of a chunk in tiles
    of the smallest of ``chunk_tiles`` that the mean chunk fits into, or of the largest, and the last tile of each is
    expected to be half empty. So of k chunks with tiles of t tokens,

    pairs = (query-key pairs of chunks) + (t - 1) / 2 * (context tokens of chunks)

    A processor of the GPU reads a stretch of a context for one tile. Where chunks have too few tiles for all of them,
    attention is not over before the longest stretch is read; long contexts are cut into several, which are merged:

    path = path_s * min((context tokens of chunks) / k, path_tokens) * max(0, 1 - (tokens of chunks) / path_filled)

    A backend that keeps all of the GPU's processors at work cuts the contexts of decoding sessions into pieces, and
    each costs something to begin and to merge beyond what is read. With d decoding sessions as they are padded,

    pieces = max(d, d / 2 + min(most_pieces, (context tokens of decoding sessions) / piece_tokens))

    is what to expect of contexts of many lengths, each of which leaves half a piece beyond whole ones on average. It
    is an approximation: how many there really are depends on each context, and on equal ones by up to d / 2 more or
    fewer. Without decoding sessions, or where most_pieces is 0, there are none.
    """

    kind: Literal["physical"] = "physical"
    overhead_s: float = Field(ge=0)
    chunks_overhead_s: float = Field(default=0.0, ge=0)
    launch_s: float = Field(default=0.0, ge=0)
    mixed_launch_s: float = Field(default=0.0, ge=0)
    weights_s: float = Field(ge=0)
    per_token_s: float = Field(gt=0)
    knee: float = Field(default=4.0, ge=1, description="the exponent p: how sharp the knee is")
    matrix_factors: tuple[tuple[int, float], ...] = Field(
        default=(), description="f at some x, ascending: tiles fit some sizes better; linear between, constant beyond"
    )
    mixed_s: float = Field(default=0.0, ge=0)
    per_session_s: float = Field(default=0.0, ge=0)
    per_chunk_s: float = Field(default=0.0, ge=0)
    decode_read_s: float = Field(ge=0)
    per_piece_s: float = Field(default=0.0, ge=0)
    prefill_read_s: float = Field(default=0.0, ge=0)
    pair_s: float = Field(ge=0)
    mixed_read_s: float = Field(
        default=0.0, ge=0, description="for each context token of decoding sessions, where chunks are computed beside"
    )
    unequal_read_s: float = Field(
        default=0.0, ge=0, description="for each context token of decoding sessions, times u: what unequal ones cost"
    )
    path_s: float = Field(
        default=0.0, ge=0, description="for each token of the stretch of a chunk's context that takes longest to read"
    )
    path_tokens: float = Field(default=1.0, ge=1, description="the longest stretch that a chunk's context is read in")
    path_filled: float = Field(default=1.0, ge=1, description="tokens of chunks that keep all processors at work")
    exchange_s: float = Field(
        default=0.0, ge=0, description="for each of the x tokens, where several GPUs add up what each has computed"
    )
    decode_sizes: tuple[int, ...] = Field(
        default=(), description="decoding sessions are padded to the next of these, ascending; to none beyond the last"
    )
    pass_sizes: tuple[int, ...] = Field(
        default=(), description="the same for all tokens of a pass with chunks, after the decoding sessions are padded"
    )
    chunk_tiles: tuple[int, ...] = Field(
        default=(),
        description="tokens of the tiles that attention takes chunks in, ascending; none if there is no padding",
    )
    most_pieces: int = Field(
        default=0, ge=0, description="whole pieces that attention cuts long contexts into, all together"
    )
    piece_tokens: int = Field(default=1, gt=0, description="the shortest piece that it cuts")
    power: PowerLimit | None = Field(default=None, description="what heavy passes do to those after them")


class HostCost(_Facts):
    """What the engine's own work adds to an iteration while the device waits."""

    per_iteration_s: float = Field(default=0.0, ge=0)
    per_session_s: float = Field(default=0.0, ge=0, description="for each session that computes in the iteration")
    per_chunk_s: float = Field(default=0.0, ge=0, description="for each of them that computes a chunk")
    chunked_s: float = Field(default=0.0, ge=0, description="for a pass with chunks, however many")
    per_call_s: float = Field(default=0.0, ge=0, description="for each call that begins to compute")
    per_arrival_s: float = Field(default=0.0, ge=0, description="besides, for each session's first call")
    copies_out_s: float = Field(default=0.0, ge=0, description="for a pass beside which copies out begin")
    copies_in_s: float = Field(default=0.0, ge=0, description="for a pass beside which copies in begin")
    cold_s: float = Field(
        default=0.0,
        ge=0,
        description="what it gains when the host has waited for long, and its caches have grown cold: with w seconds "
        "since the pass before began, a pass takes cold_s * w / (w + cold_after_s) longer",
    )
    cold_after_s: float = Field(default=0.02, gt=0, description="wait after which half of cold_s is felt")
    executor_s: float = Field(
        default=0.0,
        ge=0,
        description="of per_iteration_s, what comes after the plan; copies that the batch waits for hide it",
    )
    executor_chunked_s: float = Field(default=0.0, ge=0, description="the same of chunked_s")

    @model_validator(mode="after")
    def _require_a_part(self) -> HostCost:
        for part, whole in (("executor_s", "per_iteration_s"), ("executor_chunked_s", "chunked_s")):
            small, large = getattr(self, part), getattr(self, whole)
            if small > large:
                raise ValueError(f"{part} is a part of {whole}: {small:g} is more than {large:g}")
        return self


class SwapCost(_Facts):
    """One-way copy costs. A copy takes latency_s + bytes / bandwidth; beside compute it slows the forward pass."""

    out_bytes_per_s: float = Field(gt=0)
    in_bytes_per_s: float = Field(gt=0)
    latency_s: float = Field(default=0.0, ge=0)
    slowdown_out: float = Field(default=0.0, ge=0, description="share by which a copy out lengthens compute beside it")
    slowdown_in: float = Field(default=0.0, ge=0, description="share by which a copy in lengthens compute beside it")


class Error(_Facts):
    """Relative errors of predictions, |predicted - measured| / measured; ``bias`` is their mean with the sign."""

    points: int = Field(ge=0)
    median: float = Field(ge=0)
    p95: float = Field(ge=0)
    bias: float = 0.0


class Measurement(_Facts):
    """How a profile was measured, and how well the fitted costs agree with it. Bytes, tokens, seconds.

    Attributes:
        date, commit, machine: when, with which code, on what: GPU, driver, versions, clocks seen.
        within_aim, verdict: whether the errors are as small as they should be, and the same in words.
        errors: by what was predicted; ``cross_validated`` and ``held_out`` are honest, the rest says where errors lie.
        range: the largest of everything that was measured; beyond it costs are extrapolated. Of a batch the sums of
            ``sim.costs.batch.Batch``: ``decodes`` and ``decode_context``, ``chunk_tokens`` and ``chunk_context``;
            ``context`` is the longest that one decoding session had.
        memory: where the GPU's memory goes.
        host, swap, saturation: medians and other figures that no cost above carries.
    """

    date: str
    commit: str
    machine: dict[str, str]
    within_aim: bool
    verdict: str
    errors: dict[str, Error]
    range: dict[str, int] = {}
    memory: dict[str, float] = {}
    host: dict[str, float] = {}
    swap: dict[str, float] = {}
    saturation: dict[str, float] = {}


class Profile(_Facts):
    """Costs and sizes of one model on one GPU, or on several that serve as one. Bytes, tokens, seconds.

    With ``tensor_parallel`` GPUs all figures are those of the whole: KV per token and the pools over all of them, and
    copies over all their links to the host at once.
    """

    name: str
    model: str
    gpu: str
    tensor_parallel: int = Field(default=1, ge=1, description="GPUs that one replica spans")
    origin: Literal["measured", "published", "estimate"]
    source: str
    kv_bytes_per_token: int = Field(gt=0)
    kv_capacity_tokens: int = Field(gt=0)
    host_capacity_tokens: int = Field(ge=0)
    saturation_tokens: int = Field(gt=0)
    max_context: int | None = Field(default=None, gt=0)
    forward: Annotated[LinearForward | PhysicalForward, Field(discriminator="kind")]
    swap: SwapCost
    host: HostCost = HostCost()
    measured: Measurement | None = None


def load_profile(path: Path) -> Profile:
    """Read ``profile.yaml``, or a folder that holds one.

    Raises:
        OSError: the file cannot be read.
        yaml.YAMLError: it is not YAML.
        pydantic.ValidationError: a value is missing, unknown or out of range.
    """
    file = path / "profile.yaml" if path.is_dir() else path
    return Profile.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
