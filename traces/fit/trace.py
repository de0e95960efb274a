"""A generator fitted to a trace: the shape of a workload, to share in place of the workload itself.

Per kind of session: calls, first prompts, outputs; per sort of pause: durations and returned tokens; which pause
follows which, where that is not left to chance; contexts that the client rewrites; and how values go with the first
prompt, with others of their session and with the one before. What it leaves out: any other way in which quantities
depend on each other or on their place in the session, which blocks are shared, and an arrival rate that
drifts otherwise than in waves.
"""

from __future__ import annotations

import itertools
import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from traces.draw.copula import bands_of, distance_from_independence
from traces.draw.distributions import Values
from traces.draw.shapes import pause_label
from traces.fit.arrivals import FittedArrivals, fit_arrivals
from traces.fit.association import Association, association
from traces.fit.distributions import Fitted, fit_distribution, rounded
from traces.session import Pause, Session

FEWEST_PAUSES = 20
MOST_SORTS = 12
LEAST_CHAINED = 0.1
LEAST_CORRELATION = 0.05
BANDS, LEAST_A_BAND, LEAST_DEPENDENCE = 12, 20, 0.1
OTHER = "other"
UNKNOWN_ARRIVALS: Mapping[str, object] = {"poisson": {"rate": 1.0}}


@dataclass(frozen=True, slots=True)
class Quantity:
    """One quantity of a trace and the distribution that stands for it.

    Attributes:
        kind: of session.
        name: such as ``calls``, ``prompt``, ``output``, ``pause tool:search``, ``returned user``.
        values: as recorded.
        fitted: the distribution that stands for them.
        unit: ``tokens``, ``s``, or empty.
    """

    kind: str
    name: str
    values: Values
    fitted: Fitted
    unit: str


@dataclass(frozen=True, slots=True)
class FittedTrace:
    """A generator file's content, and how it came about.

    Attributes:
        written: as a generator file says it.
        quantities: every distribution in it.
        arrivals: the arrival process; None where the trace records too few arrivals.
        associations: by kind of session and by quantity.
    """

    written: dict[str, object]
    quantities: tuple[Quantity, ...]
    arrivals: FittedArrivals | None
    associations: Mapping[str, Mapping[str, Association]]


@dataclass
class _Observed:
    """The numbers of one kind of session, in the order of its sessions."""

    calls: array[int] = field(default_factory=lambda: array("q"))
    prompts: array[int] = field(default_factory=lambda: array("q"))
    outputs: array[int] = field(default_factory=lambda: array("q"))
    pauses: array[int] = field(default_factory=lambda: array("q"))
    seconds: array[float] = field(default_factory=lambda: array("d"))
    returned: array[int] = field(default_factory=lambda: array("q"))
    shrunk: array[float] = field(default_factory=lambda: array("d"))
    kept: array[float] = field(default_factory=lambda: array("d"))
    sorts: list[tuple[str, str]] = field(default_factory=list)
    ended_with_pause: int = 0

    def add(self, session: Session) -> None:
        self.calls.append(len(session.calls))
        self.prompts.append(session.prompt)
        self.pauses.append(len(session.pauses))
        self.ended_with_pause += session.calls[-1].pause is not None
        context = session.prompt
        for call in session.calls:
            self.outputs.append(call.output)
            context += call.output
            if call.pause is not None:
                context = self._add_pause(call.pause, context)

    def _add_pause(self, pause: Pause, context: int) -> int:
        kept = context if pause.keeps is None else min(pause.keeps, context)
        after = kept + pause.returned
        self.seconds.append(pause.duration)
        self.returned.append(pause.returned)
        self.shrunk.append(np.nan if pause.keeps is None else after / context)
        self.kept.append(np.nan if pause.keeps is None else kept / after)
        self.sorts.append((pause.waits_for, pause.tool))
        return after


class TraceFit:
    """Sees the sessions of a trace one by one, and fits a generator to them in the end."""

    def __init__(self, sessions: Iterable[Session] = ()) -> None:
        self._kinds: dict[str, _Observed] = defaultdict(_Observed)
        self._arrivals = array("d")
        for session in sessions:
            self.add(session)

    def add(self, session: Session) -> None:
        """Add one more session."""
        self._kinds[session.kind].add(session)
        self._arrivals.append(session.arrival)

    def fit(self, points: int = 41) -> FittedTrace:
        """The generator that stands for the sessions seen; ``points`` as in
        `traces.fit.distributions.fit_distribution`.

        Raises:
            ValueError: no session was seen.
        """
        if not self._kinds:
            raise ValueError("there is no session to fit a generator to")
        quantities: list[Quantity] = []
        kinds: dict[str, object] = {}
        associations = self.associations()
        for kind, observed in self._kinds.items():
            weight = rounded(len(observed.calls) / len(self._arrivals))
            fit = _KindFit(kind, observed, points, quantities)
            together = _together(associations[kind], len(observed.calls), _output_by_prompt(observed))
            kinds[kind or "session"] = {"weight": weight, **fit.written(), **together}
        arrivals = fit_arrivals(np.sort(np.array(self._arrivals)))
        process = arrivals.written if arrivals is not None else dict(UNKNOWN_ARRIVALS)
        return FittedTrace({"arrivals": process, "kinds": kinds}, tuple(quantities), arrivals, associations)

    def associations(self) -> dict[str, dict[str, Association]]:
        """The correlations, by kind of session and by ``calls``, ``output``, ``pause`` and ``returned``."""
        return {kind: _associations(observed) for kind, observed in self._kinds.items()}


class _KindFit:
    """Fits one kind of session; every distribution is added to ``quantities``."""

    def __init__(self, kind: str, observed: _Observed, points: int, quantities: list[Quantity]) -> None:
        self.kind = kind
        self.observed = observed
        self.points = points
        self.quantities = quantities
        self.sorts = _merged_sorts(observed.sorts)
        self.rewritten = ~np.isnan(np.array(observed.kept))

    def written(self) -> dict[str, object]:
        observed = self.observed
        calls = np.array(observed.calls, dtype=np.float64)
        entry: dict[str, object] = {
            "calls": self._fit("calls", calls, "", whole=True),
            "prompt": self._fit("prompt", np.array(observed.prompts, dtype=np.float64), "tokens", whole=True),
            "output": self._fit("output", np.array(observed.outputs, dtype=np.float64), "tokens", whole=True),
        }
        if observed.sorts:
            entry["pauses"] = self._pauses()
        if observed.ended_with_pause:
            entry["ends_with_pause"] = rounded(observed.ended_with_pause / len(calls))
        if self.rewritten.any():
            entry["rewrites"] = self._rewrites()
        return entry

    def _pauses(self) -> list[dict[str, object]]:
        seconds, returned = np.array(self.observed.seconds), np.array(self.observed.returned, dtype=np.float64)
        counts = Counter(self.sorts)
        firsts, chains = self._chains()
        entries = []
        for (waits_for, tool), count in counts.most_common():
            label = pause_label(waits_for, tool)
            here = np.array([sort == (waits_for, tool) for sort in self.sorts])
            plain = returned[here & ~self.rewritten]
            entry: dict[str, object] = {"waits_for": waits_for, **({"tool": tool} if tool else {})}
            entry["seconds"] = self._fit(f"pause {label}", seconds[here], "s", whole=False)
            entry["returned"] = self._fit(f"returned {label}", plain, "tokens", whole=True) if len(plain) else 0
            if len(counts) > 1:
                entry["share"] = rounded(firsts[label] if chains else count / len(self.sorts))
                if chains:
                    entry["then"] = chains[label]
            entries.append(entry)
        return entries

    def _chains(self) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Shares of the first pauses, and of those that follow each; the latter empty where chance explains them."""
        labels = [pause_label(*sort) for sort in self.sorts]
        shares = {label: count / len(labels) for label, count in Counter(labels).items()}
        firsts: Counter[str] = Counter()
        following: dict[str, Counter[str]] = defaultdict(Counter)
        position = 0
        for count in self.observed.pauses:
            chain = labels[position : position + count]
            firsts.update(chain[:1])
            for before, after in itertools.pairwise(chain):
                following[before][after] += 1
            position += count
        chained = any(
            _distance(_shares(following[label]), shares) > LEAST_CHAINED and following[label].total() >= FEWEST_PAUSES
            for label in shares
        )
        first = {label: firsts[label] / firsts.total() for label in shares}
        if not chained:
            return first, {}
        return first, {
            label: {name: rounded(share) for name, share in (_shares(following[label]) or shares).items()}
            for label in shares
        }

    def _rewrites(self) -> dict[str, object]:
        shrunk, kept = np.array(self.observed.shrunk), np.array(self.observed.kept)
        followed = len(kept) - self.observed.ended_with_pause
        return {
            "share": rounded(min(float(self.rewritten.sum()) / followed, 1.0)) if followed else 0.0,
            "shrinks_to": self._fit("rewritten: new part of old", shrunk[self.rewritten], "", whole=False),
            "keeps": self._fit("rewritten: kept part of new", kept[self.rewritten], "", whole=False),
        }

    def _fit(self, name: str, values: Values, unit: str, whole: bool) -> float | dict[str, object]:
        fitted = fit_distribution(values, whole, self.points)
        self.quantities.append(Quantity(self.kind, name, np.sort(values), fitted, unit))
        return fitted.written


def _merged_sorts(sorts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The sorts of pause; tools that are rare stand together as one tool called other."""
    counts = Counter(sorts)
    common = {sort for sort, count in counts.most_common(MOST_SORTS) if count >= FEWEST_PAUSES or not sort[1]}
    rare = [sort for sort in counts if sort not in common]
    if len(rare) < 2:
        return list(sorts)
    return [sort if sort in common else (sort[0], OTHER) for sort in sorts]


def _associations(observed: _Observed) -> dict[str, Association]:
    prompts, calls = np.array(observed.prompts, dtype=np.float64), np.array(observed.calls, dtype=np.float64)
    outputs = np.split(np.array(observed.outputs, dtype=np.float64), np.cumsum(observed.calls)[:-1])
    found = {"calls": association(prompts, list(calls[:, np.newaxis])), "output": association(prompts, outputs)}
    if observed.sorts:
        sorts, edges = _merged_sorts(observed.sorts), np.cumsum(observed.pauses)[:-1]
        rewritten = ~np.isnan(np.array(observed.kept))
        found["pause"] = association(prompts, np.split(_ranks_by_sort(np.array(observed.seconds), sorts), edges))
        ranks = _ranks_by_sort(np.array(observed.returned, dtype=np.float64), sorts)
        ranks[rewritten] = np.nan
        found["returned"] = association(prompts, [part[~np.isnan(part)] for part in np.split(ranks, edges)])
    return found


def _output_by_prompt(observed: _Observed) -> list[list[float]]:
    """The bands of outputs by prompts in sessions of one call; empty where outputs depend little on prompts, or
    sessions are few."""
    sessions = len(observed.calls)
    if len(observed.outputs) != sessions or sessions < LEAST_A_BAND * BANDS**2:
        return []
    prompts, outputs = (np.array(some, dtype=np.float64) for some in (observed.prompts, observed.outputs))
    if len(np.unique(prompts)) < BANDS or len(np.unique(outputs)) < BANDS:
        return []
    bands = bands_of(prompts, outputs, BANDS)
    by_chance = 0.4 * BANDS / math.sqrt(sessions)
    return bands if distance_from_independence(bands) > LEAST_DEPENDENCE + by_chance else []


def _together(
    associations: Mapping[str, Association], sessions: int, output_by_prompt: list[list[float]]
) -> dict[str, Any]:
    """The correlations that are larger than chance gives and than `LEAST_CORRELATION`, as a generator file writes them.
    Bands of outputs, where there are any, stand in place of the outputs' correlation with the prompt."""
    by_chance = max(LEAST_CORRELATION, 2 / math.sqrt(sessions))
    several = {name: one for name, one in associations.items() if name != "calls"}
    of_prompts = {name: one for name, one in associations.items() if name != "output" or not output_by_prompt}
    written = {
        "alike": {name: one.alike for name, one in several.items() if one.alike >= LEAST_CORRELATION},
        "with_prompt": {n: one.with_prompt for n, one in of_prompts.items() if abs(one.with_prompt) >= by_chance},
        "along": {name: one.along for name, one in several.items() if abs(one.along) >= LEAST_CORRELATION},
        "output_by_prompt": output_by_prompt,
    }
    return {what: given for what, given in written.items() if given}


def _shares(counts: Counter[str]) -> dict[str, float]:
    total = counts.total()
    return {name: count / total for name, count in counts.items()}


def _distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Half the sum of the differences of two sets of shares: 0 for the same, 1 for sets without overlap."""
    return sum(abs(one.get(name, 0.0) - other.get(name, 0.0)) for name in {*one, *other}) / 2 if one else 0.0


def _ranks_by_sort(values: Values, sorts: Sequence[tuple[str, str]]) -> Values:
    """The rank of each value among those of its own sort, from 0 to 1."""
    from scipy.stats import rankdata

    ranks = np.zeros(len(values))
    places: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, sort in enumerate(sorts):
        places[sort].append(index)
    for where in places.values():
        ranks[where] = (rankdata(values[where]) - 0.5) / len(where)
    return ranks
