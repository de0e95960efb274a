"""From measured iterations to the costs of ``sim.profile.PhysicalForward``, and how wrong these are.

Least squares on the relative error, every parameter at least zero. Matrix products go by tiles, so that their time is a
staircase rather than a smooth function of the tokens: factors on it, at as many numbers of tokens as were measured, are
fitted too, and kept if they lower the cross-validated error.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import least_squares

from profiler.points import NO_PACKING, Floats, Mask, Packing, Points
from sim.profile import Error, PhysicalForward

PARAMETERS = (
    "overhead_s",
    "chunks_overhead_s",
    "launch_s",
    "mixed_s",
    "weights_s",
    "per_token_s",
    "per_session_s",
    "per_chunk_s",
    "decode_read_s",
    "per_piece_s",
    "prefill_read_s",
    "pair_s",
    "knee",
    "mixed_read_s",
    "unequal_read_s",
    "path_s",
    "path_tokens",
)
OPTIONAL = {"mixed_read_s": ("mixed",), "unequal_read_s": ("unequal",), "path_s": ("prefill", "chunks")}
"""Costs that are kept only if they show in the sets of points that were measured for each."""
SHOWS = 0.98
"""They are kept if without them the cross-validated error of that set is larger than it is with them by more than this
share."""
KNEES = (2.0, 4.0, 8.0)
SHARPEST_KNEE = 16.0
FOLDS = 5
OUTLIER = 0.05
"""Relative error from which a point counts less than its square."""
STIFFNESS = 0.03
"""Neighbouring factors that differ by 10 % cost as much as a point that is wrong by 10 % of this."""
FLATNESS = 0.01
"""A factor of 1.1 costs as much as a point that is wrong by 10 % of this."""
PRUNED = 0.004
"""Factors that differ by less from a straight line between others are left out."""
WORTH = 0.9
"""Factors are kept if they bring the cross-validated error below this share."""


@dataclass(frozen=True, slots=True)
class ForwardFit:
    """A fit.

    Attributes:
        forward: the costs.
        cross_validated: relative errors of each point of the grid, predicted by a fit that had not seen it.
    """

    forward: PhysicalForward
    cross_validated: Floats


class NotEnoughPoints(ValueError):
    """Too little was measured to fit anything to it."""


def fit_forward(points: Points, packing: Packing = NO_PACKING, seed: int = 0) -> ForwardFit:
    """Fit the points of the grid.

    Args:
        packing: of the backend, which the points were made with; it goes into the result.
        seed: of the folds.

    Raises:
        NotEnoughPoints: fewer than twice as many as parameters, or one kind of iteration is missing.
    """
    with_chunks = points.chunks > 0
    if len(points) < 2 * len(PARAMETERS) or with_chunks.all() or not with_chunks.any():
        raise NotEnoughPoints(f"{len(points)} points, {int(with_chunks.sum())} of them with chunks, cannot be fitted")
    without = _unmeasured(points)
    theta, errors = _fit_and_validate(points, (), _starts(points), seed, without)
    knots = tuple(int(x) for x in np.unique(points.tokens[points.sets != "mixed"]))
    bumpy = _fit_and_validate(points, knots, [np.concatenate((theta, np.zeros(len(knots))))], seed, without)
    if _score(bumpy[1]) < WORTH * _score(errors):
        theta, errors = bumpy
    else:
        knots = ()
    for name in OPTIONAL.keys() - without:
        fewer = _fit_and_validate(points, knots, [theta], seed, without | {name})
        mine = np.isin(points.sets, OPTIONAL[name])
        if SHOWS * _score(fewer[1][mine]) < _score(errors[mine]):
            without, (theta, errors) = without | {name}, fewer
    return ForwardFit(_forward_of(theta, knots, points).model_copy(update=asdict(packing)), errors)


def _unmeasured(points: Points) -> frozenset[str]:
    """Costs that nothing was measured for: of pieces where it is not known how contexts are cut, and those that show in
    sets of points that are not there, such as in samples of formerly."""
    found = {name for name, sets in OPTIONAL.items() if not np.isin(points.sets, sets).any()}
    if not points.unequal.any():
        found.add("unequal_read_s")
    if not points.pieces.any():
        found.add("per_piece_s")
    return frozenset(found)


def device_seconds(forward: PhysicalForward, points: Points) -> Floats:
    """What ``sim.costs.CostModel`` predicts for all points at once, without the engine's share."""
    theta = np.array([getattr(forward, name) for name in PARAMETERS] + [factor for _, factor in forward.matrix_factors])
    theta[len(PARAMETERS) :] = np.log(theta[len(PARAMETERS) :])
    return _seconds(theta, tuple(x for x, _ in forward.matrix_factors), points)


def relative(predicted: Floats, measured: Floats) -> Floats:
    """Signed relative errors."""
    return (predicted - measured) / measured


def error_of(errors: Floats) -> Error:
    """Median and 95th percentile of the absolute errors, and the mean of the signed ones."""
    sizes = np.abs(errors)
    if not len(sizes):
        return Error(points=0, median=0.0, p95=0.0)
    return Error(
        points=len(sizes),
        median=float(np.median(sizes)),
        p95=float(np.quantile(sizes, 0.95)),
        bias=float(np.mean(errors)),
    )


def _seconds(theta: Floats, knots: tuple[int, ...], points: Points) -> Floats:
    """The equation of ``PhysicalForward``; ``theta`` in the order of ``PARAMETERS``, then logarithms of the factors."""
    value = dict(zip(PARAMETERS, theta, strict=False))
    tokens, chunks = points.tokens, points.chunks
    any_chunk = chunks > 0
    matrix = _norm(value["weights_s"], value["per_token_s"] * tokens, value["knee"])
    if knots:
        matrix = matrix * np.interp(tokens, knots, np.exp(theta[len(PARAMETERS) :]))
    device = (
        value["mixed_s"] * (any_chunk & (points.decodes > 0))
        + value["per_session_s"] * (points.padded + chunks)
        + value["per_chunk_s"] * chunks
        + matrix
        + (value["decode_read_s"] + value["unequal_read_s"] * points.unequal) * points.decode_context
        + value["mixed_read_s"] * any_chunk * points.decode_context
        + value["per_piece_s"] * points.pieces
        + value["prefill_read_s"] * points.chunk_context
        + np.maximum(
            value["pair_s"] * points.pairs,
            value["path_s"] * np.minimum(points.chunk_context / np.maximum(chunks, 1), value["path_tokens"]),
        )
    )
    device = np.where(any_chunk, np.maximum(device, value["launch_s"]), device)
    seconds: Floats = value["overhead_s"] + value["chunks_overhead_s"] * any_chunk + device
    return seconds


def _norm(a: float, b: Floats, p: float) -> Floats:
    large, small = np.maximum(a, b), np.minimum(a, b)
    joined: Floats = large * (1.0 + (small / np.maximum(large, 1e-300)) ** p) ** (1.0 / p)
    return joined


def _fit_and_validate(
    points: Points, knots: tuple[int, ...], starts: list[Floats], seed: int, without: frozenset[str]
) -> tuple[Floats, Floats]:
    """The best fit to all points, and each point's error by a fit without its fold. Costs ``without`` are zero."""
    theta = min((_fit(points, knots, start, without) for start in starts), key=lambda found: found[1])[0]
    fold = np.random.default_rng(seed).permutation(len(points)) % FOLDS
    errors = np.zeros(len(points))
    for index in range(FOLDS):
        held: Mask = fold == index
        other, _ = _fit(points[~held], knots, theta, without)
        errors[held] = relative(_seconds(other, knots, points[held]), points.seconds[held])
    return theta, errors


def _fit(points: Points, knots: tuple[int, ...], start: Floats, without: frozenset[str]) -> tuple[Floats, float]:
    """Least squares from ``start``. Returns parameters and cost."""
    scale = _scales(points, knots)
    fixed = without | {"path_tokens"} if "path_s" in without else without
    free = np.array([*(name not in fixed for name in PARAMETERS), *(True for _ in knots)])
    low, high = np.zeros(len(start)), np.full(len(start), np.inf)
    low[PARAMETERS.index("per_token_s")] = 1e-6
    knee = PARAMETERS.index("knee")
    low[knee], high[knee] = 1.0 / scale[knee], SHARPEST_KNEE / scale[knee]
    low[PARAMETERS.index("path_tokens")] = 1.0 / scale[PARAMETERS.index("path_tokens")]
    low[len(PARAMETERS) :] = -0.7

    def residuals(scaled: Floats) -> Floats:
        theta = np.zeros(len(start))
        theta[free] = scaled * scale[free]
        errors = relative(_seconds(theta, knots, points), points.seconds)
        bent = 2 * OUTLIER**2 * (np.sqrt(1 + (errors / OUTLIER) ** 2) - 1)
        shrunk = np.sign(errors) * np.sqrt(bent)
        factors = theta[len(PARAMETERS) :]
        together: Floats = np.concatenate((shrunk, STIFFNESS * np.diff(factors), FLATNESS * factors))
        return together

    begin = np.clip(start / scale, low + 1e-9, high - 1e-9)
    bounds, most = (low[free], high[free]), 60 if knots else 300
    found = least_squares(residuals, begin[free], bounds=bounds, max_nfev=most, tr_solver="lsmr")
    theta = np.zeros(len(start))
    theta[free] = found.x * scale[free]
    return theta, float(found.cost)


def _scales(points: Points, knots: tuple[int, ...]) -> Floats:
    """What each parameter would be if it alone explained the largest iterations: numbers near 1 suit the solver."""
    least = float(points.seconds.min())

    def per(feature: Floats) -> float:
        most = float(feature.max())
        return float(points.seconds[feature == most].mean()) / most if most > 0 else least

    scale = {
        "per_token_s": per(points.tokens),
        "per_session_s": per(points.padded + points.chunks),
        "per_chunk_s": least,
        "decode_read_s": per(points.decode_context),
        "per_piece_s": per(points.pieces),
        "prefill_read_s": per(points.chunk_context),
        "pair_s": per(points.pairs),
        "knee": 4.0,
        "mixed_read_s": per(points.decode_context),
        "unequal_read_s": per(points.decode_context),
        "path_s": per(points.chunk_context / np.maximum(points.chunks, 1)),
        "path_tokens": 1000.0,
    }
    return np.array([*(scale.get(name, least) for name in PARAMETERS), *(1.0 for _ in knots)])


def _starts(points: Points) -> list[Floats]:
    """Where to begin: three knees, with and without a floor under passes with chunks."""
    floor = float(points.seconds[points.chunks > 0].min())
    shares = {"overhead_s": 0.1, "chunks_overhead_s": 0.05, "weights_s": 0.8, "per_token_s": 0.8, "decode_read_s": 0.6}
    shares |= {"path_s": 0.3, "path_tokens": 1.2}
    scale, starts = _scales(points, ()), []
    for knee in KNEES:
        for launch in (0.0, 0.9 * floor):
            start = scale * np.array([*(shares.get(name, 0.05) for name in PARAMETERS)])
            start[PARAMETERS.index("knee")], start[PARAMETERS.index("launch_s")] = knee, launch
            starts.append(start)
    return starts


def _score(errors: Floats) -> float:
    """How wrong, as a share of what the project aims at (3 % in the median, 8 % at P95)."""
    error = error_of(errors)
    return error.median / 0.03 + error.p95 / 0.08


def _forward_of(theta: Floats, knots: tuple[int, ...], points: Points) -> PhysicalForward:
    """As a profile has it; what never matters is zero."""
    values = dict(zip(PARAMETERS, (float(number) for number in theta), strict=False))
    scales = dict(zip(PARAMETERS, _scales(points, knots), strict=False))
    for name in PARAMETERS:
        if name not in {"knee", "per_token_s", "path_tokens"} and values[name] < 1e-4 * scales[name]:
            values[name] = 0.0
    values["path_tokens"] = max(1.0, values["path_tokens"] if values["path_s"] else 1.0)
    without = PhysicalForward(**values)
    if values["launch_s"] and not _floor_matters(without, points):
        without = without.model_copy(update={"launch_s": 0.0})
    return without.model_copy(update={"matrix_factors": _pruned(knots, np.exp(theta[len(PARAMETERS) :]))})


def _pruned(knots: tuple[int, ...], factors: Floats) -> tuple[tuple[int, float], ...]:
    """The knots that matter: a line between them passes all others within ``PRUNED`` (Douglas and Peucker)."""
    if not knots:
        return ()
    x, kept, open_ = np.array(knots, dtype=np.float64), {0, len(knots) - 1}, [(0, len(knots) - 1)]
    while open_:
        first, last = open_.pop()
        between = np.interp(x[first : last + 1], x[[first, last]], factors[[first, last]])
        off = np.abs(factors[first : last + 1] - between)
        worst = first + int(off.argmax())
        if off.max() > PRUNED and worst not in kept:
            kept.add(worst)
            open_ += [(first, worst), (worst, last)]
    return tuple((knots[index], round(float(factors[index]), 4)) for index in sorted(kept))


def _floor_matters(forward: PhysicalForward, points: Points) -> bool:
    """Whether any measured pass is as short as the launch of its kernels."""
    without = device_seconds(forward.model_copy(update={"launch_s": 0.0}), points)
    return bool((device_seconds(forward, points) > without).any())
