"""The sweep: tidy rows, honest references, one answer whatever the batching."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lnln import (
    PRESETS,
    TEST_RATES,
    CheckpointError,
    Dataset,
    conditions,
    evaluate,
    load_pretrained,
    reference_rows,
    robustness_figure,
    simulate,
    train,
    write_csv,
)
from lnln.evaluation.linear import fit_linear
from lnln.evaluation.plots import save_figure
from lnln.evaluation.sweep import BAYES, COLUMNS, FLOOR, LINEAR, mean_by_rate, table
from lnln.training.metrics import METRICS
from lnln.training.settings import with_train


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return simulate("mini", seed=3, train_size=128)


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    short = with_train(PRESETS["mini"], epochs=1, validation_rates=(0.5,))
    train(short, dataset, folder, progress=False, device="cpu")
    return folder


def test_conditions_sweep_rates_and_seven_subsets() -> None:
    wanted = conditions(TEST_RATES, subsets=True)
    assert len(wanted) == len(set(wanted)) == 10 + 6  # complete "lav" is r = 0
    assert ("l", "a", "v") in {available for available, _ in wanted}
    assert (("a",), 0.0) in wanted


def test_rows_are_tidy_and_complete(run: Path, dataset: Dataset) -> None:
    wanted = conditions((0.0, 0.5, 1.0), subsets=True)
    rows = evaluate(run, dataset, wanted, mask_seeds=(0, 1), progress=False)
    for metric in METRICS["mosi"]:
        mine = [r for r in rows if r["metric"] == metric]
        assert len(mine) == 2 * len(wanted)
    assert {r["dataset"] for r in rows} == {"simulated"}
    # Rate 0 leaves nothing to chance, and at rate 1 there is nothing left to know.
    for rate in (0.0, 1.0):
        values = {
            r["value"]
            for r in rows
            if (r["metric"], r["rate"], r["available"]) == ("mae", rate, "lav")
        }
        assert len(values) == 1


def test_swept_scores_are_those_of_direct_prediction(
    run: Path, dataset: Dataset
) -> None:
    from lnln import erase, fixed_rates, load_model, split_uniforms
    from lnln.training.metrics import evaluate_predictions

    batch = dataset.test.batch
    uniforms = split_uniforms(batch, 4)
    corrupted = erase(batch, fixed_rates(len(batch), 0.6), uniforms).batch
    output = load_model(run / "model.safetensors")(corrupted)
    expected = evaluate_predictions(output.sentiment, batch.labels, "mosi")
    rows = evaluate(run, dataset, conditions((0.6,)), mask_seeds=(4,), progress=False)
    for row in rows:
        if row["metric"] in expected:
            assert row["value"] == pytest.approx(expected[row["metric"]], abs=1e-5)


def test_references_frame_the_result(dataset: Dataset) -> None:
    wanted = conditions((0.0, 0.9))
    rows = reference_rows(dataset, wanted, linear=fit_linear(dataset, copies=2))
    mae = mean_by_rate(rows, "mae")
    assert set(mae) == {BAYES, FLOOR, LINEAR}
    assert mae[BAYES][0.0] < mae[BAYES][0.9] < mae[FLOOR][0.0] == mae[FLOOR][0.9]
    assert mae[BAYES][0.0] < mae[LINEAR][0.0]
    # Without the generating process there is no limit to draw.
    real = replace(dataset, name="mosi")
    assert BAYES not in mean_by_rate(reference_rows(real, wanted), "mae")


def test_csv_and_figure_are_written(
    run: Path, dataset: Dataset, tmp_path: Path
) -> None:
    wanted = conditions((0.0, 0.5))
    rows = evaluate(run, dataset, wanted, progress=False)
    rows += reference_rows(dataset, wanted)
    write_csv(tmp_path / "robustness.csv", rows)
    with open(tmp_path / "robustness.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == len(rows) and tuple(read[0]) == COLUMNS
    assert float(read[0]["value"]) == rows[0]["value"]
    figure = robustness_figure(rows, ("mae", "acc7"), "simulated")
    assert [a.get_xlabel() for a in figure.axes] == ["missing rate r"] * 2
    save_figure(figure, tmp_path / "robustness.png")
    assert (tmp_path / "robustness.png").read_bytes().startswith(b"\x89PNG")
    assert "0.50" in table(rows, "LNLN", "mosi")


def test_wrong_data_and_missing_runs_are_refused(
    run: Path, dataset: Dataset, tmp_path: Path
) -> None:
    wanted = conditions((0.0,))
    with pytest.raises(CheckpointError, match="lnln train"):
        evaluate(tmp_path, dataset, wanted)
    with pytest.raises(ValueError, match="labels of"):
        evaluate(run, replace(dataset, scheme="sims"), wanted)
    batch = dataset.test.batch
    wide = replace(batch, audio=torch.zeros(len(batch), 48, 74))
    splits = {**dataset.splits, "test": replace(dataset.test, batch=wide)}
    with pytest.raises(ValueError, match="wide"):
        evaluate(run, replace(dataset, splits=splits), wanted, progress=False)
    full = simulate("full", train_size=1)
    with pytest.raises(ValueError, match="frames|tokens"):
        evaluate(run, full, wanted, progress=False)


def test_shipped_model_stays_within_ten_percent_of_the_bayes_limit() -> None:
    from lnln import bayes_limit, fixed_rates, split_uniforms

    trained = load_pretrained("mini")
    batch = simulate("mini").test.batch
    errors, limits = [], []
    for rate in TEST_RATES:
        rates, uniforms = fixed_rates(len(batch), rate), split_uniforms(batch, 0)
        predicted = trained.predict(batch, rates, uniforms).sentiment
        errors.append(float((predicted - batch.labels).abs().mean()))
        limits.append(bayes_limit(batch, rate, (0,))["mae"])
    assert np.mean(errors) / np.mean(limits) < 1.10
