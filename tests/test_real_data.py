"""The whole road on a real MMSA-format file; skipped where there is none."""

import os
from pathlib import Path

import pytest

from lnln import (
    PRESETS,
    Dataset,
    conditions,
    evaluate,
    majority_floor,
    read_mmsa,
    train,
)
from lnln.evaluation.sweep import mean_by_rate, reference_rows
from lnln.training.settings import with_train

ROOT = Path(__file__).resolve().parents[1]
PLACES = (
    os.environ.get("LNLN_REAL_DATA", ""),
    ROOT / "data/local/mosi_context.pkl",
    ROOT.parent / "shared/data/mosi_context.pkl",
)
FILE = next((Path(p) for p in PLACES if p and Path(p).is_file()), None)

pytestmark = pytest.mark.skipif(FILE is None, reason="no real data file here")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    assert FILE is not None
    return read_mmsa(FILE)


def test_real_data_are_never_called_simulated(dataset: Dataset) -> None:
    assert dataset.name != "simulated" and dataset.scheme == "mosi"
    scores = reference_rows(dataset, conditions((0.0,)))
    assert set(scores.method) == {"majority floor"}


def test_a_few_epochs_from_scratch_beat_the_floor(
    dataset: Dataset, tmp_path: Path
) -> None:
    # Without a pretrained encoder, so that no download and no minutes are needed.
    short = with_train(PRESETS["mini"], epochs=4, validation_rates=(0.0, 0.5))
    train(short, dataset, tmp_path, progress=False, device="cpu")
    scores = evaluate(
        tmp_path, dataset, conditions((0.0, 1.0)), mask_seeds=(0,), progress=False
    )
    mae = mean_by_rate(scores, "mae")["LNLN"]
    labels = dataset.test.batch.labels
    floor = majority_floor(dataset.train.batch.labels, labels)["mae"]
    assert mae[0.0] < floor
