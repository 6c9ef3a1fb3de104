"""The Bayes limit: the best score anyone could reach on the simulated corpus.

Each metric has its own best answer under the posterior: the median for MAE, the
mean for Corr, the more probable sign for Acc-2, the most probable class for Acc-7,
Acc-5 and Acc-3. With the training prior it is what a perfect learner of the training
data could know. It is a limit on average: on a finite test set, whose prior differs
on purpose, a model may be slightly above it by luck.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from lnln.corpus import GRID, posterior
from lnln.corruption import CORRUPTIONS
from lnln.data import MODALITIES, Batch
from lnln.metrics import METRICS, evaluate_predictions

Floats = NDArray[np.float64]


def best_answer(p: Floats, metric: str) -> Floats:
    """The prediction that maximises the expected score.

    Args:
        p: (N, 31) posterior over `corpus.GRID`.
        metric: a name in `metrics.METRICS["mosi"]`. F1 gets the answer of its Acc-2
            (which is not exactly the best for F1).

    Returns:
        (N,) predictions.
    """
    if metric == "mae":
        return np.asarray(GRID[(np.cumsum(p, axis=1) < 0.5).sum(axis=1)])
    if metric == "corr":
        return np.asarray(p @ GRID)
    if metric.endswith("neg_pos"):
        return np.where(p[:, GRID > 0].sum(1) > p[:, GRID < 0].sum(1), 1.0, -1.0)
    if metric.endswith("neg_nonneg"):
        return np.where(p[:, GRID >= 0].sum(1) >= p[:, GRID < 0].sum(1), 1.0, -1.0)
    limit = {"acc7": 3, "acc5": 2, "acc3": 1}[metric]
    classes = np.rint(np.clip(GRID, -limit, limit))
    values = np.arange(-limit, limit + 1)
    mass = np.stack([p[:, classes == c].sum(axis=1) for c in values], axis=1)
    return values[mass.argmax(axis=1)].astype(float)


def limit_scores(p: Floats, labels: Floats) -> dict[str, float]:
    """Every metric at its own best answer.

    Args:
        p: (N, 31) posterior.
        labels: (N,) true sentiment.

    Returns:
        {metric: score} for the metrics of scheme "mosi".
    """
    return {
        m: evaluate_predictions(best_answer(p, m), labels, "mosi")[m]
        for m in METRICS["mosi"]
    }


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
            `lnln.evaluation`.
        available: the modalities that are not missing entirely.
        label_prior: (31,) prior; by default the training prior.
        corruption: a key of `CORRUPTIONS`. Where the posterior is not exact, the limit
            of the intact data is taken, which damage can only move away from.

    Returns:
        {metric: score}.
    """
    kind = CORRUPTIONS[corruption]
    labels = batch.labels.double().cpu().numpy().round(1)
    scores = []
    for seed in mask_seeds:
        severity = rate if kind.exact else 0.0
        corrupted = kind.damage(batch, severity, available, seed).erased()
        scores.append(limit_scores(posterior(corrupted, label_prior), labels))
    return {m: float(np.mean([s[m] for s in scores])) for m in scores[0]}
