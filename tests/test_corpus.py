"""The simulated corpus and its exact posterior, checked against the process."""

import hashlib
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, chi2_contingency, chisquare

from lnln.data.batch import CLS, MASK, MODALITIES, PAD, SEP, SPLITS, UNK, Batch, Dataset
from lnln.data.simulated import corpus
from lnln.data.simulated.corpus import GRID, posterior, prior, simulate
from lnln.data.simulated.lexicon import lexicon, transcripts
from lnln.evaluation.limits import bayes_limit
from lnln.missing.erasing import MODALITY_SUBSETS, erase, fixed_rates, split_uniforms
from lnln.training.presets import PRESETS
from lnln.training.scoring.distributions import best_scores, read_out
from lnln.training.scoring.metrics import HIGHER_IS_BETTER, evaluate_predictions

#: Tokens and labels of simulate("mini"); frames are left out, whose last bits may
#: differ between platforms.
MINI_SHA256 = "c4377e4f7e57d345"

#: Numbers per split, words, audio frames and vision frames at most.
SHAPES = {"mini": (1000, 200, 400, 24, 48, 48), "full": (1284, 229, 686, 48, 375, 500)}

EVIDENCE = (("l",), ("a",), ("v",), MODALITIES)


@pytest.fixture(scope="module")
def mini() -> Dataset:
    return simulate("mini")


@pytest.fixture(scope="module")
def full() -> Dataset:
    return simulate("full")


@pytest.fixture(scope="module")
def large() -> Batch:
    """Eight thousand short training utterances."""
    return simulate("mini", seed=7, train_size=8000).train.batch


@pytest.fixture(scope="module")
def many_tests() -> Batch:
    """The test splits of fifteen corpora: six thousand utterances."""
    parts = [simulate("mini", seed, train_size=1).test.batch for seed in range(15)]
    return Batch(
        *(
            torch.cat([getattr(p, name) for p in parts])
            for name in (
                "tokens",
                "token_lengths",
                "audio",
                "audio_lengths",
                "vision",
                "vision_lengths",
                "labels",
            )
        )
    )


def rows_of(batch: Batch) -> list[list[int]]:
    """The real tokens of every utterance."""
    lengths = batch.token_lengths.tolist()
    return [r[:n] for r, n in zip(batch.tokens.tolist(), lengths, strict=True)]


def corrupt(batch: Batch, rate: float, seed: int = 0) -> Batch:
    rates = fixed_rates(len(batch), float(rate))
    return erase(batch, rates, split_uniforms(batch, seed)).batch


def true_labels(batch: Batch) -> np.ndarray:
    return batch.labels.double().numpy().round(1)


def function_words() -> set[int]:
    phrases = lexicon().phrases
    return {int(i) for groups in phrases.values() for g in groups for i in g.ravel()}


# ---------------------------------------------------------------- the utterances


def test_the_corpus_is_the_same_again_whatever_the_global_random_state() -> None:
    np.random.seed(1)
    torch.manual_seed(1)
    one = simulate("mini", seed=3)
    np.random.seed(2)
    torch.manual_seed(2)
    two = simulate("mini", seed=3)
    assert one.sha256 == two.sha256
    for name in SPLITS:
        a, b = one.splits[name], two.splits[name]
        assert a.ids == b.ids and a.raw_text == b.raw_text
        assert torch.equal(a.batch.labels, b.batch.labels)
        for m in MODALITIES:
            assert torch.equal(a.batch.sequence(m), b.batch.sequence(m))
            assert torch.equal(a.batch.lengths(m), b.batch.lengths(m))


def test_another_seed_gives_another_corpus(mini: Dataset) -> None:
    other = simulate("mini", seed=1)
    assert other.sha256 != mini.sha256
    for name in SPLITS:
        a, b = other.splits[name].batch, mini.splits[name].batch
        for m in MODALITIES:
            assert not torch.equal(a.sequence(m), b.sequence(m))


def test_tokens_and_labels_are_the_same_on_every_platform(mini: Dataset) -> None:
    digest = hashlib.sha256()
    for name in SPLITS:
        batch = mini.splits[name].batch
        digest.update(batch.tokens.numpy().astype("<i8").tobytes())
        fifths = np.rint(batch.labels.numpy() * 5)
        digest.update(fifths.astype("<i8").tobytes())
    assert digest.hexdigest().startswith(MINI_SHA256)


def test_a_larger_training_split_leaves_valid_and_test_unchanged(
    mini: Dataset,
) -> None:
    larger = simulate("mini", train_size=1500)
    assert len(larger.train) == 1500
    for name in ("valid", "test"):
        a, b = larger.splits[name].batch, mini.splits[name].batch
        assert torch.equal(a.labels, b.labels)
        for m in MODALITIES:
            assert torch.equal(a.sequence(m), b.sequence(m))


def test_the_splits_are_independent_and_share_no_utterance(mini: Dataset) -> None:
    audio = [mini.splits[name].batch.audio[:, 0, 0] for name in SPLITS]
    together = torch.cat(audio)
    assert len(together.unique()) == len(together)
    labels = [true_labels(mini.splits[name].batch)[:200] for name in SPLITS]
    assert abs(np.corrcoef(labels) - np.eye(3)).max() < 4 / 200**0.5
    ids = [i for name in SPLITS for i in mini.splits[name].ids]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("size", ["mini", "full"])
def test_split_sizes_and_caps(size: str, request: pytest.FixtureRequest) -> None:
    dataset: Dataset = request.getfixturevalue(size)
    *counts, words, audio, vision = SHAPES[size]
    assert [len(dataset.splits[name]) for name in SPLITS] == counts
    for split in dataset.splits.values():
        batch = split.batch
        assert batch.tokens.shape[1:] == (words + 2,)
        assert batch.audio.shape[1:] == (audio, 5)
        assert batch.vision.shape[1:] == (vision, 20)
        for m, lowest in (("l", 4), ("a", 1), ("v", 1)):
            lengths = batch.lengths(m)
            assert lengths.min() >= lowest
            assert lengths.max() <= batch.sequence(m).shape[1]
        assert len(split.raw_text) == len(split.ids) == len(split)
    assert (dataset.name, dataset.scheme) == ("simulated", "mosi")


def test_the_mini_preset_fits_the_mini_corpus(mini: Dataset) -> None:
    preset = PRESETS["mini"]
    assert preset.fit_to(mini) == preset
    assert preset.model.encoder.vocab_size == len(lexicon().vocab)


@pytest.mark.parametrize("size", ["tiny", ""])
def test_an_unknown_size_is_refused(size: str) -> None:
    with pytest.raises(ValueError, match="unknown"):
        simulate(size)


@pytest.mark.parametrize("count", [0, -1])
def test_an_empty_training_split_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="train_size"):
        simulate("mini", train_size=count)


def test_words_per_utterance_follow_mosi(full: Dataset) -> None:
    words = np.concatenate(
        [s.batch.token_lengths.numpy() - 2 for s in full.splits.values()]
    )
    assert words.mean() == pytest.approx(12.6, abs=0.8)
    assert np.median(words) == pytest.approx(10, abs=1)
    assert words.min() >= 2 and words.max() <= 48
    inner = words[(words > 2) & (words < 48)]
    assert np.log(inner).std() == pytest.approx(0.65, abs=0.06)


def test_speech_time_sets_the_number_of_frames(full: Dataset) -> None:
    batch = full.train.batch
    seconds = (batch.token_lengths.double() - 2) / 2.9
    for m, rate, cap in (("a", 12.5, 375), ("v", 15.0, 500)):
        want = (seconds * rate).clamp(1, cap)
        assert ((batch.lengths(m) - want).abs() <= 1).all()


@pytest.mark.parametrize("split", SPLITS)
def test_class_shares_follow_the_table(split: str) -> None:
    shares = {
        "train": (0.019, 0.155, 0.177, 0.193, 0.177, 0.244, 0.036),
        "valid": (0.044, 0.131, 0.140, 0.214, 0.170, 0.218, 0.083),
        "test": (0.067, 0.226, 0.212, 0.155, 0.165, 0.146, 0.029),
    }[split]
    parts = [simulate("mini", seed, train_size=400) for seed in range(8)]
    labels = np.concatenate([true_labels(p.splits[split].batch) for p in parts])
    counts = np.bincount(np.rint(labels).astype(int) + 3, minlength=7)
    expected = np.array(shares) / sum(shares) * len(labels)
    assert chisquare(counts, expected).pvalue > 1e-3
    mass = [prior(split)[np.rint(GRID) == c].sum() for c in range(-3, 4)]
    assert mass == pytest.approx(np.array(shares) / sum(shares), abs=1e-12)


def test_class_mass_is_spread_evenly_over_the_labels_of_a_class(large: Batch) -> None:
    for c in range(-3, 4):
        assert np.ptp(prior("train")[np.rint(GRID) == c]) < 1e-12
    labels = true_labels(large)
    counts = np.array([(labels == g).sum() for g in GRID])
    assert counts.sum() == len(labels)  # every label is a mean of five annotators
    assert chisquare(counts, prior("train") * len(labels)).pvalue > 1e-3


def test_the_priors_of_train_and_test_differ_on_purpose() -> None:
    assert abs(prior("train") - prior("test")).sum() > 0.2
    assert prior("train") @ GRID > 0.1 > -0.3 > prior("test") @ GRID


@pytest.mark.parametrize("split", SPLITS)
def test_a_row_is_cls_words_sep_padding(split: str, full: Dataset) -> None:
    batch = full.splits[split].batch
    special = {PAD, UNK, CLS, SEP, MASK}
    for row, n in zip(batch.tokens.tolist(), batch.token_lengths.tolist(), strict=True):
        assert row[0] == CLS and row[n - 1] == SEP
        assert not special & set(row[1 : n - 1])
        assert set(row[n:]) <= {PAD}


def test_one_word_is_one_token(mini: Dataset) -> None:
    batch = mini.test.batch
    vocab = lexicon().vocab
    for row, text in zip(rows_of(batch), mini.test.raw_text, strict=True):
        assert text.split(" ") == [vocab[i] for i in row[1:-1]]
        assert all(word.isalpha() and word.islower() for word in text.split(" "))
    assert mini.test.raw_text == transcripts(batch)


def test_special_tokens_stand_where_bert_has_them() -> None:
    vocab = lexicon().vocab
    places = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
    assert {i: vocab[i] for i in places} == places
    assert (PAD, UNK, CLS, SEP, MASK) == tuple(places)
    assert len(set(vocab)) == len(vocab)


def test_function_words_are_neither_opinion_words_nor_modifiers() -> None:
    lex = lexicon()
    groups = [
        set(lex.opinion.tolist()),
        set(lex.negators.tolist()),
        set(lex.intensifiers.tolist()),
        function_words(),
    ]
    for one, other in itertools.combinations(groups, 2):
        assert not one & other
    assert len(groups[0]) == len(lex.opinion) == len(lex.valence)
    assert abs(lex.valence).max() <= 3


def test_every_word_used_is_in_the_lexicon(full: Dataset) -> None:
    lex = lexicon()
    known = {*lex.opinion.tolist(), *lex.negators.tolist(), *lex.intensifiers.tolist()}
    known |= function_words()
    used = torch.cat([s.batch.tokens.flatten() for s in full.splits.values()]).unique()
    assert set(used.tolist()) - {PAD, CLS, SEP} <= known


def test_an_opinion_word_follows_a_modifier_and_a_modifier_precedes_one(
    full: Dataset,
) -> None:
    lex = lexicon()
    modifiers = {*lex.negators.tolist(), *lex.intensifiers.tolist()}
    opinions = set(lex.opinion.tolist())
    for row in rows_of(full.train.batch):
        assert opinions & set(row)
        for before, after in itertools.pairwise(row):
            assert (before in modifiers) == (after in opinions)


def test_slots_and_negators_are_as_frequent_as_the_process_says(
    large: Batch,
) -> None:
    lex = lexicon()
    words = (large.token_lengths - 2).numpy()
    slots = np.isin(large.tokens.numpy(), lex.opinion).sum(axis=1)
    for n in np.unique(words):
        k = np.arange(n + 1)
        held = np.clip(k, 1, n // 2)  # one slot at least, and room for its two words
        share = binom.pmf(k, n, 0.22)
        mean = share @ held
        sd = (share @ (held - mean) ** 2) ** 0.5
        found = slots[words == n]
        assert abs(found.mean() - mean) <= 4 * sd / len(found) ** 0.5 + 1e-9, n
        assert found.min() >= 1 and found.max() <= n // 2
    negators = int(np.isin(large.tokens.numpy(), lex.negators).sum())
    assert binomtest(negators, int(slots.sum()), 0.15).pvalue > 1e-3


def test_length_function_words_and_modifiers_say_nothing_about_the_label(
    large: Batch,
) -> None:
    labels, tokens = true_labels(large), large.tokens.numpy()
    sign = np.sign(labels).astype(int) + 1
    lengths = large.token_lengths.numpy()
    assert abs(np.corrcoef(labels, lengths)[0, 1]) < 4 / len(labels) ** 0.5
    lex = lexicon()
    silent = [*function_words(), *lex.negators.tolist(), *lex.intensifiers.tolist()]
    row, place = np.nonzero(np.isin(tokens, silent))
    first = np.unique(row, return_index=True)[1]  # one word each: independent
    table = np.zeros((3, len(lex.vocab)))
    np.add.at(table, (sign[row[first]], tokens[row[first], place[first]]), 1)
    table = table[:, table.sum(axis=0) >= 20]
    assert chi2_contingency(table).pvalue > 1e-3


def test_frames_behind_the_length_are_zero_and_real_ones_are_not(
    mini: Dataset,
) -> None:
    for split in mini.splits.values():
        for m in ("a", "v"):
            alive = split.batch.sequence(m).ne(0).any(dim=-1)
            assert torch.equal(alive, split.batch.mask(m))


# ---------------------------------------------------------------- the posterior


@pytest.mark.parametrize("modalities", [(), *EVIDENCE])
def test_posterior_rows_sum_to_1(modalities: tuple[str, ...], mini: Dataset) -> None:
    for rate in (0.0, 0.5, 1.0):
        p = posterior(corrupt(mini.valid.batch, rate), modalities=modalities)
        assert p.shape == (200, 31)
        assert (p >= 0).all()
        assert p.sum(axis=1) == pytest.approx(np.ones(200), abs=1e-12)


def test_with_everything_erased_the_posterior_is_the_prior(mini: Dataset) -> None:
    gone = corrupt(mini.test.batch, 1.0)
    for split in SPLITS:
        p = posterior(gone, prior(split))
        assert abs(p - prior(split)).max() < 1e-12
    assert np.array_equal(posterior(gone), posterior(gone, prior("train")))


def test_without_any_modality_the_posterior_is_the_prior(mini: Dataset) -> None:
    p = posterior(mini.test.batch, prior("test"), modalities=())
    assert abs(p - prior("test")).max() < 1e-12


def test_a_modality_that_is_erased_says_as_much_as_one_not_asked(
    mini: Dataset,
) -> None:
    batch = mini.test.batch
    rates = fixed_rates(len(batch), 0.0, ("a", "v"))
    without_text = erase(batch, rates, split_uniforms(batch, 0)).batch
    a, b = posterior(without_text), posterior(batch, modalities=("a", "v"))
    assert abs(a - b).max() < 1e-12


def test_the_posterior_ignores_trimming_and_batching(mini: Dataset) -> None:
    batch = corrupt(mini.test.batch, 0.4)
    index = torch.tensor([5, 17, 3])
    part = posterior(batch.select(index).trim())
    assert abs(part - posterior(batch)[index.numpy()]).max() < 1e-12


def calibration(
    batch: Batch, rate: float, modalities: tuple[str, ...]
) -> dict[str, float]:
    """Standardised differences of what the posterior expects and what is true.

    Each is a mean of independent terms of expectation 0, in standard errors.
    """
    p = posterior(corrupt(batch, rate, seed=11), prior("test"), modalities)
    y = true_labels(batch)
    place = np.rint(y * 5).astype(int) + 15
    mean = p @ GRID
    median = read_out(p, "mae")
    distance = abs(median[:, None] - GRID)
    log_p = np.log(np.maximum(p, 1e-300))
    terms = {
        "bias": mean - y,
        "slope": (mean - y) * mean,
        "error": (p * distance).sum(axis=1) - abs(median - y),
        "variance": p @ GRID**2 - mean**2 - (mean - y) ** 2,
        "surprise": (p * log_p).sum(axis=1) - log_p[np.arange(len(y)), place],
    }
    return {
        name: float(t.mean() / (t.std(ddof=1) / len(y) ** 0.5 + 1e-12))
        for name, t in terms.items()
    }


@pytest.mark.parametrize("modalities", EVIDENCE)
@pytest.mark.parametrize("rate", [0.0, 0.5, 0.9])
def test_the_posterior_is_calibrated(
    rate: float, modalities: tuple[str, ...], many_tests: Batch
) -> None:
    scores = calibration(many_tests, rate, modalities)
    assert max(abs(z) for z in scores.values()) < 4, scores


@pytest.mark.parametrize("split", ["train", "valid"])
def test_the_posterior_is_miscalibrated_under_the_prior_of_another_split(
    split: str, many_tests: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(corpus.CLASS_SHARES, "test", corpus.CLASS_SHARES[split])
    assert abs(calibration(many_tests, 0.5, MODALITIES)["bias"]) > 6


@pytest.mark.parametrize(
    ("constant", "factor", "modality"),
    [
        ("NEGATION", -1.0, "l"),
        ("NEGATION", 2.0, "l"),
        ("P_NEGATOR", 5.0, "l"),
        ("P_IRONY", 0.2, "l"),
        ("P_IRONY", 3.0, "l"),
        ("VALENCE_SPREAD", 0.8, "l"),
        ("VALENCE_SPREAD", 1.25, "l"),
        ("AUDIO_EFFECT", 0.5, "a"),
        ("AUDIO_EFFECT", 2.0, "a"),
        ("AUDIO_OFFSET_SD", 0.25, "a"),
        ("AUDIO_NOISE_SD", 0.25, "a"),
        ("AUDIO_NOISE_SD", 2.0, "a"),
        ("P_EXPRESSIVE", 0.3, "v"),
        ("P_EXPRESSIVE", 3.0, "v"),
        ("VISION_EFFECT", 0.5, "v"),
        ("VISION_EFFECT", 2.0, "v"),
        ("VISION_NOISE_SD", 0.8, "v"),
        ("VISION_NOISE_SD", 1.25, "v"),
        ("VISION_DIRECTION", -1.0, "v"),
    ],
)
def test_a_wrong_constant_is_found_out(
    constant: str,
    factor: float,
    modality: str,
    many_tests: Batch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(corpus, constant, factor * getattr(corpus, constant))
    # Which modifiers are frequent matters only where some are erased.
    rate = 0.5 if constant == "P_NEGATOR" else 0.0
    scores = calibration(many_tests, rate, (modality,))
    assert max(abs(z) for z in scores.values()) > 4, scores


# ------------------------------------------------- the posterior, by brute force

_NORMAL = np.polynomial.hermite_e.hermegauss(60)  # nodes and weights of N(0, 1)


def density(x: np.ndarray, mean: np.ndarray, sd: float) -> np.ndarray:
    return np.exp(-((x - mean) ** 2) / (2 * sd**2)) / (sd * (2 * np.pi) ** 0.5)


def word_probability(word: str, centre: float) -> float:
    valences = dict(
        zip(
            (lexicon().vocab[i] for i in lexicon().opinion),
            lexicon().valence,
            strict=True,
        )
    )
    weights = {w: np.exp(-((v - centre) ** 2) / 1.62) for w, v in valences.items()}
    return float(weights[word] / sum(weights.values()))


def text_likelihood(slots: list[tuple[str | None, str | None]], y: float) -> float:
    """p(text | y), summed over the irony switch and the kind of every modifier."""
    vocab = lexicon().vocab
    negators = {vocab[i] for i in lexicon().negators}
    total = 0.0
    for p_switch, meant in ((0.94, y), (0.06, -y)):
        for kinds in itertools.product((False, True), repeat=len(slots)):
            joint = p_switch
            for (modifier, word), negated in zip(slots, kinds, strict=True):
                joint *= 0.15 if negated else 0.85
                if modifier is not None:
                    joint *= float((modifier in negators) == negated)
                if word is not None:
                    joint *= word_probability(word, -0.8 * meant if negated else meant)
            total += joint
    return total


def audio_likelihood(frames: np.ndarray, y: float) -> float:
    """p(frames | y), the speaker offset integrated numerically in each dimension."""
    effect = 0.55 * np.array([0.30, 0.20, 0.0, -0.15, 0.0])
    nodes, weights = _NORMAL
    offsets = 0.45 * nodes[:, None]
    given_offset = np.ones((len(nodes), 5))
    for frame in frames:
        given_offset = given_offset * density(frame, y * effect + offsets, 2.0)
    return float(np.prod(weights @ given_offset / weights.sum()))


def vision_likelihood(frames: np.ndarray, y: float) -> float:
    """p(frames | y), summed over the expressive switch of every frame."""
    direction = np.zeros(20)
    direction[[1, 3, 5, 8, 11]] = [-2, 1, 2, 3, -1]
    direction /= np.linalg.norm(direction)
    total = 1.0
    for frame in frames:
        still = np.prod(density(frame, np.zeros(20), 0.8))
        lively = np.prod(density(frame, 0.45 * y * direction, 0.8))
        total *= 0.92 * still + 0.08 * lively
    return float(total)


def tiny_utterance(
    slots: list[tuple[str | None, str | None]],
    audio: np.ndarray,
    vision: np.ndarray,
) -> Batch:
    """One utterance as data: None is an erased word, a zero row an erased frame."""
    place = {word: i for i, word in enumerate(lexicon().vocab)}
    words = [UNK if w is None else place[w] for slot in slots for w in slot]
    tokens = torch.tensor([[CLS, place["it"], place["was"], *words, SEP, PAD]])
    frames = [torch.tensor(x, dtype=torch.float32)[None] for x in (audio, vision)]
    return Batch(
        tokens,
        torch.tensor([tokens.shape[1] - 1]),
        frames[0],
        torch.tensor([len(audio)]),
        frames[1],
        torch.tensor([len(vision)]),
        torch.zeros(1),
    )


@pytest.mark.parametrize(
    "slots",
    [
        [("very", "good"), ("really", "great")],
        [("not", "awful"), ("so", "boring")],
        [("not", "perfect"), ("never", "fine")],
        [(None, "awful"), ("quite", "okay")],
        [(None, "wonderful"), (None, "bad")],
        [("hardly", None), ("very", "terrible")],
        [(None, None), ("barely", "good")],
        [(None, None), ("not", None)],
    ],
)
@pytest.mark.parametrize("frames", [1, 3])
def test_the_closed_form_equals_summing_over_everything_hidden(
    slots: list[tuple[str | None, str | None]], frames: int
) -> None:
    rng = np.random.default_rng(frames)
    audio = rng.normal(1.0, 2.0, (frames, 5)).astype(np.float32)
    vision = rng.normal(0.3, 1.0, (frames, 20)).astype(np.float32)
    if frames > 1:
        audio[1], vision[2] = 0, 0  # erased in the middle and at the end
    batch = tiny_utterance(slots, audio, vision)
    heard = audio[audio.any(axis=1)].astype(float)
    seen = vision[vision.any(axis=1)].astype(float)
    parts = {
        "l": np.array([text_likelihood(slots, y) for y in GRID]),
        "a": np.array([audio_likelihood(heard, y) for y in GRID]),
        "v": np.array([vision_likelihood(seen, y) for y in GRID]),
    }
    for modalities in EVIDENCE:
        joint = prior("test") * np.prod([parts[m] for m in modalities], axis=0)
        got = posterior(batch, prior("test"), modalities)[0]
        assert abs(got - joint / joint.sum()).max() < 1e-7


def test_irony_keeps_a_little_mass_on_the_other_side(mini: Dataset) -> None:
    batch = tiny_utterance(
        [("very", "perfect")] * 8, np.zeros((1, 5)), np.zeros((1, 20))
    )
    flat = np.full(31, 1 / 31)
    assert posterior(batch, flat)[0, GRID < 0].sum() == pytest.approx(0.06, abs=1e-3)


# ---------------------------------------------------------------- the Bayes limit


def test_the_bayes_limit_gets_worse_with_the_missing_rate(many_tests: Batch) -> None:
    batch = many_tests.select(torch.arange(1500))
    limits = [
        bayes_limit(batch, r, mask_seeds=range(2), label_prior=prior("test"))
        for r in (0.0, 0.3, 0.6, 0.9, 1.0)
    ]
    for metric in ("mae", "corr", "acc2_neg_pos", "acc2_neg_nonneg", "acc7", "acc5"):
        sign = 1 if HIGHER_IS_BETTER[metric] else -1
        values = [sign * limit[metric] for limit in limits]
        if metric == "corr":
            values.pop()  # a constant answer has no correlation
        assert all(a > b for a, b in itertools.pairwise(values)), (metric, values)


def test_the_bayes_limit_is_never_better_with_fewer_modalities(
    many_tests: Batch,
) -> None:
    limits = {
        subset: bayes_limit(many_tests, 0.3, (0,), subset, prior("test"))
        for subset in MODALITY_SUBSETS
    }
    for more, fewer in itertools.permutations(MODALITY_SUBSETS, 2):
        if not set(fewer) < set(more):
            continue
        for metric in ("mae", "corr", "acc2_neg_pos", "acc7"):
            sign = 1 if HIGHER_IS_BETTER[metric] else -1
            gain = sign * (limits[more][metric] - limits[fewer][metric])
            assert gain > -0.01, (metric, more, fewer)


def test_language_dominates_the_other_two_together(many_tests: Batch) -> None:
    language = bayes_limit(many_tests, 0.0, (0,), ("l",))
    others = bayes_limit(many_tests, 0.0, (0,), ("a", "v"))
    for metric in ("corr", "acc2_neg_pos", "acc7"):
        assert language[metric] > others[metric]
    assert language["mae"] < others["mae"]


def test_the_bayes_limit_defaults_to_what_a_learner_of_the_training_data_knows(
    mini: Dataset,
) -> None:
    batch = mini.test.batch
    default = bayes_limit(batch, 0.5)
    assert default == bayes_limit(batch, 0.5, label_prior=prior("train"))
    assert default != bayes_limit(batch, 0.5, label_prior=prior("test"))


def expected_scores(p: np.ndarray, answer: float, limit: int) -> dict[str, float]:
    """Expected scores of one answer under one posterior, straight from definitions."""

    def rounded(x: np.ndarray | float) -> np.ndarray:
        return np.rint(np.clip(x, -limit, limit))

    return {
        "mae": -float(p @ abs(answer - GRID)),
        "acc2_neg_pos": float(p[(GRID != 0) & ((GRID > 0) == (answer > 0))].sum()),
        "acc2_neg_nonneg": float(p[(GRID >= 0) == (answer >= 0)].sum()),
        "class": float(p[rounded(GRID) == rounded(answer)].sum()),
    }


@given(st.integers(0, 10**6), st.sampled_from([0.05, 0.3, 1.0, 10.0]))
@settings(max_examples=60, deadline=None)
def test_no_answer_beats_the_best_one_in_expectation(seed: int, spread: float) -> None:
    p = np.random.default_rng(seed).dirichlet(np.full(31, spread))
    rivals = [*GRID, float(p @ GRID), -0.01, 0.01]
    for metric, limit in (
        ("mae", 3),
        ("acc2_neg_pos", 3),
        ("acc2_neg_nonneg", 3),
        ("acc7", 3),
        ("acc5", 2),
        ("acc3", 1),
    ):
        key = "class" if metric in ("acc7", "acc5", "acc3") else metric
        best = float(read_out(p[None], metric)[0])
        top = expected_scores(p, best, limit)[key]
        for rival in rivals:
            assert top >= expected_scores(p, rival, limit)[key] - 1e-9, (metric, rival)


def test_the_read_outs_beat_the_posterior_mean_on_their_own_metric(
    many_tests: Batch,
) -> None:
    labels = true_labels(many_tests)
    p = posterior(corrupt(many_tests, 0.5), prior("test"))
    by_mean = evaluate_predictions(p @ GRID, labels, "mosi")
    best = best_scores(p, labels)
    assert best["corr"] == by_mean["corr"]
    assert best["mae"] < by_mean["mae"]
    for metric in ("acc7", "acc5", "acc3", "acc2_neg_pos", "acc2_neg_nonneg"):
        assert best[metric] > by_mean[metric]


def test_no_other_answer_correlates_better_than_the_mean(many_tests: Batch) -> None:
    labels = true_labels(many_tests)
    p = posterior(corrupt(many_tests, 0.5), prior("test"))
    mean = np.corrcoef(read_out(p, "corr"), labels)[0, 1]
    for rival in (read_out(p, "mae"), GRID[p.argmax(axis=1)], (p @ GRID) ** 3):
        assert mean > np.corrcoef(rival, labels)[0, 1]
