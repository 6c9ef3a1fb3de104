"""The sweep: tidy rows, honest references, one answer whatever the batching."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lnln import (
    PRESETS,
    TEST_RATES,
    CheckpointError,
    Dataset,
    conditions,
    evaluate,
    from_pretrained,
    read_csv,
    reference_rows,
    robustness_figure,
    simulate,
    train,
    write_csv,
)
from lnln.evaluation.linear import fit_linear
from lnln.evaluation.plots import save_figure
from lnln.evaluation.sweep import BAYES, COLUMNS, FLOOR, LINEAR, mean_by_rate
from lnln.evaluation.tables import plain, rate_table
from lnln.training.scoring.metrics import METRICS
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
    scores = evaluate(run, dataset, wanted, mask_seeds=(0, 1), progress=False)
    assert tuple(scores) == COLUMNS
    for metric in METRICS["mosi"]:
        assert (scores.metric == metric).sum() == 2 * len(wanted)
    assert set(scores.dataset) == {"simulated"}
    # Rate 0 leaves nothing to chance, and at rate 1 there is nothing left to know.
    mae = scores[(scores.metric == "mae") & (scores.available == "lav")]
    distinct = mae.groupby("rate").value.nunique()
    assert distinct[0.0] == distinct[1.0] == 1


def test_swept_scores_are_those_of_direct_prediction(
    run: Path, dataset: Dataset
) -> None:
    from lnln import erase, fixed_rates, load_model, split_uniforms
    from lnln.training.scoring.metrics import evaluate_predictions

    batch = dataset.test.batch
    uniforms = split_uniforms(batch, 4)
    corrupted = erase(batch, fixed_rates(len(batch), 0.6), uniforms).batch
    output = load_model(run / "model.safetensors")(corrupted)
    expected = evaluate_predictions(output.sentiment, batch.labels, "mosi")
    scores = evaluate(run, dataset, conditions((0.6,)), mask_seeds=(4,), progress=False)
    values = scores.set_index("metric").value
    assert values[list(expected)].to_dict() == pytest.approx(expected, abs=1e-5)


def test_references_frame_the_result(dataset: Dataset) -> None:
    wanted = conditions((0.0, 0.9))
    scores = reference_rows(dataset, wanted, linear=fit_linear(dataset, copies=2))
    mae = mean_by_rate(scores, "mae")
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
    own = evaluate(run, dataset, wanted, mask_seeds=("released", 0), progress=False)
    references = reference_rows(dataset, wanted)
    scores = pd.concat([own, references], ignore_index=True)
    write_csv(tmp_path / "robustness.csv", scores)
    with open(tmp_path / "robustness.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == len(scores) and tuple(read[0]) == COLUMNS
    assert float(read[0]["value"]) == scores.value[0]
    assert read[0]["mask_seed"] == "released" and read[-1]["mask_seed"] == ""
    # What is read is what was written, and is written again as it was.
    again = read_csv(tmp_path / "robustness.csv")
    pd.testing.assert_frame_equal(again, scores)
    write_csv(tmp_path / "again.csv", again)
    texts = [(tmp_path / f"{n}.csv").read_bytes() for n in ("again", "robustness")]
    assert texts[0] == texts[1]
    figure = robustness_figure(scores, ("mae", "acc7"), "simulated")
    assert [a.get_xlabel() for a in figure.axes] == ["missing rate r"] * 2
    save_figure(figure, tmp_path / "robustness.png")
    assert (tmp_path / "robustness.png").read_bytes().startswith(b"\x89PNG")


def test_a_table_by_rate_ends_with_the_mean_of_the_ten_rates() -> None:
    columns = ("method", "available", "rate", "metric", "value")
    scores = pd.DataFrame(
        [
            (method, "lav", rate, metric, rate + seed + (method == "other"))
            for method in ("LNLN", "other")
            for rate in (*TEST_RATES, 1.0)
            for metric in METRICS["mosi"]
            for seed in (0, 2)
        ],
        columns=columns,
    )
    text = plain(rate_table(scores, "LNLN", "mosi"))
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["r", *METRICS["mosi"]]
    assert lines[6][:2] == ["0.50", "1.500"]
    assert lines[-2][:2] == ["1.00", "2.000"]
    assert lines[-1] == ["mean", *["1.450"] * len(METRICS["mosi"])]
    few = scores[scores.rate < 0.5]
    assert "mean" not in plain(rate_table(few, "LNLN", "mosi"))


def test_scores_that_are_no_number_stay_so(tmp_path: Path) -> None:
    at = dict.fromkeys(COLUMNS, "") | {"rate": 0.1 + 0.2, "value": float("nan")}
    write_csv(tmp_path / "scores.csv", pd.DataFrame([at]))
    text = (tmp_path / "scores.csv").read_text()
    assert text.splitlines()[1] == ",,,,,,,,0.30000000000000004,,nan"
    read = read_csv(tmp_path / "scores.csv")
    assert read.rate[0] == 0.1 + 0.2 and np.isnan(read.value[0])
    assert read.seed[0] == ""


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

    trained = from_pretrained("mini")
    batch = simulate("mini").test.batch
    errors, limits = [], []
    for rate in TEST_RATES:
        rates, uniforms = fixed_rates(len(batch), rate), split_uniforms(batch, 0)
        predicted = trained.predict(batch, rates, uniforms).sentiment
        errors.append(float((predicted - batch.labels).abs().mean()))
        limits.append(bayes_limit(batch, rate, (0,))["mae"])
    assert np.mean(errors) / np.mean(limits) < 1.10
