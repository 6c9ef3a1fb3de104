"""Random data missing (the paper's corruption): what is erased, and how much.

A position t of modality m is kept iff u_t >= r_m, with u_t ~ U[0, 1) and r_m the
missing rate. Erased tokens become [UNK], erased frames become zero vectors. [CLS]
and [SEP] are always kept, padding is never touched. Rate 0 changes nothing and
rate 1 leaves `[CLS] [UNK] ... [SEP]` and all-zero frames, so a whole modality goes
missing through the same function.

The uniforms u are drawn apart from the rates: with the same u for every rate the
masks are nested (what is missing at 0.3 is missing at 0.5), which takes the luck of
the draw out of the shape of a robustness curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from lnln.data.batch import MODALITIES, Batch
from lnln.data.errors import SettingsError

#: The paper's test rates; r = 1 is left out there as uninformative.
TEST_RATES = tuple(i / 10 for i in range(10))
#: The seven non-empty subsets of modalities, named by what is *available*.
MODALITY_SUBSETS = tuple(
    subset for n in (1, 2, 3) for subset in combinations(MODALITIES, n)
)

#: The seed of all masks of the released program, whatever its training seed.
RELEASED_SEED = 1111


@dataclass(frozen=True)
class Uniforms:
    """One uniform draw per position: (B, T_l), (B, T_a), (B, T_v) in [0, 1)."""

    l: Tensor  # noqa: E741 - the paper's letter for language
    a: Tensor
    v: Tensor

    def select(self, index: Tensor) -> Uniforms:
        """The draws of the utterances at `index`."""
        return Uniforms(self.l[index], self.a[index], self.v[index])

    def to(self, device: torch.device | str) -> Uniforms:
        """The same draws on `device`."""
        return Uniforms(self.l.to(device), self.a.to(device), self.v.to(device))


@dataclass(frozen=True)
class Erased:
    """A corrupted batch and what is known about its corruption.

    Attributes:
        batch: the corrupted utterances U^1, same shapes as the complete U^0.
        kept: {"l" | "a" | "v": (B, T_m) bool}, True where a real position is kept.
        nominal: (B, 3) completeness 1 - r_m asked for, columns l, a, v.
        realised: (B, 3) share of erasable real positions that was kept; 1 where
            there is nothing to erase (a text without words).
    """

    batch: Batch
    kept: dict[str, Tensor]
    nominal: Tensor
    realised: Tensor

    def select(self, index: Tensor) -> Erased:
        """The corrupted utterances at `index`, (b,)."""
        kept = {m: mask[index.to(mask.device)] for m, mask in self.kept.items()}
        return Erased(
            self.batch.select(index.to(self.batch.tokens.device)),
            kept,
            self.nominal[index.to(self.nominal.device)],
            self.realised[index.to(self.realised.device)],
        )


def draw_uniforms(batch: Batch, generator: torch.Generator) -> Uniforms:
    """Draw one uniform per position, on the generator's device.

    Args:
        batch: B utterances; only the shapes matter.
        generator: source of randomness. Draws on CPU and CUDA differ, so a test
            protocol that must not depend on the device draws on CPU.

    Returns:
        `Uniforms`, independent across positions, utterances and modalities.
    """
    l, a, v = (  # noqa: E741
        torch.rand(
            batch.sequence(m).shape[:2], generator=generator, device=generator.device
        )
        for m in MODALITIES
    )
    return Uniforms(l, a, v)


def erasable(batch: Batch, modality: str) -> Tensor:
    """The (B, T_m) bool mask of positions that may be erased.

    All real positions; for language all but the first ([CLS]) and the last ([SEP],
    or whatever piece a cut-off sentence ends in, as in the released code).
    """
    mask = batch.mask(modality)
    if modality == "l":
        mask = mask.clone()
        mask[:, 0] = False
        last = (batch.token_lengths - 1).clamp(min=0)
        mask.scatter_(1, last[:, None], False)
    return mask


def erase(batch: Batch, rates: Tensor, uniforms: Uniforms) -> Erased:
    """Erase positions at random (the paper's random data missing).

    Args:
        batch: B complete utterances U^0.
        rates: (B, 3) missing rates in [0, 1] of language, audio, vision.
        uniforms: one draw per position, at least as long as the real sequences.

    Returns:
        `Erased`, on the batch's device, wherever rates and draws are; `batch` itself
        is unchanged.

    Raises:
        ValueError: for rates of another shape or outside [0, 1].
    """
    if rates.shape != (len(batch), 3):
        raise ValueError(f"rates must be ({len(batch)}, 3), not {tuple(rates.shape)}")
    if not ((rates >= 0) & (rates <= 1)).all():
        raise ValueError("missing rates must lie in [0, 1]")
    rates, uniforms = rates.to(batch.device), uniforms.to(batch.device)
    kept, realised = {}, []
    for column, modality in enumerate(MODALITIES):
        real, can_go = batch.mask(modality), erasable(batch, modality)
        u = getattr(uniforms, modality)[:, : real.shape[1]]
        # The batch may be padded further than the draws: nothing to erase there.
        u = pad(u, (0, real.shape[1] - u.shape[1]), value=1.0)
        gone = can_go & (u < rates[:, column, None])
        kept[modality] = real & ~gone
        total = can_go.sum(dim=1)
        share = 1 - gone.sum(dim=1) / total.clamp(min=1)
        realised.append(share)
    corrupted = replace(
        batch,
        tokens=torch.where(
            batch.mask("l") & ~kept["l"], batch.special.unk, batch.tokens
        ),
        audio=batch.audio * kept["a"][..., None],
        vision=batch.vision * kept["v"][..., None],
    )
    return Erased(corrupted, kept, (1 - rates).float(), torch.stack(realised, dim=1))


def training_rates(count: int, generator: torch.Generator) -> Tensor:
    """Draw the training protocol's missing rates (released code).

    Per utterance and modality r ~ U[0, 1); then a random half of the utterances
    gets r = 0, independently for each modality.

    Args:
        count: utterances N.
        generator: source of randomness; the rates live on its device.

    Returns:
        (N, 3) rates of language, audio, vision.
    """
    device = generator.device
    rates = torch.rand(count, 3, generator=generator, device=device)
    # An exact half, chosen by ranking one more draw per modality.
    rank = torch.rand(count, 3, generator=generator, device=device).argsort(dim=0)
    complete = torch.zeros(count, 3, dtype=torch.bool, device=device)
    complete.scatter_(0, rank[: count // 2], True)
    return rates.masked_fill(complete, 0.0)


def fixed_rates(
    count: int, rate: float, available: Sequence[str] = MODALITIES
) -> Tensor:
    """One rate for all utterances, rate 1 for modalities that are not available.

    Args:
        count: utterances N.
        rate: missing rate in [0, 1] of the available modalities.
        available: subset of ("l", "a", "v").

    Returns:
        (N, 3) rates of language, audio, vision.

    Raises:
        SettingsError: for an unknown modality.
    """
    if not set(available) <= set(MODALITIES):
        raise SettingsError(f"modalities are {MODALITIES}, not {tuple(available)}")
    row = [rate if m in available else 1.0 for m in MODALITIES]
    return torch.tensor(row, dtype=torch.float32).expand(count, 3)


def split_uniforms(batch: Batch, mask_seed: int | str) -> Uniforms:
    """The test protocol's draws for a whole split: fixed by shapes and seed.

    Drawn on CPU in the split's own order before any batching, so neither device
    nor batch size changes what is erased.

    Args:
        batch: the split, padded as in its file.
        mask_seed: a number, or "released" for `released_uniforms`.

    Raises:
        SettingsError: for any other word.
    """
    if mask_seed == "released":
        return released_uniforms(batch)
    if isinstance(mask_seed, str):
        raise SettingsError(f"a mask seed is a number or 'released', not {mask_seed!r}")
    generator = torch.Generator().manual_seed(mask_seed)
    return draw_uniforms(batch, generator)


def released_uniforms(batch: Batch, seed: int = RELEASED_SEED) -> Uniforms:
    """The uniforms behind every mask of the released program.

    Items 19-21 of `lnln.models.released`: NumPy is seeded anew before every draw, so
    all rates share one matrix per modality (masks are nested), and modalities of equal
    padded length share it, too. Rates to compare them with must be float64 as well: a
    uniform may fall between 0.1 and its float32 neighbour.

    Args:
        batch: a whole split in its own order, padded as in its MMSA file: both decide
            what is drawn.
        seed: `base.seed` of the released settings.

    Returns:
        `Uniforms` in float64.
    """
    l, a, v = (  # noqa: E741
        torch.from_numpy(
            np.random.RandomState(seed).uniform(size=tuple(batch.sequence(m).shape[:2]))
        )
        for m in MODALITIES
    )
    return Uniforms(l, a, v)
