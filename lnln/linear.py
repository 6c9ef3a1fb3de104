"""A linear baseline: ridge regression on counts of surviving words and mean frames.

Anything called robust should beat it. It is trained on corrupted copies of the
training split, under the training protocol, like LNLN.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from lnln.data import Batch, Dataset, Standardizer
from lnln.device import resolve_device
from lnln.missing import (
    draw_uniforms,
    erase,
    fixed_rates,
    split_uniforms,
    training_rates,
)

_PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True)
class LinearBaseline:
    """A fitted ridge regression.

    Attributes:
        weight: (F,) weights of words, mean frames and the constant.
        words: (V,) ids of the words that are counted, sorted: those of the training
            split. A ridge regression gives all others the weight 0.
        standardizer: column scaling of the frames.
        penalty: the ridge penalty, chosen on the validation split.
    """

    weight: Tensor
    words: Tensor
    standardizer: Standardizer
    penalty: float

    def __call__(self, batch: Batch) -> Tensor:
        """(N,) predictions from (corrupted) utterances in raw units, on its device."""
        batch = batch.to(self.weight.device)
        features = _features(self.standardizer(batch), self.words)
        return (features @ self.weight).float()


def _features(batch: Batch, words: Tensor) -> Tensor:
    place = torch.searchsorted(words, batch.tokens).clamp(max=len(words) - 1)
    known = (words[place] == batch.tokens).double()
    counts = known.new_zeros(len(batch), len(words))
    counts.scatter_add_(1, place, known)
    means = [_mean_of_survivors(frames) for frames in (batch.audio, batch.vision)]
    constant = known.new_ones(len(batch), 1)
    return torch.cat([counts, *means, constant], dim=1)


def _mean_of_survivors(frames: Tensor) -> Tensor:
    alive = frames.ne(0).any(dim=-1).sum(dim=1, keepdim=True)
    return frames.double().sum(dim=1) / alive.clamp(min=1)


def fit_linear(
    dataset: Dataset,
    seed: int = 1111,
    copies: int = 10,
    device: torch.device | str = "cpu",
) -> LinearBaseline:
    """Fit on `copies` corruptions of the training split; penalty by validation MAE.

    Args:
        dataset: what to fit on.
        seed: of rates and masks.
        copies: corruptions of the training split.
        device: where to compute, and where the result stays; see `resolve_device`.

    Returns:
        `LinearBaseline`.
    """
    where = resolve_device(device)
    train, valid = dataset.train.batch.to(where), dataset.valid.batch.to(where)
    words = train.tokens.unique()
    special = torch.tensor(astuple(train.special), device=where)
    words = words[~torch.isin(words, special)]
    standardizer = Standardizer.fit(train)
    generator = torch.Generator().manual_seed(seed)
    gram, target = torch.zeros(2, device=where)
    for _ in range(copies):
        rates = training_rates(len(train), generator)
        corrupted = erase(train, rates, draw_uniforms(train, generator)).batch
        x = _features(standardizer(corrupted), words)
        gram, target = gram + x.T @ x, target + x.T @ train.labels.double()
    ridge = torch.eye(len(gram), dtype=torch.float64, device=where)
    ridge[-1, -1] = 0  # the constant is not shrunk
    fits = [
        LinearBaseline(
            torch.linalg.solve(gram / copies + penalty * ridge, target / copies),
            words,
            standardizer,
            penalty,
        )
        for penalty in _PENALTIES
    ]
    held_out = [
        erase(valid, fixed_rates(len(valid), r), split_uniforms(valid, 0)).batch
        for r in (0.0, 0.3, 0.5, 0.7, 0.9)
    ]

    def validation_mae(fit: LinearBaseline) -> float:
        return sum(float((fit(b) - b.labels).abs().mean()) for b in held_out)

    return min(fits, key=validation_mae)
