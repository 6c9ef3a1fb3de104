"""Batches, their order, and the scaling of columns."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lnln.data.batch import (
    CLS,
    MODALITIES,
    PAD,
    SEP,
    Batch,
    Standardizer,
    batches_by_length,
    valid_positions,
)


def make_batch(
    token_lengths: list[int],
    audio_lengths: list[int],
    vision_lengths: list[int],
    padded: tuple[int, int, int] | None = None,
    seed: int = 0,
) -> Batch:
    """Random utterances of the given real lengths, three audio and two vision dims."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [torch.tensor(n) for n in (token_lengths, audio_lengths, vision_lengths)]
    t_l, t_a, t_v = padded or tuple(int(n.max()) for n in lengths)
    count = len(token_lengths)
    tokens = torch.randint(104, 120, (count, t_l), generator=generator)
    tokens[:, 0] = CLS
    tokens[torch.arange(count), lengths[0] - 1] = SEP
    tokens[~valid_positions(lengths[0], t_l)] = PAD
    frames = [
        torch.randn(count, size, width, generator=generator)
        * valid_positions(n, size)[..., None]
        for n, size, width in zip(lengths[1:], (t_a, t_v), (3, 2), strict=True)
    ]
    return Batch(
        tokens,
        lengths[0],
        frames[0],
        lengths[1],
        frames[1],
        lengths[2],
        torch.randn(count, generator=generator),
    )


def random_batch(count: int, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 40, (3, count), generator=generator).tolist()
    return make_batch(*lengths, seed=seed)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(9, 12))
def test_valid_positions_are_the_first_length_ones(
    lengths: list[int], size: int
) -> None:
    got = valid_positions(torch.tensor(lengths), size)
    assert got.tolist() == [[t < n for t in range(size)] for n in lengths]


def test_a_mask_has_the_padded_width_of_its_modality() -> None:
    batch = make_batch([3, 5], [2, 1], [4, 6], padded=(7, 8, 9))
    for modality, lengths, size in (
        ("l", [3, 5], 7),
        ("a", [2, 1], 8),
        ("v", [4, 6], 9),
    ):
        want = [[t < n for t in range(size)] for n in lengths]
        assert batch.mask(modality).tolist() == want
        assert batch.lengths(modality).tolist() == lengths


def test_trim_cuts_to_the_longest_real_length_and_keeps_every_real_position() -> None:
    batch = make_batch([3, 5], [2, 1], [4, 6], padded=(7, 8, 9))
    trimmed = batch.trim()
    assert [trimmed.sequence(m).shape[1] for m in MODALITIES] == [5, 2, 6]
    for m in MODALITIES:
        assert torch.equal(
            trimmed.sequence(m)[trimmed.mask(m)], batch.sequence(m)[batch.mask(m)]
        )
        assert torch.equal(trimmed.lengths(m), batch.lengths(m))
    assert torch.equal(trimmed.labels, batch.labels)
    assert batch.tokens.shape == (2, 7)  # the original stays as it was


def test_select_takes_the_same_utterances_of_every_tensor() -> None:
    batch = random_batch(6)
    chosen = torch.tensor([4, 0, 4])
    picked = batch.select(chosen)
    assert len(picked) == 3
    for name in ("tokens", "token_lengths", "audio", "audio_lengths"):
        assert torch.equal(getattr(picked, name), getattr(batch, name)[[4, 0, 4]])
    for name in ("vision", "vision_lengths", "labels"):
        assert torch.equal(getattr(picked, name), getattr(batch, name)[[4, 0, 4]])
    where = torch.zeros(6, dtype=torch.bool)
    where[[1, 5]] = True
    assert torch.equal(batch.select(where).labels, batch.labels[[1, 5]])


@given(st.integers(1, 60), st.integers(1, 20))
def test_batches_hold_each_utterance_exactly_once(count: int, size: int) -> None:
    groups = list(batches_by_length(random_batch(count), size))
    assert sorted(torch.cat(groups).tolist()) == list(range(count))
    lengths = sorted((len(g) for g in groups), reverse=True)
    assert lengths[:-1] == [size] * (len(groups) - 1) and lengths[-1] <= size


def test_evaluation_order_is_fixed_and_sorted_by_total_length() -> None:
    batch = random_batch(50)
    order = torch.cat(list(batches_by_length(batch, 8)))
    total = batch.token_lengths + batch.audio_lengths + batch.vision_lengths
    assert (total[order].diff() >= 0).all()
    assert torch.equal(order, torch.cat(list(batches_by_length(batch, 8))))


def test_batches_by_length_compute_less_padding_than_random_ones() -> None:
    lengths = torch.randint(
        2, 60, (4000,), generator=torch.Generator().manual_seed(0)
    ).tolist()
    batch = make_batch(lengths, lengths, lengths)

    def padding(groups: list[torch.Tensor]) -> int:
        n = batch.token_lengths
        return sum(int(n[g].max()) * len(g) - int(n[g].sum()) for g in groups)

    mine = padding(list(batches_by_length(batch, 16)))
    random = torch.randperm(4000, generator=torch.Generator().manual_seed(2))
    assert mine < 0.5 * padding(list(random.split(16)))


def test_standardised_real_rows_have_mean_0_and_scale_1() -> None:
    batch = random_batch(40)
    scaled = Standardizer.fit(batch)(batch)
    for m in ("a", "v"):
        rows = scaled.sequence(m)[scaled.mask(m)]
        assert rows.mean(dim=0).abs().max() < 1e-5
        assert (rows.std(dim=0, correction=0) - 1).abs().max() < 1e-5


def test_a_standardizer_does_not_see_what_stands_behind_the_lengths() -> None:
    batch = make_batch([3, 5], [2, 4], [4, 6], padded=(7, 8, 9))
    dirty = make_batch([3, 5], [2, 4], [4, 6], padded=(7, 8, 9))
    dirty.audio[~dirty.mask("a")] = 1e6
    dirty.vision[~dirty.mask("v")] = -1e6
    clean_fit, dirty_fit = Standardizer.fit(batch), Standardizer.fit(dirty)
    assert torch.equal(clean_fit.audio_mean, dirty_fit.audio_mean)
    assert torch.equal(clean_fit.audio_scale, dirty_fit.audio_scale)
    assert torch.equal(clean_fit.vision_mean, dirty_fit.vision_mean)
    assert torch.equal(clean_fit.vision_scale, dirty_fit.vision_scale)
    assert torch.equal(
        Standardizer.fit(batch).audio_mean, Standardizer.fit(batch.trim()).audio_mean
    )


def test_padding_and_gaps_stay_zero_under_standardisation() -> None:
    batch = make_batch([3, 5], [2, 4], [4, 6], padded=(7, 8, 9))
    batch.audio[batch.mask("a")] += 50
    batch.audio[1, 2] = 0
    scaled = Standardizer.fit(batch)(batch)
    assert (scaled.audio[~batch.mask("a")] == 0).all()
    assert (scaled.vision[~batch.mask("v")] == 0).all()
    assert (scaled.audio[1, 2] == 0).all()
    assert (scaled.audio[1, 3] != 0).any()


def test_gaps_do_not_enter_the_moments() -> None:
    batch = make_batch([3, 5], [4, 4], [4, 6])
    batch.audio[1, 2] = 0
    rows = torch.cat([batch.audio[0], batch.audio[1, [0, 1, 3]]])
    fit = Standardizer.fit(batch)
    torch.testing.assert_close(fit.audio_mean, rows.mean(dim=0))
    torch.testing.assert_close(fit.audio_scale, rows.std(dim=0, correction=0))


def test_a_constant_column_keeps_scale_1_and_stays_finite() -> None:
    batch = random_batch(10)
    batch.audio[..., 1] = 0.1 * batch.mask("a")
    fit = Standardizer.fit(batch)
    assert fit.audio_scale[1] == 1
    scaled = fit(batch)
    assert scaled.audio.isfinite().all()
    assert scaled.audio[..., 1].abs().max() < 1e-6


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e6])
def test_columns_of_any_magnitude_come_out_alike(scale: float) -> None:
    batch = random_batch(40)
    want = Standardizer.fit(batch)(batch).audio[..., 0]
    batch.audio[..., 0] = scale * (batch.audio[..., 0] + 3) * batch.mask("a")
    fit = Standardizer.fit(batch)
    assert fit.audio_scale[0] == pytest.approx(scale, rel=0.2)
    torch.testing.assert_close(fit(batch).audio[..., 0], want, atol=1e-4, rtol=1e-4)


def test_a_standardizer_leaves_text_labels_and_its_input_alone() -> None:
    batch = random_batch(10)
    before = batch.audio.clone()
    scaled = Standardizer.fit(batch)(batch)
    assert torch.equal(scaled.tokens, batch.tokens)
    assert torch.equal(scaled.labels, batch.labels)
    assert torch.equal(batch.audio, before)


def test_valid_and_test_are_scaled_by_the_training_moments() -> None:
    train, test = random_batch(30, seed=0), random_batch(30, seed=1)
    fit = Standardizer.fit(train)
    mask = test.mask("v")
    want = (test.vision[mask] - train.vision[train.mask("v")].mean(dim=0)) / (
        train.vision[train.mask("v")].std(dim=0, correction=0)
    )
    torch.testing.assert_close(fit(test).vision[mask], want)
