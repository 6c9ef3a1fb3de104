"""The paper's metrics, its chance levels, and how lazy a model's answers are.

Two schemes: `"mosi"` for MOSI, MOSEI and the simulated corpus (labels in [-3, 3])
and `"sims"` for SIMS (labels in [-1, 1]). All scores are fractions, unrounded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    Values = npt.ArrayLike | Tensor

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.intp]

#: Metric names of each scheme, in the column order of the paper's tables.
METRICS: dict[str, tuple[str, ...]] = {
    "mosi": (
        "acc7",
        "acc5",
        "acc3",
        "acc2_neg_pos",
        "f1_neg_pos",
        "acc2_neg_nonneg",
        "f1_neg_nonneg",
        "mae",
        "corr",
    ),
    "sims": ("acc5", "acc3", "acc2", "f1", "mae", "corr"),
}

#: Whether a larger value of the metric is the better one.
HIGHER_IS_BETTER: dict[str, bool] = {
    name: name != "mae" for names in METRICS.values() for name in names
}

#: The finest division of each scheme: its metric and its classes in words.
FINEST: dict[str, tuple[str, tuple[str, ...]]] = {
    "mosi": ("acc7", ("-3", "-2", "-1", "0", "1", "2", "3")),
    "sims": (
        "acc5",
        ("[-1,-0.7]", "(-0.7,-0.1]", "(-0.1,0.1]", "(0.1,0.7]", "(0.7,1]"),
    ),
}


def _rounded(values: Floats, limit: int) -> Ints:
    # np.rint rounds half to even, as the paper's evaluation does: 0.5 -> 0, 1.5 -> 2.
    return np.rint(np.clip(values, -limit, limit)).astype(np.intp) + limit


def _binned(values: Floats, edges: tuple[float, ...]) -> Ints:
    # side="left" closes the bins on the right. The edges take the precision of the
    # values: a float32 0.1 is larger than a float64 0.1 and would change its class.
    return np.searchsorted(np.asarray(edges, values.dtype), values, side="left")


def _at_least_zero(values: Floats) -> Ints:
    return (values >= 0).astype(np.intp)


_above_zero = partial(_binned, edges=(0.0,))

#: {scheme: {accuracy: what gives values their classes, 0 the lowest}}.
CLASSIFIERS: dict[str, dict[str, Callable[[Floats], Ints]]] = {
    "mosi": {
        "acc7": partial(_rounded, limit=3),
        "acc5": partial(_rounded, limit=2),
        "acc3": partial(_rounded, limit=1),
        "acc2_neg_pos": _above_zero,
        "acc2_neg_nonneg": _at_least_zero,
    },
    "sims": {
        "acc5": partial(_binned, edges=(-0.7, -0.1, 0.1, 0.7)),
        "acc3": partial(_binned, edges=(-0.1, 0.1)),
        "acc2": _above_zero,
    },
}


def evaluate_predictions(
    pred: Values, label: Values, scheme: str = "mosi"
) -> dict[str, float]:
    """Score predictions with every metric of a scheme.

    Args:
        pred: N predicted sentiment scores, any shape with N elements.
        label: N true sentiment scores.
        scheme: `"mosi"` or `"sims"`.

    Returns:
        One value per name in `METRICS[scheme]`. `acc2_neg_pos` and `f1_neg_pos` leave
        out samples labelled 0 and are NaN if nothing is left. `corr` is 0.0, not
        NaN, where the predictions or the labels are all equal.

    Raises:
        ValueError: unknown scheme, no samples, different lengths, or a value that is
            not finite.
    """
    guess, truth = _prepare(pred, label, scheme)
    return {name: _score(name, guess, truth, scheme) for name in METRICS[scheme]}


def weighted_f1(*, true: npt.ArrayLike, pred: npt.ArrayLike) -> float:
    """F1 of each class, averaged with the number of true samples as weights.

    Exchanging the two arguments gives another number (`f1_prediction_weighted`) without
    any error, so they can only be passed by name.

    Args:
        true: (N,) true classes.
        pred: (N,) predicted classes.

    Returns:
        The weighted F1; NaN for no samples.
    """
    truth, guess = np.asarray(true), np.asarray(pred)
    if truth.size == 0:
        return float("nan")
    total = 0.0
    for value in np.unique(truth):
        n_true, n_pred = np.sum(truth == value), np.sum(guess == value)
        hits = np.sum((truth == value) & (guess == value))
        total += n_true * 2 * hits / (n_true + n_pred)
    return float(total / truth.size)


def f1_prediction_weighted(*, true: npt.ArrayLike, pred: npt.ArrayLike) -> float:
    """F1 of each class, averaged with the number of predicted samples as weights.

    The paper prints this form for LNLN and ALMT. It rewards a model that always
    answers the same, and `weighted_f1 + f1_prediction_weighted = 2 * accuracy`.

    Args:
        true: (N,) true classes.
        pred: (N,) predicted classes.

    Returns:
        The F1 weighted by predicted classes; NaN for no samples.
    """
    return weighted_f1(true=pred, pred=true)


def majority_floor(
    train_label: Values, label: Values, scheme: str = "mosi"
) -> dict[str, float]:
    """Score the best constant answer that the training labels suggest.

    Each metric gets its own constant: the most frequent class (the lowest one of a
    tie), the median for MAE, and 0.0 for Corr, where every constant is worth nothing.
    With `train_label=label` this is the usual chance level, which has seen the test.

    Args:
        train_label: labels from which the constants are taken.
        label: labels on which the constants are scored.
        scheme: `"mosi"` or `"sims"`.

    Returns:
        One value per name in `METRICS[scheme]`.

    Raises:
        ValueError: as `evaluate_predictions`.
    """
    train, truth = _as_array(train_label, scheme), _as_array(label, scheme)
    floor = {}
    for name in METRICS[scheme]:
        if name == "mae":
            floor[name] = _mean_distance(truth, np.median(train))
        elif name == "corr":
            floor[name] = 0.0
        else:
            train_class = _classes(name, train, train, scheme)
            common = np.bincount(train_class, minlength=1).argmax()
            true_class = _classes(name, truth, truth, scheme)
            floor[name] = _agreement(name, np.full_like(true_class, common), true_class)
    return floor


def laziness(pred: Values, scheme: str = "mosi") -> dict[str, float]:
    """How far predictions have collapsed onto few classes (7, or 5 for SIMS).

    Args:
        pred: N predicted sentiment scores.
        scheme: `"mosi"` or `"sims"`.

    Returns:
        `top_share`, the share of the most predicted class, and `entropy`, the entropy
        of the predicted classes divided by its maximum: 0 when all predictions share
        one class, 1 when every class is predicted equally often.

    Raises:
        ValueError: as `evaluate_predictions`.
    """
    counts = class_counts(pred, scheme)
    share = counts / counts.sum()
    used = share[share > 0]
    entropy = abs(float(np.sum(used * np.log(used)))) / np.log(len(counts))
    return {"top_share": float(share.max()), "entropy": float(entropy)}


def class_counts(values: Values, scheme: str = "mosi") -> Ints:
    """Count values in each class of `FINEST`.

    Args:
        values: N sentiment scores.
        scheme: `"mosi"` (7 classes, -3 to 3) or `"sims"` (5 classes).

    Returns:
        (C,) counts, lowest sentiment first.

    Raises:
        ValueError: as `evaluate_predictions`.
    """
    array = _as_array(values, scheme)
    name, classes = FINEST[scheme]
    return np.bincount(CLASSIFIERS[scheme][name](array), minlength=len(classes))


def confusion_matrix(pred: Values, label: Values, scheme: str = "mosi") -> Ints:
    """Count samples by true class (rows) and predicted class (columns).

    Args:
        pred: N predicted sentiment scores.
        label: N true sentiment scores.
        scheme: `"mosi"` (7 classes, -3 to 3) or `"sims"` (5 classes).

    Returns:
        (C, C) counts, lowest sentiment first.

    Raises:
        ValueError: as `evaluate_predictions`.
    """
    guess, truth = _prepare(pred, label, scheme)
    name, classes = FINEST[scheme]
    to_class = CLASSIFIERS[scheme][name]
    matrix = np.zeros((len(classes),) * 2, np.intp)
    np.add.at(matrix, (to_class(truth), to_class(guess)), 1)
    return matrix


def _as_array(values: Values, scheme: str) -> Floats:
    if scheme not in METRICS:
        raise ValueError(f"unknown scheme {scheme!r}: use one of {sorted(METRICS)}")
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    array = np.asarray(values).reshape(-1)
    if not np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError("scores must be finite numbers, at least one of them")
    # SIMS clips before every metric, MAE and Corr included.
    return np.clip(array, -1, 1) if scheme == "sims" else array


def _prepare(pred: Values, label: Values, scheme: str) -> tuple[Floats, Floats]:
    guess, truth = _as_array(pred, scheme), _as_array(label, scheme)
    if guess.size != truth.size:
        raise ValueError(f"{guess.size} predictions for {truth.size} labels")
    return guess, truth


def _score(name: str, guess: Floats, truth: Floats, scheme: str) -> float:
    if name == "mae":
        return _mean_distance(guess, truth)
    if name == "corr":
        return _correlation(guess, truth)
    return _agreement(
        name,
        _classes(name, guess, truth, scheme),
        _classes(name, truth, truth, scheme),
    )


def _classes(name: str, values: Floats, truth: Floats, scheme: str) -> Ints:
    """Classes that an accuracy or an F1 compares, of the samples that it counts."""
    accuracy = "acc2" + name.removeprefix("f1") if name.startswith("f1") else name
    if accuracy == "acc2_neg_pos":
        values = values[truth != 0]
    return CLASSIFIERS[scheme][accuracy](values)


def _agreement(name: str, guess: Ints, truth: Ints) -> float:
    if name.startswith("f1"):
        return weighted_f1(true=truth, pred=guess)
    return float(np.mean(guess == truth)) if truth.size else float("nan")


def _mean_distance(first: Floats, second: Floats | np.floating[Any]) -> float:
    return float(np.mean(np.abs(first - second), dtype=np.float64))


def _correlation(guess: Floats, truth: Floats) -> float:
    # The test for equal values must come first: rounding gives a constant a tiny
    # variance, and the ratio of two tiny numbers can be anything.
    if np.ptp(guess) == 0 or np.ptp(truth) == 0:
        return 0.0
    return float(np.corrcoef(guess.astype(np.float64), truth.astype(np.float64))[0, 1])
