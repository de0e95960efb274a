"""How little memory a workload could waste: a lower bound on the waste of any policy, from the true durations.

After a pause the next call needs every context token that survived it on the GPU again. So each of these tokens either

    stayed there for the whole pause of T seconds                 T token-seconds, or more
    came back from the host, where it must have gone              2 copies of it, which hold its whole block of B tokens
    was computed again, the p-th token with all those before it   p tau, tau the least seconds of a computed token

whatever the policy did, and in ``sim.results.memory_accounting`` each of the three is waste: of preservation, of
swaps, of recomputation.
They are different memory at different times, so wastes of tokens and pauses add up, and with s the seconds of both
copies of one token, no run in which the sessions finish wastes less than

    W >= sum over pauses, over p = 1 ... n of min(T, B s, p tau),   n the tokens that are needed again.

tau = min over m of T_fwd(m) / m, m up to the tokens that an iteration may compute: alone, after no context, in
the largest batch. Proof of the third line: a chunk that ends at token e is computed in an iteration of at least T_fwd
seconds, of which the recomputed tokens have their share of the chunk, and holds e tokens all the while.

What is left out can only raise the waste: that memory, host and link are finite and shared, that copies have a
latency and go by whole blocks, that others wait while a context is computed again, that sessions queue after a pause,
and that no policy knows T. After a pause that nothing follows no token is needed, nor after one that a cut run did not
see the end of. To be safe nothing is counted for a leading token that sessions could share, nor for a session with
several samples, a streaming prompt, or several tools at once. The bound is for one replica without
``prefix_sharing``, under which forgotten blocks may come back for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sim.costs.batch import Batch, Direction
from sim.costs.cost_model import CostModel, padded
from sim.costs.profile import PhysicalForward, Profile
from sim.engine.settings import EngineSettings
from traces.session import Session


def waste_bound(sessions: Iterable[Session], profile: Profile, settings: EngineSettings) -> float:
    """Token-seconds that are wasted at least, whatever the policy, if one replica serves ``sessions`` to their end.

    Args:
        sessions: those that finished; each with its true durations.
        profile: costs; the sizes of the pools play no part.
        settings: block size, and how many tokens an iteration may compute.
    """
    sessions = list(sessions)
    costs = CostModel(profile)
    longest = max((session.max_context for session in sessions), default=0)
    computed = least_seconds_per_token(costs, settings, longest)
    copied = settings.block_size * (costs.copy_time(1, Direction.OUT) + costs.copy_time(1, Direction.IN))
    copied -= settings.block_size * 2 * profile.swap.latency_s
    wasted = 0.0
    for session in filter(_is_plain, sessions):
        shared = _could_share(session)
        for tokens, seconds in needed_again(session):
            at_most = min(seconds, copied)
            wasted += _least(tokens, at_most, computed) - _least(min(shared, tokens), at_most, computed)
    return wasted


def needed_again(session: Session) -> Iterator[tuple[int, float]]:
    """For each pause that a call follows: tokens computed before it that the call needs, and its duration, s."""
    context = session.prompt
    for call in session.calls[:-1]:
        pause = call.pause
        assert pause is not None
        context += call.output
        kept = context if pause.keeps is None else min(context, pause.keeps)
        yield min(context - 1, kept), pause.duration  # the last token emitted has not been computed yet
        context = kept + pause.returned


def least_seconds_per_token(costs: CostModel, settings: EngineSettings, longest: int) -> float:
    """tau: no iteration computes tokens faster than this, s per token.

    Args:
        costs: of an iteration.
        settings: tokens that it may compute; without chunked prefill a whole context may exceed them.
        longest: tokens of the longest context.
    """
    budget = costs.saturation_tokens if settings.token_budget == "saturation" else settings.token_budget
    most = budget if settings.chunked_prefill else max(budget, longest)
    forward = costs.profile.forward
    if isinstance(forward, PhysicalForward):  # it pads sessions that decode
        most += max(padded(decodes, forward.decode_sizes) - decodes for decodes in range(most))
    return min(costs.iteration_time(_bare(tokens)) / tokens for tokens in range(1, most + 1))


def _is_plain(session: Session) -> bool:
    many = any(pause.tools or pause.session for pause in session.pauses)
    return session.samples == 1 and not session.stream and not many


def _could_share(session: Session) -> int:
    """Leading tokens that other sessions may have too."""
    named = session.prefix.tokens if session.prefix is not None else 0
    return max(named, min(session.prompt, len(session.block_hashes) * session.hash_block))


def _bare(tokens: int) -> Batch:
    """A batch that costs no more than any other that computes ``tokens`` tokens: no context is read."""
    return Batch(prefill_sessions=1, prefill_tokens=tokens)


def _least(tokens: int, at_most: float, computed: float) -> float:
    """The sum over p = 1 ... ``tokens`` of min(``at_most``, p * ``computed``)."""
    if computed <= 0:
        return 0.0
    again = min(tokens, int(at_most / computed))
    return computed * again * (again + 1) / 2 + at_most * (tokens - again)
