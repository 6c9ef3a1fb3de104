"""Distributions over the label values: what to read off for each metric, and how good.

A metric asks for one number, and each for another: the median makes the absolute error
smallest, the mean serves the correlation, and an accuracy wants the class that holds
most of the mass. The scores of the distribution itself ask whether it says rightly how
sure it is. Throughout, p is (N, K) probabilities of the K values of
`lnln.data.batch.LABEL_VALUES`.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from lnln.data.batch import LABEL_VALUES
from lnln.models.blocks.answers import shares
from lnln.training.scoring.metrics import CLASSIFIERS, METRICS, evaluate_predictions

Floats = NDArray[np.float64]

#: Scores of a distribution; `divergence` is known on simulated data only.
DISTRIBUTION_SCORES = ("log_score", "crps", "coverage", "divergence")
#: The central interval whose coverage is reported.
CENTRAL = 0.8
#: Probabilities below are not told apart from it by the log score.
_LEAST = 1e-12


def read_out(p: Floats, metric: str, scheme: str = "mosi") -> Floats:
    """The number with the best expected score.

    Args:
        p: (N, K) probabilities.
        metric: a name in `METRICS[scheme]`. F1 gets the number of its Acc-2 (which is
            not exactly the best for F1).
        scheme: "mosi" or "sims".

    Returns:
        (N,) numbers: for MAE the median, for Corr the mean, for an accuracy the middle
        of the class with the largest mass, where Acc-2 (neg./pos.) leaves out 0.
    """
    values = LABEL_VALUES[scheme]
    if metric == "mae":
        below = np.cumsum(p, axis=1) < 0.5
        return np.asarray(values[below.sum(axis=1).clip(max=len(values) - 1)])
    if metric == "corr":
        return np.asarray(p @ values)
    accuracy = "acc2" + metric.removeprefix("f1") if metric[:2] == "f1" else metric
    classes = CLASSIFIERS[scheme][accuracy](values)
    counted = values != 0 if accuracy == "acc2_neg_pos" else np.full(len(values), True)
    rows = [counted & (classes == c) for c in np.unique(classes)]
    mass = np.stack([p[:, row].sum(axis=1) for row in rows], axis=1)
    middles = np.array([values[row][row.sum() // 2] for row in rows])
    return np.asarray(middles[mass.argmax(axis=1)])


def best_scores(p: Floats, labels: Floats, scheme: str = "mosi") -> dict[str, float]:
    """Every metric of a scheme, each at its own read-out.

    Args:
        p: (N, K) probabilities.
        labels: (N,) true sentiment.
        scheme: "mosi" or "sims".
    """
    return {
        m: evaluate_predictions(read_out(p, m, scheme), labels, scheme)[m]
        for m in METRICS[scheme]
    }


def distribution_scores(
    p: Floats, labels: Floats, scheme: str = "mosi", exact: Floats | None = None
) -> dict[str, float]:
    """How good the distributions themselves are.

    Args:
        p: (N, K) probabilities.
        labels: (N,) true sentiment; one between two values counts for both in part.
        scheme: "mosi" or "sims".
        exact: (N, K) exact posterior, where it is known.

    Returns:
        `log_score`, the mean of -log p(y) in nats; `crps`, the mean continuous ranked
        probability score in units of the label, which for a number is its absolute
        error; `coverage`, how often the central 80 % interval holds the label, 0.8
        where spreads are right; with `exact` also `divergence`, the mean of
        KL(exact || p) in nats.
    """
    values = LABEL_VALUES[scheme]
    truth = _shares(labels, values)
    log_p = np.log(np.maximum(p, _LEAST))
    gap = np.cumsum(p, axis=1) - np.cumsum(truth, axis=1)
    low, high = _reached(p, truth)
    lowest, highest = (1 - CENTRAL) / 2, (1 + CENTRAL) / 2
    inside = np.minimum(high, highest) - np.maximum(low, lowest)
    held = np.clip(inside, 0, None) / np.maximum(high - low, _LEAST)
    scores = {
        "log_score": float(-(truth * log_p).sum(axis=1).mean()),
        "crps": float((gap**2).sum(axis=1).mean() * (values[1] - values[0])),
        "coverage": float(held.mean()),
    }
    if exact is not None:
        log_exact = np.log(np.maximum(exact, _LEAST))
        gaps = (exact * (log_exact - log_p)).sum(axis=1)
        scores["divergence"] = float(gaps.mean())
    return scores


def pit_histogram(
    p: Floats, labels: Floats, scheme: str = "mosi", bins: int = 10
) -> Floats:
    """The probability integral transform of the labels, as a histogram.

    A label's transform is the share of the mass below it. Since the values are few, a
    label reaches from the mass below it to the mass up to it and counts evenly in
    between (Czado et al., 2009). Flat at 1 where spreads are right, high at both ends
    where they are too narrow, high in the middle where they are too wide.

    Args:
        p: (N, K) probabilities.
        labels: (N,) true sentiment.
        scheme: "mosi" or "sims".
        bins: equal parts of 0 to 1.

    Returns:
        (bins,) densities with mean 1.
    """
    low, high = _reached(p, _shares(labels, LABEL_VALUES[scheme]))
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    span = np.maximum(high - low, _LEAST)[:, None]
    reached = np.clip((edges - low[:, None]) / span, 0, 1).mean(axis=0)
    # All of them lie between 0 and 1, also labels above all mass, without any span.
    return np.diff(reached, prepend=0, append=1) * bins


def spread(p: Floats, scheme: str = "mosi") -> Floats:
    """(N,) standard deviations of distributions, in units of the label."""
    values = LABEL_VALUES[scheme]
    mean = p @ values
    return np.asarray(np.sqrt(np.maximum(p @ values**2 - mean**2, 0)))


def _shares(labels: Floats, values: Floats) -> Floats:
    y = torch.from_numpy(np.asarray(labels, np.float64))
    return np.asarray(shares(y, torch.from_numpy(values)).numpy())


def _reached(p: Floats, truth: Floats) -> tuple[Floats, Floats]:
    """The mass below the labels, and the mass up to them."""
    up_to = np.cumsum(p, axis=1)
    high = (truth * up_to).sum(axis=1)
    return high - (truth * p).sum(axis=1), high
