"""The released program's masks, learning rate, training rates and selection by name."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_fast import CONFIG, make_batch
from torch import Tensor

import lnln.training
from lnln.checkpoint import CheckpointError, TrainedModel
from lnln.config import PRESETS, Preset, TrainConfig, as_released
from lnln.corpus import simulate
from lnln.data import Batch, Dataset, Split
from lnln.evaluation import conditions, evaluate
from lnln.metrics import evaluate_predictions
from lnln.missing import (
    TEST_RATES,
    Erased,
    fixed_rates,
    released_masks,
    released_uniforms,
    split_uniforms,
)
from lnln.model import LNLN
from lnln.released import evaluate_released, to_released
from lnln.training import learning_rate, train, with_train


def clips() -> Batch:
    return make_batch([(12, 40, 30), (7, 11, 9), (3, 1, 2), (12, 9, 30)], CONFIG)


# ------------------------------------------------------------------ masks


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_masks_are_numpys_with_the_seed_drawn_anew(rate: float) -> None:
    batch = clips()
    kept = released_masks(batch, rate).kept
    for m in ("l", "a", "v"):
        np.random.seed(1111)
        uniform = np.random.uniform(size=tuple(batch.sequence(m).shape[:2]))
        expected = (uniform > rate) & batch.mask(m).numpy()
        if m == "l":
            expected[:, 0] = True
            expected[np.arange(len(batch)), batch.token_lengths.numpy() - 1] = True
        assert (kept[m].numpy() == expected).all()


def test_masks_are_nested_and_do_not_hang_on_torchs_seed() -> None:
    batch = clips()
    torch.manual_seed(5)
    all_kept = [released_masks(batch, rate).kept for rate in TEST_RATES]
    torch.manual_seed(6)
    for rate, kept in zip(TEST_RATES, all_kept, strict=True):
        again = released_masks(batch, rate).kept
        assert all(torch.equal(kept[m], again[m]) for m in "lav")
    for less, more in zip(all_kept[1:], all_kept, strict=False):
        assert all((less[m] <= more[m]).all() for m in "lav")


def test_streams_of_equal_length_coincide() -> None:
    batch = clips().pad(12, 40, 40)
    uniforms = released_uniforms(batch)
    assert torch.equal(uniforms.a, uniforms.v)
    assert uniforms.l.dtype == torch.float64


def test_the_released_masks_are_a_mask_seed_by_name() -> None:
    batch = clips()
    named, direct = split_uniforms(batch, "released"), released_uniforms(batch)
    assert all(torch.equal(getattr(named, m), getattr(direct, m)) for m in "lav")
    assert not torch.equal(released_uniforms(batch, seed=2).a, direct.a)
    with pytest.raises(ValueError, match="'paper'"):
        split_uniforms(batch, "paper")


# ------------------------------------------------------------------ learning rate


def rate_of(epoch: int, epochs: int, steps: int = 3, within: int = 0) -> float:
    config = TrainConfig(epochs=epochs, learning_rate=1e-4, schedule="released")
    return learning_rate((epoch - 1) * steps + within, epochs * steps, config)


def test_learning_rate_of_the_released_epochs() -> None:
    known = {1: 0, 2: 5e-6, 21: 1e-4, 22: 1e-4, 112: 5e-5, 200: 3e-8}
    for epoch, expected in known.items():
        assert rate_of(epoch, 200) == pytest.approx(expected, rel=0.02, abs=1e-12)
        assert rate_of(epoch, 200, within=2) == rate_of(epoch, 200)
    cosine = 0.5e-4 * (1 + math.cos(math.pi * (150 - 22) / 180))
    assert rate_of(150, 200) == pytest.approx(cosine)


@pytest.mark.parametrize("epochs", [1, 2, 3, 12])
def test_short_runs_have_a_released_learning_rate(epochs: int) -> None:
    rates = [rate_of(epoch, epochs) for epoch in range(1, epochs + 1)]
    assert rates[0] == 0
    assert all(0 <= rate <= 1e-4 for rate in rates)


# ------------------------------------------------------------------ training


@pytest.fixture(scope="module")
def small() -> Dataset:
    data = simulate("mini", 0, 24)
    few = {
        name: Split(
            split.batch.select(torch.arange(12 if name != "train" else 24)),
            split.ids[:24],
            split.raw_text[:24],
        )
        for name, split in data.splits.items()
    }
    return replace(data, splits=few)


def preset(**changes: Any) -> Preset:
    settings = {"epochs": 2, "batch_size": 12, **changes}
    return with_train(PRESETS["mini"], **settings)


def kept_by_utterance(
    monkeypatch: pytest.MonkeyPatch, preset: Preset, data: Dataset, folder: Path
) -> list[dict[float, Tensor]]:
    """Per epoch: which audio frames of each utterance (by its label) are kept."""
    seen: list[tuple[Batch, Erased]] = []
    original = lnln.training.erase

    def spy(batch: Batch, *rest: Any) -> Erased:
        seen.append((batch, original(batch, *rest)))
        return seen[-1][1]

    monkeypatch.setattr(lnln.training, "erase", spy)
    train(preset, data, folder, device="cpu", progress=False)
    steps = math.ceil(len(data.train) / preset.train.batch_size)
    epochs = [seen[i : i + steps] for i in range(0, len(seen), steps)]
    return [
        {
            float(batch.audio[row].sum()): erased.kept["a"][row].sum()
            for batch, erased in epoch
            for row in range(len(batch))
        }
        for epoch in epochs
    ]


@pytest.mark.parametrize(("masks", "same"), [("released", True), ("redrawn", False)])
def test_item_22_what_is_missing_in_training_stays_missing(
    masks: str,
    same: bool,
    small: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = preset(masks=masks, standardize=False)
    first, second = kept_by_utterance(monkeypatch, settings, small, tmp_path)
    assert first.keys() == second.keys() and len(first) == 24
    assert all(torch.equal(first[k], second[k]) for k in first) == same


def test_item_27_all_epochs_and_an_untrained_best_that_is_not_kept(
    small: Dataset, tmp_path: Path
) -> None:
    settings = preset(
        epochs=3,
        schedule="released",
        selection="released",
        patience=1,
        learning_rate=0.0,
    )
    record = train(settings, small, tmp_path, device="cpu", progress=False)
    assert len(record["history"]) == 3
    assert {held["epoch"] for held in record["best"].values()} == {1}
    assert not list(tmp_path.glob("model*.safetensors"))
    with pytest.raises(CheckpointError, match=r"untrained model of epoch 1"):
        evaluate(tmp_path, small, conditions([0.5]), progress=False)


def test_the_released_selection_scores_on_the_released_masks(
    small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int | str]] = []

    def spy(batch: Batch, mask_seed: int | str) -> Any:
        asked.append((len(batch), mask_seed))
        return split_uniforms(batch, mask_seed)

    monkeypatch.setattr(lnln.training, "split_uniforms", spy)
    settings = preset(epochs=1, selection="released")
    train(settings, small, tmp_path, device="cpu", progress=False)
    assert [seed for _, seed in asked].count("released") == 1


def test_without_clipping_gradients_are_taken_whole(
    small: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []
    original = torch.nn.utils.clip_grad_norm_

    def spy(parameters: Any, limit: float) -> Tensor:
        limits.append(limit)
        return original(parameters, limit)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
    for clip in (0.0, 1.0):
        settings = preset(epochs=1, clip=clip)
        train(settings, small, tmp_path / str(clip), device="cpu", progress=False)
    assert set(limits) == {math.inf, 1.0}


# ------------------------------------------------------------------ evaluation


def test_a_sweep_equals_one_prediction_after_another() -> None:
    torch.manual_seed(0)
    trained = TrainedModel(LNLN(CONFIG), PRESETS["mosi"], None, {})
    batch = clips()
    uniforms = [split_uniforms(batch, seed) for seed in (0, 1, "released")]
    rates = [fixed_rates(4, r) for r in (0.0, 0.4, 1.0)]
    rates.append(fixed_rates(4, 0.0, ("a",)))
    corruptions = [(r, u) for r in rates for u in uniforms]
    for size in (1, 5, 256):
        swept = trained.sweep(batch, corruptions, size)
        for (r, u), found in zip(corruptions, swept, strict=True):
            alone = trained.predict(batch, r, u)
            torch.testing.assert_close(found.sentiment, alone.sentiment)
            torch.testing.assert_close(found.completeness, alone.completeness)


def test_certain_corruptions_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = TrainedModel(LNLN(CONFIG), PRESETS["mosi"], None, {})
    batch, rows = clips(), []
    original = LNLN.forward

    def spy(self: LNLN, part: Batch, complete: Batch | None = None) -> Any:
        rows.append(len(part))
        return original(self, part, complete)

    monkeypatch.setattr(LNLN, "forward", spy)
    uniforms = [split_uniforms(batch, seed) for seed in (0, 1, 2)]
    trained.sweep(batch, [(fixed_rates(4, r), u) for r in (0.0, 0.5) for u in uniforms])
    assert sum(rows) == 4 * (1 + 3)


def test_evaluation_takes_the_released_masks_by_name(
    small: Dataset, tmp_path: Path
) -> None:
    train(preset(epochs=1), small, tmp_path, device="cpu", progress=False)
    wanted = conditions([0.5])
    seeds = (0, "released")
    rows = evaluate(tmp_path, small, wanted, mask_seeds=seeds, progress=False)
    mae = {r["mask_seed"]: r["value"] for r in rows if r["metric"] == "mae"}
    assert mae.keys() == {0, "released"} and mae[0] != mae["released"]


def test_a_released_checkpoint_is_scored_on_its_own_inputs() -> None:
    torch.manual_seed(0)
    config = as_released(PRESETS["mosi"]).model
    tiny = replace(config, text_length=12, audio_length=40, vision_length=30)
    tiny = replace(tiny, vision_width=7, encoder=replace(CONFIG.encoder, width=64))
    tiny = replace(tiny, encoder=replace(tiny.encoder, heads=1))
    model = LNLN(tiny).eval()
    batch = clips()
    split = Split(batch, ("",) * 4, ("",) * 4)
    data = Dataset("mosi", "mosi", {"test": split}, "here", "")
    scores = evaluate_released(to_released(model), data, rates=(0.0, 0.5))
    for rate in (0.0, 0.5):
        with torch.no_grad():
            sentiment = model(released_masks(batch, rate).batch).sentiment
        expected = evaluate_predictions(sentiment, batch.labels, "mosi")
        assert scores[rate] == pytest.approx(expected, abs=1e-4, nan_ok=True)
