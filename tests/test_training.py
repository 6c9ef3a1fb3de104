"""Training repeats exactly, resumes exactly after a kill, and keeps its promises."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import lnln
import lnln.training.loop
from lnln import PRESETS, CheckpointError, Dataset, Preset, load_model, simulate, train
from lnln.data.batch import Batch, DataError
from lnln.training.checkpoint import selected_checkpoints
from lnln.training.loop import TrainingError
from lnln.training.run import Run
from lnln.training.scoring.metrics import METRICS
from lnln.training.settings import TrainConfig, learning_rate, with_train

SIZE = 96


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    full = simulate("mini", seed=5, train_size=SIZE)
    few = torch.arange(24)
    small = {
        name: replace(full.splits[name], batch=full.splits[name].batch.select(few))
        for name in ("valid", "test")
    }
    return replace(full, splits={"train": full.train, **small})


@pytest.fixture(scope="module")
def preset() -> Preset:
    return with_train(
        PRESETS["mini"], epochs=3, batch_size=32, validation_rates=(0.0, 0.5)
    )


def weights(folder: Path, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(folder / name)


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_same_seed_same_weights(
    dataset: Dataset, preset: Preset, tmp_path: Path
) -> None:
    for name in "ab":
        torch.manual_seed(ord(name))  # the caller's random state must not matter
        train(preset, dataset, tmp_path / name, progress=False, device="cpu")
    assert_same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    other = with_train(preset, seed=2)
    train(other, dataset, tmp_path / "c", progress=False, device="cpu")
    a, c = weights(tmp_path / "a"), weights(tmp_path / "c")
    assert any(not torch.equal(a[n], c[n]) for n in a if n.startswith("model."))


CHILD = """
import sys
from pathlib import Path
from lnln import PRESETS, simulate, train
from lnln.training.settings import with_train
preset = with_train(
    PRESETS["mini"], epochs=4, batch_size=32, validation_rates=(0.0, 0.5)
)
data, folder = simulate("mini", 5, 96), Path(sys.argv[1])
train(preset, data, folder, resume=True, device="cpu", save_minutes=0)
"""


def start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def kill_when(process: subprocess.Popen[bytes], path: Path, delay: float) -> None:
    """SIGKILL some time after `path` has appeared or, if it exists, changed."""
    before = path.stat().st_mtime_ns if path.exists() else None
    limit = time.monotonic() + 120
    while time.monotonic() < limit and process.poll() is None:
        if path.exists() and path.stat().st_mtime_ns != before:
            break
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_killed_at_three_points_and_resumed_equals_unbroken(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(whole).wait(timeout=300) == 0
    # before anything is written; right after a checkpoint; amid the next epoch
    process = start(broken)
    time.sleep(1.0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kill_when(start(broken), broken / "model.safetensors", 0.0)
    kill_when(start(broken), broken / "state.safetensors", 0.15)
    epochs = len(json.loads((broken / "record.json").read_text())["history"])
    assert 1 <= epochs < 4, "the kills must fall inside the run"
    assert start(broken).wait(timeout=300) == 0
    assert_same(weights(whole), weights(broken))
    state = "state.safetensors"
    assert_same(weights(whole, state), weights(broken, state))
    records = [json.loads((f / "record.json").read_text()) for f in (whole, broken)]
    for record in records:
        del record["seconds"]
    assert records[0] == records[1]


def test_the_state_is_written_at_first_every_few_minutes_and_at_last(
    dataset: Dataset, preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    written: list[int] = []
    original = lnln.training.loop.save_state

    def clock() -> float:
        return now

    def save(run: Run) -> None:
        written.append(run.epoch)
        original(run)

    def minutes_pass(run: Run, epoch: int) -> dict[str, float]:
        nonlocal now
        now += 60
        return select(run, epoch)

    select = lnln.training.loop._select
    monkeypatch.setattr(lnln.training.loop.time, "monotonic", clock)
    monkeypatch.setattr(lnln.training.loop, "save_state", save)
    monkeypatch.setattr(lnln.training.loop, "_select", minutes_pass)
    longer = with_train(preset, epochs=9)
    quiet = {"progress": False, "device": "cpu", "save_minutes": 3}
    train(longer, dataset, tmp_path, **quiet)
    assert written == [1, 4, 7, 9]
    state = load_file(tmp_path / "state.safetensors")
    assert not any(name.startswith("optimizer.") for name in state)
    assert any(name.startswith("model.") for name in state)


def test_a_kill_between_two_states_costs_work_and_no_accuracy(
    dataset: Dataset, preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(preset, dataset, whole, progress=False, device="cpu")
    original = lnln.training.loop.write_json

    def dies(path: Path, values: dict[str, Any]) -> None:
        original(path, values)
        if len(values["history"]) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(lnln.training.loop, "write_json", dies)
    with pytest.raises(KeyboardInterrupt):
        train(preset, dataset, broken, progress=False, device="cpu")
    monkeypatch.setattr(lnln.training.loop, "write_json", original)
    with pytest.raises(CheckpointError, match="resume"):
        train(preset, dataset, broken, progress=False, device="cpu")
    train(preset, dataset, broken, resume=True, progress=False, device="cpu")
    for name in ("model.safetensors", "state.safetensors"):
        assert_same(weights(whole, name), weights(broken, name))


@pytest.mark.parametrize("where", ["valid", "test"])
def test_sizes_come_from_all_splits(where: str, tmp_path: Path, preset: Preset) -> None:
    data = simulate("mini", 5, 64)
    longer = data.splits[where]
    batch = longer.batch.pad(40, 70, 90)
    lengths = batch.audio_lengths.clone()
    lengths[3] = 61
    audio = batch.audio.clone()
    audio[3] = 1.0
    batch = replace(batch, audio=audio, audio_lengths=lengths)
    data = replace(data, splits={**data.splits, where: replace(longer, batch=batch)})
    model = preset.fit_to(data).model
    assert model.audio_length == 61
    assert (model.text_length, model.vision_length) == (26, 48), "padding is no data"
    short = with_train(preset, epochs=1, selection="paper")
    train(short, data, tmp_path, progress=False, device="cpu")


def test_what_does_not_fit_is_refused_before_the_first_step(tmp_path: Path) -> None:
    data = simulate("mini", 5, 64)
    trained = lnln.from_pretrained()
    batch = data.test.batch.select(torch.arange(4)).pad(26, 60, 48)
    batch = replace(batch, audio_lengths=torch.tensor([48, 60, 1, 2]))
    rates = lnln.fixed_rates(4, 0.5)
    with pytest.raises(DataError, match="up to 60 audio frames"):
        trained.predict(batch, rates, lnln.split_uniforms(batch, 0))
    with pytest.raises(DataError, match="up to 60 audio frames"):
        trained(batch)
    narrow = replace(data.test.batch, vision=data.test.batch.vision[..., :7])
    with pytest.raises(DataError, match="wide"):
        trained(narrow)


def test_a_second_run_in_the_same_folder_is_refused(
    dataset: Dataset, preset: Preset, tmp_path: Path
) -> None:
    short = with_train(preset, epochs=1)
    train(short, dataset, tmp_path, progress=False, device="cpu")
    with pytest.raises(CheckpointError, match="resume"):
        train(short, dataset, tmp_path, progress=False, device="cpu")
    with pytest.raises(CheckpointError, match="other settings"):
        longer = with_train(preset, epochs=2)
        train(longer, dataset, tmp_path, resume=True, progress=False, device="cpu")
    with pytest.raises(CheckpointError, match="other data"):
        other = replace(dataset, sha256="0" * 64)
        train(short, other, tmp_path, resume=True, progress=False, device="cpu")
    record = train(short, dataset, tmp_path, resume=True, progress=False, device="cpu")
    assert record["finished"] and len(record["history"]) == 1


def test_training_lowers_the_loss_and_records_its_origin(
    dataset: Dataset, preset: Preset, tmp_path: Path
) -> None:
    longer = with_train(preset, epochs=8)
    record = train(longer, dataset, tmp_path, progress=False, device="cpu")
    history = record["history"]
    assert history[-1]["train_sentiment"] < 0.9 * history[0]["train_sentiment"]
    trained = load_model(tmp_path / "model.safetensors")
    best = record["best"]["validation"]
    assert trained.provenance["epoch"] == best["epoch"]
    assert best["score"] == min(h["validation_mae"] for h in history)
    assert trained.provenance["data"]["sha256"] == dataset.sha256
    assert trained.provenance["selection"] == "validation"
    assert set(trained.provenance["versions"]) >= {"torch", "lnln"}


def test_paper_selection_keeps_one_checkpoint_per_metric_and_says_so(
    dataset: Dataset, preset: Preset, tmp_path: Path
) -> None:
    paper = with_train(preset, epochs=2, selection="paper")
    record = train(paper, dataset, tmp_path, progress=False, device="cpu")
    files = selected_checkpoints("paper", "mosi")
    assert set(files) == set(METRICS["mosi"])
    assert files["corr"] == files["mae"] and files["f1_neg_pos"] == (
        "model-acc2_neg_pos.safetensors"
    )
    for file in set(files.values()):
        assert (tmp_path / file).is_file()
    assert not (tmp_path / "model.safetensors").exists()
    assert "TEST split" in record["selection_rule"]


def test_early_stopping_counts_epochs_without_improvement(
    dataset: Dataset, preset: Preset, tmp_path: Path
) -> None:
    # With a learning rate of 0 no epoch improves on the first.
    still = with_train(preset, epochs=9, learning_rate=0.0, patience=2)
    record = train(still, dataset, tmp_path, progress=False, device="cpu")
    assert len(record["history"]) == 3 and record["finished"]


def test_absent_modalities_never_reach_the_model(
    dataset: Dataset, preset: Preset, tmp_path: Path
) -> None:
    def with_vision(batch: Batch) -> Batch:
        return replace(batch, vision=batch.vision * 7 + 1 * batch.mask("v")[..., None])

    changed = {
        name: replace(split, batch=with_vision(split.batch))
        for name, split in dataset.splits.items()
    }
    text = with_train(preset, epochs=1, modalities=("l",))
    train(text, dataset, tmp_path / "a", progress=False, device="cpu")
    other = replace(dataset, splits=changed)
    no_gamma = replace(text, loss=replace(text.loss, gamma=0.0))
    train(no_gamma, dataset, tmp_path / "b", progress=False, device="cpu")
    train(no_gamma, other, tmp_path / "c", progress=False, device="cpu")
    b, c = weights(tmp_path / "b"), weights(tmp_path / "c")
    assert_same(
        {n: t for n, t in b.items() if n.startswith("model.")},
        {n: t for n, t in c.items() if n.startswith("model.")},
    )


def test_non_finite_data_stop_with_a_remedy(
    dataset: Dataset, preset: Preset, tmp_path: Path
) -> None:
    batch = dataset.train.batch
    audio = batch.audio.clone()
    audio[0, 0, 0] = float("inf")
    bad = replace(dataset.train, batch=replace(batch, audio=audio))
    broken = replace(dataset, splits={**dataset.splits, "train": bad})
    raw = with_train(preset, standardize=False, epochs=1)
    with pytest.raises(TrainingError, match="lnln data check"):
        train(raw, broken, tmp_path, progress=False, device="cpu")


def test_learning_rate_warms_up_and_decays_to_zero() -> None:
    config = TrainConfig(learning_rate=1e-3, warmup=0.1)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert rates[0] == pytest.approx(1e-4) and max(rates) == rates[9]
    assert rates[9] == pytest.approx(1e-3)
    assert all(a >= b for a, b in zip(rates[9:], rates[10:], strict=False))
    assert rates[-1] < 1e-6


def test_constant_schedule_keeps_the_rate() -> None:
    config = TrainConfig(learning_rate=1e-3, schedule="constant")
    assert {learning_rate(step, 100, config) for step in range(100)} == {1e-3}


def test_unknown_selection_is_refused(
    dataset: Dataset, preset: Preset, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="selection"):
        bad = with_train(preset, selection="test")
        train(bad, dataset, tmp_path, progress=False, device="cpu")


def test_a_small_encoder_takes_the_vocabulary_of_the_data(
    dataset: Dataset, preset: Preset
) -> None:
    assert preset.fit_to(dataset).model.encoder.vocab_size == 272
    batch = dataset.train.batch
    words = replace(batch, tokens=batch.tokens + 20000 * (batch.tokens > 103))
    bert = replace(dataset.train, batch=words)
    other = replace(dataset, splits={**dataset.splits, "train": bert})
    assert preset.fit_to(other).model.encoder.vocab_size == 30522


def test_words_that_the_encoder_does_not_know_are_refused(
    dataset: Dataset, preset: Preset, tmp_path: Path
) -> None:
    batch = dataset.test.batch
    words = replace(batch, tokens=batch.tokens + 20000 * (batch.tokens > 103))
    foreign = replace(dataset.test, batch=words)
    mixed = replace(dataset, splits={**dataset.splits, "test": foreign})
    with pytest.raises(ValueError, match="tokenised"):
        train(preset, mixed, tmp_path, progress=False, device="cpu")
