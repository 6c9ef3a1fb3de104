"""The linear baseline finds what is linear and counts what survives."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lnln.data.batch import CLS, PAD, SEP, UNK, Batch, Dataset, Split, valid_positions
from lnln.evaluation.linear import LinearBaseline, fit_linear
from lnln.missing.erasing import erase, fixed_rates, split_uniforms

GOOD, BAD, NEUTRAL = 110, 111, 112


def planted_split(count: int, seed: int) -> Split:
    """Labels that are linear in word counts and in the mean of one audio column."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(6, 13, (count,), generator=generator)
    tokens = torch.randint(GOOD, NEUTRAL + 1, (count, 12), generator=generator)
    tokens[:, 0] = CLS
    tokens[torch.arange(count), lengths - 1] = SEP
    tokens[~valid_positions(lengths, 12)] = PAD
    frames = torch.full((count,), 5)
    level = torch.randn(count, generator=generator)
    audio = torch.randn(count, 8, 2, generator=generator)
    audio[..., 0] = 1000 + 50 * (level[:, None] + 0.1 * audio[..., 0])
    audio = audio * valid_positions(frames, 8)[..., None]
    vision = torch.randn(count, 6, 3, generator=generator)
    vision = vision * valid_positions(frames, 6)[..., None]
    words = [(tokens == word).sum(dim=1) for word in (GOOD, BAD)]
    labels = 0.4 * words[0] - 0.5 * words[1] + 0.8 * level + 0.3
    batch = Batch(tokens, lengths, audio, frames, vision, frames, labels)
    names = tuple(str(i) for i in range(count))
    return Split(batch, names, names)


@pytest.fixture(scope="module")
def planted() -> Dataset:
    sizes = {"train": 600, "valid": 150, "test": 300}
    splits = {n: planted_split(c, i) for i, (n, c) in enumerate(sizes.items())}
    return Dataset("planted", "mosi", splits, "", "")


@pytest.fixture(scope="module")
def fitted(planted: Dataset) -> LinearBaseline:
    return fit_linear(planted, copies=4)


def at_rate(batch: Batch, rate: float) -> Batch:
    return erase(batch, fixed_rates(len(batch), rate), split_uniforms(batch, 0)).batch


def test_it_recovers_a_planted_linear_signal(
    planted: Dataset, fitted: LinearBaseline
) -> None:
    batch = planted.test.batch
    assert np.corrcoef(fitted(batch), batch.labels)[0, 1] > 0.95
    place = {int(word): i for i, word in enumerate(fitted.words)}
    good, bad, neutral = (fitted.weight[place[w]] for w in (GOOD, BAD, NEUTRAL))
    assert good > neutral > bad


@pytest.mark.parametrize(("rate", "share"), [(0.5, 0.7), (0.9, 0.9)])
def test_it_uses_what_survives(
    rate: float, share: float, planted: Dataset, fitted: LinearBaseline
) -> None:
    batch = at_rate(planted.test.batch, rate)
    floor = (batch.labels - planted.train.batch.labels.median()).abs().mean()
    assert (fitted(batch) - batch.labels).abs().mean() < share * floor


def test_a_word_that_was_never_seen_counts_for_nothing(
    planted: Dataset, fitted: LinearBaseline
) -> None:
    batch = planted.test.batch
    unseen = torch.where(batch.tokens == GOOD, 30521, batch.tokens)
    erased = torch.where(batch.tokens == GOOD, UNK, batch.tokens)
    predictions = (fitted(replace(batch, tokens=t)) for t in (unseen, erased))
    torch.testing.assert_close(*predictions)
    assert 30521 not in fitted.words


def test_erased_words_and_special_tokens_have_no_weight(
    planted: Dataset, fitted: LinearBaseline
) -> None:
    batch = at_rate(planted.test.batch, 0.5)
    silent = torch.where(
        (batch.tokens == UNK) | (batch.tokens == SEP), PAD, batch.tokens
    )
    assert (silent != batch.tokens).any()
    assert torch.equal(fitted(replace(batch, tokens=silent)), fitted(batch))
    words = torch.where(batch.tokens == UNK, GOOD, batch.tokens)
    assert not torch.equal(fitted(replace(batch, tokens=words)), fitted(batch))


def test_the_mean_frame_is_that_of_the_surviving_frames(
    planted: Dataset, fitted: LinearBaseline
) -> None:
    batch = planted.test.batch
    steady = batch.audio[:, :1].expand_as(batch.audio) * batch.mask("a")[..., None]
    whole = replace(batch, audio=steady)
    half = steady.clone()
    half[:, 1:3] = 0
    torch.testing.assert_close(fitted(replace(batch, audio=half)), fitted(whole))


def test_trimming_and_batching_change_no_prediction(
    planted: Dataset, fitted: LinearBaseline
) -> None:
    batch = planted.test.batch
    index = torch.tensor([3, 8])
    part = fitted(batch.select(index).trim())
    torch.testing.assert_close(part, fitted(batch)[index])


def test_with_everything_erased_the_prediction_is_one_constant(
    planted: Dataset, fitted: LinearBaseline
) -> None:
    answers = fitted(at_rate(planted.test.batch, 1.0))
    assert float(answers.max() - answers.min()) < 1e-6
    assert float(answers[0]) == pytest.approx(float(fitted.weight[-1]), abs=1e-5)


def test_the_fit_depends_on_its_seed_alone(planted: Dataset) -> None:
    torch.manual_seed(1)
    one = fit_linear(planted, seed=5, copies=1)
    torch.manual_seed(2)
    assert torch.equal(one.weight, fit_linear(planted, seed=5, copies=1).weight)
    assert not torch.equal(one.weight, fit_linear(planted, seed=6, copies=1).weight)


def test_it_does_not_look_at_the_test_labels(planted: Dataset) -> None:
    one = fit_linear(planted, copies=1)
    batch = replace(planted.test.batch, labels=torch.zeros(300))
    other = replace(
        planted, splits={**planted.splits, "test": replace(planted.test, batch=batch)}
    )
    assert torch.equal(one.weight, fit_linear(other, copies=1).weight)
