"""The Bayes limit: the best score anyone could reach on the simulated corpus.

Each metric is scored at its own read-out of the posterior. With the training prior it
is what a perfect learner of the training data could know. It is a limit on average: on
a finite test set, whose prior differs on purpose, a model may be slightly above it by
luck.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lnln.data.batch import MODALITIES, Batch
from lnln.data.simulated.corpus import posterior
from lnln.missing.corruption import CORRUPTIONS
from lnln.training.scoring.distributions import Floats, best_scores, distribution_scores


def bayes_limit(
    batch: Batch,
    rate: float,
    mask_seeds: Iterable[int | str] = (0,),
    available: tuple[str, ...] = MODALITIES,
    label_prior: Floats | None = None,
    corruption: str = "random",
) -> dict[str, float]:
    """The Bayes limit at one missing rate, averaged over mask seeds.

    Args:
        batch: N complete simulated utterances in raw units.
        rate: missing rate of the available modalities, or another severity.
        mask_seeds: one corruption each; the same seeds corrupt alike in
            `lnln.evaluation.sweep`.
        available: the modalities that are not missing entirely.
        label_prior: (31,) prior; by default the training prior.
        corruption: a key of `CORRUPTIONS`. Where the posterior is not exact, the limit
            of the intact data is taken, which damage can only move away from.

    Returns:
        {metric: score}; where the posterior is exact, also its log score, CRPS and
        coverage.
    """
    kind = CORRUPTIONS[corruption]
    labels = batch.labels.double().cpu().numpy().round(1)
    scores = []
    for seed in mask_seeds:
        severity = rate if kind.exact else 0.0
        corrupted = kind.damage(batch, severity, available, seed).erased()
        p = posterior(corrupted, label_prior)
        told = distribution_scores(p, labels) if kind.exact else {}
        scores.append(best_scores(p, labels) | told)
    return {m: float(np.mean([s[m] for s in scores])) for m in scores[0]}
