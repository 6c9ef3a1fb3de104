"""The metrics against scikit-learn and SciPy, by hand, and against the paper."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn import metrics as sk

from lnln.training.scoring.metrics import (
    FINEST,
    HIGHER_IS_BETTER,
    METRICS,
    class_counts,
    confusion_matrix,
    evaluate_predictions,
    f1_prediction_weighted,
    laziness,
    majority_floor,
    weighted_f1,
)

SCHEMES = ("mosi", "sims")


def sims_bin(values: np.ndarray, edges: list[float]) -> np.ndarray:
    """Right-closed bins, written as a count of the edges that lie below."""
    return sum((values > edge).astype(int) for edge in edges)


def random_scores(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.choice(np.arange(-15, 16) / 5, 300)
    return np.clip(label, -3, 3) + rng.normal(0, 1.5, 300), label


@pytest.mark.parametrize("seed", range(3))
def test_mosi_agrees_with_scikit_learn_and_scipy(seed: int) -> None:
    pred, label = random_scores(seed)
    got = evaluate_predictions(pred, label)
    for name, limit in (("acc7", 3), ("acc5", 2), ("acc3", 1)):
        want = sk.accuracy_score(
            np.rint(np.clip(label, -limit, limit)),
            np.rint(np.clip(pred, -limit, limit)),
        )
        assert got[name] == pytest.approx(want, abs=1e-12)
    kept = label != 0
    for name, true, guess in (
        ("neg_pos", label[kept] > 0, pred[kept] > 0),
        ("neg_nonneg", label >= 0, pred >= 0),
    ):
        assert got[f"acc2_{name}"] == pytest.approx(sk.accuracy_score(true, guess))
        want_f1 = sk.f1_score(true, guess, average="weighted")
        assert got[f"f1_{name}"] == pytest.approx(want_f1)
    assert got["mae"] == pytest.approx(sk.mean_absolute_error(label, pred))
    assert got["corr"] == pytest.approx(pearsonr(pred, label).statistic)
    assert tuple(got) == METRICS["mosi"]


@pytest.mark.parametrize("seed", range(3))
def test_sims_agrees_with_scikit_learn_and_scipy(seed: int) -> None:
    pred, label = random_scores(seed)
    pred, label = pred / 2, label / 2
    got = evaluate_predictions(pred, label, "sims")
    pred, label = np.clip(pred, -1, 1), np.clip(label, -1, 1)
    for name, edges in (
        ("acc5", [-0.7, -0.1, 0.1, 0.7]),
        ("acc3", [-0.1, 0.1]),
        ("acc2", [0.0]),
    ):
        want = sk.accuracy_score(sims_bin(label, edges), sims_bin(pred, edges))
        assert got[name] == pytest.approx(want, abs=1e-12)
    want_f1 = sk.f1_score(label > 0, pred > 0, average="weighted")
    assert got["f1"] == pytest.approx(want_f1)
    assert got["mae"] == pytest.approx(sk.mean_absolute_error(label, pred))
    assert got["corr"] == pytest.approx(pearsonr(pred, label).statistic)
    assert tuple(got) == METRICS["sims"]


def test_five_mosi_rows_by_hand() -> None:
    label = [-3.0, -1.0, 0.0, 1.0, 2.4]
    pred = [-3.6, -0.4, 0.2, -1.0, 1.6]
    got = evaluate_predictions(pred, label)
    # Seven classes: -3|-3, -1|0, 0|0, 1|-1, 2|2. Five: -2|-2, then the same.
    assert got["acc7"] == got["acc5"] == pytest.approx(3 / 5)
    # Three classes: -1|-1, -1|0, 0|0, 1|-1, 1|1.
    assert got["acc3"] == pytest.approx(3 / 5)
    # Without the zero label: hits on -3, -1 and 2.4 of four.
    assert got["acc2_neg_pos"] == pytest.approx(3 / 4)
    # Negative: 2 true, 3 guessed, 2 hits: 4/5. Positive: 2 true, 1 guessed: 2/3.
    assert got["f1_neg_pos"] == pytest.approx((2 * 4 / 5 + 2 * 2 / 3) / 4)
    assert got["acc2_neg_nonneg"] == pytest.approx(4 / 5)
    # Negative: 4/5 as before. Non-negative: 3 true, 2 guessed, 2 hits: 4/5.
    assert got["f1_neg_nonneg"] == pytest.approx(4 / 5)
    assert got["mae"] == pytest.approx((0.6 + 0.6 + 0.2 + 2.0 + 0.8) / 5)


def test_five_sims_rows_by_hand() -> None:
    label = [-1.0, -0.4, 0.0, 0.4, 0.8]
    pred = [-2.0, 0.1, -0.1, 0.6, 0.7]
    got = evaluate_predictions(pred, label, "sims")
    # Classes 0|0, 1|2, 2|1, 3|3, 4|3: the guesses 0.1, -0.1 and 0.7 lie on edges.
    assert got["acc5"] == pytest.approx(2 / 5)
    assert got["acc3"] == pytest.approx(3 / 5)
    assert got["acc2"] == pytest.approx(4 / 5)
    # Up to 0: 3 true, 2 guessed, 2 hits: 4/5. Above 0: 2 true, 3 guessed, 2 hits: 4/5.
    assert got["f1"] == pytest.approx(4 / 5)
    # -2.0 counts as -1.0.
    assert got["mae"] == pytest.approx((0.0 + 0.5 + 0.1 + 0.2 + 0.1) / 5)


@pytest.mark.parametrize(
    ("pred", "label", "hit"),
    [
        (0.5, 0.0, 1.0),
        (1.5, 2.0, 1.0),
        (2.5, 2.0, 1.0),
        (2.5, 3.0, 0.0),
        (-0.5, 0.0, 1.0),
        (-2.5, -2.0, 1.0),
        (2.6, 3.0, 1.0),
        (7.0, 3.0, 1.0),
        (3.0, 4.2, 1.0),
    ],
)
def test_acc7_rounds_half_to_even_and_clips(
    pred: float, label: float, hit: float
) -> None:
    assert evaluate_predictions([pred], [label])["acc7"] == hit


def test_prediction_zero_is_negative_in_neg_pos_and_nonnegative_in_the_other() -> None:
    got = evaluate_predictions([0.0, 0.0], [-1.0, 1.0])
    assert (got["acc2_neg_pos"], got["acc2_neg_nonneg"]) == (0.5, 0.5)
    got = evaluate_predictions([0.0], [-1.0])
    assert (got["acc2_neg_pos"], got["acc2_neg_nonneg"]) == (1.0, 0.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sims_bins_are_closed_on_the_right(dtype: type) -> None:
    values = np.array([-1, -0.7, -0.69, -0.1, -0.09, 0.1, 0.11, 0.7, 0.71, 1], dtype)
    classes = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    centre = np.array([-0.9, -0.4, 0.0, 0.4, 0.9])
    got = evaluate_predictions(values, centre[classes], "sims")
    assert got["acc5"] == got["acc3"] == 1.0
    # The guesses -0.09 and 0.1 share a class with 0.0, but 0.1 lies above zero.
    assert got["acc2"] == 0.9
    assert evaluate_predictions([0.0], [-1.0], "sims")["acc2"] == 1.0


def test_sims_clips_before_mae_and_corr() -> None:
    label = np.array([-1.0, 0.0, 1.0, 0.6])
    pred = np.array([-5.0, 0.1, 9.0, 0.3])
    clipped = evaluate_predictions(np.clip(pred, -1, 1), label, "sims")
    assert evaluate_predictions(pred, label, "sims") == clipped


def test_mosi_does_not_clip_for_mae() -> None:
    assert evaluate_predictions([5.0], [3.0])["mae"] == 2.0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_perfect_prediction(scheme: str) -> None:
    label = np.linspace(-1, 1, 11)
    got = evaluate_predictions(label, label, scheme)
    for name, value in got.items():
        assert value == pytest.approx(1.0 if HIGHER_IS_BETTER[name] else 0.0)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_corr_of_a_constant_is_zero(scheme: str) -> None:
    label = np.linspace(-1, 1, 9)
    assert evaluate_predictions(np.full(9, 0.1), label, scheme)["corr"] == 0.0
    assert evaluate_predictions(label, np.full(9, 0.1), scheme)["corr"] == 0.0


def test_neg_pos_is_nan_without_polar_labels() -> None:
    got = evaluate_predictions([1.0, -1.0], [0.0, 0.0])
    assert math.isnan(got["acc2_neg_pos"])
    assert math.isnan(got["f1_neg_pos"])
    assert got["acc2_neg_nonneg"] == 0.5


def test_tensors_of_any_shape_are_accepted() -> None:
    pred, label = random_scores(0)
    column = torch.tensor(pred).reshape(-1, 1).requires_grad_()
    got = evaluate_predictions(column, torch.tensor(label))
    assert got == evaluate_predictions(pred, label)


def test_integers_are_accepted() -> None:
    assert evaluate_predictions([1, 2], [1, 3])["mae"] == 0.5


@pytest.mark.parametrize(
    ("pred", "label", "scheme", "match"),
    [
        ([1.0], [1.0, 2.0], "mosi", "1 predictions for 2 labels"),
        ([], [], "mosi", "at least one"),
        ([float("nan")], [1.0], "mosi", "finite"),
        ([1.0], [float("inf")], "sims", "finite"),
        ([1.0], [1.0], "mosei", "unknown scheme 'mosei'"),
    ],
)
def test_bad_input_is_refused(
    pred: list[float], label: list[float], scheme: str, match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        evaluate_predictions(pred, label, scheme)


classes = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40
)


@given(classes)
def test_f1_equals_scikit_learn_and_both_forms_add_up(
    pairs: list[tuple[int, int]],
) -> None:
    true, pred = np.array(pairs).T
    usual = weighted_f1(true=true, pred=pred)
    exchanged = f1_prediction_weighted(true=true, pred=pred)
    want = sk.f1_score(true, pred, average="weighted", zero_division=0)
    assert usual == pytest.approx(want)
    assert usual + exchanged == pytest.approx(2 * np.mean(true == pred))


def test_f1_arguments_go_by_name_only() -> None:
    with pytest.raises(TypeError):
        weighted_f1([0, 1], [1, 1])  # type: ignore[misc]


@pytest.mark.parametrize(("hits", "total"), [(379, 656), (317, 457), (1, 2)])
def test_f1_of_a_constant_follows_from_its_accuracy(hits: int, total: int) -> None:
    true, pred = [0] * hits + [1] * (total - hits), [0] * total
    a = hits / total
    assert weighted_f1(true=true, pred=pred) == pytest.approx(2 * a * a / (1 + a))
    exchanged = f1_prediction_weighted(true=true, pred=pred)
    assert exchanged == pytest.approx(2 * a / (1 + a))


def labels(counts: dict[float, int]) -> np.ndarray:
    return np.repeat(list(counts), list(counts.values()))


# Test-set counts with which the paper's constant predictions agree.
MOSI_TEST = labels({-2.0: 379, 0.0: 30, 1.0: 277})
MOSEI_TEST = labels({-1.0: 1350, 0.0: 1025, 1.0: 2284})
SIMS_TEST = labels({-0.8: 151, -0.4: 97, 0.0: 69, 0.6: 140})


@pytest.mark.parametrize(
    ("label", "scheme", "expected"),
    [
        (
            MOSI_TEST,
            "mosi",
            {
                "acc2_neg_pos": 57.77,
                "acc2_neg_nonneg": 55.25,
                "f1_neg_pos": 42.31,
                "f1_neg_nonneg": 39.32,
            },
        ),
        (
            MOSEI_TEST,
            "mosi",
            {
                "acc2_neg_pos": 62.85,
                "acc2_neg_nonneg": 71.02,
                "f1_neg_pos": 48.51,
                "f1_neg_nonneg": 58.99,
            },
        ),
        (SIMS_TEST, "sims", {"acc2": 69.37, "f1": 56.82, "acc3": 54.27}),
    ],
)
def test_floors_are_the_chance_levels_in_the_paper(
    label: np.ndarray, scheme: str, expected: dict[str, float]
) -> None:
    floor = majority_floor(label, label, scheme)
    assert {k: round(100 * floor[k], 2) for k in expected} == expected


def test_sims_slightly_negative_constant() -> None:
    got = evaluate_predictions(np.full(457, -0.4), SIMS_TEST, "sims")
    assert round(100 * got["acc5"], 2) == 21.23
    assert round(100 * got["acc3"], 2) == 54.27


def test_floor_takes_its_constants_from_the_training_labels() -> None:
    train, test = [1.0, 1.0, 1.0, -2.0], [-2.0, -2.0, 1.0, 0.0]
    floor = majority_floor(train, test)
    assert floor["acc7"] == 1 / 4
    assert floor["acc2_neg_pos"] == pytest.approx(1 / 3)
    assert floor["acc2_neg_nonneg"] == 2 / 4
    assert floor["mae"] == (3 + 3 + 0 + 1) / 4
    assert floor["corr"] == 0.0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_constant_beats_the_floor_of_its_own_labels(scheme: str) -> None:
    _, label = random_scores(5)
    label = label if scheme == "mosi" else np.round(label / 3, 1)
    floor = majority_floor(label, label, scheme)
    # Off the grid of labels, and the median itself for MAE.
    for value in [*np.arange(-3.05, 3.1, 0.1), np.median(label)]:
        scores = evaluate_predictions(np.full(label.size, value), label, scheme)
        for name, score in scores.items():
            sign = 1 if HIGHER_IS_BETTER[name] else -1
            assert sign * score <= sign * floor[name] + 1e-12


@pytest.mark.parametrize("scheme", SCHEMES)
def test_laziness_ends(scheme: str) -> None:
    constant = laziness(np.full(10, 0.05), scheme)
    assert constant == {"top_share": 1.0, "entropy": 0.0}
    one_of_each = {"mosi": range(-3, 4), "sims": (-0.9, -0.4, 0.0, 0.4, 0.9)}
    even = laziness(list(one_of_each[scheme]), scheme)
    count = len(FINEST[scheme][1])
    assert even["top_share"] == pytest.approx(1 / count)
    assert even["entropy"] == pytest.approx(1.0)


def test_laziness_by_hand() -> None:
    got = laziness([0.0, 0.0, 2.0, 2.0])
    assert got["top_share"] == 0.5
    assert got["entropy"] == pytest.approx(np.log(2) / np.log(7))


def test_classes_are_counted_by_hand() -> None:
    assert class_counts([-9.0, -0.5, 0.5, 1.5, 2.5]).tolist() == [1, 0, 0, 2, 0, 2, 0]
    edges = np.array([-0.7, -0.1, 0.1, 0.7, 0.8, 2.0], np.float32)
    assert class_counts(edges, "sims").tolist() == [1, 1, 1, 1, 2]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_confusion_matrix_agrees_with_scikit_learn(scheme: str) -> None:
    pred, label = random_scores(1)
    if scheme == "sims":
        pred, label = pred / 3, label / 3
        edges = [-0.7, -0.1, 0.1, 0.7]
        true, guess = sims_bin(label, edges), sims_bin(pred, edges)
    else:
        true = np.rint(np.clip(label, -3, 3)) + 3
        guess = np.rint(np.clip(pred, -3, 3)) + 3
    matrix = confusion_matrix(pred, label, scheme)
    name, classes = FINEST[scheme]
    want = sk.confusion_matrix(true, guess, labels=range(len(classes)))
    np.testing.assert_array_equal(matrix, want)
    accuracy = evaluate_predictions(pred, label, scheme)[name]
    assert matrix.trace() / matrix.sum() == pytest.approx(accuracy)


def test_every_metric_has_a_direction() -> None:
    names = set(itertools.chain(*METRICS.values()))
    assert set(HIGHER_IS_BETTER) == names
    assert [n for n in names if not HIGHER_IS_BETTER[n]] == ["mae"]
