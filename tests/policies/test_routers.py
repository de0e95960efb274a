"""Each router on replicas whose state is written down by hand."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from policies.registry import ROUTERS, UnknownPolicy, make_router, names
from policies.routing import Router


@dataclass
class Replica:
    """What a router sees; blocks of 16 tokens."""

    outstanding_tokens: int = 0
    waiting_sessions: int = 0
    running_sessions: int = 0
    paused_sessions: int = 0
    free_blocks: int = 100
    idle_blocks: int = 0
    gpu_blocks: int = 100
    block_size: int = 16


@dataclass
class Call:
    """A session that is to be sent somewhere."""

    id: str = "a"
    kind: str = ""
    serial: int = 0
    calls_done: int = 0
    context_tokens: int = 160
    home: int | None = None
    held_tokens: int = 0


def loads(*tokens: int) -> list[Replica]:
    return [Replica(outstanding_tokens=one) for one in tokens]


def arrivals(router: Router, replicas: Sequence[Replica], count: int) -> list[int]:
    return [router.on_arrival(Call(f"s{serial}", serial=serial), replicas) for serial in range(count)]


def test_round_robin_deals_sessions_in_turn_whatever_the_load() -> None:
    router = make_router("round-robin")
    assert router.stateless
    assert arrivals(router, loads(900, 0, 0), 5) == [0, 1, 2, 0, 1]
    assert router.on_resume(Call(calls_done=1, home=1), loads(0, 900, 0)) == 1


def test_round_robin_by_calls_deals_resuming_sessions_too() -> None:
    router, replicas = make_router("round-robin-calls"), loads(0, 0)
    assert arrivals(router, replicas, 3) == [0, 1, 0]
    assert router.on_resume(Call(calls_done=1, home=0), replicas) == 1
    assert router.on_arrival(Call(), replicas) == 0


def test_hash_affinity_follows_from_the_id_alone() -> None:
    """CRC-32 of "a" is 3904355907, of "b" 1908338681: remainders 3 and 1 by 4."""
    router = make_router("hash-affinity")
    assert router.stateless
    assert router.on_arrival(Call("a", serial=0), loads(0, 0, 0, 0)) == 3
    assert router.on_arrival(Call("a", serial=9), loads(9, 9, 9, 9)) == 3
    assert router.on_arrival(Call("b"), loads(0, 0, 0, 0)) == 1


def test_hash_affinity_spreads_many_ids_evenly() -> None:
    """1,000 of 4,000 sessions each, give or take."""
    counts = Counter(arrivals(make_router("hash-affinity"), loads(0, 0, 0, 0), 4000))
    assert all(900 < counts[index] < 1100 for index in range(4))


def test_least_outstanding_takes_the_lightest_and_of_two_the_first() -> None:
    router = make_router("least-outstanding")
    assert router.on_arrival(Call(), loads(500, 200, 200, 900)) == 1
    assert router.on_resume(Call(calls_done=1, home=0), loads(500, 200, 100, 900)) == 2


def test_affinity_chooses_the_lightest_once() -> None:
    router = make_router("affinity")
    assert router.on_arrival(Call(), loads(500, 200)) == 1
    assert router.on_resume(Call(calls_done=1, home=1), loads(0, 10**6)) == 1


@pytest.mark.parametrize(
    ("home", "goes"),
    [
        (Replica(900), 1),
        (Replica(900, waiting_sessions=4), 1),
        (Replica(900, waiting_sessions=5), 2),
        (Replica(900, free_blocks=3), 1),
        (Replica(900, free_blocks=2), 2),
        (Replica(900, free_blocks=0, idle_blocks=3), 1),
    ],
)
def test_affinity_spills_when_home_is_full(home: Replica, goes: int) -> None:
    """160 tokens, 120 of them still there: 40 more, 3 blocks of 16. More than 4 waiting is full, too."""
    call = Call(calls_done=1, home=1, held_tokens=120)
    assert make_router("affinity-spill").on_resume(call, [Replica(700), home, Replica(300)]) == goes


def test_affinity_spill_says_what_full_means() -> None:
    busy = [Replica(900, waiting_sessions=1), Replica(0)]
    call = Call(calls_done=1, home=0, held_tokens=160)
    assert make_router({"name": "affinity-spill", "most_waiting": 0}).on_resume(call, busy) == 1
    with pytest.raises(UnknownPolicy, match="most_waiting"):
        make_router({"name": "affinity-spill", "most_waiting": -1})


def test_two_choices_takes_the_lighter_of_two_drawn() -> None:
    """Replayed with the same seed: one index of 4, then one of the 3 that follow it."""
    draws = random.Random(7)
    replicas = loads(40, 10, 30, 20)
    expected = []
    for _ in range(50):
        first = draws.randrange(4)
        second = (first + draws.randrange(1, 4)) % 4
        expected.append(min((first, second), key=lambda index: replicas[index].outstanding_tokens))
    assert arrivals(make_router({"name": "two-choices", "seed": 7}), replicas, 50) == expected
    assert 0 not in expected  # the heaviest of all is never the lighter of two


def test_two_choices_of_one_replica_is_that_one() -> None:
    assert arrivals(make_router("two-choices"), loads(5), 3) == [0, 0, 0]


def test_every_router_that_ships_is_found_and_made() -> None:
    shipped = {
        "affinity", "affinity-spill", "hash-affinity", "least-outstanding", "round-robin", "round-robin-calls",
        "two-choices",
    }  # fmt: skip
    assert shipped <= set(names(ROUTERS))
    assert all(isinstance(make_router(name), Router) for name in shipped)


def test_an_unknown_router_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownPolicy, match=r"no such name in routers: 'round-robbin'; did you mean 'round-robin'\?"):
        make_router("round-robbin")


def test_a_class_that_is_no_router_is_refused() -> None:
    with pytest.raises(UnknownPolicy, match=r"not a subclass of policies\.routing\.Router"):
        make_router("policies.basic.fcfs:FirstCome")
