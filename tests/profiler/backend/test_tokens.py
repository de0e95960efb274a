"""Token ids: prompts and answers follow from the session and the position, and choices from their own seed."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from profiler.backend.tokens import Sampling, Stretch, TokenStore, seed_of  # noqa: E402

CPU = torch.device("cpu")


def test_prompts_follow_from_session_and_position() -> None:
    store = TokenStore(2, 5000, 97, CPU)
    store.fill(0, seed_of("a"))
    store.fill(1, seed_of("b"))
    whole, other = store.ids[0].clone(), store.ids[1].clone()
    store.fill(1, seed_of("a"), 200)
    assert torch.equal(store.ids[1], torch.cat((other[:200], whole[200:])))
    assert (whole == other).float().mean() < 0.05
    assert set(whole.tolist()) == set(other.tolist()) == set(range(97))


def test_stretches_are_the_same_wherever_they_stand_at_the_same_place() -> None:
    """The second stretch of both prompts begins at position 30; what comes before it differs."""
    store = TokenStore(2, 100, 50_000, CPU)
    store.begin_with(0, [Stretch(seed_of("x"), 30), Stretch(seed_of("z"), 20)])
    store.begin_with(1, [Stretch(seed_of("y"), 10), Stretch(seed_of("x"), 20), Stretch(seed_of("z"), 20)])
    assert torch.equal(store.ids[0, 30:50], store.ids[1, 30:50])
    assert torch.equal(store.ids[0, 10:30], store.ids[1, 10:30])
    assert not (store.ids[0, :10] == store.ids[1, :10]).any()


def test_seeds_are_the_same_in_every_process() -> None:
    assert seed_of("session-1") == 6279388518069433302


def test_the_likeliest_token_is_taken_and_its_lead_kept() -> None:
    store = TokenStore(2, 8, 4, CPU, margins=True)
    store.sample(torch.tensor([[0.0, 3.0, 1.0, 2.5], [9.0, 1.0, 0.0, 0.0]]), torch.tensor([0, 1]), torch.tensor([3, 5]))
    assert (store.ids[0, 4], store.ids[1, 6]) == (1, 0)
    assert store.margins is not None
    assert (store.margins[0, 4], store.margins[1, 6]) == (0.5, 8.0)


def test_tokens_that_were_not_chosen_have_no_lead_whoever_had_the_row_before() -> None:
    """Positions 4 and 6 were chosen; a rewrite after 5 tokens forgets the second, a new session both; one that follows
    the first 5 tokens of another has their leads."""
    store = TokenStore(2, 8, 4, CPU, margins=True)
    assert store.margins is not None
    logits = torch.tensor([[0.0, 2.0, 1.0, 0.0]] * 2)
    store.sample(logits, torch.tensor([0, 0]), torch.tensor([3, 5]))
    assert store.margins[0].nonzero().flatten().tolist() == [4, 6]
    store.fill(0, 7, 5)
    assert store.margins[0].nonzero().flatten().tolist() == [4]
    store.follow(1, 0, 5, 8)
    assert store.margins[1].nonzero().flatten().tolist() == [4]
    store.fill(0, 9)
    assert not store.margins[0].any()


def test_draws_follow_the_softmax_and_do_not_depend_on_the_batch() -> None:
    """8,000 draws from probabilities 0.1, 0.2 and 0.7 at temperature 2: three standard deviations are 0.015."""
    probabilities = torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64)
    draws = 8000
    store = TokenStore(1, draws, 3, CPU, Sampling(temperature=2.0, seed=1))
    store.fill(0, seed_of("a"))
    logits = (2 * probabilities.log()).expand(draws, 3)
    rows, positions = torch.zeros(draws, dtype=torch.int64), torch.arange(draws)
    store.sample(logits, rows, positions)
    drawn = store.ids[0, 1 : draws + 1].clone()
    frequencies = torch.bincount(drawn.long(), minlength=3) / draws
    torch.testing.assert_close(frequencies.double(), probabilities, atol=0.016, rtol=0)
    store.sample(logits[:1], rows[:1], positions[77:78])
    assert store.ids[0, 78] == drawn[77]
