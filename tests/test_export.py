"""Exported files compute what the model computes."""

from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch

import lnln
from lnln.cli.main import main
from lnln.evaluation.export import INPUTS, ExportError, export_onnx
from lnln.models import build_model
from lnln.training.checkpoint import TrainedModel


def untrained(variant: str) -> TrainedModel:
    preset = lnln.PRESETS["mini"]
    model = replace(preset.model, variant=variant, dropout=0.0)
    torch.manual_seed(0)
    return TrainedModel(
        build_model(model).eval(), replace(preset, model=model), None, {}
    )


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "mini.onnx"
    assert main(["export", "mini", "--out", str(path)]) == 0
    return path


@pytest.mark.parametrize("rate", [0.0, 0.6, 1.0])
def test_file_agrees_with_pytorch_on_erased_utterances(
    shipped: Path, rate: float
) -> None:
    test = lnln.simulate("mini", 5).test.batch
    holes = lnln.split_uniforms(test, 1)
    batch = lnln.erase(test, lnln.fixed_rates(len(test), rate), holes).batch
    session = onnxruntime.InferenceSession(shipped)
    found = session.run(None, {n: getattr(batch, n).numpy() for n in INPUTS})
    output = lnln.load_pretrained("mini")(batch)
    for ours, theirs in zip(
        (output.sentiment, output.completeness), found, strict=True
    ):
        assert torch.allclose(ours, torch.from_numpy(theirs), atol=1e-4)


def test_lengths_and_batch_are_free(shipped: Path) -> None:
    session = onnxruntime.InferenceSession(shipped)
    assert all(isinstance(i.shape[0], str) for i in session.get_inputs())
    one = lnln.simulate("mini").test.batch.select(torch.tensor([2])).trim()
    inputs = {n: getattr(one, n).numpy() for n in INPUTS}
    (y, _) = session.run(None, inputs)
    expected = lnln.load_pretrained("mini")(one).sentiment
    assert torch.allclose(torch.from_numpy(y), expected, atol=1e-4)


def test_released_variant_is_exported_too(tmp_path: Path) -> None:
    assert export_onnx(untrained("released"), tmp_path / "released.onnx") < 1e-4


def test_a_wrong_file_does_not_appear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lnln.evaluation.export.TOLERANCE", -1.0)
    path = tmp_path / "wrong.onnx"
    with pytest.raises(ExportError, match="differs from PyTorch"):
        export_onnx(untrained("paper"), path)
    assert list(tmp_path.iterdir()) == []


def test_missing_run_is_a_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "x.onnx")]) == 1
    assert "no such checkpoint" in capsys.readouterr().err
