"""Checkpoints hold everything, load without network, and notice damage."""

import json
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lnln import (
    PRESETS,
    CheckpointError,
    Preset,
    TrainedModel,
    fixed_rates,
    from_pretrained,
    load_model,
    simulate,
    split_uniforms,
)
from lnln.cli.main import main
from lnln.data.batch import Standardizer
from lnln.data.files import atomic_path, data_dir, sha256_of
from lnln.models import build_model
from lnln.training.checkpoint import read_tensors, save_model, write_tensors


@pytest.fixture
def trained() -> TrainedModel:
    torch.manual_seed(0)
    model = build_model(PRESETS["mini"].model).eval()
    standardizer = Standardizer.fit(simulate("mini").train.batch)
    return TrainedModel(model, PRESETS["mini"], standardizer, {"seed": 7})


def test_round_trip_predicts_the_same(trained: TrainedModel, tmp_path: Path) -> None:
    save_model(tmp_path / "model.safetensors", trained)
    before = torch.get_rng_state()
    loaded = load_model(tmp_path / "model.safetensors")
    assert torch.equal(before, torch.get_rng_state())
    batch = simulate("mini").test.batch
    assert torch.equal(loaded(batch).sentiment, trained(batch).sentiment)
    assert loaded.preset == trained.preset
    assert loaded.provenance == {"seed": 7}


def test_prediction_does_not_depend_on_batch_size(trained: TrainedModel) -> None:
    batch = simulate("mini").valid.batch
    rates, uniforms = fixed_rates(len(batch), 0.4), split_uniforms(batch, 3)
    a = trained.predict(batch, rates, uniforms, size=7)
    b = trained.predict(batch, rates, uniforms, size=500)
    torch.testing.assert_close(a.sentiment, b.sentiment, atol=1e-5, rtol=0)
    torch.testing.assert_close(a.completeness, b.completeness, atol=1e-5, rtol=0)


def test_damage_is_one_clear_error(trained: TrainedModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_model(path)
    save_model(path, trained)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(path)
    write_tensors(path, {"x": torch.zeros(1)}, {"format": 99})
    with pytest.raises(CheckpointError, match="version"):
        load_model(path)


def test_missing_tensors_are_named(trained: TrainedModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, trained)
    tensors, header = read_tensors(path)
    del tensors["model.predictor.head.weight"]
    write_tensors(path, tensors, header)
    with pytest.raises(CheckpointError, match="predictor.head.weight"):
        load_model(path)


def test_interrupted_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_shipped_checkpoint_loads_fast_and_is_small() -> None:
    from_pretrained("mini")  # imports transformers
    start = time.monotonic()
    trained = from_pretrained("mini")
    assert time.monotonic() - start < 2.0
    assert (data_dir() / "mini" / "model.safetensors").stat().st_size <= 4_000_000
    assert trained.provenance["data"]["name"] == "simulated"


def test_shipped_checkpoint_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mini"
    folder.mkdir()
    shipped = data_dir() / "mini"
    for name in ("model.safetensors", "record.json", "SHA256SUMS"):
        (folder / name).write_bytes((shipped / name).read_bytes())
    monkeypatch.setattr("lnln.training.checkpoint.data_dir", lambda: tmp_path)
    from_pretrained("mini")
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError, match="SHA-256"):
        from_pretrained("mini")
    with pytest.raises(CheckpointError, match="mini"):
        from_pretrained("huge")


@pytest.mark.parametrize("name", ["mini", "spoken"])
def test_shipped_record_belongs_to_the_shipped_weights(name: str) -> None:
    folder = data_dir() / name
    record = json.loads((folder / "record.json").read_text())
    trained = from_pretrained(name)
    assert trained.provenance["epoch"] == record["best"]["validation"]["epoch"]
    assert trained.preset == Preset.from_dict(record["preset"])
    assert trained.provenance["data"]["sha256"] == record["data"]["sha256"]


def test_shipped_text_encoder_is_whole_and_can_be_trained_on(tmp_path: Path) -> None:
    folder = data_dir() / "encoder"
    expected = (folder / "SHA256SUMS").read_text("utf-8").split()[0]
    assert sha256_of(folder / "model.safetensors") == expected
    command = ["train", "--train-size", "40", "--epochs", "1", "--out", str(tmp_path)]
    command += ["--encoder", str(folder), "--freeze-encoder", "--masks", "mixed"]
    assert main([*command, "--quiet", "--device", "cpu"]) == 0
    kept, _ = read_tensors(tmp_path / "model.safetensors")
    shipped = load_file(folder / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(kept[f"model.text_encoder.bert.{name}"], shipped[f"bert.{name}"])
