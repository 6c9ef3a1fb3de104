"""Every loss term by hand on tiny numbers."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lnln.models.lnln import adversarial_loss, lnln_losses, reconstruction_loss
from lnln.models.method import LossWeights, Output, Reconstruction


def part(estimate: list, target: list, mask: list) -> Reconstruction:
    return Reconstruction(
        torch.tensor(estimate), torch.tensor(target), torch.tensor(mask)
    )


def output(
    sentiment: list[float],
    completeness: list[float],
    reconstructions: dict[str, Reconstruction] | None = None,
) -> Output:
    """An output whose discriminator is undecided: L_adv = log 2."""
    count = len(sentiment)
    blank = torch.zeros(count, 2, 3)
    return Output(
        answer=torch.tensor(sentiment),
        completeness=torch.tensor(completeness),
        proxy_logits=torch.zeros(count, 2, 2),
        language_logits=torch.zeros(count, 2, 2),
        embedded={"l": blank, "a": blank, "v": blank},
        proxy=blank,
        corrected=blank,
        dominants=(blank, blank, blank),
        hyper=blank,
        fused=blank,
        reconstructions=reconstructions or {},
    )


def logits(*rows: tuple[float, float]) -> Tensor:
    """One utterance's (1, T, 2) logits."""
    return torch.tensor([rows])


def test_sentiment_loss_is_the_mean_squared_error() -> None:
    losses = lnln_losses(
        output([1.0, -2.0], [0.5, 0.5]),
        torch.tensor([0.0, 1.0]),
        torch.tensor([0.5, 0.5]),
        LossWeights(),
    )
    assert float(losses.sentiment) == pytest.approx((1 + 9) / 2)


def test_completeness_loss_is_the_mean_squared_error_to_1_minus_r() -> None:
    losses = lnln_losses(
        output([0.0, 0.0], [0.9, 0.25]),
        torch.zeros(2),
        torch.tensor([0.7, 0.75]),
        LossWeights(),
    )
    assert float(losses.completeness) == pytest.approx((0.04 + 0.25) / 2)


def test_an_undecided_discriminator_costs_log_2() -> None:
    zero = torch.zeros(3, 2, 2)
    assert float(adversarial_loss(zero, zero)) == pytest.approx(math.log(2))


def test_adversarial_loss_calls_proxy_1_and_language_0() -> None:
    right, wrong = (0.0, 30.0), (30.0, 0.0)
    assert float(adversarial_loss(logits(right), logits(wrong))) < 1e-9
    assert float(adversarial_loss(logits(wrong), logits(right))) == pytest.approx(30)


def test_adversarial_loss_is_the_mean_over_all_tokens_of_both_kinds() -> None:
    proxy = logits((0.0, 1.0), (2.0, -1.0))
    language = logits((0.5, 0.0), (0.0, 3.0))
    # log(1 + exp(other - true)) per token
    margins = (0.0 - 1.0, 2.0 - -1.0, 0.0 - 0.5, 3.0 - 0.0)
    want = sum(math.log1p(math.exp(m)) for m in margins) / 4
    assert float(adversarial_loss(proxy, language)) == pytest.approx(want)


def test_adversarial_loss_does_not_mix_up_utterances_and_kinds() -> None:
    right, wrong = torch.tensor([0.0, 9.0]), torch.tensor([9.0, 0.0])
    proxy, language = right.expand(3, 2, 2), wrong.expand(3, 2, 2)
    assert float(adversarial_loss(proxy, language)) < 1e-3


def test_reconstruction_loss_is_the_mean_squared_error_of_real_positions() -> None:
    only = part(
        [[[1.0, 2.0], [5.0, 5.0]], [[0.0, 0.0], [1.0, 1.0]]],
        [[[0.0, 0.0], [0.0, 0.0]], [[0.0, 2.0], [1.0, 0.0]]],
        [[True, False], [True, True]],
    )
    # squared errors (1, 4), (0, 4), (0, 1): means 2.5, 2, 0.5 over three positions
    assert float(reconstruction_loss({"a": only})) == pytest.approx(5 / 3)


def test_reconstruction_loss_weighs_modalities_alike() -> None:
    short = part([[[2.0]]], [[[0.0]]], [[True]])
    long = part([[[1.0] * 4] * 5], [[[0.0] * 4] * 5], [[True] * 5])
    right = part([[[3.0]]], [[[3.0]]], [[True]])
    parts = {"l": short, "a": long, "v": right}
    assert float(reconstruction_loss(parts)) == pytest.approx((4 + 1 + 0) / 3)


def test_padding_has_no_influence_on_the_reconstruction_loss() -> None:
    clean = part([[[1.0], [0.0]]], [[[0.0], [0.0]]], [[True, False]])
    dirty = part([[[1.0], [1e6]]], [[[0.0], [-1e6]]], [[True, False]])
    a, b = (float(reconstruction_loss({"v": p})) for p in (clean, dirty))
    assert a == b == 1


def test_without_reconstructions_the_term_is_0() -> None:
    assert float(reconstruction_loss({})) == 0
    losses = lnln_losses(
        output([1.0], [0.5]), torch.ones(1), torch.ones(1), LossWeights()
    )
    assert float(losses.reconstruction) == 0
    assert losses.total.isfinite()


def test_perfect_predictions_cost_nothing() -> None:
    right = part([[[3.0]]], [[[3.0]]], [[True]])
    losses = lnln_losses(
        output([1.0, -0.4], [1.0, 0.3], {"l": right}),
        torch.tensor([1.0, -0.4]),
        torch.tensor([1.0, 0.3]),
        LossWeights(),
    )
    assert float(losses.sentiment) == 0
    assert float(losses.completeness) == 0
    assert float(losses.reconstruction) == 0


def test_the_total_is_the_weighted_sum_of_the_four_terms() -> None:
    off = part([[[3.0]]], [[[0.0]]], [[True]])  # L_rec = 9
    given = output([2.0], [0.5], {"l": off})
    labels, target = torch.tensor([0.0]), torch.tensor([1.0])  # L_sp 4, L_cc 0.25
    losses = lnln_losses(given, labels, target, LossWeights(0.9, 0.8, 0.1, 1.0))
    want = 0.9 * 0.25 + 0.8 * math.log(2) + 0.1 * 9 + 1.0 * 4
    assert float(losses.total) == pytest.approx(want)


@pytest.mark.parametrize(
    ("weight", "term"),
    [
        ("alpha", "completeness"),
        ("beta", "adversarial"),
        ("gamma", "reconstruction"),
        ("delta", "sentiment"),
    ],
)
def test_each_weight_belongs_to_its_term(weight: str, term: str) -> None:
    off = part([[[3.0]]], [[[0.0]]], [[True]])
    alone = replace(LossWeights(0.0, 0.0, 0.0, 0.0), **{weight: 7.0})
    losses = lnln_losses(
        output([2.0], [0.5], {"l": off}), torch.zeros(1), torch.ones(1), alone
    )
    assert float(losses.total) == pytest.approx(7 * float(getattr(losses, term)))
    assert float(losses.total) > 0


def test_the_total_can_be_minimised() -> None:
    given = output([2.0], [0.5])
    given.sentiment.requires_grad_()
    total = lnln_losses(given, torch.zeros(1), torch.ones(1), LossWeights()).total
    total.backward()
    assert given.sentiment.grad is not None
    assert given.sentiment.grad.tolist() == [4.0]
