"""What is erased, and how much."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from lnln.data.batch import CLS, MODALITIES, PAD, SEP, UNK, Batch, valid_positions
from lnln.missing.erasing import (
    MODALITY_SUBSETS,
    TEST_RATES,
    Erased,
    draw_uniforms,
    erasable,
    erase,
    fixed_rates,
    split_uniforms,
    training_rates,
)

SIZE = (9, 7, 8)  # padded lengths of language, audio, vision
#: A full-length row without padding, and rows of length 1, 2 and 3, among others.
LENGTHS = ([9, 1, 2, 3, 6], [7, 1, 3, 2, 5], [8, 1, 2, 6, 4])


def make_batch(
    lengths: tuple[list[int], ...] = LENGTHS,
    size: tuple[int, int, int] = SIZE,
    seed: int = 0,
) -> Batch:
    """Random utterances of the given real lengths, no frame zero throughout."""
    generator = torch.Generator().manual_seed(seed)
    n_l, n_a, n_v = (torch.tensor(n) for n in lengths)
    count = len(n_l)
    tokens = torch.randint(104, 150, (count, size[0]), generator=generator)
    tokens[torch.arange(count), n_l - 1] = SEP
    tokens[:, 0] = CLS
    tokens[~valid_positions(n_l, size[0])] = PAD
    audio = torch.randn(count, size[1], 2, generator=generator)
    vision = torch.randn(count, size[2], 3, generator=generator)
    return Batch(
        tokens,
        n_l,
        audio * valid_positions(n_a, size[1])[..., None],
        n_a,
        vision * valid_positions(n_v, size[2])[..., None],
        n_v,
        torch.zeros(count),
    )


def large_batch(count: int = 400, length: int = 30) -> Batch:
    lengths = ([length + 2] * count, [length] * count, [length] * count)
    return make_batch(lengths, (length + 2, length, length))


def erased_at(batch: Batch, rate: float, seed: int = 0) -> Erased:
    return erase(batch, fixed_rates(len(batch), rate), split_uniforms(batch, seed))


def gone(erased: Erased, complete: Batch) -> dict[str, torch.Tensor]:
    """Which positions the corrupted data themselves show as erased."""
    batch = erased.batch
    return {
        "l": (batch.tokens == UNK) & (complete.tokens != UNK),
        "a": batch.mask("a") & batch.audio.eq(0).all(dim=-1),
        "v": batch.mask("v") & batch.vision.eq(0).all(dim=-1),
    }


def test_rate_0_changes_nothing() -> None:
    batch = make_batch()
    erased = erased_at(batch, 0.0)
    for m in MODALITIES:
        assert torch.equal(erased.batch.sequence(m), batch.sequence(m))
        assert torch.equal(erased.kept[m], batch.mask(m))
    assert (erased.realised == 1).all() and (erased.nominal == 1).all()


def test_rate_0_keeps_a_position_whose_draw_is_exactly_0() -> None:
    batch = make_batch()
    uniforms = split_uniforms(batch, 0)
    for u in (uniforms.l, uniforms.a, uniforms.v):
        u.zero_()
    erased = erase(batch, fixed_rates(len(batch), 0.0), uniforms)
    assert torch.equal(erased.batch.tokens, batch.tokens)
    assert torch.equal(erased.batch.audio, batch.audio)


def test_rate_1_leaves_only_cls_unk_sep_and_zero_frames() -> None:
    batch = make_batch()
    erased = erased_at(batch, 1.0)
    rows = erased.batch.tokens.tolist()
    assert rows[0] == [CLS] + [UNK] * 7 + [SEP]  # a full-length row
    assert rows[1] == [CLS] + [PAD] * 8  # length 1
    assert rows[2] == [CLS, SEP] + [PAD] * 7  # length 2
    assert rows[3] == [CLS, UNK, SEP] + [PAD] * 6
    assert rows[4] == [CLS] + [UNK] * 4 + [SEP] + [PAD] * 3
    assert (erased.batch.audio == 0).all() and (erased.batch.vision == 0).all()
    assert (erased.nominal == 0).all()
    assert (erased.realised[:, 1:] == 0).all()


def test_a_text_without_words_counts_as_complete() -> None:
    realised = erased_at(make_batch(), 1.0).realised[:, 0]
    assert realised.tolist() == [0, 1, 1, 0, 0]


@given(st.floats(0, 1), st.integers(0, 1000))
@settings(max_examples=60)
def test_padding_cls_and_sep_are_never_touched(rate: float, seed: int) -> None:
    batch = make_batch()
    erased = erased_at(batch, rate, seed)
    behind = ~batch.mask("l")
    assert (erased.batch.tokens[behind] == PAD).all()
    assert (erased.batch.tokens[:, 0] == CLS).all()
    last = erased.batch.tokens[torch.arange(5), batch.token_lengths - 1]
    assert last.tolist() == [SEP, CLS, SEP, SEP, SEP]
    for m in MODALITIES:
        assert not (erased.kept[m] & ~batch.mask(m)).any()
        assert torch.equal(erased.batch.lengths(m), batch.lengths(m))


@given(st.floats(0, 1), st.integers(0, 1000))
@settings(max_examples=60)
def test_kept_positions_hold_their_data_and_erased_ones_none(
    rate: float, seed: int
) -> None:
    batch = make_batch()
    erased = erased_at(batch, rate, seed)
    shown = gone(erased, batch)
    for m in MODALITIES:
        kept = erased.kept[m]
        assert torch.equal(erased.batch.sequence(m)[kept], batch.sequence(m)[kept])
        assert torch.equal(shown[m], batch.mask(m) & ~kept)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 1000))
@settings(max_examples=60)
def test_masks_of_equal_draws_are_nested_across_rates(
    one: float, other: float, seed: int
) -> None:
    batch = make_batch()
    low, high = sorted((one, other))
    kept_low, kept_high = (erased_at(batch, r, seed).kept for r in (low, high))
    for m in MODALITIES:
        assert not (kept_high[m] & ~kept_low[m]).any()


@given(st.floats(0, 1), st.integers(0, 1000))
@settings(max_examples=60)
def test_the_realised_share_is_what_counting_gives(rate: float, seed: int) -> None:
    batch = make_batch()
    erased = erased_at(batch, rate, seed)
    shown = gone(erased, batch)
    for column, m in enumerate(MODALITIES):
        for row in range(len(batch)):
            total = int(batch.lengths(m)[row]) - (2 if m == "l" else 0)
            lost = int(shown[m][row].sum())
            want = 1 - lost / total if total > 0 else 1
            assert float(erased.realised[row, column]) == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_erased_share_is_the_rate_over_many_positions(rate: float) -> None:
    realised = erased_at(large_batch(), rate).realised.mean(dim=0)
    standard_error = (rate * (1 - rate) / (400 * 30)) ** 0.5
    assert (realised - (1 - rate)).abs().max() < 4 * standard_error


def test_each_utterance_and_modality_is_erased_at_its_own_rate() -> None:
    batch = large_batch(6, 4000)
    rates = torch.tensor([[0.1, 0.5, 0.9], [0.8, 0.2, 0.4]]).repeat(3, 1)
    erased = erase(batch, rates, split_uniforms(batch, 0))
    torch.testing.assert_close(erased.nominal, 1 - rates)
    assert (erased.realised - (1 - rates)).abs().max() < 0.04


def test_modalities_are_erased_independently() -> None:
    kept = erased_at(large_batch(), 0.5).kept
    columns = [kept[m][:, 1:30] for m in MODALITIES]  # the same places
    correlation = np.corrcoef([c.flatten().float().numpy() for c in columns])
    assert abs(correlation - np.eye(3)).max() < 4 / (400 * 29) ** 0.5


def test_positions_and_utterances_are_erased_independently() -> None:
    kept = erased_at(large_batch(), 0.5).kept["a"].float().numpy()
    bound = 4 / (400 * 29) ** 0.5
    assert abs(np.corrcoef(kept[:, 1:].ravel(), kept[:, :-1].ravel())[0, 1]) < bound
    assert abs(np.corrcoef(kept[1:].ravel(), kept[:-1].ravel())[0, 1]) < bound


def test_erasing_leaves_the_complete_batch_as_it_was() -> None:
    batch, same = make_batch(), make_batch()
    erased_at(batch, 0.7)
    for m in MODALITIES:
        assert torch.equal(batch.sequence(m), same.sequence(m))


def test_only_words_may_be_erased_from_a_text() -> None:
    want = [[0 < t < n - 1 for t in range(9)] for n in LENGTHS[0]]
    assert erasable(make_batch(), "l").tolist() == want


def test_batching_and_trimming_do_not_change_what_is_erased() -> None:
    batch = make_batch()
    uniforms, rates = split_uniforms(batch, 5), fixed_rates(5, 0.5)
    whole = erase(batch, rates, uniforms)
    for index in (torch.tensor([1, 3]), torch.tensor([4, 2, 0]), torch.tensor([2])):
        part = erase(batch.select(index).trim(), rates[index], uniforms.select(index))
        for m in MODALITIES:
            size = part.kept[m].shape[1]
            assert size == int(batch.lengths(m)[index].max())
            assert torch.equal(part.kept[m], whole.kept[m][index, :size])
            assert torch.equal(
                part.batch.sequence(m), whole.batch.sequence(m)[index, :size]
            )
        assert torch.equal(part.realised, whole.realised[index])


def test_the_draws_of_a_split_depend_on_its_seed_alone() -> None:
    batch = make_batch()
    torch.manual_seed(1)
    first = split_uniforms(batch, 3)
    torch.manual_seed(2)
    torch.rand(5)
    state = torch.get_rng_state()
    again, other = split_uniforms(batch, 3), split_uniforms(batch, 4)
    assert torch.equal(torch.get_rng_state(), state)
    for m in MODALITIES:
        assert torch.equal(getattr(first, m), getattr(again, m))
        assert not torch.equal(getattr(first, m), getattr(other, m))
        assert getattr(first, m).shape == batch.mask(m).shape


def test_draws_are_uniform_on_0_to_1_without_1() -> None:
    uniforms = draw_uniforms(large_batch(), torch.Generator().manual_seed(0))
    for m in MODALITIES:
        u = getattr(uniforms, m)
        assert u.min() >= 0 and u.max() < 1
        assert kstest(u.flatten().numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("count", [1, 2, 7, 100, 1001])
def test_training_leaves_exactly_half_complete_per_modality(count: int) -> None:
    rates = training_rates(count, torch.Generator().manual_seed(0))
    assert rates.shape == (count, 3)
    assert (rates == 0).sum(dim=0).tolist() == [count // 2] * 3


def test_training_rates_are_otherwise_uniform() -> None:
    rates = training_rates(6000, torch.Generator().manual_seed(0))
    for column in rates.T:
        assert kstest(column[column > 0].numpy(), "uniform").pvalue > 1e-3


def test_training_rates_are_independent_between_modalities() -> None:
    count = 6000
    rates = training_rates(count, torch.Generator().manual_seed(0))
    complete = (rates == 0).T.double().numpy()
    bound = 4 / count**0.5
    assert abs(np.corrcoef(complete) - np.eye(3)).max() < bound
    assert abs(np.corrcoef(rates.T.numpy()) - np.eye(3)).max() < bound
    assert complete.all(axis=0).mean() == pytest.approx(1 / 8, abs=0.02)


def test_the_complete_half_changes_from_draw_to_draw() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (training_rates(100, generator) == 0 for _ in range(2))
    assert (first != second).any(dim=0).all()


def test_training_rates_are_reproducible_from_the_generator() -> None:
    draws = [training_rates(50, torch.Generator().manual_seed(9)) for _ in range(2)]
    assert torch.equal(draws[0], draws[1])


def test_the_seven_subsets_are_all_non_empty_ones() -> None:
    assert MODALITY_SUBSETS == (
        ("l",),
        ("a",),
        ("v",),
        ("l", "a"),
        ("l", "v"),
        ("a", "v"),
        ("l", "a", "v"),
    )


def test_the_test_rates_are_the_papers_ten() -> None:
    assert TEST_RATES == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@pytest.mark.parametrize("available", MODALITY_SUBSETS)
def test_modalities_that_are_not_available_vanish_and_the_others_stay(
    available: tuple[str, ...],
) -> None:
    batch = make_batch()
    erased = erase(batch, fixed_rates(5, 0.0, available), split_uniforms(batch, 0))
    for m in MODALITIES:
        if m in available:
            assert torch.equal(erased.batch.sequence(m), batch.sequence(m))
        else:
            assert torch.equal(erased.kept[m], batch.mask(m) & ~erasable(batch, m))


def test_a_missing_modality_leaves_the_masks_of_the_others_alone() -> None:
    batch = make_batch()
    uniforms = split_uniforms(batch, 0)
    all_three = erase(batch, fixed_rates(5, 0.4), uniforms)
    without_text = erase(batch, fixed_rates(5, 0.4, ("a", "v")), uniforms)
    assert torch.equal(all_three.kept["a"], without_text.kept["a"])
    assert torch.equal(all_three.kept["v"], without_text.kept["v"])


@pytest.mark.parametrize("rate", [0, 1, 0.5])
def test_fixed_rates_are_floating_point_for_any_number(rate: float) -> None:
    rates = fixed_rates(4, rate)
    assert rates.shape == (4, 3) and rates.is_floating_point()
    assert (rates == rate).all()


@pytest.mark.parametrize("bad", [-0.1, 1.01, float("nan")])
def test_rates_outside_0_to_1_are_refused(bad: float) -> None:
    batch = make_batch()
    rates = torch.full((5, 3), 0.5)
    rates[2, 1] = bad
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        erase(batch, rates, split_uniforms(batch, 0))


@pytest.mark.parametrize("shape", [(5,), (5, 2), (4, 3), (3, 5)])
def test_rates_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    batch = make_batch()
    with pytest.raises(ValueError, match=r"rates must be \(5, 3\)"):
        erase(batch, torch.zeros(shape), split_uniforms(batch, 0))


def test_an_unknown_modality_is_refused() -> None:
    with pytest.raises(ValueError, match="modalities are"):
        fixed_rates(3, 0.5, ("l", "x"))
