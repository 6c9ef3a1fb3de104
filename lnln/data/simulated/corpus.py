"""The simulated corpus: MOSI-like utterances whose best possible answer is known.

Every utterance is generated from its label by a process simple enough that the
posterior p(y | what survived erasure) has a closed form. That gives the *Bayes
limit* (`lnln.evaluation.limits`): the score no model can beat on average. Always call
these data simulated; profile and split sizes follow MOSI, the contents are made up.

The process, given a label y on the grid -3, -2.8, ..., 3:

1. Text: L words with k opinion slots of two words each, a modifier (a negator with
   probability 0.15, else an intensifier) and an opinion word drawn with
   p(w | y) ~ exp(-(v_w - y)^2 / (2 * 0.9^2)), -0.8 y replacing y after a negator.
   With probability 0.06 the utterance is ironic: its text is drawn as if for -y.
2. Audio: a_t = y A + s + e_t, with a speaker offset s shared by the utterance.
3. Vision: each frame is expressive with probability 0.08; an expressive frame adds
   0.45 y along one direction; every frame has independent noise.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lnln.data.batch import (
    CLS,
    LABEL_VALUES,
    MODALITIES,
    PAD,
    SEP,
    UNK,
    Batch,
    Dataset,
    Split,
)
from lnln.data.errors import SettingsError
from lnln.data.simulated.lexicon import lexicon, transcripts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: The 31 possible labels, as in MOSI.
GRID: Floats = LABEL_VALUES["mosi"]
#: Share of each rounded label -3..3 per split, as in MOSI (train and test differ).
CLASS_SHARES = {
    "train": (0.019, 0.155, 0.177, 0.193, 0.177, 0.244, 0.036),
    "valid": (0.044, 0.131, 0.140, 0.214, 0.170, 0.218, 0.083),
    "test": (0.067, 0.226, 0.212, 0.155, 0.165, 0.146, 0.029),
}

P_SLOT, P_NEGATOR, P_IRONY = 0.22, 0.15, 0.06
VALENCE_SPREAD, NEGATION = 0.9, -0.8
WORDS_A_SECOND, AUDIO_RATE, VISION_RATE = 2.9, 12.5, 15.0
AUDIO_EFFECT: Floats = 0.55 * np.array([0.30, 0.20, 0.0, -0.15, 0.0])
AUDIO_OFFSET_SD, AUDIO_NOISE_SD = 0.45, 2.0
P_EXPRESSIVE, VISION_EFFECT, VISION_NOISE_SD = 0.08, 0.45, 0.8
#: Action units that move with sentiment (raised lip corners up, lowered brows down).
VISION_DIRECTION: Floats = np.zeros(20)
VISION_DIRECTION[[1, 3, 5, 8, 11]] = np.array([-2.0, 1.0, 2.0, 3.0, -1.0]) / 19**0.5


@dataclass(frozen=True)
class CorpusSize:
    """How large a simulated corpus is.

    Attributes:
        train, valid, test: utterances per split.
        max_words: cap on the words of an utterance; T_l is two more.
        max_audio, max_vision: caps on frames, T_a and T_v.
    """

    train: int
    valid: int
    test: int
    max_words: int
    max_audio: int
    max_vision: int


SIZES = {
    "mini": CorpusSize(1000, 200, 400, 24, 48, 48),
    "full": CorpusSize(1284, 229, 686, 48, 375, 500),
}


def prior(split: str) -> Floats:
    """The label prior of a split, (31,) over `GRID`: class mass spread evenly."""
    classes = np.rint(GRID).astype(int) + 3
    shares = np.array(CLASS_SHARES[split])[classes] / np.bincount(classes)[classes]
    return shares / shares.sum()


def simulate(
    size: str = "mini", seed: int = 0, train_size: int | None = None
) -> Dataset:
    """Simulate the corpus.

    Args:
        size: "mini" (short sequences, seconds to train) or "full" (MOSI's sizes).
        seed: decides everything; the splits are independent streams of it, so a
            larger training split leaves valid and test as they are.
        train_size: training utterances, if not the size's own number.

    Returns:
        A `Dataset` named "simulated".

    Raises:
        SettingsError: for an unknown size or a train_size below 1.
    """
    if size not in SIZES:
        raise SettingsError(
            f"corpus size {size!r} is unknown; choose from {sorted(SIZES)}"
        )
    if seed < 0:
        raise SettingsError(f"the seed of the corpus must be at least 0, not {seed}")
    if train_size is not None and train_size < 1:
        raise SettingsError(f"train_size must be at least 1, not {train_size}")
    sizes = SIZES[size]
    counts = {"train": train_size or sizes.train, "valid": sizes.valid}
    counts["test"] = sizes.test
    splits = {}
    digest = hashlib.sha256()
    for place, (name, count) in enumerate(counts.items()):
        rng = np.random.default_rng([seed, place])
        batch = _simulate_batch(rng, count, prior(name), sizes)
        for modality in MODALITIES:
            digest.update(batch.sequence(modality).numpy().tobytes())
        digest.update(batch.labels.numpy().tobytes())
        ids = tuple(f"simulated{seed}${name}${i}" for i in range(count))
        splits[name] = Split(batch, ids, transcripts(batch))
    source = f"simulate(size={size!r}, seed={seed}, train_size={counts['train']})"
    return Dataset("simulated", "mosi", splits, source, digest.hexdigest())


def _simulate_batch(
    rng: np.random.Generator, count: int, label_prior: Floats, size: CorpusSize
) -> Batch:
    labels = GRID[_draw(rng, label_prior, count)]
    words = np.rint(rng.lognormal(np.log(10), 0.65, count))
    words = words.clip(2, size.max_words).astype(np.int64)
    tokens = _text(rng, labels, words, size.max_words)
    seconds = words / WORDS_A_SECOND
    audio_lengths = np.ceil(seconds * AUDIO_RATE).clip(1, size.max_audio)
    vision_lengths = np.ceil(seconds * VISION_RATE).clip(1, size.max_vision)
    batch = Batch(
        tokens=torch.from_numpy(tokens),
        token_lengths=torch.from_numpy(words + 2),
        audio=torch.from_numpy(_audio(rng, labels, size.max_audio)),
        audio_lengths=torch.from_numpy(audio_lengths.astype(np.int64)),
        vision=torch.from_numpy(_vision(rng, labels, size.max_vision)),
        vision_lengths=torch.from_numpy(vision_lengths.astype(np.int64)),
        labels=torch.from_numpy(labels.astype(np.float32)),
    )
    return replace(
        batch,
        audio=batch.audio.mul_(batch.mask("a")[..., None]),
        vision=batch.vision.mul_(batch.mask("v")[..., None]),
    )


def _draw(rng: np.random.Generator, p: Floats, count: int) -> Ints:
    return np.searchsorted(np.cumsum(p)[:-1], rng.random(count), side="right")


def _word_probabilities(negated: bool) -> Floats:
    """p(w | y), or p(w | -0.8 y) after a negator: (31, W), rows over words."""
    centre = (NEGATION if negated else 1.0) * GRID[:, None]
    weight = np.exp(-((lexicon().valence - centre) ** 2) / (2 * VALENCE_SPREAD**2))
    p: Floats = weight / weight.sum(axis=1, keepdims=True)
    return p


def _text(
    rng: np.random.Generator, labels: Floats, words: Ints, max_words: int
) -> Ints:
    lex = lexicon()
    count = len(labels)
    slots = np.maximum(1, rng.binomial(words, P_SLOT))
    slots = np.minimum(slots, words // 2)
    ironic = rng.random(count) < P_IRONY
    owner = np.repeat(np.arange(count), slots)  # the utterance of each slot
    first = np.cumsum(slots) - slots
    negated = rng.random(len(owner)) < P_NEGATOR
    modifier = np.where(
        negated,
        rng.choice(lex.negators, len(owner)),
        rng.choice(lex.intensifiers, len(owner)),
    )
    grid_place = np.rint(np.where(ironic, -labels, labels) * 5).astype(int) + 15
    choice = np.zeros(len(owner), dtype=int)
    uniform = rng.random(len(owner))
    for is_negated in (False, True):
        cdf = np.cumsum(_word_probabilities(is_negated), axis=1)[:, :-1]
        mine = negated == is_negated
        below = cdf[grid_place[owner[mine]]] <= uniform[mine, None]
        choice[mine] = below.sum(axis=1)

    # Function words are dealt to the clauses at random; each clause ends in a slot.
    spare = words - 2 * slots
    dealt = np.repeat(np.arange(count), spare)
    target = first[dealt] + rng.integers(0, slots[dealt])
    filler = np.bincount(target, minlength=len(owner))
    clause = filler + 2
    start = 1 + np.cumsum(clause) - clause  # places in the row, [CLS] at 0
    start -= np.repeat(np.cumsum(clause)[first] - clause[first], slots)

    tokens = np.full((count, max_words + 2), PAD, dtype=np.int64)
    tokens[:, 0] = CLS
    tokens[np.arange(count), words + 1] = SEP
    tokens[owner, start + filler] = modifier
    tokens[owner, start + filler + 1] = lex.opinion[choice]
    for length in range(1, int(filler.max(initial=0)) + 1):
        where = np.flatnonzero(filler == length)
        rows = _function_words(rng, length, len(where))
        tokens[owner[where, None], start[where, None] + np.arange(length)] = rows
    return tokens


def _function_words(rng: np.random.Generator, length: int, count: int) -> Ints:
    """`count` phrases of `length` words: lead-ins, then a copula clause."""
    phrases = lexicon().phrases
    copula = length if length <= 5 else 3 + length % 3
    sizes = [copula]
    while (left := length - sum(sizes)) > 0:
        sizes.insert(0, min(left, 5))
    groups = [("lead_ins", n) for n in sizes[:-1]] + [("copulas", copula)]
    return np.concatenate(
        [rng.choice(phrases[kind][n - 1], count) for kind, n in groups], axis=1
    )


def _audio(
    rng: np.random.Generator, labels: Floats, frames: int
) -> NDArray[np.float32]:
    noise = rng.standard_normal((len(labels), frames, 5), dtype=np.float32)
    offset = AUDIO_OFFSET_SD * rng.standard_normal((len(labels), 5))
    level = labels[:, None] * AUDIO_EFFECT + offset
    noise *= AUDIO_NOISE_SD
    noise += level[:, None].astype(np.float32)
    return noise


def _vision(
    rng: np.random.Generator, labels: Floats, frames: int
) -> NDArray[np.float32]:
    noise = rng.standard_normal((len(labels), frames, 20), dtype=np.float32)
    expressive = rng.random((len(labels), frames)) < P_EXPRESSIVE
    noise *= VISION_NOISE_SD
    row, frame = np.nonzero(expressive)
    shift = VISION_EFFECT * labels[row, None] * VISION_DIRECTION
    noise[row, frame] += shift.astype(np.float32)
    return noise


def posterior(
    batch: Batch,
    label_prior: Floats | None = None,
    modalities: tuple[str, ...] = MODALITIES,
) -> Floats:
    """The exact posterior p(y | surviving evidence) of simulated utterances.

    Reads the evidence off the corrupted batch itself: [UNK] tokens and zero frames
    are gone. An erased opinion word contributes nothing, an erased modifier leaves
    a two-way mixture, an erased frame drops out.

    Args:
        batch: N simulated utterances in raw units (not standardised), corrupted or
            complete.
        label_prior: (31,) prior over `GRID`; by default the training prior, which
            is what a learner could know.
        modalities: the modalities whose evidence counts.

    Returns:
        (N, 31) probabilities over `GRID`; rows sum to 1.
    """
    evidence = {
        "l": _text_evidence,
        "a": _audio_evidence,
        "v": _vision_evidence,
    }
    log_p = np.log(prior("train") if label_prior is None else label_prior)
    log_p = np.repeat(log_p[None], len(batch), axis=0)
    for modality in modalities:
        log_p += evidence[modality](batch)
    p = np.exp(log_p - log_p.max(axis=1, keepdims=True))
    normalised: Floats = p / p.sum(axis=1, keepdims=True)
    return normalised


def _text_evidence(batch: Batch) -> Floats:
    lex = lexicon()
    tokens = batch.tokens.cpu().numpy()
    plain, negated = _word_probabilities(False).T, _word_probabilities(True).T
    erased = (1 - P_NEGATOR) * plain + P_NEGATOR * negated
    table = np.log(np.stack([plain, negated, erased]))  # (state, W, 31)
    word_of = np.full(len(lex.vocab), -1)
    word_of[lex.opinion] = np.arange(len(lex.opinion))
    state_of = np.zeros(len(lex.vocab), dtype=int)
    state_of[lex.negators], state_of[UNK] = 1, 2
    row, place = np.nonzero(word_of[tokens] >= 0)
    slot = table[state_of[tokens[row, place - 1]], word_of[tokens[row, place]]]
    sincere = np.zeros((len(tokens), len(GRID)))
    np.add.at(sincere, row, slot)
    # The grid is symmetric, so reading the text for -y reverses it.
    ironic = sincere[:, ::-1]
    mixture: Floats = np.logaddexp(
        np.log(1 - P_IRONY) + sincere, np.log(P_IRONY) + ironic
    )
    return mixture


def _surviving(frames: Tensor, batch: Batch, modality: str) -> NDArray[np.bool_]:
    kept = batch.mask(modality) & frames.ne(0).any(dim=-1)
    result: NDArray[np.bool_] = kept.cpu().numpy()
    return result


def _audio_evidence(batch: Batch) -> Floats:
    kept = _surviving(batch.audio, batch, "a")
    n = kept.sum(axis=1)
    total = (batch.audio.double().cpu().numpy() * kept[..., None]).sum(axis=1)
    mean = total / np.maximum(n, 1)[:, None]
    variance = AUDIO_OFFSET_SD**2 + AUDIO_NOISE_SD**2 / np.maximum(n, 1)
    miss = mean[:, None] - GRID[:, None] * AUDIO_EFFECT  # (N, 31, 5)
    evidence: Floats = -(miss**2).sum(axis=-1) / (2 * variance[:, None])
    return np.where(n[:, None] > 0, evidence, 0.0)


def _vision_evidence(batch: Batch) -> Floats:
    kept = _surviving(batch.vision, batch, "v")
    along = batch.vision.double().cpu().numpy() @ VISION_DIRECTION  # (N, T)
    result = np.empty((len(along), len(GRID)))
    shift = VISION_EFFECT * GRID
    for rows in np.array_split(np.arange(len(along)), max(1, along.size // 50_000)):
        # log of the likelihood ratio of an expressive against a still frame
        ratio = (along[rows, :, None] * shift - shift**2 / 2) / VISION_NOISE_SD**2
        frame = np.log1p(P_EXPRESSIVE * np.expm1(ratio)) * kept[rows, :, None]
        result[rows] = frame.sum(axis=1)
    return result
