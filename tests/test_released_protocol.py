"""The released protocol: masks, learning rate, selection, evaluation."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_model import TINY, build, make_batch
from torch import Tensor
from transformers import BertConfig

import lnln.missing.corruption
import lnln.training.loop
from lnln.data.batch import MODALITIES, SEP, UNK, Batch, Dataset, Split
from lnln.data.simulated.corpus import simulate
from lnln.evaluation.sweep import conditions, evaluate
from lnln.missing.erasing import (
    RELEASED_SEED,
    TEST_RATES,
    Erased,
    Uniforms,
    draw_uniforms,
    erase,
    fixed_rates,
    released_uniforms,
    split_uniforms,
)
from lnln.missing.streams import stream_seed
from lnln.models import build_model
from lnln.paper.released import evaluate_released, load_released, to_released
from lnln.training.checkpoint import CheckpointError, TrainedModel, load_model
from lnln.training.loop import TrainingError, train
from lnln.training.presets import PRESETS, as_released
from lnln.training.scoring.metrics import METRICS, evaluate_predictions
from lnln.training.settings import Preset, TrainConfig, learning_rate, with_train

COUNT, TEXT, FRAMES = 12, 9, 40


def padded_batch(vision_frames: int = FRAMES) -> Batch:
    """Utterances of all lengths; the last one has no padding anywhere."""
    generator = torch.Generator().manual_seed(7)
    share = torch.linspace(0, 1, COUNT)
    n_l = (3 + share * (TEXT - 3)).long()
    n_a = (1 + share * (FRAMES - 1)).long()
    n_v = (1 + share * (vision_frames - 1)).long()
    tokens = torch.randint(104, 119, (COUNT, TEXT), generator=generator)
    tokens[torch.arange(COUNT), n_l - 1] = SEP
    tokens[torch.arange(TEXT) >= n_l[:, None]] = 0
    # Not zero behind the lengths either.
    audio = 1 + torch.rand(COUNT, FRAMES, 3, generator=generator)
    vision = 1 + torch.rand(COUNT, vision_frames, 4, generator=generator)
    return Batch(tokens, n_l, audio, n_a, vision, n_v, torch.linspace(-3, 3, COUNT))


# ------------------------------------------------------------------ masks


def released_masks(batch: Batch, rate: float, seed: int = RELEASED_SEED) -> Erased:
    """A split corrupted as in the released program's evaluation."""
    rates = torch.full((len(batch), 3), rate, dtype=torch.float64)
    return erase(batch, rates, released_uniforms(batch, seed))


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_released_masks_are_those_of_numpy_seeded_before_every_draw(
    rate: float,
) -> None:
    batch = padded_batch(vision_frames=31)
    found = released_masks(batch, rate)
    state = np.random.get_state()
    try:
        for m in MODALITIES:
            length = batch.lengths(m).numpy()[:, None]
            size = batch.sequence(m).shape[1]
            np.random.seed(1111)
            drawn = np.random.uniform(size=(COUNT, size)) > rate
            place = np.arange(size)[None]
            if m == "l":
                drawn |= (place == 0) | (place == length - 1)
            kept = drawn & (place < length)
            assert np.array_equal(found.kept[m].numpy(), kept), m
            old, new = batch.sequence(m).numpy(), found.batch.sequence(m).numpy()
            if m == "l":
                want = np.where(kept | (place >= length), old, UNK)
            else:
                want = old * kept[..., None]
            assert np.array_equal(new, want), m
    finally:
        np.random.set_state(state)
    assert torch.equal(found.nominal, torch.full((COUNT, 3), 1 - rate))
    assert torch.equal(found.batch.labels, batch.labels)


def test_released_masks_are_nested_and_grow() -> None:
    batch = padded_batch()
    sweep = [released_masks(batch, rate).kept for rate in (*TEST_RATES, 1.0)]
    for m in MODALITIES:
        for more, less in zip(sweep, sweep[1:], strict=False):
            assert (more[m] | ~less[m]).all()
        kept = [int(at_rate[m].sum()) for at_rate in sweep]
        assert kept[0] > kept[3] > kept[6] > kept[-1]


def test_equally_padded_modalities_are_masked_alike() -> None:
    batch = padded_batch()
    same_length = replace(batch, vision_lengths=batch.audio_lengths)
    kept = released_masks(same_length, 0.4).kept
    assert torch.equal(kept["a"], kept["v"])
    uniforms = released_uniforms(padded_batch(vision_frames=31))
    assert not torch.equal(uniforms.a[:, :31], uniforms.v)
    assert torch.equal(uniforms.a.flatten()[:31], uniforms.v[0])


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_the_first_and_the_last_token_stay(rate: float) -> None:
    batch = padded_batch()
    assert int(batch.token_lengths[-1]) == batch.tokens.shape[1]
    found, rows = released_masks(batch, rate).batch.tokens, torch.arange(COUNT)
    for place in (torch.zeros(COUNT, dtype=torch.long), batch.token_lengths - 1):
        assert torch.equal(found[rows, place], batch.tokens[rows, place])
    inner = batch.mask("l") & (batch.tokens != found)
    assert inner.any()
    if rate == 1:
        erased = batch.token_lengths - 2
        assert torch.equal((found == UNK).sum(dim=1), erased)


def test_released_masks_know_no_other_random_state() -> None:
    batch = padded_batch()
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        found.append(released_masks(batch, 0.5).kept)
        after = np.random.uniform()
        np.random.seed(seed)
        assert after == np.random.uniform(), "NumPy's own state must stay as it is"
    for m in MODALITIES:
        assert torch.equal(found[0][m], found[1][m])
    other = released_masks(batch, 0.5, seed=1112).kept
    assert not torch.equal(other["a"], found[0]["a"])


def test_a_split_draws_the_released_uniforms_by_name() -> None:
    batch = padded_batch()
    found, want = split_uniforms(batch, "released"), released_uniforms(batch)
    for m in MODALITIES:
        assert getattr(found, m).dtype == torch.float64
        assert torch.equal(getattr(found, m), getattr(want, m))
    with pytest.raises(ValueError, match="'1111'"):
        split_uniforms(batch, "1111")


# ------------------------------------------------------------------ learning rate


def released_rates(epochs: int, steps: int = 3, **settings: Any) -> list[list[float]]:
    """The learning rates of every step of every epoch."""
    config = TrainConfig(epochs=epochs, schedule="released", **settings)
    return [
        [learning_rate(e * steps + s, epochs * steps, config) for s in range(steps)]
        for e in range(epochs)
    ]


def test_the_released_learning_rate_runs_by_epochs() -> None:
    by_epoch = released_rates(200, steps=21)
    assert all(len(set(rates)) == 1 for rates in by_epoch)
    rate = {epoch: rates[0] for epoch, rates in enumerate(by_epoch, start=1)}
    assert rate[1] == 0
    assert rate[2] == pytest.approx(5e-6)
    assert rate[11] == pytest.approx(5e-5)
    assert rate[21] == rate[22] == pytest.approx(1e-4)
    assert rate[112] == pytest.approx(5e-5)
    assert rate[200] == pytest.approx(3e-8, abs=5e-10)
    assert rate[67] == pytest.approx(5e-5 * (1 + math.sqrt(0.5)))
    assert all(rate[e] < rate[e + 1] for e in range(1, 21))
    assert all(rate[e] > rate[e + 1] for e in range(22, 200))


@pytest.mark.parametrize("epochs", [1, 2, 3, 12, 30])
def test_short_runs_have_sensible_learning_rates(epochs: int) -> None:
    rates = [rate for of_epoch in released_rates(epochs) for rate in of_epoch]
    assert all(0 <= rate <= 1e-4 for rate in rates)
    assert rates[0] == 0
    assert epochs == 1 or max(rates) == pytest.approx(1e-4)


def test_the_steps_schedule_stays_another() -> None:
    config = TrainConfig(epochs=4)
    rates = [learning_rate(step, 12, config) for step in range(12)]
    assert rates[0] > 0 and len(set(rates[3:6])) == 3


# ------------------------------------------------------------------ training


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    full = simulate("mini", seed=5, train_size=24)
    splits = {}
    for name, split in full.splits.items():
        batch = split.batch.select(torch.arange(24))
        # Labels by which each utterance can be told.
        labels = torch.linspace(-2.9, 2.9, 24) if name == "train" else batch.labels
        splits[name] = replace(split, batch=replace(batch, labels=labels))
    return replace(full, splits=splits)


def released_preset(**changes: Any) -> Preset:
    small = replace(PRESETS["mini"].model, width=16, ffn_width=16)
    preset = as_released(replace(PRESETS["mini"], model=small))
    defaults = {"epochs": 2, "batch_size": 8, "validation_rates": (0.5,)}
    return with_train(preset, **(defaults | changes))


def run(preset: Preset, dataset: Dataset, folder: Path) -> dict[str, Any]:
    return train(preset, dataset, folder, progress=False, device="cpu")


def weights(folder: Path) -> dict[str, Tensor]:
    state = load_file(folder / "state.safetensors")
    return {k: v for k, v in state.items() if k.startswith("model.")}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


Kept = dict[float, tuple[tuple[int, ...], ...]]


def epochs_of_masks(
    dataset: Dataset, folder: Path, patch: pytest.MonkeyPatch, **changes: Any
) -> tuple[list[Kept], Tensor]:
    """Per epoch the kept positions by utterance; all nominal completenesses."""
    seen: list[tuple[Batch, Erased]] = []
    original = lnln.missing.corruption.erase

    def spy(batch: Batch, rates: Tensor, uniforms: Uniforms) -> Erased:
        erased = original(batch, rates, uniforms)
        seen.append((batch, erased))
        return erased

    patch.setattr(lnln.missing.corruption, "erase", spy)
    run(released_preset(**changes), dataset, folder)
    epochs: list[Kept] = []
    for part in (seen[:3], seen[3:]):
        kept: Kept = {}
        for batch, erased in part:
            for i, label in enumerate(batch.labels.tolist()):
                kept[label] = tuple(
                    tuple(erased.kept[m][i].nonzero()[:, 0].tolist())
                    for m in MODALITIES
                )
        assert len(kept) == 24
        epochs.append(kept)
    return epochs, torch.cat([erased.nominal for _, erased in seen])


def test_released_masks_are_drawn_once_for_all_epochs(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, second), nominal = epochs_of_masks(dataset, tmp_path, monkeypatch)
    assert first == second
    assert list(first) != list(second), "the order is drawn anew"
    for epoch in nominal.split(24):
        assert ((epoch == 1).sum(dim=0) == 12).all()
        assert (epoch[epoch < 1] > 0).all()
        assert not torch.equal(epoch[:, 1] == 1, epoch[:, 2] == 1)


def test_redrawn_masks_differ_between_epochs(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, second), _ = epochs_of_masks(
        dataset, tmp_path, monkeypatch, masks="redrawn"
    )
    assert sum(first[label] != second[label] for label in first) > 12


def test_released_runs_share_uniforms_and_differ_in_rates(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[Tensor, Uniforms]] = []
    original = lnln.missing.corruption.erase

    def spy(batch: Batch, rates: Tensor, uniforms: Uniforms) -> Erased:
        found.append((rates, uniforms))
        return original(batch, rates, uniforms)

    monkeypatch.setattr(lnln.missing.corruption, "erase", spy)
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        run(released_preset(seed=seed, batch_size=24, epochs=1), dataset, folder)
    (rates, uniforms), (other_rates, other_uniforms) = found
    for m in MODALITIES:
        # The order of the utterances differs, their uniforms do not.
        rows, other = (getattr(u, m).sort(dim=0)[0] for u in (uniforms, other_uniforms))
        assert torch.equal(rows, other)
    both = rates.sort(dim=0)[0], other_rates.sort(dim=0)[0]
    assert not torch.equal(*both)


def test_released_masks_come_from_the_released_uniforms(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, _), _ = epochs_of_masks(dataset, tmp_path, monkeypatch)
    batch = dataset.train.batch
    uniforms = released_uniforms(batch)
    for i, label in enumerate(batch.labels.tolist()):
        for m, kept in zip(("a", "v"), first[label][1:], strict=True):
            n = int(batch.lengths(m)[i])
            u = getattr(uniforms, m)[i, :n]
            erased = sorted(set(range(n)) - set(kept))
            if erased and kept:
                assert u[erased].max() < u[list(kept)].min()


def test_epoch_1_trains_at_learning_rate_0(dataset: Dataset, tmp_path: Path) -> None:
    preset = released_preset(epochs=1, learning_rate=1.0)
    run(preset, dataset, tmp_path)
    torch.manual_seed(stream_seed(preset.train.seed, "weights"))
    untrained = build_model(preset.fit_to(dataset).model).state_dict()
    assert same(weights(tmp_path), {f"model.{k}": v for k, v in untrained.items()})


@pytest.mark.parametrize("largest", [1e30, 1e-9])
def test_a_clip_of_0_is_none(largest: float, dataset: Dataset, tmp_path: Path) -> None:
    for clip in (0.0, largest):
        run(released_preset(clip=clip), dataset, tmp_path / str(clip))
    equal = same(weights(tmp_path / "0.0"), weights(tmp_path / str(largest)))
    assert equal == (largest > 1)


def test_without_clipping_a_gradient_that_is_not_finite_still_stops(
    dataset: Dataset, tmp_path: Path
) -> None:
    batch = dataset.train.batch
    huge = replace(batch, labels=batch.labels * 1e30)
    train_split = replace(dataset.train, batch=huge)
    broken = replace(dataset, splits={**dataset.splits, "train": train_split})
    with pytest.raises(TrainingError, match="not finite in epoch 1"):
        run(released_preset(), broken, tmp_path)


# ------------------------------------------------------------------ selection


def test_released_selection_never_stops_early(dataset: Dataset, tmp_path: Path) -> None:
    still = {"epochs": 4, "patience": 1, "learning_rate": 0.0}
    for selection, epochs in (("released", 4), ("paper", 2)):
        folder = tmp_path / selection
        record = run(released_preset(selection=selection, **still), dataset, folder)
        assert len(record["history"]) == epochs and record["finished"]


def test_epoch_1_counts_as_best_without_being_saved(
    dataset: Dataset, tmp_path: Path
) -> None:
    still = released_preset(epochs=3, learning_rate=0.0)
    record = run(still, dataset, tmp_path)
    scored = {"acc7", "acc5", "acc2_neg_pos", "acc2_neg_nonneg", "mae"}
    assert scored <= record["best"].keys()
    assert {best["epoch"] for best in record["best"].values()} == {1}
    assert not list(tmp_path.glob("model*"))
    with pytest.raises(CheckpointError, match="untrained model of epoch 1") as caught:
        evaluate(tmp_path, dataset, conditions((0.5,)), progress=False)
    assert "select by 'paper'" in str(caught.value)
    paper = with_train(still, selection="paper")
    run(paper, dataset, tmp_path / "paper")
    assert (tmp_path / "paper" / "model-mae.safetensors").is_file()


@pytest.fixture(scope="module")
def finished(
    dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A run in which epochs after the first were better by MAE."""
    folder = tmp_path_factory.mktemp("run")
    preset = released_preset(epochs=6, learning_rate=3e-3)
    return folder, run(preset, dataset, folder)


def by_hand(
    predict: Callable[[Batch], Any], batch: Batch, rate: float, scheme: Any = "mosi"
) -> dict[str, float]:
    corrupted = released_masks(batch, rate).batch
    with torch.no_grad():
        predicted = predict(corrupted).sentiment
    return evaluate_predictions(predicted, batch.labels, scheme)


def test_a_checkpoint_is_kept_for_what_was_better_than_epoch_1(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, record = finished
    assert record["best"]["mae"]["epoch"] > 1
    for metric, best in record["best"].items():
        path = folder / f"model-{metric}.safetensors"
        saved = metric != "validation" and best["epoch"] > 1
        assert path.exists() == saved, metric
        if saved:
            assert load_model(path).provenance["epoch"] == best["epoch"]
    assert not (folder / "model.safetensors").exists()


def test_released_selection_scores_the_test_split_on_the_released_masks(
    finished: tuple[Path, dict[str, Any]], dataset: Dataset
) -> None:
    folder, record = finished
    best = record["best"]["mae"]
    model = load_model(folder / "model-mae.safetensors")
    batch = dataset.test.batch
    assert by_hand(model, batch, 0.5)["mae"] == pytest.approx(best["score"], abs=1e-5)
    assert record["history"][int(best["epoch"]) - 1]["mae"] == best["score"]
    other = model.predict(batch, fixed_rates(24, 0.5), split_uniforms(batch, 0))
    mae = float((other.sentiment - batch.labels).abs().mean())
    assert abs(mae - best["score"]) > 1e-4


# ------------------------------------------------------------------ evaluation


def test_a_run_is_evaluated_on_the_released_masks(
    finished: tuple[Path, dict[str, Any]], dataset: Dataset, tmp_path: Path
) -> None:
    folder, record = finished
    for file in ("record.json", "model-mae.safetensors"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    for metric in METRICS["mosi"]:
        copy = tmp_path / f"model-{metric}.safetensors"
        copy.write_bytes((folder / "model-mae.safetensors").read_bytes())
    scores = evaluate(
        tmp_path,
        dataset,
        conditions((0.0, 0.3, 0.7)),
        mask_seeds=("released", 0),
        progress=False,
    )
    assert set(scores.mask_seed) == {"released", "0"}
    model = load_model(folder / "model-mae.safetensors")
    mae = scores[scores.metric == "mae"].groupby("mask_seed").value
    released, ours = (mae.get_group(seed).tolist() for seed in ("released", "0"))
    want = [by_hand(model, dataset.test.batch, rate)["mae"] for rate in (0.0, 0.3, 0.7)]
    assert released == pytest.approx(want, abs=1e-5)
    assert ours[0] == pytest.approx(released[0], abs=1e-6)
    assert ours[1:] != pytest.approx(released[1:], abs=1e-5)


@pytest.mark.parametrize("variant", ["released", "paper"])
@pytest.mark.parametrize("size", [256, 30, 7, 1])
def test_a_sweep_of_many_corruptions_is_many_predictions(
    variant: str, size: int
) -> None:
    model = build(replace(TINY, variant=variant))
    trained = TrainedModel(model, PRESETS["mini"], None, {})
    batch = make_batch()
    uniforms = [split_uniforms(batch, seed) for seed in (0, 1, "released")]
    mixed = torch.tensor([[0.0, 1.0, 0.0], [0.2, 0.8, 0.5]]).repeat(2, 1)
    rates = [fixed_rates(4, rate) for rate in (0.0, 0.4, 1.0, 0.0, 0.4, 1.0, 0.9)]
    rates += [fixed_rates(4, 0.0, ("l",)), fixed_rates(4, 1.0, ("l",)), mixed]
    corruptions = [(r, uniforms[i // 3 % 3]) for i, r in enumerate(rates)]
    swept = trained.sweep(batch, corruptions, size=size)
    assert len(swept) == len(corruptions)
    for found, (r, u) in zip(swept, corruptions, strict=True):
        alone = trained.predict(batch, r, u)
        for field in ("sentiment", "completeness"):
            torch.testing.assert_close(
                getattr(found, field), getattr(alone, field), rtol=1e-5, atol=1e-5
            )
    assert not torch.allclose(swept[1].sentiment, swept[4].sentiment, atol=1e-4)
    assert not torch.allclose(swept[0].sentiment, swept[2].sentiment, atol=1e-4)


def test_certain_corruptions_are_computed_once() -> None:
    trained = TrainedModel(build(), PRESETS["mini"], None, {})
    batch = make_batch()
    rows: list[int] = []
    trained.model.predictor.register_forward_pre_hook(
        lambda module, args: rows.append(len(args[0]))
    )
    generator = torch.Generator().manual_seed(0)
    draws = [draw_uniforms(batch, generator) for _ in range(3)]
    for rate, computed in ((0.0, 4), (1.0, 4), (0.5, 12)):
        rows.clear()
        trained.sweep(batch, [(fixed_rates(4, rate), u) for u in draws])
        assert sum(rows) == computed


# ------------------------------------------------------------------ evaluate_released

SMALL_BERT = BertConfig(
    vocab_size=120,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=1,
    intermediate_size=12,
    max_position_embeddings=16,
)


def small_checkpoint(name: str) -> dict[str, Tensor]:
    """Random weights in the released layout for `padded_batch`."""
    config = replace(
        as_released(PRESETS[name]).model,
        text_length=TEXT,
        audio_length=FRAMES,
        vision_length=FRAMES,
        audio_width=3,
        vision_width=4,
    )
    model = build_model(config, {**SMALL_BERT.to_dict(), "model_type": "bert"})
    generator = torch.Generator().manual_seed(8)
    state = {
        k: v + 0.1 * torch.randn(v.shape, generator=generator)
        for k, v in to_released(model).items()
    }
    # Predictions within the range of labels: on SIMS they are clipped to it.
    return state | {"dmml.3.weight": 0.1 * state["dmml.3.weight"]}


@pytest.mark.parametrize(
    ("name", "scheme", "split"), [("mosi", "mosi", "test"), ("sims", "sims", "valid")]
)
def test_a_released_checkpoint_is_scored_on_its_own_masks(
    name: str, scheme: Any, split: str, tmp_path: Path
) -> None:
    state, batch = small_checkpoint(name), padded_batch()
    labels = batch.labels / 3 if scheme == "sims" else batch.labels
    batch = replace(batch, labels=labels)
    # The other splits are of no use to a fair score, so they are wrong here.
    wrong = replace(batch, labels=-labels, audio=0 * batch.audio)
    ids = tuple(map(str, range(COUNT)))
    splits = {s: Split(wrong, ids, ids) for s in ("train", "valid", "test")}
    splits[split] = Split(batch, ids, ids)
    dataset = Dataset(name, scheme, splits, "here", "0")
    path = tmp_path / "best.pth"
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {}}, path)
    rates = (0.0, 0.1, 0.5, 0.9)
    found = evaluate_released(path, dataset, rates, split)
    assert tuple(found) == rates
    model = load_released(state, name)
    for rate in rates:
        want = by_hand(model, batch, rate, scheme)
        assert found[rate].keys() == want.keys()
        assert found[rate] == pytest.approx(want, abs=1e-4, nan_ok=True), rate
    maes = {round(scores["mae"], 6) for scores in found.values()}
    assert len(maes) == len(rates), "the rates must matter"
