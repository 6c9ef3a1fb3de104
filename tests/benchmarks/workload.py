"""What the benchmarks compute: batches shaped like MOSI, a training step, a sweep.

All numbers in the batches are random; only their shapes matter here.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from plain import plain
from torch import Tensor

from lnln.checkpoint import TrainedModel
from lnln.config import PRESETS, EncoderConfig, LNLNConfig, LossWeights
from lnln.data import CLS, SEP, Batch, valid_positions
from lnln.losses import lnln_losses
from lnln.missing import (
    TEST_RATES,
    erase,
    fixed_rates,
    split_uniforms,
    training_rates,
)
from lnln.model import LNLN

SIZES = (50, 375, 500)
#: MOSI's clips are about this long on average, in tokens, audio and visual frames.
MEANS = (14, 55, 65)
BATCH = 64
MASK_SEEDS = (0, 1, 2)


def lengths(count: int, full: bool) -> list[Tensor]:
    """Real lengths of all three modalities: all longest, or like MOSI's.

    MOSI-like: a clip's duration is log-normal (many short, few long) with the spread
    that the word counts of MOSI's transcripts have, and what is said, heard and seen in
    it scatters by 20 % around what the duration asks for.
    """
    if full:
        return [torch.full((count,), size) for size in SIZES]
    generator = torch.Generator().manual_seed(0)
    duration = torch.exp(0.6 * torch.randn(count, generator=generator) - 0.6**2 / 2)
    result = []
    for mean, size in zip(MEANS, SIZES, strict=True):
        scatter = torch.exp(0.2 * torch.randn(count, generator=generator))
        result.append((mean * duration * scatter).round().clamp(2, size).long())
    return result


def make_batch(count: int, full: bool) -> Batch:
    n_l, n_a, n_v = lengths(count, full)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1000, 30000, (count, SIZES[0]), generator=generator)
    tokens[:, 0] = CLS
    tokens[torch.arange(count), n_l - 1] = SEP
    tokens *= valid_positions(n_l, SIZES[0])
    audio = torch.randn(count, SIZES[1], 5, generator=generator)
    vision = torch.randn(count, SIZES[2], 20, generator=generator)
    audio *= valid_positions(n_a, SIZES[1])[..., None]
    vision *= valid_positions(n_v, SIZES[2])[..., None]
    labels = torch.randn(count, generator=generator)
    return Batch(tokens, n_l, audio, n_a, vision, n_v, labels)


def build(variant: str, encoder: str) -> LNLN:
    """The network at MOSI's sizes with an untrained text encoder, without dropout."""
    torch.manual_seed(0)
    config = LNLNConfig(variant=variant, encoder=EncoderConfig(dropout=0.0))
    if encoder == "small":
        return LNLN(config)
    from transformers import BertConfig

    base = BertConfig(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return LNLN(config, {**base.to_dict(), "model_type": "bert"})


def training_step(model: LNLN, data: Batch) -> float:
    """One forward and backward pass over `BATCH` utterances; the loss."""
    complete = model.trim(data)
    rates = training_rates(len(data), torch.Generator().manual_seed(2))
    erased = erase(complete, rates, split_uniforms(data, 0))
    output = model(erased.batch, complete)
    losses = lnln_losses(output, complete.labels, erased.nominal[:, 0], LossWeights())
    model.zero_grad(set_to_none=True)
    losses.total.backward()
    return losses.total.item()


def fast_sweep(model: LNLN, data: Batch) -> Tensor:
    """Predictions at the ten test rates and three mask seeds, the package's way."""
    trained = TrainedModel(model, PRESETS["mosi"], None, {})
    corruptions = [
        (fixed_rates(len(data), rate), split_uniforms(data, seed))
        for rate in TEST_RATES
        for seed in MASK_SEEDS
    ]
    return torch.stack([p.sentiment for p in trained.sweep(data, corruptions)])


@torch.no_grad()
def plain_sweep(model: LNLN, data: Batch) -> Tensor:
    """The same, one rate, one seed and one batch after another, in file order."""
    model.eval()
    rows = []
    for rate in TEST_RATES:
        for seed in MASK_SEEDS:
            uniforms = split_uniforms(data, seed)
            erased = erase(data, fixed_rates(len(data), rate), uniforms).batch
            index = torch.arange(len(data)).split(BATCH)
            rows.append(torch.cat([model(erased.select(i)).sentiment for i in index]))
    return torch.stack(rows)


def form(name: str) -> AbstractContextManager[None]:
    return plain() if name == "plain" else nullcontext()


def task(kind: str, name: str, model: LNLN, data: Batch) -> Callable[[], object]:
    """What to time: kind "step" or "sweep" in form "plain" or "fast"."""
    work = {
        ("step", "plain"): training_step,
        ("step", "fast"): training_step,
        ("sweep", "plain"): plain_sweep,
        ("sweep", "fast"): fast_sweep,
    }[kind, name]
    return partial(work, model, data)
