"""Real gaps: what was missing before anything was erased.

They have the form of what is erased: rows of zeros within an utterance, and [UNK] in
the place of words. Only a file that says how its features were made tells gaps apart:
elsewhere a row of zeros may be a measurement, and [UNK] a word outside of the
vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lnln.data.batch import MODALITIES, Batch
from lnln.missing.erasing import erasable


def present(batch: Batch, modality: str) -> Tensor:
    """Mark what is really there.

    Args:
        batch: B utterances in raw units, or standardised (which leaves gaps zero).
        modality: "l", "a" or "v".

    Returns:
        (B, T_m) bool: of audio and vision the rows that are not zero throughout, of
        language the words that are not [UNK], where [CLS] and [SEP] are no words.
    """
    sequence = batch.sequence(modality)
    if modality == "l":
        return erasable(batch, "l") & (sequence != batch.special.unk)
    return batch.mask(modality) & sequence.ne(0).any(dim=-1)


def missing_before(batch: Batch, modality: str) -> Tensor:
    """(B, T_m) bool: gaps of the recording; none where the data do not tell them."""
    if not batch.gaps:
        return torch.zeros_like(batch.mask(modality))
    return erasable(batch, modality) & ~present(batch, modality)


def counts(batch: Batch) -> tuple[Tensor, Tensor]:
    """How many words and rows utterances have, and how many of them are there.

    Returns:
        Two (B, 3) int64 for language, audio, vision: all, and those present.
    """
    total = [erasable(batch, m).sum(dim=1) for m in MODALITIES]
    there = [present(batch, m).sum(dim=1) for m in MODALITIES]
    return torch.stack(total, dim=1), torch.stack(there, dim=1)


def shares_present(batch: Batch) -> Tensor:
    """(B, 3) float32 shares of words and rows that are there; of nothing, all are."""
    total, there = counts(batch)
    return torch.where(total > 0, there / total.clamp(min=1), 1.0).float()


def missing_shares(batch: Batch) -> list[float]:
    """Shares of all words, audio rows and visual rows of a split that are missing."""
    total, there = (part.sum(dim=0) for part in counts(batch))
    shares: list[float] = (1 - there / total.clamp(min=1)).tolist()
    return shares
