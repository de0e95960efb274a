"""Which costs a recorded run is replayed with."""

from __future__ import annotations

import pytest

from caesura.config.profiles import read_profile
from caesura.errors import UserError
from caesura.fidelity.replays import ReplayCosts
from sim.costs.profile import Profile


def measured_on(card: str | None) -> Profile:
    shipped = read_profile("h200/llama-3.1-8b")
    assert shipped.measured is not None
    machine = shipped.measured.machine | ({} if card is None else {"card": card})
    return shipped.model_copy(update={"measured": shipped.measured.model_copy(update={"machine": machine})})


def test_the_card_itself_comes_before_others_of_its_kind() -> None:
    first, second, older = measured_on("1111"), measured_on("2222"), measured_on(None)
    costs = ReplayCosts(None, (("older", older), ("first", first), ("second", second)))
    gpu = first.gpu
    assert costs.of("llama-3.1-8b", gpu, "2222") == ("second", second)
    assert costs.of("llama-3.1-8b", gpu, "3333") == costs.of("llama-3.1-8b", gpu) == ("older", older)
    assert costs.of("llama-3.1-8b", "another GPU", "1111")[1] is None


def test_what_was_asked_for_comes_before_all() -> None:
    costs = ReplayCosts(("mine", measured_on("1111")))
    assert costs.of("llama-3.1-8b", "any", "2222")[0] == "mine"
    with pytest.raises(UserError, match="the runs are of vicuna-13b"):
        costs.of("vicuna-13b", "any", None)
