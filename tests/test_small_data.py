"""Few utterances, single ones, and silence: every method stays finite or says why."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lnln import Batch, Dataset, conditions, evaluate, simulate, train
from lnln.config import Preset
from lnln.methods import TITLES, preset_for
from lnln.training import TrainingError, with_train

FULL = simulate("mini", seed=2, train_size=40)


def few(train_size: int, change: Callable[[Batch], Batch] = lambda b: b) -> Dataset:
    """So many training utterances, and 6 to validate and to test."""
    splits = {}
    for name, split in FULL.splits.items():
        size = train_size if name == "train" else 6
        batch = change(split.batch.select(torch.arange(size)))
        splits[name] = replace(
            split, batch=batch, ids=split.ids[:size], raw_text=split.raw_text[:size]
        )
    return replace(FULL, splits=splits)


def short(method: str, batch_size: int) -> Preset:
    # In the second epoch labels are generated and what is missing is reconstructed.
    changes = {"epochs": 2, "batch_size": batch_size, "validation_rates": (0.0, 0.5)}
    return with_train(preset_for(method, "mini"), **changes)


def silent(batch: Batch) -> Batch:
    return replace(batch, audio=torch.zeros_like(batch.audio))


def blank(batch: Batch) -> Batch:
    return replace(silent(batch), vision=torch.zeros_like(batch.vision))


CASES = {
    "a last batch of one": (few(9), 4),
    "batches of one": (few(3), 1),
    "a single utterance": (few(1), 1),
    "no sound at all": (few(8, silent), 4),
    "neither sound nor picture": (few(8, blank), 4),
}


@pytest.mark.parametrize("method", TITLES)
@pytest.mark.parametrize("case", CASES)
def test_training_and_scores_stay_finite(
    method: str, case: str, tmp_path: Path
) -> None:
    dataset, batch_size = CASES[case]
    preset = short(method, batch_size)
    if method == "misa" and len(dataset.train) == batch_size:
        with pytest.raises(TrainingError, match="smaller --batch-size"):
            train(preset, dataset, tmp_path, device="cpu", progress=False)
        return
    record = train(preset, dataset, tmp_path, device="cpu", progress=False)
    assert len(record["history"]) == 2
    for entry in record["history"]:
        assert all(math.isfinite(value) for value in entry.values()), entry
    weights = load_file(tmp_path / "model.safetensors")
    for name, tensor in weights.items():
        assert bool(tensor.isfinite().all()), name
    wanted = conditions((0.0, 0.5, 1.0))
    rows = evaluate(tmp_path, dataset, wanted, device="cpu", progress=False)
    errors = [row["value"] for row in rows if row["metric"] == "mae"]
    assert len(errors) == 9 and all(map(math.isfinite, errors))


@pytest.mark.parametrize("method", TITLES)
def test_a_split_smaller_than_the_batch_trains_or_says_why_not(
    method: str, tmp_path: Path
) -> None:
    dataset, preset = few(5), short(method, 32)
    if method == "misa":
        # It sums the gradients of two batches, of which there is one.
        with pytest.raises(TrainingError, match="step of 2 batches.*are only 1"):
            train(preset, dataset, tmp_path, device="cpu", progress=False)
        return
    record = train(preset, dataset, tmp_path, device="cpu", progress=False)
    losses = [entry["train_total"] for entry in record["history"]]
    assert all(map(math.isfinite, losses)) and losses[0] != losses[1]
