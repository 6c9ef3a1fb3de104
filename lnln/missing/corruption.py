"""Beyond random data missing: other ways in which sensors and recognisers fail.

A corruption is given complete utterances and a severity in [0, 1]. It returns
utterances, missing rates and draws, from which `erase` makes what a model sees. What
only erases is chosen without regard to the label, so the posterior of what is left is
exact. What replaces (words, noise, shifts) has no such closed form; there the limit of
the intact data is a bound, since damage cannot add information.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lnln.data.batch import MODALITIES, Batch
from lnln.data.errors import SettingsError
from lnln.missing.erasing import (
    Erased,
    Uniforms,
    erasable,
    erase,
    fixed_rates,
    split_uniforms,
    training_rates,
)
from lnln.missing.gaps import shares_present
from lnln.missing.streams import stream

Modalities = tuple[str, ...]


@dataclass(frozen=True)
class Damaged:
    """What a corruption gives.

    Attributes:
        batch: N utterances, in raw units; replaced words and frames are in it.
        rates: (N, 3) what `erase` is still to erase.
        uniforms: by which draws.
    """

    batch: Batch
    rates: Tensor
    uniforms: Uniforms

    def erased(self) -> Batch:
        """What a model sees."""
        return erase(self.batch, self.rates, self.uniforms).batch


@dataclass(frozen=True)
class Corruption:
    """A way to damage.

    Attributes:
        severity: what the number in [0, 1] means.
        damage: the function.
        exact: whether the posterior of the result is exact.
    """

    severity: str
    damage: Callable[[Batch, float, Modalities, int | str], Damaged]
    exact: bool


def file_under(corruption: str, name: str) -> str:
    """The name of a file of results: "scores.csv", or for words "scores-words.csv"."""
    path = Path(name)
    return name if corruption == "random" else f"{path.stem}-{corruption}{path.suffix}"


def _random(batch: Batch, rate: float, usable: Modalities, seed: int | str) -> Damaged:
    rates = fixed_rates(len(batch), rate, usable)
    return Damaged(batch, rates, split_uniforms(batch, seed))


def _bursts(batch: Batch, rate: float, usable: Modalities, seed: int | str) -> Damaged:
    """One stretch without a gap, which starts anywhere and goes round."""
    generator = _generator(seed)
    uniforms = []
    for m in MODALITIES:
        can_go = erasable(batch, m)
        count = can_go.sum(dim=1, keepdim=True).clamp(min=1)
        place = can_go.cumsum(dim=1) - 1
        start = torch.rand(len(batch), 1, generator=generator).to(count.device) * count
        # Half a step keeps the rounding of the share apart from its ends.
        uniforms.append(((place - start.floor()) % count + 0.5) / count)
    return Damaged(batch, fixed_rates(len(batch), rate, usable), Uniforms(*uniforms))


def _whole(batch: Batch, rate: float, usable: Modalities, seed: int | str) -> Damaged:
    """Each modality of an utterance is gone or not, by one draw."""
    draws = torch.rand(len(batch), 3, generator=_generator(seed))
    uniforms = (
        draws[:, i, None].expand(batch.sequence(m).shape[:2])
        for i, m in enumerate(MODALITIES)
    )
    return Damaged(batch, fixed_rates(len(batch), rate, usable), Uniforms(*uniforms))


def _imbalanced(
    batch: Batch, rate: float, usable: Modalities, seed: int | str
) -> Damaged:
    """One modality loses more than another; the mean over modalities is the rate."""
    room = min(rate, 1 - rate)
    spread = torch.tensor([rate - room, rate, rate + room])
    # Which modality loses most is drawn apart from what it loses.
    own = stream(_number(seed), "which modality")
    order = torch.rand(len(batch), 3, generator=own).argsort(dim=1)
    gone = fixed_rates(len(batch), 0.0, usable)
    return Damaged(batch, spread[order].maximum(gone), split_uniforms(batch, seed))


def _words(batch: Batch, rate: float, usable: Modalities, seed: int | str) -> Damaged:
    """Word errors of a recogniser: half substitutions, quarters lost and added."""
    generator = _generator(seed)
    pool = batch.tokens[erasable(batch, "l")]
    tokens = torch.full_like(batch.tokens, batch.special.pad)
    lengths = torch.empty_like(batch.token_lengths)
    longest = batch.tokens.shape[1]
    for i, (row, size) in enumerate(
        zip(batch.tokens, batch.token_lengths.tolist(), strict=True)
    ):
        words = row[1 : size - 1]
        what = torch.rand(len(words), generator=generator)
        other = torch.randint(len(pool), (len(words),), generator=generator)
        wrong = pool[other]
        heard: list[Tensor] = []
        for word, draw, instead in zip(words, what.tolist(), wrong, strict=True):
            if draw >= rate:
                heard.append(word)
            elif draw < rate / 2:
                heard.append(instead)
            elif draw < rate * 3 / 4:
                heard += [word, instead]
        kept = heard[: longest - 2]
        tokens[i, 0] = row[0]
        if kept:
            tokens[i, 1 : 1 + len(kept)] = torch.stack(kept)
        tokens[i, 1 + len(kept)] = batch.special.sep
        lengths[i] = len(kept) + 2
    heard_batch = replace(batch, tokens=tokens, token_lengths=lengths)
    return _intact(heard_batch, usable, seed)


def replace_words(
    batch: Batch, rates: Tensor, generator: torch.Generator
) -> tuple[Batch, Tensor]:
    """Put other words of the batch in the place of some, for training.

    Args:
        batch: B utterances.
        rates: (B,) how likely each word is replaced, on the generator's device.
        generator: source of randomness, on the batch's device.

    Returns:
        The utterances, equally long, and (B,) the share of words that was kept.
    """
    words = erasable(batch, "l")
    shape, device = batch.tokens.shape, generator.device
    wrong = words & (
        torch.rand(shape, generator=generator, device=device) < rates[:, None]
    )
    pool = batch.tokens[words]
    if not len(pool):
        return batch, torch.ones_like(rates)
    other = torch.randint(len(pool), shape, generator=generator, device=device)
    tokens = torch.where(wrong, pool[other], batch.tokens)
    kept = 1 - wrong.sum(dim=1) / words.sum(dim=1).clamp(min=1)
    return replace(batch, tokens=tokens), kept


def corrupt_to_train(
    masks: str,
    complete: Batch,
    rates: Tensor,
    uniforms: Uniforms,
    generator: torch.Generator,
) -> Erased:
    """Corrupt utterances as a setting of the training says.

    Args:
        masks: of `TrainConfig`.
        complete: B utterances U^0, perhaps with gaps of their own.
        rates: (B, 3) missing rates of language, audio, vision.
        uniforms: draws for `erase`.
        generator: which words are replaced, if any; on the batch's device.

    Returns:
        `Erased`, whose `nominal` is the target of completeness: 1 - r as in the paper,
        and where the data tell their gaps the share of words that are really there.
    """
    rates = rates.to(complete.tokens.device)
    kept = torch.ones_like(rates[:, 0])
    heard = complete
    if masks == "mixed":
        wrong = training_rates(len(complete), generator)[:, 0]
        heard, kept = replace_words(complete, wrong, generator)
    erased = erase(heard, rates, uniforms)
    target = erased.realised if masks == "realised" else erased.nominal
    if complete.gaps:
        target = shares_present(erased.batch)
    if masks == "mixed":
        target = target.clone()
        target[:, 0] *= kept
    return replace(erased, nominal=target)


def _noise(batch: Batch, level: float, usable: Modalities, seed: int | str) -> Damaged:
    """Gaussian noise on every frame, in units of 4 standard deviations of a column."""
    generator = _generator(seed)
    changed: dict[str, Any] = {}
    for m, name in (("a", "audio"), ("v", "vision")):
        frames, mask = batch.sequence(m), batch.mask(m)
        scale = frames[mask].std(dim=0)
        noise = torch.randn(frames.shape, generator=generator).to(scale.device) * scale
        changed[name] = frames + 4 * level * noise * mask[..., None]
    return _intact(replace(batch, **changed), usable, seed)


def _shift(batch: Batch, share: float, usable: Modalities, seed: int | str) -> Damaged:
    """Audio and vision run ahead or behind, by a share of half their length, round."""
    generator = _generator(seed)
    changed: dict[str, Any] = {}
    for m, name in (("a", "audio"), ("v", "vision")):
        frames, lengths = batch.sequence(m), batch.lengths(m)[:, None]
        ahead = torch.rand(len(batch), 1, generator=generator).to(batch.device) < 0.5
        step = (share / 2 * lengths).round().long() * torch.where(ahead, 1, -1)
        place = torch.arange(frames.shape[1], device=batch.device)
        source = torch.where(
            place < lengths, (place - step) % lengths.clamp(min=1), place
        )
        changed[name] = frames.take_along_dim(source[..., None], dim=1)
    return _intact(replace(batch, **changed), usable, seed)


def _intact(batch: Batch, usable: Modalities, seed: int | str) -> Damaged:
    return _random(batch, 0.0, usable, seed)


def _generator(seed: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(_number(seed))


def _number(seed: int | str) -> int:
    if isinstance(seed, str):
        raise SettingsError(
            f"mask seed {seed!r} belongs to the corruption 'random' only; give a number"
        )
    return seed


#: By name. "random" is the paper's.
CORRUPTIONS = {
    "random": Corruption("missing rate r", _random, True),
    "bursts": Corruption("missing rate, in one stretch per modality", _bursts, True),
    "whole": Corruption("how often a modality is gone entirely", _whole, True),
    "imbalanced": Corruption(
        "mean of three different missing rates", _imbalanced, True
    ),
    "words": Corruption("word error rate, without [UNK]", _words, False),
    "noise": Corruption("noise on frames, 1: four deviations", _noise, False),
    "shift": Corruption("audio and vision against text, 1: half", _shift, False),
}
