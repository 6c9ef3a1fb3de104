"""What the benchmarks compute: batches shaped like MOSI, a training step, a sweep.

All numbers in the batches are random; only their shapes matter here.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lnln.data.batch import CLS, SEP, Batch, batches_by_length, valid_positions
from lnln.missing.erasing import (
    TEST_RATES,
    Uniforms,
    erase,
    fixed_rates,
    split_uniforms,
    training_rates,
)
from lnln.models.blocks.encoder import EncoderConfig
from lnln.models.fast import fast
from lnln.models.lnln import LNLN, LNLNConfig, lnln_losses
from lnln.models.method import LossWeights
from lnln.models.released import network_of
from lnln.training.checkpoint import TrainedModel
from lnln.training.presets import PRESETS

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


#: "fast": the package's; "plain": the network as written, with batches trimmed and
#: sorted by length, as anybody would write it; "padded": all in file order at full
#: length, as the released program runs.
FORMS = ("fast", "plain", "padded")


def build(variant: str, encoder: str, form: str = "fast") -> LNLN:
    """The network at MOSI's sizes with an untrained text encoder, without dropout."""
    torch.manual_seed(0)
    config = LNLNConfig(variant=variant, encoder=EncoderConfig(dropout=0.0))
    architecture = None
    if encoder != "small":
        from transformers import BertConfig

        base = BertConfig(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        architecture = {**base.to_dict(), "model_type": "bert"}
    model = network_of(config.variant)(config, architecture)
    return fast(model) if form == "fast" else model


def training_step(form: str, model: LNLN, data: Batch) -> float:
    """One forward and backward pass over `BATCH` utterances; the loss."""
    complete = data if form == "padded" else model.trim(data)
    rates = training_rates(len(data), torch.Generator().manual_seed(2))
    erased = erase(complete, rates, split_uniforms(data, 0))
    output = model(erased.batch, complete)
    losses = lnln_losses(output, complete.labels, erased.nominal[:, 0], LossWeights())
    model.zero_grad(set_to_none=True)
    losses.total.backward()
    return losses.total.item()


def sweep(form: str, model: LNLN, data: Batch) -> Tensor:
    """Predictions at the ten test rates and three mask seeds."""
    corruptions = [
        (fixed_rates(len(data), rate), split_uniforms(data, seed))
        for rate in TEST_RATES
        for seed in MASK_SEEDS
    ]
    if form == "fast":
        trained = TrainedModel(model, PRESETS["mosi"], None, {})
        return torch.stack([p.sentiment for p in trained.sweep(data, corruptions)])
    return torch.stack([one_by_one(form, model, data, *each) for each in corruptions])


@torch.no_grad()
def one_by_one(
    form: str, model: LNLN, data: Batch, rates: Tensor, uniforms: Uniforms
) -> Tensor:
    """Predictions under one corruption, one batch after another."""
    model.eval()
    erased = erase(data, rates, uniforms).batch
    in_order = torch.arange(len(data)).split(BATCH)
    batches = in_order if form == "padded" else batches_by_length(erased, BATCH)
    sentiment = torch.empty(len(data), device=erased.device)
    for index in batches:
        part = erased.select(index.to(erased.device))
        part = part if form == "padded" else model.trim(part)
        sentiment[index.to(erased.device)] = model(part).sentiment
    return sentiment.cpu()


def task(kind: str, form: str, model: LNLN, data: Batch) -> Callable[[], object]:
    """What to time: a "step" or a "sweep" in one of `FORMS`."""
    return partial({"step": training_step, "sweep": sweep}[kind], form, model, data)
